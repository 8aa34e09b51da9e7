//! What the daemon bears: slow, greedy and broken clients on real sockets do not hold others up.

use crate::support::{Daemon, Home, body};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// How long a request may take while others misbehave; one on its own takes a millisecond.
const PROMPT: Duration = Duration::from_secs(2);

fn connect(daemon: &Daemon) -> TcpStream {
    let stream = TcpStream::connect(authority(daemon)).expect("the daemon accepts");
    stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a deadline");
    stream
}

fn authority(daemon: &Daemon) -> &str {
    daemon.url.strip_prefix("http://").expect("an HTTP address")
}

fn send(daemon: &Daemon, text: &str) -> TcpStream {
    let mut stream = connect(daemon);
    stream.write_all(text.as_bytes()).expect("it can be sent");
    stream
}

/// Everything until the daemon closes: status and body.
fn answer(mut stream: TcpStream) -> (String, String) {
    let mut bytes = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (head.to_owned(), body.to_owned())
}

fn check_problem(answer: &(String, String), status: u16, slug: &str) {
    let (head, body) = answer;
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    assert!(head.contains("content-type: application/problem+json"), "{head}");
    let problem: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("{head}\n{body}"));
    assert_eq!(problem["type"], format!("urn:hearth:problem:{slug}"));
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().is_some_and(|detail| detail.len() > 10), "{problem}");
}

fn prompt(daemon: &Daemon) {
    let begin = Instant::now();
    assert_eq!(daemon.get("/vms").status, 200);
    assert_eq!(daemon.post("/vms", &body("web", "service", "")).status / 100, 2);
    assert!(begin.elapsed() < PROMPT, "others were held up for {:?}", begin.elapsed());
}

#[test]
fn head_that_never_arrives_blocks_no_client_and_times_out() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let host = authority(&daemon).to_owned();
    let slow: Vec<TcpStream> = (0..100)
        .map(|_| send(&daemon, &format!("GET /vms HTTP/1.1\r\nHost: {host}\r\n")))
        .collect();
    prompt(&daemon);
    let begin = Instant::now();
    for stream in slow {
        answer(stream);
    }
    assert!(begin.elapsed() < Duration::from_secs(15), "they were given up after 10 s");
}

#[test]
fn body_that_never_arrives_blocks_no_client_and_times_out() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let host = authority(&daemon).to_owned();
    let head = format!(
        "POST /vms HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
         Content-Length: 100\r\n\r\n{{"
    );
    let slow: Vec<TcpStream> = (0..100).map(|_| send(&daemon, &head)).collect();
    prompt(&daemon);
    for stream in slow {
        check_problem(&answer(stream), 408, "slow-body");
    }
}

#[test]
fn bodies_full_of_problems_hold_up_no_other_request() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let entries = "{},".repeat(500_000);
    let body = format!("{{\"entries\":[{}]}}", entries.trim_end_matches(','));
    std::thread::scope(|scope| {
        let (daemon, body) = (&daemon, &body);
        let ask = |path| scope.spawn(move || daemon.post(path, body));
        let asked = ["/plan", "/plan", "/apply"].map(ask);
        while !asked.iter().all(|request| request.is_finished()) {
            let begin = Instant::now();
            assert_eq!(daemon.get("/healthz").status, 200);
            assert!(begin.elapsed() < PROMPT, "it took {:?}", begin.elapsed());
        }
        let answers = asked.map(|request| request.join().expect("an answer"));
        assert!(answers.iter().any(|answer| answer.status == 422), "{answers:?}");
        for answer in answers {
            assert!(answer.body.len() < 64 * 1024, "{} bytes", answer.body.len());
            let problem = answer.json();
            if answer.status == 503 {
                assert_eq!(answer.header("retry-after"), Some("1"));
                continue;
            }
            let listed = problem["errors"].as_array().map(Vec::len);
            assert_eq!((listed, &problem["errors_omitted"]), (Some(100), &999_900.into()));
        }
    });
}

#[test]
fn hostile_shapes_of_a_plan_get_short_answers() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let text = "x".repeat(1024 * 1024);
    let keys: String = (0..100_000).map(|at| format!("\"k{at}\":1,")).collect();
    for (body, status) in [
        ("[".repeat(1024 * 1024), 400),
        (format!("{{\"entries\":{}", "[".repeat(1024 * 1024)), 400),
        (format!("\"{text}\""), 422),
        (format!("{{\"{text}\":1}}"), 422),
        (format!("{{\"source\":\"/{text}\",\"entries\":[]}}"), 422),
        (format!("{{\"entries\":[{{\"job_id\":\"{text}\"}}]}}"), 422),
        (format!("{{{keys}\"entries\":[]}}"), 422),
        (format!("{{\"entries\":[{{{keys}\"spec\":{{{keys}\"env\":{{{keys}\"a\":1}}}}}}]}}"), 422),
    ] {
        let answer = daemon.post("/plan", &body);
        let start = body.get(..40).unwrap_or(&body);
        assert_eq!(answer.status, status, "{start}: {}", answer.body);
        assert!(answer.body.len() < 64 * 1024, "{start}: {} bytes", answer.body.len());
    }
}

#[test]
fn client_that_does_not_read_blocks_no_other() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let host = authority(&daemon).to_owned();
    let many = format!("GET /openapi.json HTTP/1.1\r\nHost: {host}\r\n\r\n").repeat(200);
    let stuck: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = connect(&daemon);
            stream.set_write_timeout(Some(Duration::from_millis(100))).expect("a deadline");
            // The daemon stops reading once the client takes none of its answers.
            let _ = stream.write_all(many.as_bytes());
            stream
        })
        .collect();
    let follow =
        format!("GET /events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
    let deaf: Vec<TcpStream> = (0..20).map(|_| send(&daemon, &follow)).collect();
    prompt(&daemon);
    drop((stuck, deaf));
}

#[test]
fn followers_are_bounded_and_leave_room_for_requests() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let host = authority(&daemon).to_owned();
    let follow =
        format!("GET /events HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
    let followers: Vec<TcpStream> = (0..512)
        .map(|_| {
            let mut stream = send(&daemon, &follow);
            stream.read_exact(&mut [0; 12]).expect("it is followed");
            stream
        })
        .collect();
    let refused = daemon.request("GET", "/events", &["Accept: text/event-stream"], "");
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    prompt(&daemon);
    drop(followers);
    daemon.until("there is room again", || {
        let mut stream = send(&daemon, &follow);
        let mut head = [0; 12];
        stream.read_exact(&mut head).expect("an answer");
        &head == b"HTTP/1.1 200"
    });
}

#[test]
fn what_is_no_request_is_answered_with_a_sentence() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let host = authority(&daemon).to_owned();
    let ask = |text: &str| answer(send(&daemon, text));
    check_problem(&ask("BREW /pot\r\n\r\n"), 400, "not-http");
    check_problem(&ask("GET /vms HTTP/1.1\r\nHost localhost\r\n\r\n"), 400, "not-http");
    let long = "x".repeat(17 * 1024);
    let head = format!("GET /vms HTTP/1.1\r\nHost: {host}\r\n");
    check_problem(&ask(&format!("{head}X: {long}\r\n\r\n")), 431, "large-head");
    check_problem(&ask(&format!("{head}{}\r\n", "X: y\r\n".repeat(101))), 431, "large-head");
    check_problem(&ask(&format!("GET /vms?{long} HTTP/1.1\r\n\r\n")), 431, "large-head");
    check_problem(&ask("GET /vms HTTP/1.1\r\nConnection: close\r\n\r\n"), 403, "foreign-host");
}

#[test]
fn every_method_and_every_address_has_an_answer() {
    let home = Home::new();
    let daemon = home.start(&[]);
    for method in ["OPTIONS", "PUT", "PATCH", "TRACE", "PROPFIND"] {
        let answer = daemon.request(method, "/vms", &[], "");
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET,HEAD,POST")),
            "{method}"
        );
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{method}");
    }
    let head = daemon.request("HEAD", "/vms", &[], "");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-type"), Some("application/json"));
    for path in ["/vms/%ff", "/vms/%zz", "/vms/%2f", "/vms/", "//", "/vms/a/b/c", "/vms/%00/logs"] {
        let answer = daemon.get(path);
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/problem+json"), "{path}");
    }
    assert_eq!(daemon.get("/vms?limit=%ff").status, 400);
}

#[test]
fn large_answers_are_compressed_for_those_who_can_read_it() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let host = authority(&daemon).to_owned();
    let ask = |path: &str, more: &str| {
        let connection = "Connection: close\r\nAccept-Encoding: gzip\r\n";
        let text = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{connection}{more}\r\n");
        answer(send(&daemon, &text)).0
    };
    assert!(ask("/openapi.json", "").contains("content-encoding: gzip"));
    assert!(!ask("/healthz", "").contains("content-encoding"));
    assert_eq!(daemon.get("/openapi.json").header("content-encoding"), None);
    daemon.post("/vms", &body("once", "job", ""));
    daemon.until_job("once", "completed");
    assert!(!ask("/vms/once/logs?follow=true", "").contains("content-encoding"));
}

#[test]
fn a_locked_database_is_said_and_nothing_is_changed() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let path = home.path("state").join("hearth.db");
    let other = rusqlite::Connection::open(path).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let refused = daemon.post("/vms", &body("web", "service", ""));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")), "{refused:?}");
    assert_eq!(refused.json()["type"], "urn:hearth:problem:database");
    other.execute_batch("ROLLBACK").expect("the lock is let go");
    assert_eq!(daemon.get("/vms/web").status, 404);
    assert_eq!(daemon.post("/vms", &body("web", "service", "")).status, 202);
    daemon.until_job("web", "running");
}

#[test]
fn reads_are_answered_while_a_commit_waits() {
    let home = Home::new();
    let daemon = home.start(&[]);
    assert_eq!(daemon.post("/vms", &body("web", "service", "")).status, 202);
    // A reply is followed by a read that shows what it says.
    assert_eq!(daemon.get("/vms/web").status, 200);
    daemon.until_job("web", "running");
    let other = rusqlite::Connection::open(home.path("state/hearth.db")).expect("the database");
    other.execute_batch("BEGIN IMMEDIATE").expect("the lock");
    let answered = std::sync::atomic::AtomicBool::new(false);
    let before = std::thread::scope(|scope| {
        scope.spawn(|| {
            let refused = daemon.post("/vms", &body("late", "service", ""));
            answered.store(true, std::sync::atomic::Ordering::SeqCst);
            assert_eq!(refused.status, 503, "{refused:?}");
        });
        let mut reads = 0;
        loop {
            for path in ["/vms", "/vms/web", "/stats"] {
                let read = daemon.get(path);
                assert!(read.status == 200 && !read.body.contains("late"), "{read:?}");
            }
            if answered.load(std::sync::atomic::Ordering::SeqCst) {
                return reads;
            }
            reads += 1;
        }
    });
    assert!(before >= 5, "a commit waits for a second, and {before} rounds of reads were answered");
    other.execute_batch("ROLLBACK").expect("the lock is let go");
}

#[test]
fn an_ending_daemon_ends_streams_and_tunnels_in_time() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let host = authority(&daemon).to_owned();
    let open = |path: &str, header: &str| {
        let mut stream =
            send(&daemon, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{header}\r\n\r\n"));
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("an answer");
        (String::from_utf8_lossy(&status).into_owned(), stream)
    };
    let streams = [
        open("/events", "Accept: text/event-stream"),
        open("/vms/web/logs?follow=true", "Accept: text/plain"),
        open("/vms/web/ports/80", "Connection: Upgrade\r\nUpgrade: tcp"),
    ];
    let statuses: Vec<&str> = streams.iter().map(|(status, _)| status.as_str()).collect();
    assert_eq!(statuses, ["HTTP/1.1 200", "HTTP/1.1 200", "HTTP/1.1 101"]);
    let begin = Instant::now();
    let (status, _) = daemon.terminate();
    assert!(status.success());
    assert!(begin.elapsed() < Duration::from_secs(9), "it took {:?}", begin.elapsed());
    for (_, stream) in streams {
        answer(stream);
    }
}
