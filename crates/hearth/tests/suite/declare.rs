//! `hearth plan`, `hearth apply` and their routes, against a real daemon.

use crate::support::{Daemon, Home, body, finished, shown, sim};
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use std::process::{Command, Stdio};

/// A file that declares these jobs.
fn file(jobs: &[&str]) -> String {
    let entries: Vec<Value> = jobs
        .iter()
        .map(|job| serde_json::from_str(&body(job, "service", "")).expect("JSON"))
        .collect();
    Value::from(entries).to_string()
}

/// A command in this home about this daemon.
fn command(home: &Home, daemon: &Daemon, args: &[&str]) -> Command {
    let mut command = home.hearth(args);
    command.env("HEARTH_URL", &daemon.url);
    command
}

/// What a command about the daemon prints.
fn check(home: &Home, daemon: &Daemon, args: &[&str], expected: Expect) {
    let text = shown(&finished(command(home, daemon, args)));
    expected.assert_eq(&text.replace(home.path("").to_str().expect("UTF-8"), "/home/"));
}

fn declared(entries: &[Value], more: &Value) -> String {
    let mut body = json!({ "source": "/etc/vms.exs", "entries": entries });
    for (key, value) in more.as_object().expect("an object") {
        body[key] = value.clone();
    }
    body.to_string()
}

fn entry(job: &str, more: &str) -> Value {
    serde_json::from_str(&body(job, "service", more)).expect("JSON")
}

#[test]
fn an_apply_deletes_what_left_its_file() {
    let (home, daemon) = (Home::new(), sim());
    home.write("vms.json", &file(&["a", "b", "c", "d"]));
    check(
        &home,
        &daemon,
        &["apply", "-f", "vms.json"],
        expect![[r#"
        exit code: 0
        --- stdout
        + a
        + b
        + c
        + d
        4 created, 0 unchanged
        --- stderr
    "#]],
    );
    home.write("vms.json", &file(&["a", "b", "c"]));
    check(
        &home,
        &daemon,
        &["plan", "vms.json"],
        expect![[r#"
        exit code: 2
        --- stdout
        - d
        1 to delete, 3 unchanged
        --- stderr
    "#]],
    );
    check(
        &home,
        &daemon,
        &["apply", "-f", "./vms.json", "--wait"],
        expect![[r#"
        exit code: 0
        --- stdout
        - d
        1 deleted, 3 unchanged
        --- stderr
    "#]],
    );
    assert_eq!(daemon.jobs(), ["a", "b", "c"]);
}

#[test]
fn most_of_a_file_is_deleted_only_when_allowed() {
    let (home, daemon) = (Home::new(), sim());
    home.write("vms.json", &file(&["a", "b", "c"]));
    finished(command(&home, &daemon, &["apply", "-f", "vms.json"]));
    home.write("vms.json", &file(&["a"]));
    check(
        &home,
        &daemon,
        &["plan", "vms.json"],
        expect![[r#"
        exit code: 2
        --- stdout
        ! b (no longer declared; --allow-delete deletes it)
        ! c (no longer declared; --allow-delete deletes it)
        2 held, 1 unchanged
        --- stderr
    "#]],
    );
    check(
        &home,
        &daemon,
        &["apply", "-f", "vms.json"],
        expect![[r#"
        exit code: 1
        --- stdout
        ! b (no longer declared; --allow-delete deletes it)
        ! c (no longer declared; --allow-delete deletes it)
        2 held, 1 unchanged
        --- stderr
        hearth: 2 jobs are not deleted, since they are more than half of the file's; hearth apply -f vms.json --allow-delete deletes them
    "#]],
    );
    assert_eq!(daemon.jobs(), ["a", "b", "c"]);
    let allowed = ["apply", "-f", "vms.json", "--allow-delete", "--wait"];
    check(
        &home,
        &daemon,
        &allowed,
        expect![[r#"
        exit code: 0
        --- stdout
        - b
        - c
        2 deleted, 1 unchanged
        --- stderr
    "#]],
    );
    assert_eq!(daemon.jobs(), ["a"]);
}

#[test]
fn what_comes_on_stdin_deletes_nothing() {
    let (home, daemon) = (Home::new(), sim());
    let apply = |text: &str| {
        let input = home.write("input", text);
        let args = ["apply", "-f", "-", "--input-format", "json"];
        let mut command = command(&home, &daemon, &args);
        command.stdin(Stdio::from(std::fs::File::open(input).expect("it exists")));
        shown(&finished(command))
    };
    expect![[r#"
        exit code: 0
        --- stdout
        + a
        + b
        2 created, 0 unchanged
        --- stderr
    "#]]
    .assert_eq(&apply(&file(&["a", "b"])));
    expect![[r#"
        exit code: 0
        --- stdout
        + c
        1 created, 0 unchanged
        --- stderr
    "#]]
    .assert_eq(&apply(&file(&["c"])));
    assert_eq!(daemon.jobs(), ["a", "b", "c"]);
}

#[test]
fn apply_releases_what_the_watched_file_holds_back() {
    let home = Home::new();
    let path = home.write("vms.json", &file(&["a", "b", "c"]));
    let daemon = home.start(&["--desired", path.to_str().expect("UTF-8")]);
    home.write("vms.json", &file(&["a"]));
    daemon.until("it is held", || daemon.desired_file()["status"] == "held");
    check(
        &home,
        &daemon,
        &["apply", "-f", "vms.json", "--allow-delete", "--wait"],
        expect![[r#"
        exit code: 0
        --- stdout
        - b
        - c
        2 deleted, 1 unchanged
        --- stderr
    "#]],
    );
    assert_eq!(daemon.jobs(), ["a"]);
    daemon.until("it is loaded", || daemon.desired_file()["status"] == "loaded");
    assert_eq!(daemon.desired_file()["held"], json!([]));
}

#[test]
fn an_apply_undoes_what_http_did_and_says_why_it_replaces() {
    let (home, daemon) = (Home::new(), sim());
    home.write("vms.json", &file(&["changed", "stopped"]));
    check(
        &home,
        &daemon,
        &["apply", "-f", "vms.json", "--wait"],
        expect![[r#"
        exit code: 0
        --- stdout
        + changed
        + stopped
        2 created, 0 unchanged
        --- stderr
    "#]],
    );
    daemon.post("/vms", &body("changed", "service", r#","env":{"A":"b"}"#));
    daemon.post("/vms/stopped/stop", "");
    daemon.until_job("stopped", "stopped");
    check(
        &home,
        &daemon,
        &["apply", "-f", "vms.json", "--wait"],
        expect![[r#"
            exit code: 0
            --- stdout
            ~ changed
              env.A: "b" -> (none)
            ~ stopped (it was stopped)
            2 replaced, 0 unchanged
            --- stderr
        "#]],
    );
    assert_eq!(daemon.get("/vms/stopped").json()["status"], "running");
    assert_eq!(daemon.get("/vms/changed").json()["spec"].get("env"), None);
}

#[test]
fn wait_ends_when_a_job_fails_to_run_or_time_is_up() {
    let (home, daemon) = (Home::new(), sim());
    let huge = body("huge", "service", "").replace("128", "1048576");
    home.write("huge.json", &format!("[{huge}]"));
    let apply = |more: &[&str]| {
        let args = [&["apply", "-f", "huge.json", "--wait"], more].concat();
        let output = finished(command(&home, &daemon, &args));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        (output.status.code(), said)
    };
    let (code, said) = apply(&["--timeout", "1s"]);
    assert_eq!(code, Some(124), "{said}");
    assert!(said.contains("gave up after 1 s: job huge is pending"), "{said}");
    let waited = std::thread::scope(|scope| {
        daemon.delete("/vms/huge");
        daemon.until("it is deleted", || daemon.jobs().is_empty());
        let waiting = scope.spawn(|| apply(&[]));
        daemon.until("it is made again", || daemon.jobs() == ["huge"]);
        daemon.post("/vms/huge/stop", "");
        waiting.join().expect("it ends")
    });
    assert_eq!(waited, (Some(1), "hearth: job huge is stopped\n".to_owned()));
}

#[test]
fn over_http_too_a_plan_is_what_the_apply_then_does() {
    let daemon = sim();
    let pooled = r#","env":{"V":"1"},"warm_pool":{"min":1}"#;
    let entries = [entry("a", pooled), entry("b", ""), entry("c", "")];
    assert_eq!(daemon.post("/apply", &declared(&entries, &json!({}))).status, 200);
    daemon.until_job("a", "running");
    daemon.until_warm(1);
    let next = [entry("a", r#","env":{"V":"2"}"#), entry("b", r#","stop_timeout_s":3"#)];
    let body = declared(&next, &json!({}));
    let planned = daemon.post("/plan", &body);
    let hash = planned.json()["pools"][0]["spec_hash"].as_str().expect("a hash").to_owned();
    expect![[r#"
        200 application/json
        {
          "create": [],
          "replace": [
            {
              "job_id": "a",
              "reason": null,
              "changes": [
                {
                  "path": "/env/V",
                  "from": "1",
                  "to": "2"
                },
                {
                  "path": "/warm_pool/min",
                  "from": 1,
                  "to": null
                },
                {
                  "path": "/warm_pool/max",
                  "from": 1,
                  "to": null
                }
              ]
            }
          ],
          "update": [
            {
              "job_id": "b",
              "reason": null,
              "changes": [
                {
                  "path": "/stop_timeout_s",
                  "from": null,
                  "to": 3
                }
              ]
            }
          ],
          "delete": [
            "c"
          ],
          "held": [],
          "kept": [],
          "refused": [],
          "unchanged": 0,
          "pools": [
            {
              "spec_hash": "HASH",
              "drained": 1
            }
          ]
        }
    "#]]
    .assert_eq(&planned.shown().replace(&hash, "HASH"));
    assert_eq!(daemon.post("/apply", &body).json(), planned.json());
    let again = daemon.post("/plan", &body).json();
    assert_eq!((&again["unchanged"], &again["delete"]), (&json!(2), &json!([])));
    daemon.until("c is gone", || daemon.jobs() == ["a", "b"]);
}

#[test]
fn a_body_that_is_wrong_is_told_whole_and_changes_nothing() {
    let daemon = sim();
    let no_cmd = json!({"job_id": "b", "spec": {"rootfs": "r", "kernel": "k"}});
    let entries = [entry("a", ""), entry("a", ""), no_cmd];
    let wrong = declared(&entries, &json!({ "source": "vms.exs" }));
    expect![[r#"
        422 application/problem+json
        {
          "type": "urn:hearth:problem:invalid-body",
          "title": "Invalid body",
          "status": 422,
          "detail": "the body has 5 problems; nothing was changed",
          "errors": [
            {
              "pointer": "/source",
              "detail": "\"vms.exs\" is not an absolute path",
              "help": "leave it out if no file declares the jobs"
            },
            {
              "pointer": "/entries/1/job_id",
              "detail": "/entries/0 declares job \"a\" already",
              "help": "a job id names one job; rename or remove one of the two"
            },
            {
              "pointer": "/entries/2/spec/cmd",
              "detail": "missing field `cmd`"
            },
            {
              "pointer": "/entries/2/spec/resources",
              "detail": "missing field `resources`"
            },
            {
              "pointer": "/entries/2/spec/lifecycle",
              "detail": "missing field `lifecycle`"
            }
          ]
        }
    "#]]
    .assert_eq(&daemon.post("/apply", &wrong).shown());
    assert_eq!(daemon.post("/plan", &wrong).status, 422);
    assert!(daemon.jobs().is_empty());
    expect![[r#"
        415 application/problem+json
        {
          "type": "urn:hearth:problem:not-json",
          "title": "Unsupported media type",
          "status": 415,
          "detail": "the body's type is not said",
          "help": "send Content-Type: application/json"
        }
    "#]]
    .assert_eq(&daemon.request("POST", "/apply", &[], "{}").shown());
}

#[test]
fn many_jobs_fit_one_apply_and_too_many_are_told_so() {
    let daemon = sim();
    let large = |count: usize| {
        let filler = format!(r#","env":{{"V":"{}"}}"#, "x".repeat(10_000));
        let entries: Vec<Value> =
            (0..count).map(|number| entry(&format!("job-{number}"), &filler)).collect();
        declared(&entries, &json!({}))
    };
    assert_eq!(
        daemon.post("/plan", &large(300)).json()["create"].as_array().map(Vec::len),
        Some(300)
    );
    expect![[r#"
        413 application/problem+json
        {
          "type": "urn:hearth:problem:large-body",
          "title": "Body too large",
          "status": 413,
          "detail": "the body has more than 4194304 bytes",
          "help": "declare the jobs in several files"
        }
    "#]]
    .assert_eq(&daemon.post("/plan", &large(420)).shown());
    let home = Home::new();
    let body: Value = serde_json::from_str(&large(420)).expect("JSON");
    home.write("vms.json", &body["entries"].to_string());
    check(
        &home,
        &daemon,
        &["plan", "vms.json"],
        expect![[r#"
        exit code: 1
        --- stdout
        --- stderr
        hearth: cannot send vms.json: its jobs take 4265060 bytes as JSON, and the daemon takes 4194304; declare them in several files
    "#]],
    );
}
