//! The client against a daemon that breaks off, refuses and comes back.

use hearth_api::{Client, JobStatus, LogQuery, News};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread::JoinHandle;

/// Gives one answer after the other, each on a connection of its own, and returns the heads of the
/// requests.
fn daemon(answers: Vec<String>) -> (Client, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let serving = std::thread::spawn(move || {
        let mut heads = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            let mut byte = [0];
            while !head.ends_with(b"\r\n\r\n") {
                stream.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            heads.push(String::from_utf8(head).unwrap());
            stream.write_all(answer.as_bytes()).unwrap();
        }
        heads
    });
    (Client::new(url.parse().unwrap()), serving)
}

fn answer(status: u16, media: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status} x\r\ncontent-type: {media}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn job(status: &str) -> String {
    let job = format!(
        r#"{{"job_id":"web","vm_id":null,"tenant":"web","status":"{status}","reason":null,
        "since":"2026-01-01T00:00:00Z","generation":1,"exit_code":null,"spec":{{}}}}"#
    );
    answer(200, "application/json", &job)
}

fn unavailable() -> String {
    let problem = r#"{"type":"x","title":"x","status":503,"detail":"not now"}"#;
    answer(503, "application/problem+json", problem)
}

fn line(text: &str, cursor: u64) -> String {
    format!(
        r#"{{"at":"2026-01-01T00:00:00Z","vm_id":"vm-a","stream":"stdout","text":"{text}","cursor":{cursor}}}"#
    ) + "\n"
}

/// A chunk of a body, without the body's end.
fn cut_off(media: &str, text: &str) -> String {
    format!(
        "HTTP/1.1 200 x\r\ncontent-type: {media}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n",
        text.len()
    )
}

fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[tokio::test]
async fn a_change_that_got_no_answer_is_repeated_under_the_same_key() {
    let (client, serving) = daemon(vec![String::new(), unavailable(), job("running")]);
    let started = client.at_generation(7).start("web").await.unwrap();
    assert_eq!(started.status, JobStatus::Running);
    let heads = serving.join().unwrap();
    let keys: Vec<_> = heads.iter().map(|head| header(head, "idempotency-key")).collect();
    assert!(keys[0].is_some_and(|key| key.len() == 36), "{keys:?}");
    assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    assert!(heads.iter().all(|head| header(head, "if-match") == Some("7")));
}

#[tokio::test]
async fn a_refusal_is_not_repeated_and_neither_is_a_read() {
    let problem = r#"{"type":"x","title":"x","status":412,"detail":"no","generation":9}"#;
    let (client, serving) = daemon(vec![answer(412, "application/problem+json", problem)]);
    let refused = client.stop("web").await.unwrap_err();
    assert_eq!(refused.problem().and_then(|problem| problem.generation), Some(9));
    serving.join().unwrap();
    let (client, serving) = daemon(vec![unavailable()]);
    assert!(client.job("web").await.unwrap_err().may_pass());
    let heads = serving.join().unwrap();
    assert_eq!(header(&heads[0], "idempotency-key"), None);
}

#[tokio::test]
async fn a_log_is_followed_over_a_restart_of_the_daemon() {
    let ndjson = "application/x-ndjson";
    let (client, serving) = daemon(vec![
        cut_off(ndjson, &(line("one", 4) + &line("two", 8))),
        unavailable(),
        job("running"),
        answer(200, ndjson, &line("three", 14)),
        job("completed"),
        answer(200, ndjson, ""),
    ]);
    let query = LogQuery { tail: Some(2), ..LogQuery::default() };
    let mut log = client.follow_logs("web", &query).await.unwrap();
    let mut texts = Vec::new();
    while let Some(line) = log.next().await.unwrap() {
        texts.push(line.text);
    }
    assert_eq!(texts, ["one", "two", "three"]);
    let heads = serving.join().unwrap();
    assert!(heads[0].starts_with("GET /vms/web/logs?follow=true&tail=2 "), "{}", heads[0]);
    assert!(heads[3].starts_with("GET /vms/web/logs?follow=true&after=vm-a%3A8 "), "{}", heads[3]);
}

#[tokio::test]
async fn events_are_followed_over_a_restart_of_the_daemon() {
    let event = |id: u64| {
        format!(
            "id: {id}\ndata: {{\"id\":{id},\"at\":\"2026-01-01T00:00:00Z\",\"job_id\":null,\
             \"instance\":null,\"generation\":null,\"kind\":\"status\",\"message\":\"m\"}}\n\n"
        )
    };
    let lost =
        "event: lost\ndata: {\"after\":5,\"oldest\":7,\"newest\":9,\"message\":\"gone\"}\n\n";
    let stream = "text/event-stream";
    let (client, serving) = daemon(vec![
        cut_off(stream, &(": hello\nretry: 1000\n\n".to_owned() + &event(4) + &event(5))),
        cut_off(stream, &(lost.to_owned() + &event(7))),
    ]);
    let mut events = client.follow_events(Some("web"), 2).await.unwrap();
    let mut heard = Vec::new();
    for _ in 0..4 {
        heard.push(match events.next().await.unwrap() {
            News::Happened(event) => event.id.to_string(),
            News::Lost(message) => message,
        });
    }
    assert_eq!(heard, ["4", "5", "gone", "7"]);
    let heads = serving.join().unwrap();
    assert!(heads[0].starts_with("GET /vms/web/events?limit=2 "), "{}", heads[0]);
    assert!(heads[1].starts_with("GET /vms/web/events?after=5 "), "{}", heads[1]);
}
