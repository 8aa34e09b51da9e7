//! What a daemon keeps over its end, and who else may start.

use crate::support::{Home, body, shown};
use rustix::process::{Pid, Signal, kill_process};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

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
    assert_eq!(daemon.jobs(), ["one", "two"]);
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
    let second = crate::support::finished(home.serve(&[]));
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
fn sigusr2_makes_it_the_version_that_is_installed_now() {
    let home = Home::new();
    let versions = ["1", "2", "3"].map(|version| home.path(version));
    for version in &versions {
        std::fs::copy(env!("CARGO_BIN_EXE_hearth"), version).expect("a copy");
    }
    let inode = |path: &Path| std::fs::metadata(path).expect("a file").ino();
    let inodes = versions.each_ref().map(|version| inode(version));
    let (link, installed) = (home.path("link"), home.path("hearth"));
    std::os::unix::fs::symlink(&versions[0], &link).expect("a link");
    std::fs::rename(&link, &installed).expect("installed");
    let serve = home.serve(&[]);
    let mut command = Command::new("hearth");
    command.args(serve.get_args());
    crate::support::place_as(&mut command, &serve);
    command.env("PATH", format!("{0}/empty:{0}:/usr/bin:/bin", home.path("").display()));
    let mut daemon = crate::support::Daemon::spawn(command);
    daemon.post("/vms", &body("web", "service", ""));
    let runs = PathBuf::from(format!("/proc/{}/exe", daemon.pid()));
    let pid = Pid::from_raw(daemon.pid().cast_signed()).expect("a pid");
    let reexec = |daemon: &mut crate::support::Daemon| {
        kill_process(pid, Signal::USR2).expect("a signal");
        daemon.restarted();
        assert_eq!(daemon.jobs(), ["web"]);
        inode(&runs)
    };
    assert_eq!(inode(&runs), inodes[0]);
    // A link that leads elsewhere now, then a file in its place, then nothing.
    std::os::unix::fs::symlink(&versions[1], &link).expect("a link");
    std::fs::rename(&link, &installed).expect("installed");
    assert_eq!(reexec(&mut daemon), inodes[1]);
    std::fs::rename(&versions[2], &installed).expect("installed");
    assert_eq!(reexec(&mut daemon), inodes[2]);
    std::fs::remove_file(&installed).expect("removed");
    assert_eq!(reexec(&mut daemon), inodes[2]);
    // What comes there later, and what can't be run.
    std::fs::rename(&versions[0], &installed).expect("installed");
    assert_eq!(reexec(&mut daemon), inodes[0]);
    std::fs::rename(home.write("text", "half of a program"), &installed).expect("installed");
    assert_eq!(reexec(&mut daemon), inodes[0]);
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
