//! What a daemon keeps over its end, the desired-state file, and who else may start.

mod support;

use serde_json::Value;
use std::time::{Duration, Instant};
use support::{Daemon, Home, body, shown};

const SPEC: &str = r#"%{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/app"],
    resources: %{vcpu: 1, mem_mb: 128}, lifecycle: "service"}"#;

fn file(jobs: &[&str]) -> String {
    let entries: Vec<String> =
        jobs.iter().map(|job| format!("{{\"{job}\", \"acme\", {SPEC}}}")).collect();
    format!("[\n{}\n]\n", entries.join(",\n"))
}

fn jobs(daemon: &Daemon) -> Vec<String> {
    let items = daemon.get("/vms").json();
    let items = items["items"].as_array().expect("a list").clone();
    items.iter().map(|job| job["job_id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn what_was_answered_survives_a_kill_right_after() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("one", "service", r#","warm_pool":{"min":1}"#));
    daemon.until_warm(1);
    let pool = body("two", "service", r#","warm_pool":{"min":1}"#);
    assert_eq!(daemon.post("/vms", &pool).status, 201);
    daemon.kill();
    let daemon = home.start(&[]);
    assert_eq!(jobs(&daemon), ["one", "two"]);
    daemon.until_job("two", "running");
}

#[test]
fn a_finished_job_is_not_run_again_by_a_restart() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("once", "job", ""));
    let before = daemon.until_job("once", "completed");
    daemon.kill();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("other", "service", ""));
    daemon.until_job("other", "running");
    assert_eq!(daemon.get("/vms/once").json(), before);
}

#[test]
fn a_second_daemon_ends_at_once_and_names_the_first() {
    let home = Home::new();
    let _daemon = home.start(&[]);
    let begin = Instant::now();
    let second = support::finished(home.serve(&[]));
    assert!(begin.elapsed() < Duration::from_secs(5));
    assert_eq!(second.status.code(), Some(1));
    let text = shown(&second);
    assert!(text.contains("another hearth daemon (process "), "{text}");
}

#[test]
fn a_signal_ends_the_daemon_within_10_s_and_it_says_what_stays() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    let begin = Instant::now();
    let (status, said) = daemon.terminate();
    assert!(status.success() && begin.elapsed() < Duration::from_secs(10));
    assert!(said.contains("microVMs keep running"), "{said}");
}

#[test]
fn the_state_is_closed_to_others_and_the_address_is_in_it() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let daemon = home.start(&[]);
    let mode = std::fs::metadata(home.path("state")).expect("a directory").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let told = std::fs::read_to_string(home.path("state/listen")).expect("a file");
    assert_eq!(told.trim(), daemon.url);
}

#[test]
fn the_example_file_is_loaded_from_its_default_place() {
    let home = Home::new();
    std::fs::create_dir(home.path("config")).expect("a directory");
    std::fs::copy(support::example(), home.path("config/desired_vms.exs")).expect("a copy");
    let daemon = home.start(&[]);
    assert_eq!(jobs(&daemon), ["image-resizer", "kafka-consumer", "web-api"]);
    daemon.until_job("image-resizer", "completed");
    daemon.until_job("web-api", "running");
    daemon.until_warm(3);
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
    assert_eq!(jobs(&daemon), ["from-seed"]);
    daemon.kill();
    let daemon = start(&[], true);
    assert!(jobs(&daemon).contains(&"from-own".to_owned()));
    daemon.kill();
    let daemon = start(&["--desired", flag.to_str().expect("UTF-8")], true);
    assert!(jobs(&daemon).contains(&"from-flag".to_owned()));
}

#[test]
fn a_file_with_problems_changes_nothing_and_is_reported() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a", "b"]));
    let desired = ["--desired", path.to_str().expect("UTF-8")];
    let daemon = home.start(&desired);
    assert_eq!(jobs(&daemon), ["a", "b"]);
    daemon.kill();
    home.write("desired.exs", "[{\"c\", \"acme\", %{rootfs: 1}}]");
    let daemon = home.start(&desired);
    assert_eq!(jobs(&daemon), ["a", "b"]);
    let ready = daemon.get("/readyz").json();
    let trouble = ready["desired_file"].as_str().expect("a sentence");
    assert!(trouble.contains("problems") && trouble.contains("last good state"), "{trouble}");
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
    assert_eq!(jobs(&daemon), ["a"]);
    let ready = daemon.get("/readyz").json();
    assert!(ready["desired_file"].as_str().is_some_and(|text| text.contains("cannot read")));
}

#[test]
fn a_changed_file_is_loaded_without_a_restart_and_takes_its_jobs_with_it() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a", "b", "c"]));
    let daemon = home.start(&["--desired", path.to_str().expect("UTF-8")]);
    home.write("desired.exs", &file(&["a", "b", "d"]));
    daemon.until("c has made way for d", || jobs(&daemon) == ["a", "b", "d"]);
}

#[test]
fn a_file_that_loses_most_of_its_jobs_deletes_them_only_when_told() {
    let home = Home::new();
    let path = home.write("desired.exs", &file(&["a", "b", "c"]));
    let desired = ["--desired", path.to_str().expect("UTF-8")];
    let daemon = home.start(&desired);
    home.write("desired.exs", &file(&["a"]));
    daemon.until("the deletion is held", || {
        let ready = daemon.get("/readyz").json();
        ready["desired_file"].as_str().is_some_and(|text| text.contains("--allow-delete"))
    });
    assert_eq!(jobs(&daemon), ["a", "b", "c"]);
    daemon.kill();
    let daemon = home.start(&[desired[0], desired[1], "--allow-delete"]);
    daemon.until("they are gone", || jobs(&daemon) == ["a"]);
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
fn a_unix_socket_serves_the_command_line_and_keeps_others_out() {
    use std::os::unix::fs::PermissionsExt;
    let home = Home::new();
    let url = format!("unix://{}", home.path("h.sock").display());
    let mut daemon = home.serve(&["--listen", &url]);
    // clap takes one --listen, so the usual one is left out.
    let args: Vec<_> = daemon.get_args().map(ToOwned::to_owned).collect();
    let kept = args.iter().enumerate().filter(|(at, _)| *at != 3 && *at != 4).map(|(_, arg)| arg);
    daemon = home.hearth(kept);
    daemon.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::null());
    let mut child = daemon.spawn().expect("the daemon starts");
    let begin = Instant::now();
    let ps = loop {
        let ps = home.hearth(["--url", &url, "ps", "-o", "json"]).output().expect("it ran");
        if ps.status.success() || begin.elapsed() > support::DEADLINE {
            break ps;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let mode = std::fs::metadata(home.path("h.sock")).expect("a socket").permissions().mode();
    child.kill().expect("it can be killed");
    child.wait().expect("it can be reaped");
    assert_eq!((String::from_utf8_lossy(&ps.stdout).trim(), mode & 0o777), ("[]", 0o660));
}
