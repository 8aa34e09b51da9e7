//! The desired-state file: when it is loaded, what that changes, and what is told of it.

use crate::support::{Daemon, Home, body};
use expect_test::{Expect, expect};
use serde_json::{Value, json};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

/// A file that declares these jobs.
fn file(jobs: &[&str]) -> String {
    let spec = r#"%{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/app"],
        resources: %{vcpu: 1, mem_mb: 128}, lifecycle: "service"}"#;
    let entries: Vec<String> =
        jobs.iter().map(|job| format!("{{\"{job}\", \"acme\", {spec}}}")).collect();
    format!("[\n{}\n]\n", entries.join(",\n"))
}

/// A daemon with `desired.exs` in this home as its file.
fn start(home: &Home) -> Daemon {
    home.start(&["--desired", home.path("desired.exs").to_str().expect("UTF-8")])
}

/// Status, counts, problem and help of the file, without what differs from run to run.
fn check(home: &Home, daemon: &Daemon, expected: Expect) {
    let mut file = daemon.desired_file();
    let fields = file.as_object_mut().expect("an object");
    for time in ["since", "loaded_at"] {
        assert!(fields.shift_remove(time).is_some_and(|at| at.is_null() || at.is_string()));
    }
    let shown = serde_json::to_string_pretty(&file).expect("JSON");
    expected.assert_eq(&(plain(home, &shown) + "\n"));
}

fn plain(home: &Home, text: &str) -> String {
    text.replace(home.path("").to_str().expect("UTF-8"), "/home/")
}

fn is(daemon: &Daemon, status: &str) {
    daemon.until(&format!("the file is {status}"), || daemon.desired_file()["status"] == status);
}

/// What the events say of files.
fn told(home: &Home, daemon: &Daemon) -> Vec<String> {
    let events = daemon.get("/events?limit=1000").json();
    let items = events["items"].as_array().expect("a list");
    let of_file = |event: &&Value| event["kind"] == "loaded" || event["kind"] == "error";
    let message = |event: &Value| plain(home, event["message"].as_str().expect("a sentence"));
    items.iter().filter(of_file).map(message).collect()
}

#[test]
fn the_example_file_is_loaded_from_its_default_place() {
    let home = Home::new();
    std::fs::create_dir(home.path("config")).expect("a directory");
    std::fs::copy(crate::support::example(), home.path("config/desired_vms.exs")).expect("a copy");
    let daemon = home.start(&[]);
    assert_eq!(daemon.jobs(), ["image-resizer", "kafka-consumer", "web-api"]);
    daemon.until_job("image-resizer", "completed");
    daemon.until_job("web-api", "running");
    daemon.until_warm(3);
}

#[test]
fn loads_of_the_file_name_it_as_their_caller() {
    let home = Home::new();
    home.write("desired.exs", &file(&["web"]));
    let daemon = start(&home);
    let events = daemon.get("/events").json();
    let items = events["items"].as_array().expect("a list");
    for kind in ["accepted", "loaded"] {
        let event = items.iter().find(|event| event["kind"] == kind).expect(kind);
        assert_eq!(event["caller"], json!({"kind": "desired_file"}), "{event}");
    }
}

#[test]
fn a_variable_names_the_file_and_a_flag_is_stronger() {
    let home = Home::new();
    let seed = home.write("seed.exs", &file(&["from-seed"]));
    let own = home.write("own.exs", &file(&["from-own"]));
    let flag = home.write("flag.exs", &file(&["from-flag"]));
    let start = |more: &[&str], own_too: bool| {
        let mut command = home.serve(more);
        command.env("FC_EX_CP_DESIRED_VMS_CONFIG", &seed);
        if own_too {
            command.env("HEARTH_DESIRED", &own);
        }
        Daemon::spawn(command)
    };
    let daemon = start(&[], false);
    assert_eq!(daemon.jobs(), ["from-seed"]);
    daemon.kill();
    let daemon = start(&[], true);
    assert!(daemon.jobs().contains(&"from-own".to_owned()));
    daemon.kill();
    let daemon = start(&["--desired", flag.to_str().expect("UTF-8")], true);
    assert!(daemon.jobs().contains(&"from-flag".to_owned()));
}

#[test]
fn a_file_with_problems_changes_nothing_and_is_reported() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a", "b"]));
    let desired = ["--desired", path.to_str().expect("UTF-8")];
    let daemon = home.start(&desired);
    assert_eq!(daemon.jobs(), ["a", "b"]);
    daemon.kill();
    home.write("desired.exs", "[{\"c\", \"acme\", %{rootfs: 1}}]");
    let daemon = home.start(&desired);
    assert_eq!(daemon.jobs(), ["a", "b"]);
    let ready = daemon.get("/readyz").json();
    let problem = ready["desired_file"].as_str().expect("a sentence");
    assert!(problem.contains("problems") && problem.contains("last good state"), "{problem}");
}

#[test]
fn refused_entries_are_listed_up_to_a_bound_and_counted() {
    let home = Home::new();
    let names: Vec<String> = (0..120).map(|at| format!("job-{at:03}")).collect();
    home.write("desired.exs", "[]");
    let daemon = start(&home);
    let entries: Vec<Value> = names
        .iter()
        .map(|job| {
            let mut entry: Value = serde_json::from_str(&body(job, "service", "")).expect("JSON");
            entry["tenant"] = "other".into();
            entry
        })
        .collect();
    let applied = daemon.post("/apply", &serde_json::json!({ "entries": entries }).to_string());
    assert_eq!(applied.status, 200, "{}", applied.body);
    home.write("desired.exs", &file(&names.iter().map(String::as_str).collect::<Vec<_>>()));
    daemon.until("the file is loaded", || daemon.desired_file()["refused_omitted"] == 20);
    assert_eq!(daemon.desired_file()["refused"].as_array().map(Vec::len), Some(100));
    let told: Vec<String> = told(&home, &daemon);
    let refused = told.iter().filter(|said| said.contains("is refused: ")).count();
    assert_eq!(refused, 100);
    assert!(told.iter().any(|said| said == "20 more entries of /home/desired.exs are refused"));
}

#[test]
fn a_named_file_that_is_missing_is_reported_and_deletes_nothing() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a"]));
    let desired = ["--desired", path.to_str().expect("UTF-8")];
    let daemon = home.start(&desired);
    daemon.kill();
    std::fs::remove_file(&path).expect("it was there");
    let daemon = home.start(&desired);
    assert_eq!(daemon.jobs(), ["a"]);
    let ready = daemon.get("/readyz").json();
    assert!(ready["desired_file"].as_str().is_some_and(|text| text.contains("cannot read")));
}

#[test]
fn changed_file_is_reloaded_and_its_removed_jobs_deleted() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a", "b", "c"]));
    let daemon = home.start(&["--desired", path.to_str().expect("UTF-8")]);
    home.write("desired.exs", &file(&["a", "b", "d"]));
    daemon.until("c has made way for d", || daemon.jobs() == ["a", "b", "d"]);
}

#[test]
fn file_that_loses_most_jobs_deletes_them_only_if_permitted() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a", "b", "c"]));
    let desired = ["--desired", path.to_str().expect("UTF-8")];
    let daemon = home.start(&desired);
    home.write("desired.exs", &file(&["a"]));
    daemon.until("the deletion is held", || {
        let ready = daemon.get("/readyz").json();
        ready["desired_file"].as_str().is_some_and(|text| text.contains("--allow-delete"))
    });
    assert_eq!(daemon.jobs(), ["a", "b", "c"]);
    daemon.kill();
    let daemon = home.start(&[desired[0], desired[1], "--allow-delete"]);
    daemon.until("they are gone", || daemon.jobs() == ["a"]);
}

#[test]
fn what_http_changed_stays_changed_while_the_entry_is_the_same() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a"]));
    let desired = ["--desired", path.to_str().expect("UTF-8")];
    let daemon = home.start(&desired);
    daemon.post("/vms", &body("a", "service", r#","env":{"A":"b"}"#));
    daemon.kill();
    let daemon = home.start(&desired);
    assert_eq!(daemon.get("/vms/a").json()["spec"]["env"]["A"], Value::from("b"));
}

#[test]
fn faults_of_the_file_are_in_the_stats_until_fixed() {
    let home = Home::new();
    home.write("desired.exs", &file(&["a", "b"]));
    let daemon = start(&home);
    check(
        &home,
        &daemon,
        expect![[r#"
        {
          "path": "/home/desired.exs",
          "status": "loaded",
          "entries": 2,
          "applied": 2,
          "deleted": 0,
          "held": [],
          "refused": [],
          "problem": null,
          "help": null
        }
    "#]],
    );
    home.write("desired.exs", "[{\"c\", \"acme\", %{rootfs: 1}}]");
    is(&daemon, "failed");
    check(
        &home,
        &daemon,
        expect![[r#"
        {
          "path": "/home/desired.exs",
          "status": "failed",
          "entries": 2,
          "applied": 2,
          "deleted": 0,
          "held": [],
          "refused": [],
          "problem": "/home/desired.exs has 5 problems (the first: line 1, column 16: job `c`: missing field `cmd`); none of it is applied, the last good state stays in effect",
          "help": "hearth validate /home/desired.exs shows every problem"
        }
    "#]],
    );
    home.write("desired.exs", &file(&["a"]));
    daemon.until("b is deleted", || daemon.desired_file()["deleted"] == 1);
    check(
        &home,
        &daemon,
        expect![[r#"
        {
          "path": "/home/desired.exs",
          "status": "loaded",
          "entries": 1,
          "applied": 0,
          "deleted": 1,
          "held": [],
          "refused": [],
          "problem": null,
          "help": null
        }
    "#]],
    );
    expect![[r#"
        [
            "/home/desired.exs: 2 applied, 0 deleted, 0 unchanged",
            "/home/desired.exs has 5 problems (the first: line 1, column 16: job `c`: missing field `cmd`); none of it is applied, the last good state stays in effect",
            "/home/desired.exs: 0 applied, 1 deleted, 1 unchanged",
        ]
    "#]].assert_debug_eq(&told(&home, &daemon));
}

#[test]
fn deletions_that_are_held_are_in_the_stats_with_what_to_do() {
    let home = Home::new();
    home.write("desired.exs", &file(&["a", "b", "c", "d"]));
    let daemon = start(&home);
    home.write("desired.exs", &file(&["a"]));
    is(&daemon, "held");
    check(
        &home,
        &daemon,
        expect![[r#"
        {
          "path": "/home/desired.exs",
          "status": "held",
          "entries": 1,
          "applied": 0,
          "deleted": 0,
          "held": [
            "b",
            "c",
            "d"
          ],
          "refused": [],
          "problem": "/home/desired.exs would delete more than half of its jobs; kept are b, c, d",
          "help": "hearth apply -f /home/desired.exs --allow-delete deletes them"
        }
    "#]],
    );
    home.write("desired.exs", &file(&["a", "b", "c"]));
    daemon.until("d is deleted", || daemon.desired_file()["deleted"] == 1);
    daemon.until("d is gone", || daemon.jobs() == ["a", "b", "c"]);
    assert_eq!(daemon.desired_file()["status"], "loaded");
    expect![[r#"
        [
            "/home/desired.exs: 4 applied, 0 deleted, 0 unchanged",
            "/home/desired.exs would delete more than half of its jobs; kept are b, c, d",
            "/home/desired.exs: 0 applied, 1 deleted, 3 unchanged",
        ]
    "#]]
    .assert_debug_eq(&told(&home, &daemon));
}

#[test]
fn a_default_file_may_be_absent_and_come_later() {
    let home = Home::new();
    let daemon = home.start(&[]);
    check(
        &home,
        &daemon,
        expect![[r#"
        {
          "path": "/home/config/desired_vms.exs",
          "status": "absent",
          "entries": 0,
          "applied": 0,
          "deleted": 0,
          "held": [],
          "refused": [],
          "problem": null,
          "help": null
        }
    "#]],
    );
    std::fs::create_dir(home.path("config")).expect("a directory");
    home.write("config/desired_vms.exs", &file(&["a"]));
    is(&daemon, "loaded");
    assert_eq!(daemon.jobs(), ["a"]);
    std::fs::remove_file(home.path("config/desired_vms.exs")).expect("it was there");
    is(&daemon, "failed");
    assert_eq!(daemon.jobs(), ["a"]);
}

#[test]
fn an_entry_that_is_refused_is_shown_with_its_reason() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post(
        "/vms",
        &body("a", "service", r#","env":{}"#).replacen('{', r#"{"tenant":"other","#, 1),
    );
    daemon.kill();
    home.write("desired.exs", &file(&["a", "b"]));
    let daemon = start(&home);
    check(
        &home,
        &daemon,
        expect![[r#"
        {
          "path": "/home/desired.exs",
          "status": "loaded",
          "entries": 2,
          "applied": 1,
          "deleted": 0,
          "held": [],
          "refused": [
            {
              "job_id": "a",
              "reason": "job a belongs to another tenant; use another job_id"
            }
          ],
          "problem": null,
          "help": null
        }
    "#]],
    );
    expect![[r#"
        [
            "/home/desired.exs: 1 applied, 0 deleted, 0 unchanged",
            "an entry of /home/desired.exs is refused: job a belongs to another tenant; use another job_id",
        ]
    "#]].assert_debug_eq(&told(&home, &daemon));
}

/// Replaces a file by another whole one, as careful programs do.
fn put(home: &Home, name: &str, text: &str) {
    let new = home.write("new", text);
    std::fs::rename(new, home.path(name)).expect("a rename");
}

/// Waits until these jobs and no others are there.
fn until_jobs(daemon: &Daemon, jobs: &[&str]) {
    daemon.until(&format!("the jobs are {jobs:?}"), || daemon.jobs() == jobs);
}

#[test]
fn a_file_that_is_renamed_into_place_is_acted_on_at_once() {
    let home = Home::new();
    put(&home, "desired.exs", &file(&["a"]));
    let daemon = start(&home);
    let mut took = Vec::new();
    for job in ["b", "c", "d"] {
        put(&home, "desired.exs", &file(&["a", job]));
        let begin = Instant::now();
        daemon.until("the job is there", || daemon.jobs().contains(&job.to_owned()));
        took.push(begin.elapsed());
        // Past its quiet, so that the next change meets a file that is looked at rarely.
        daemon.until("the file is quiet", || daemon.jobs() == ["a", job]);
    }
    // A poll alone would take a second, and half of one in the mean.
    let best = took.iter().min().expect("a time");
    assert!(*best < Duration::from_millis(400), "{took:?}");
}

#[test]
fn editors_save_in_steps_and_no_step_is_taken_for_a_mistake() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a"]));
    let backup = home.path("desired.exs~");
    let daemon = start(&home);
    // vim: the old file is moved away, the new one written in its place.
    std::fs::rename(&path, &backup).expect("a rename");
    home.write("desired.exs", &file(&["a", "b"]));
    std::fs::remove_file(&backup).expect("it was there");
    until_jobs(&daemon, &["a", "b"]);
    // nano: the file is emptied, then written in pieces.
    let text = file(&["a", "b", "c"]);
    let mut open = std::fs::File::create(&path).expect("it exists");
    for piece in text.as_bytes().chunks(100) {
        open.write_all(piece).expect("a write");
        open.sync_all().expect("a sync");
    }
    drop(open);
    until_jobs(&daemon, &["a", "b", "c"]);
    // emacs: the old file becomes the backup by a copy, the new one comes by a rename.
    std::fs::copy(&path, &backup).expect("a copy");
    put(&home, "desired.exs", &file(&["a", "b", "c", "d"]));
    until_jobs(&daemon, &["a", "b", "c", "d"]);
    assert_eq!(daemon.desired_file()["status"], "loaded");
    assert!(told(&home, &daemon).iter().all(|message| message.contains("unchanged")));
}

#[test]
fn links_are_followed_where_they_are_swapped() {
    let home = Home::new();
    let release = |name: &str, jobs: &[&str]| {
        std::fs::create_dir_all(home.path(name)).expect("a directory");
        home.write(&format!("{name}/desired.exs"), &file(jobs));
    };
    let swap = |target: &str, link: &str| {
        symlink(target, home.path("link")).expect("a link");
        std::fs::rename(home.path("link"), home.path(link)).expect("a rename");
    };
    // As Kubernetes lays a ConfigMap out.
    release("map/..1", &["a"]);
    swap("..1", "map/..data");
    swap("..data/desired.exs", "map/desired.exs");
    // And behind a link to the folder.
    swap("map", "current");
    let path = home.path("current/desired.exs");
    let daemon = home.start(&["--desired", path.to_str().expect("UTF-8")]);
    until_jobs(&daemon, &["a"]);
    release("map/..2", &["a", "b"]);
    swap("..2", "map/..data");
    std::fs::remove_dir_all(home.path("map/..1")).expect("it was there");
    until_jobs(&daemon, &["a", "b"]);
    release("other", &["a", "b", "c"]);
    swap("other", "current");
    until_jobs(&daemon, &["a", "b", "c"]);
    home.write("other/desired.exs", &file(&["a", "b", "d"]));
    until_jobs(&daemon, &["a", "b", "d"]);
}

#[test]
fn a_change_that_nothing_hints_at_is_found_by_the_poll() {
    let home = Home::new();
    std::fs::create_dir(home.path("aside")).expect("a directory");
    let path = home.write("desired.exs", &file(&["a"]));
    std::fs::hard_link(&path, home.path("aside/same.exs")).expect("a link");
    let daemon = start(&home);
    // The watched folder reports no change that is made under another name.
    home.write("aside/same.exs", &file(&["a", "b"]));
    until_jobs(&daemon, &["a", "b"]);
}

#[test]
fn faults_of_the_file_keep_the_last_good_state_and_say_why() {
    let home = Home::new();
    std::fs::create_dir(home.path("etc")).expect("a directory");
    let path = home.write("etc/desired.exs", &file(&["a", "b"]));
    let daemon = home.start(&["--desired", path.to_str().expect("UTF-8")]);
    let good = |jobs: &[&str]| {
        put(&home, "etc/desired.exs", &file(jobs));
        daemon.until("it is loaded again", || {
            daemon.desired_file()["status"] == "loaded" && daemon.jobs() == jobs
        });
    };
    let failed = |why: &str| {
        daemon.until(&format!("it fails: {why}"), || {
            let file = daemon.desired_file();
            let problem = file["problem"].as_str().unwrap_or_default();
            file["status"] == "failed" && problem.contains(why)
        });
        assert!(daemon.jobs().len() >= 2);
    };
    home.write("etc/desired.exs", "");
    failed("line 1, column 1");
    good(&["a", "b", "c"]);
    let whole = file(&["a", "b"]);
    home.write("etc/desired.exs", &whole[..whole.len() - 10]);
    failed("line ");
    good(&["a", "b", "d"]);
    std::fs::remove_file(&path).expect("it was there");
    failed("No such file");
    std::fs::create_dir(&path).expect("a directory");
    failed("it is a directory");
    std::fs::remove_dir(&path).expect("it was there");
    good(&["a", "b", "e"]);
    std::fs::rename(home.path("etc"), home.path("away")).expect("a rename");
    failed("No such file");
    std::fs::rename(home.path("away"), home.path("etc")).expect("a rename");
    is(&daemon, "loaded");
    std::fs::remove_dir_all(home.path("etc")).expect("it was there");
    failed("No such file");
    std::fs::create_dir(home.path("etc")).expect("a directory");
    good(&["a", "b", "f"]);
    // Told once each, not at each look.
    let reports = told(&home, &daemon).iter().filter(|told| !told.contains("unchanged")).count();
    assert_eq!(reports, 6);
}
