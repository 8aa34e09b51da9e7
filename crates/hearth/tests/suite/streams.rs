//! Events as they happen.

use crate::support::{Daemon, Home, body};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

/// A stream of server-sent events.
struct Stream(BufReader<TcpStream>);

impl Stream {
    fn open(daemon: &Daemon, path: &str, headers: &[&str]) -> Stream {
        let authority = daemon.url.strip_prefix("http://").expect("an HTTP address");
        let mut stream = TcpStream::connect(authority).expect("the daemon accepts");
        stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a deadline");
        let mut head = format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n");
        for header in headers.iter().chain(&["Accept: text/event-stream"]) {
            head += &format!("{header}\r\n");
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).expect("it can be sent");
        let mut stream = Stream(BufReader::new(stream));
        assert!(stream.line().starts_with("HTTP/1.1 200 "));
        while stream.line() != "\r\n" {}
        stream
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("a line in time");
        line
    }

    /// The next event: its name, its id, and what it says.
    fn next(&mut self) -> (String, Option<u64>, Value) {
        let (mut name, mut id) = ("message".to_owned(), None);
        loop {
            let line = self.line();
            if let Some(text) = line.strip_prefix("id: ") {
                id = text.trim().parse().ok();
            } else if let Some(text) = line.strip_prefix("event: ") {
                text.trim().clone_into(&mut name);
            } else if let Some(text) = line.strip_prefix("data: ") {
                return (name, id, serde_json::from_str(text).expect("JSON"));
            }
        }
    }

    /// Messages up to the first one of this kind.
    fn until(&mut self, kind: &str) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let (_, id, event) = self.next();
            assert_eq!(event["id"].as_u64(), id);
            let last = event["kind"] == kind;
            events.push(event);
            if last {
                return events;
            }
        }
    }
}

#[test]
fn events_arrive_live_and_resume_after_the_last_one() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("before", "job", ""));
    daemon.until_job("before", "completed");
    let mut live = Stream::open(&daemon, "/events", &[]);
    let mut of_job = Stream::open(&daemon, "/vms/before/events?after=0", &[]);
    let mut newest = Stream::open(&daemon, "/events?limit=1", &[]);
    daemon.post("/vms", &body("web", "service", ""));
    let first = live.until("accepted");
    assert_eq!(first.len(), 1, "nothing of what was before");
    assert_eq!(first[0]["job_id"], "web");
    let creating = live.until("creating");
    let last = creating.last().expect("an event")["id"].as_u64().expect("an id");
    daemon.until_job("web", "running");
    daemon.post("/vms/before/restart", "");
    let resumed = [format!("Last-Event-ID: {last}")];
    let mut again = Stream::open(&daemon, "/events?after=0", &[&resumed[0]]);
    let (_, id, _) = again.next();
    assert_eq!(id, Some(last + 1), "no event is lost and none comes twice");
    let of_job = of_job.until("exited");
    assert!(of_job.iter().all(|event| event["job_id"] == "before"));
    assert_eq!(of_job[0]["kind"], "accepted");
    let (_, id, event) = newest.next();
    assert_eq!(id, first[0]["id"].as_u64().map(|first| first - 1), "{event}");
}

#[test]
fn a_follower_hears_that_events_are_lost() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let mut stream = Stream::open(&daemon, "/events", &["Last-Event-ID: 123456"]);
    let (name, id, lost) = stream.next();
    assert_eq!((name.as_str(), id, &lost["after"]), ("lost", None, &Value::from(123_456)));
    daemon.post("/vms", &body("web", "service", ""));
    assert_eq!(stream.until("accepted").len(), 1);
    let bad =
        daemon.request("GET", "/events", &["Accept: text/event-stream", "Last-Event-ID: x"], "");
    assert_eq!(bad.status, 400);
    assert_eq!(daemon.get("/vms/nope/events").status, 404);
}

#[test]
fn events_come_in_pages_from_a_place_on() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("once", "job", ""));
    daemon.until_job("once", "completed");
    let all = daemon.get("/events?after=0").json();
    let ids = |page: &Value| -> Vec<u64> {
        let items = page["items"].as_array().expect("items");
        items.iter().map(|event| event["id"].as_u64().expect("an id")).collect()
    };
    assert_eq!(all["next"], Value::Null);
    let mut read = Vec::new();
    let mut after = "0".to_owned();
    loop {
        let page = daemon.get(&format!("/events?limit=2&after={after}")).json();
        read.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        next.clone_into(&mut after);
    }
    assert!(read.len() > 3 && read.starts_with(&ids(&all)), "{read:?}");
    for query in ["limit=0", "limit=1001", "after=-1", "after=x", "after=9223372036854775808"] {
        assert_eq!(daemon.get(&format!("/events?{query}")).status, 400, "{query}");
    }
}
