//! A client that writes down what it was told, for tests that end the daemon under it.

use super::DEADLINE;
use fastrand::Rng;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a client knows of a job of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// The last generation that was acknowledged.
    pub(crate) generation: u64,
    /// The memory of its spec, in MiB: by it specs differ.
    pub(crate) memory: u64,
    /// Whether that it stands still was acknowledged last.
    pub(crate) stopped: bool,
    /// Whether its deletion was acknowledged last.
    pub(crate) deleted: bool,
    /// Whether it was asked for something since, and got no answer.
    pub(crate) outcome_unknown: bool,
}

pub(crate) type Journal = BTreeMap<String, Known>;

/// A journal of jobs that nothing was asked of yet.
pub(crate) fn journal(jobs: impl IntoIterator<Item = String>) -> Journal {
    jobs.into_iter().map(|job| (job, Known::default())).collect()
}

/// What a client asks for.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) job: String,
    method: &'static str,
    path: String,
    body: String,
}

impl Wish {
    /// Any change of a job.
    pub(crate) fn any(job: &str, rng: &mut Rng) -> Wish {
        let (method, path, body) = match rng.u8(..10) {
            0..6 => {
                let memory = 32 + rng.u64(..2);
                let pool = match rng.u8(..3) {
                    0 => r#","warm_pool":{"min":1,"max":1}"#,
                    _ => "",
                };
                let body = format!(
                    r#"{{"job_id":"{job}","tenant":"kills","spec":{{"boot":"raw","kernel":"tiny",
                    "resources":{{"vcpu":1,"mem_mb":{memory}}},"lifecycle":"service"{pool}}}}}"#
                );
                ("POST", "/vms".to_owned(), body)
            }
            6 => ("POST", format!("/vms/{job}/stop"), String::new()),
            7 => ("POST", format!("/vms/{job}/start"), String::new()),
            _ => ("DELETE", format!("/vms/{job}"), String::new()),
        };
        Wish { job: job.to_owned(), method, path, body }
    }

    /// The deletion of a job.
    pub(crate) fn delete(job: &str) -> Wish {
        let path = format!("/vms/{job}");
        Wish { job: job.to_owned(), method: "DELETE", path, body: String::new() }
    }

    /// Asks, and writes down what was said. False where no whole answer came.
    pub(crate) fn ask(&self, url: &str, journal: &mut Journal) -> bool {
        let known = journal.get_mut(&self.job).expect("a job of its own");
        let Some((status, answer)) = ask(url, self.method, &self.path, &self.body) else {
            known.outcome_unknown = true;
            return false;
        };
        match status {
            200..=202 if self.method == "POST" => {
                let generation = answer["generation"].as_u64().expect("a generation");
                assert!(generation >= known.generation, "{known:?} became {answer}");
                let memory = answer["spec"]["resources"]["mem_mb"].as_u64().expect("memory");
                let stopped = self.path.ends_with("/stop");
                *known = Known { generation, memory, stopped, ..Known::default() };
            }
            202 | 204 => {
                known.deleted = true;
                known.outcome_unknown = false;
            }
            404 => {
                assert!(
                    known.generation == 0 || known.deleted || known.outcome_unknown,
                    "{known:?}"
                );
            }
            503 => {}
            other => panic!("{self:?} was answered {other}: {answer}"),
        }
        true
    }
}

/// One request; `None` where no whole answer came.
pub(crate) fn ask(url: &str, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
    let authority = url.strip_prefix("http://")?;
    let mut stream = TcpStream::connect(authority).ok()?;
    stream.set_read_timeout(Some(DEADLINE)).ok()?;
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes())).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // An answer that was cut off says nothing.
    let announced = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    if announced.is_some_and(|bytes| bytes.trim().parse() != Ok(body.len())) {
        return None;
    }
    Some((status, serde_json::from_str(body).unwrap_or(Value::Null)))
}

/// Asks for one thing after the other until the daemon is gone, and writes down the answers.
pub(crate) fn load(url: &str, journal: &mut Journal, rng: &mut Rng, stop: &AtomicBool) {
    let jobs: Vec<String> = journal.keys().cloned().collect();
    while !stop.load(Ordering::Relaxed) {
        if !Wish::any(&jobs[rng.usize(..jobs.len())], rng).ask(url, journal) {
            return;
        }
    }
}

/// What was acknowledged is there.
pub(crate) fn check(url: &str, journal: &Journal) {
    for (job, known) in journal {
        let (status, answer) = ask(url, "GET", &format!("/vms/{job}"), "").expect("an answer");
        let generation = answer["generation"].as_u64().unwrap_or_default();
        let same = match status {
            404 => known.generation == 0 || known.deleted || known.outcome_unknown,
            200 if known.outcome_unknown => generation >= known.generation,
            200 if known.deleted => answer["status"] == "stopping",
            200 => {
                let memory = answer["spec"]["resources"]["mem_mb"].as_u64();
                let stands = answer["status"].as_str().expect("a status");
                let wanted = match known.stopped {
                    true => !["pending", "starting", "running"].contains(&stands),
                    false => stands != "stopped",
                };
                generation == known.generation && memory == Some(known.memory) && wanted
            }
            _ => false,
        };
        assert!(same, "{job}: {known:?} was acknowledged, and there is {status} {answer}");
    }
}
