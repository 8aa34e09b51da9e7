//! `hearth backup`, `restore` and `doctor`, and what becomes of microVMs whose database is lost.

use crate::support::{Home, body, finished, shown};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

fn on_state(home: &Home, args: &[&str]) -> (String, bool) {
    let mut command = home.hearth(args);
    match std::env::var_os("HEARTH_TEST_FIRECRACKER") {
        Some(firecracker) => command.env("HEARTH_FIRECRACKER", firecracker),
        None => command.env("HEARTH_HOST", "sim"),
    };
    command.arg("--state-dir").arg(home.path("state"));
    let output = finished(command);
    (shown(&output), output.status.success())
}

#[test]
fn backup_under_load_has_everything_acknowledged_before() {
    let home = Home::new();
    let daemon = home.start(&[]);
    for job in 0..20 {
        daemon.post("/vms", &body(&format!("before-{job}"), "service", ""));
    }
    let file = home.path("backup.db").display().to_string();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for job in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let answer = daemon.post("/vms", &body(&format!("during-{job}"), "job", ""));
                assert!([201, 202].contains(&answer.status), "{answer:?}");
            }
        });
        let (said, done) = on_state(&home, &["backup", &file]);
        stop.store(true, Ordering::Relaxed);
        assert!(done, "{said}");
    });
    let mode = std::fs::metadata(&file).expect("the backup").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "the environments of jobs are in it");
    let (said, done) = on_state(&home, &["backup", &file]);
    assert!(!done && said.contains("File exists"), "nothing is overwritten: {said}");

    daemon.post("/vms", &body("after", "service", ""));
    daemon.delete("/vms/before-0");
    daemon.kill();
    let (said, done) = on_state(&home, &["restore", &file]);
    assert!(done && said.contains("the previous database is "), "{said}");
    let daemon = home.start(&[]);
    let jobs = daemon.jobs();
    let has = |job: &str| jobs.iter().any(|one| one == job);
    assert!((0..20).all(|job| has(&format!("before-{job}"))), "{jobs:?}");
    assert!(!has("after"), "{jobs:?}");
}

#[test]
fn restore_under_a_daemon_makes_it_restart_itself() {
    let home = Home::new();
    let mut daemon = home.start(&[]);
    let labels = r#","labels":{"example.com/team":"web","tier":""}"#;
    daemon.post("/vms", &body("before", "service", labels));
    let file = home.path("backup.db").display().to_string();
    assert!(on_state(&home, &["backup", &file]).1);
    daemon.post("/vms", &body("after", "service", ""));
    daemon.delete("/vms/before");

    std::fs::write(home.path("text.db"), "[]").expect("a file");
    let (said, done) = on_state(&home, &["restore", "text.db"]);
    assert!(!done && said.contains("text.db"), "{said}");
    assert!(daemon.jobs().contains(&"after".to_owned()), "the daemon was not restarted");

    let (said, done) = on_state(&home, &["restore", &file]);
    assert!(done && said.contains("restored 1 job") && said.contains(".replaced-"), "{said}");
    daemon.restarted();
    assert!(daemon.ended().is_none(), "it is the process that it was");
    let left = crate::support::names(&home.path("state"));
    assert!(!left.iter().any(|name| name.contains("new")), "{left:?}");
    daemon.until_job("before", "running");
    assert_eq!(daemon.jobs(), ["before"]);
    let labelled = daemon.get("/vms?label=example.com%2Fteam%3Dweb&label=tier").body;
    assert!(labelled.contains(r#""labels":{"example.com/team":"web","tier":""}"#), "{labelled}");

    // One that was cut off after the check is gone on with by the next daemon.
    daemon.post("/vms", &body("more", "service", ""));
    daemon.kill();
    std::fs::copy(&file, home.path("state/hearth.db.restore")).expect("a copy");
    let daemon = home.start(&[]);
    assert_eq!(daemon.jobs(), ["before"]);
    assert!(!home.path("state/hearth.db.restore").exists());
}

#[test]
fn restore_does_not_end_a_daemon_that_cannot_restart() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    let file = home.path("backup.db").display().to_string();
    assert!(on_state(&home, &["backup", &file]).1);
    daemon.kill();
    // This process has the lock now, and SIGUSR2 would end it.
    let lock = std::fs::File::options().write(true).open(home.path("state/hearth.lock"));
    let mut lock = lock.expect("the lock");
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).expect("the lock");
    std::io::Write::write_all(&mut lock, format!("{}\n", std::process::id()).as_bytes())
        .expect("a pid");
    lock.set_len(std::process::id().to_string().len() as u64 + 1).expect("a length");
    let (said, done) = on_state(&home, &["restore", &file]);
    assert!(!done && said.contains("can't restore while it runs"), "{said}");
    let left = crate::support::names(&home.path("state"));
    assert!(!left.iter().any(|name| name.contains("new") || name.contains("restore")), "{left:?}");
}

#[test]
fn invalid_or_damaged_backup_is_refused_and_changes_nothing() {
    let home = Home::new();
    let daemon = home.start(&[]);
    for job in 0..50 {
        daemon.post("/vms", &body(&format!("web-{job}"), "service", ""));
    }
    let good = home.path("good.db").display().to_string();
    assert!(on_state(&home, &["backup", &good]).1);
    daemon.kill();
    let bytes = std::fs::read(&good).expect("the backup");
    let mut flipped = bytes.clone();
    // The first byte of the second page says of what kind it is.
    flipped[4096] ^= 0x55;
    let cases: [(&str, &[u8]); 4] = [
        ("text.db", b"[]\n"),
        ("empty.db", b""),
        ("cut.db", &bytes[..bytes.len() / 2]),
        ("flipped.db", &flipped),
    ];
    for (name, bytes) in cases {
        let path = home.path(name);
        std::fs::write(&path, bytes).expect("a file");
        let (said, done) = on_state(&home, &["restore", &path.display().to_string()]);
        assert!(!done && said.contains(name), "{name}: {said}");
    }
    let (said, done) = on_state(&home, &["restore", "nowhere.db"]);
    assert!(!done && said.contains("nowhere.db"), "{said}");
    let left = std::fs::read_dir(home.path("state")).expect("the state").flatten();
    let left: Vec<_> = left.map(|entry| entry.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("new")), "{left:?}");
    assert_eq!(home.start(&[]).jobs().len(), 50);
}

#[test]
fn damaged_database_is_refused_and_a_backup_repairs_it() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    let backup = home.path("backup.db").display().to_string();
    assert!(on_state(&home, &["backup", &backup]).1);
    daemon.kill();
    let database = home.path("state/hearth.db");
    for part in ["state/hearth.db-wal", "state/hearth.db-shm"] {
        let _ = std::fs::remove_file(home.path(part));
    }
    std::fs::write(&database, vec![0x55; 20_000]).expect("nonsense");
    let said = shown(&finished(home.serve(&[])));
    assert!(said.contains("hearth.db") && said.contains("exit code: 1"), "{said}");
    let (said, done) = on_state(&home, &["doctor"]);
    assert!(!done && said.contains("bad  database"), "{said}");
    let (said, done) = on_state(&home, &["restore", &backup]);
    assert!(done, "{said}");
    let kept = std::fs::read_dir(home.path("state")).expect("the state").flatten();
    let kept = kept.filter(|entry| entry.file_name().to_string_lossy().contains(".replaced-"));
    assert_eq!(kept.count(), 1, "what was there is kept");
    home.start(&[]).until_job("web", "running");
}

#[test]
fn doctor_reports_leftovers_and_repairs_only_if_told_and_alone() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    let write = |name: &str| {
        let path = home.path("state").join(name);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, "x").expect("a file");
    };
    let image = "ab".repeat(32);
    write("logs/a1b2c3d4e5.log");
    write("logs/a1b2c3d4e5.log.1");
    write("logs/notes.txt");
    write(&format!("images/{image}"));
    write("instances/a1b2c3d4e6.gone/kernel");
    write("instances/a1b2c3d4e7/manifest.json.new");
    write("instances/a1b2c3d4e8/manifest.json");
    let open = |mode| {
        let path = home.path("state");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("a mode");
    };
    open(0o755);
    let (said, done) = on_state(&home, &["doctor", "--repair"]);
    assert!(!done && said.contains("another hearth daemon"), "{said}");
    daemon.kill();
    open(0o755);
    let (looked, done) = on_state(&home, &["doctor", "-o", "json"]);
    assert!(!done, "{looked}");
    let json = looked.lines().find(|line| line.starts_with('[')).expect("a list");
    let findings: Vec<Value> = serde_json::from_str(json).expect("JSON");
    let repairs: Vec<&str> =
        findings.iter().filter_map(|finding| finding["repair"].as_str()).collect();
    assert_eq!(repairs.len(), 6, "{looked}");
    assert!(home.path("state/instances/a1b2c3d4e6.gone").exists(), "it only looked");

    let (said, done) = on_state(&home, &["doctor", "--repair"]);
    assert!(!done && said.contains("repaired 6 things"), "what can't be told is left: {said}");
    let there = |name: &str| home.path("state").join(name).exists();
    assert!(there("instances/a1b2c3d4e8") && there("logs/notes.txt"));
    let gone = ["logs/a1b2c3d4e5.log", "instances/a1b2c3d4e6.gone", "instances/a1b2c3d4e7"];
    assert!(!gone.into_iter().any(there) && !there(&format!("images/{image}")));
    let mode = std::fs::metadata(home.path("state")).expect("the state").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    std::fs::remove_dir_all(home.path("state/instances/a1b2c3d4e8")).expect("by hand");
    let (said, _) = on_state(&home, &["doctor"]);
    assert!(!said.contains("leftover"), "{said}");
    home.start(&[]).until_job("web", "running");
}

/// What somebody does to the files of a database beneath the daemon.
type Damage = (&'static str, fn(&Home));

fn overwritten(home: &Home, name: &str, bytes: &[u8]) {
    // The same file, as `cp` and a shell's `>` leave it.
    std::fs::write(home.path("state").join(name), bytes).expect("it can be written");
}

fn removed(home: &Home, name: &str) {
    std::fs::remove_file(home.path("state").join(name)).expect("it can be removed");
}

fn another(home: &Home) -> Vec<u8> {
    std::fs::read(home.path("other.db")).expect("another database")
}

const DAMAGES: [Damage; 9] = [
    ("removed", |home| removed(home, "hearth.db")),
    ("removed with all beside it", |home| {
        ["hearth.db", "hearth.db-wal", "hearth.db-shm"].iter().for_each(|name| removed(home, name));
    }),
    ("its log removed", |home| removed(home, "hearth.db-wal")),
    ("its index removed", |home| removed(home, "hearth.db-shm")),
    ("replaced", |home| {
        std::fs::write(home.path("new.db"), another(home)).expect("a file");
        std::fs::rename(home.path("new.db"), home.path("state/hearth.db")).expect("moved");
    }),
    ("overwritten with another", |home| overwritten(home, "hearth.db", &another(home))),
    ("cut off", |home| overwritten(home, "hearth.db", b"")),
    ("its log cut off", |home| overwritten(home, "hearth.db-wal", b"")),
    ("overwritten with nonsense", |home| overwritten(home, "hearth.db", &[0x55; 20_000])),
];

/// A database of another daemon, with another job.
fn make_another(home: &Home) {
    let other = Home::new();
    let daemon = other.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("other", "service", ""));
    drop(daemon.terminate());
    std::fs::copy(other.path("state/hearth.db"), home.path("other.db")).expect("a copy");
}

#[test]
fn lost_database_refuses_changes_and_no_accepted_one_is_gone() {
    let other = Home::new();
    make_another(&other);
    let mut refusals = 0;
    // What was committed is in the log, or, after a start, in the database file.
    for restarted in [false, true] {
        for (how, damage) in DAMAGES {
            let how = format!("{how}, restarted: {restarted}");
            let home = Home::new();
            std::fs::copy(other.path("other.db"), home.path("other.db")).expect("a copy");
            let mut daemon = home.start(&["--desired", "none.exs"]);
            daemon.post("/vms", &body("web", "service", ""));
            daemon.until_job("web", "running");
            if restarted {
                drop(daemon.terminate());
                daemon = home.start(&["--desired", "none.exs"]);
                daemon.until_job("web", "running");
            }
            assert_eq!(daemon.post("/vms", &body("last", "service", "")).status, 202, "{how}");
            damage(&home);
            let refused = daemon.post("/vms", &body("late", "service", ""));
            if refused.status == 202 {
                // All of it is in the log, which covers what is in the file now.
                daemon.kill();
                let jobs = home.start(&["--desired", "none.exs"]).jobs();
                assert_eq!(jobs, ["last", "late", "web"], "{how}");
                continue;
            }
            refusals += 1;
            assert_eq!(refused.status, 503, "{how}: {refused:?}");
            let problem = refused.json();
            assert_eq!(problem["type"], "urn:hearth:problem:database-lost", "{how}: {problem}");
            let detail = problem["detail"].as_str().expect("a detail").to_owned();
            assert!(detail.contains("hearth.db.saved: start the daemon again"), "{how}: {detail}");
            assert_eq!(daemon.delete("/vms/web").status, 503, "{how}");
            assert_eq!(daemon.get("/vms/web").json()["status"], "running", "{how}: reads continue");
            let unready = daemon.get("/readyz");
            assert_eq!(unready.status, 503, "{how}");
            assert!(unready.body.contains("changes are refused"), "{how}: {}", unready.body);
            assert!(daemon.ended().is_none(), "{how}");
            daemon.kill();
            let daemon = home.start(&["--desired", "none.exs"]);
            assert_eq!(daemon.jobs(), ["last", "web"], "{how}: and nothing that was refused");
            assert_eq!(daemon.post("/vms", &body("new", "service", "")).status, 202, "{how}");
        }
    }
    // Of what the log covers, how much depends on when the last commits were.
    assert!(refusals > DAMAGES.len(), "{refusals}");
}

#[test]
fn lost_files_that_come_back_end_the_refusal() {
    let home = Home::new();
    let daemon = home.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let state = home.path("state");
    for (moved, says) in [
        ("state", "put the state directory back"),
        ("state/hearth.lock", "another daemon may use the state directory"),
        ("state/hearth.db", "hearth.db.saved"),
        ("state/hearth.db-wal", "hearth.db.saved"),
    ] {
        std::fs::rename(home.path(moved), home.path("aside")).expect("it can be moved");
        let refused = daemon.post("/vms", &body("late", "service", ""));
        assert_eq!(refused.status, 503, "{moved}: {refused:?}");
        assert!(refused.body.contains(says), "{moved}: {}", refused.body);
        assert_eq!(daemon.get("/readyz").status, 503, "{moved}");
        std::fs::rename(home.path("aside"), home.path(moved)).expect("it can be moved back");
        daemon.until("it is ready again", || daemon.get("/readyz").status == 200);
        assert!(!state.join("hearth.db.saved").exists(), "{moved}");
        let job = format!("after-{}", moved.len());
        assert_eq!(daemon.post("/vms", &body(&job, "service", "")).status, 202, "{moved}");
        daemon.until_job(&job, "running");
    }
    let before = daemon.jobs();
    daemon.kill();
    assert_eq!(home.start(&["--desired", "none.exs"]).jobs(), before);
}

#[test]
fn lost_database_is_replaced_by_a_restore_under_the_daemon() {
    let home = Home::new();
    let mut daemon = home.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("web", "service", ""));
    let file = home.path("backup.db").display().to_string();
    assert!(on_state(&home, &["backup", &file]).1);
    daemon.post("/vms", &body("later", "service", ""));
    removed(&home, "hearth.db");
    assert_eq!(daemon.post("/vms", &body("late", "service", "")).status, 503);
    let (said, done) = on_state(&home, &["doctor"]);
    assert!(!done && said.contains("lost beneath the daemon"), "{said}");
    let (said, done) = on_state(&home, &["restore", &file]);
    assert!(done, "{said}");
    daemon.restarted();
    assert_eq!(daemon.jobs(), ["web"]);
    assert_eq!(daemon.post("/vms", &body("new", "service", "")).status, 202);
    daemon.kill();
    let daemon = home.start(&["--desired", "none.exs"]);
    assert_eq!(daemon.jobs(), ["new", "web"], "what was saved is not taken later");
    // And what was saved by the daemon is itself a backup.
    let kept = crate::support::names(&home.path("state"));
    let kept = kept.iter().find(|name| name.contains(".replaced-")).expect("what was saved");
    let kept = home.path("state").join(kept).display().to_string();
    let (said, done) = on_state(&home, &["restore", &kept]);
    assert!(done && said.contains("restored 2 jobs"), "{said}");
}

#[test]
fn removed_lock_lets_no_second_daemon_use_the_database() {
    let home = Home::new();
    let daemon = home.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("web", "service", ""));
    removed(&home, "hearth.lock");
    let second = shown(&finished(home.serve(&["--desired", "none.exs"])));
    assert!(second.contains("another hearth daemon uses it"), "{second}");
    assert_eq!(daemon.get("/vms/web").status, 200);
    drop(daemon.terminate());
    assert_eq!(home.start(&["--desired", "none.exs"]).jobs(), ["web"]);
}

#[test]
fn other_programs_that_write_with_sqlite_are_no_loss() {
    let home = Home::new();
    let daemon = home.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let database = rusqlite::Connection::open(home.path("state/hearth.db")).expect("a database");
    for (number, statement) in
        ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(RESTART)"]
            .into_iter()
            .enumerate()
    {
        database
            .query_row(statement, [], |_| Ok(()))
            .or_else(|error| match error {
                rusqlite::Error::QueryReturnedNoRows => Ok(()),
                error => Err(error),
            })
            .expect("it is done");
        let answer = daemon.post("/vms", &body(&format!("job-{number}"), "service", ""));
        assert_eq!(answer.status, 202, "{statement}: {answer:?}");
    }
    drop(database);
    daemon.kill();
    assert_eq!(home.start(&["--desired", "none.exs"]).jobs().len(), 4);
}

#[test]
fn locked_database_is_not_ready_until_it_is_free() {
    let home = Home::new();
    let daemon = home.start(&["--desired", "none.exs"]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let other = rusqlite::Connection::open(home.path("state/hearth.db")).expect("a database");
    other.execute_batch("BEGIN IMMEDIATE").expect("a lock");
    daemon.until("it is not ready", || daemon.get("/readyz").status == 503);
    let unready = daemon.get("/readyz").body;
    assert!(unready.contains("locked"), "{unready}");
    assert_eq!(daemon.post("/vms", &body("late", "service", "")).status, 503);
    other.execute_batch("ROLLBACK").expect("it is free");
    daemon.until("it is ready again", || daemon.get("/readyz").status == 200);
    assert_eq!(daemon.post("/vms", &body("late", "service", "")).status, 202);
}

mod native {
    use super::on_state;
    use crate::support::native::Native;
    use std::collections::BTreeMap;

    fn body(job: &str, memory: u32) -> String {
        format!(
            r#"{{"job_id":"{job}","tenant":"t","spec":{{"boot":"raw","kernel":"tiny",
            "resources":{{"vcpu":1,"mem_mb":{memory}}},"lifecycle":"service",
            "warm_pool":{{"min":1}}}}}}"#
        )
    }

    fn processes(host: &Native) -> BTreeMap<String, i32> {
        host.processes().into_iter().collect()
    }

    #[test]
    fn restore_changes_no_microvm_that_matches_the_backup() {
        let host = Native::new();
        let mut daemon = host.start();
        for (job, memory) in [("kept", 32), ("changed", 33), ("deleted", 34)] {
            daemon.post("/vms", &body(job, memory));
            daemon.until_job(job, "running");
        }
        daemon.until_warm(3);
        let file = host.home.path("backup.db").display().to_string();
        assert!(on_state(&host.home, &["backup", &file]).1);
        daemon.post("/vms", &body("changed", 43));
        daemon.delete("/vms/deleted");
        daemon.post("/vms", &body("later", 35));
        daemon.until_job("later", "running");
        daemon.until("the change is rolled out", || processes(&host).len() == 6);
        let before = processes(&host);
        let (said, done) = on_state(&host.home, &["restore", &file]);
        assert!(done, "{said}");
        daemon.restarted();
        for job in ["kept", "changed", "deleted"] {
            daemon.until_job(job, "running");
        }
        assert_eq!(daemon.jobs(), ["changed", "deleted", "kept"]);
        let now = processes(&host);
        let kept = daemon.get("/vms/kept").json()["vm_id"].as_str().expect("one").to_owned();
        let kept = kept.trim_start_matches("vm-");
        assert_eq!(now[kept], before[kept]);
        // What it started before is its child still, and is reaped when it ends.
        for job in daemon.jobs() {
            daemon.delete(&format!("/vms/{job}"));
        }
        daemon.until("all jobs are gone", || daemon.jobs().is_empty());
        let children =
            std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", daemon.pid()));
        for child in children.expect("its children").split_whitespace() {
            let stat = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
            assert!(!stat.contains(") Z "), "{stat}");
        }
    }

    #[test]
    fn real_microvms_outlive_their_database_and_are_adopted() {
        let host = Native::new();
        let daemon = host.start();
        daemon.post("/vms", &body("web", 32));
        daemon.post("/vms", &body("other", 33));
        daemon.until_job("web", "running");
        daemon.until_job("other", "running");
        daemon.until_warm(2);
        // One that was claimed from the pool is no less its job's.
        assert_eq!(daemon.post("/vms", &body("claimed", 32)).status, 201);
        daemon.until_job("claimed", "running");
        daemon.until_warm(2);
        let before = processes(&host);
        assert_eq!(before.len(), 5, "{before:?}");
        daemon.kill();
        for part in ["hearth.db", "hearth.db-wal", "hearth.db-shm"] {
            let _ = std::fs::remove_file(host.home.path("state").join(part));
        }

        let daemon = host.start();
        let left = daemon.get("/stats").json()["unidentified"].as_array().expect("a list").len();
        assert_eq!((processes(&host), left), (before.clone(), 5), "nothing is touched");
        let (said, _) = on_state(&host.home, &["doctor"]);
        assert_eq!(said.matches("is not in the database: a job that is declared").count(), 5);
        assert!(said.contains("of job claimed, generation 1, runs as process"), "{said}");
        daemon.post("/vms", &body("web", 32));
        daemon.post("/vms", &body("claimed", 32));
        daemon.until_job("web", "running");
        daemon.until_job("claimed", "running");
        daemon.until_warm(1);
        assert_eq!(processes(&host), before, "they are what they were");
        daemon.post("/vms", &body("other", 34));
        daemon.until_job("other", "running");
        daemon.until("an instance of the new spec has replaced the previous one", || {
            let now = processes(&host);
            // Its old pool has no job, until one of that spec is declared.
            now.len() == 6 && before.keys().filter(|id| !now.contains_key(*id)).count() == 1
        });
        for job in ["web", "claimed", "other"] {
            daemon.delete(&format!("/vms/{job}"));
        }
        daemon.until("only the orphans are left", || processes(&host).len() == 1);
        let pid = processes(&host).into_values().next().expect("one");
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
        daemon.until("all have ended", || processes(&host).is_empty() && daemon.jobs().is_empty());
        daemon.until("none is in the database", || host.home.named().is_empty());
        daemon.kill();
        let (said, done) = on_state(&host.home, &["doctor", "--repair"]);
        assert!(done && said.contains("of a pool has ended and is not in the database"), "{said}");
        let left =
            std::fs::read_dir(host.home.path("state/instances")).expect("a directory").count();
        assert_eq!(left, 0, "{said}");
    }
}
