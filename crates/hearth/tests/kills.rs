//! kill -9 of the daemon, again and again, under load, with real Firecracker and bare guests. Clients
//! write down each acknowledgement; what was acknowledged must be there after each kill, and what is on
//! the host must be what the database names.
//!
//! `HEARTH_KILLS` says how often, `HEARTH_SEED` begins another run.

mod support;

mod native {
    use crate::support::{DEADLINE, Daemon, Home};
    use fastrand::Rng;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};
    use std::fs;
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    const CLIENTS: usize = 3;
    const JOBS_OF_CLIENT: usize = 4;
    /// After so many kills everything is compared.
    const COMPARE_EVERY: u32 = 20;

    /// What a client knows of a job of its own.
    #[derive(Clone, Debug, Default)]
    struct Known {
        /// The last generation that was acknowledged.
        generation: u64,
        /// The memory of its spec, in MiB: by it specs differ.
        memory: u64,
        /// Whether its deletion was acknowledged last.
        deleted: bool,
        /// Whether it was asked for something since, and got no answer.
        doubtful: bool,
    }

    type Journal = BTreeMap<String, Known>;

    struct Host {
        home: Home,
    }

    fn variable(name: &str) -> PathBuf {
        PathBuf::from(std::env::var_os(name).unwrap_or_else(|| {
            panic!("{name} is not set: `cargo xtask ci native` sets it and runs this test")
        }))
    }

    fn number(name: &str, default: u64) -> u64 {
        let text = std::env::var(name).ok();
        text.map_or(default, |text| text.parse().expect("a number"))
    }

    impl Host {
        fn start(&self) -> Daemon {
            let mut command =
                self.home.hearth(["serve", "--listen", "127.0.0.1:0", "--host", "linux"]);
            command.arg("--state-dir").arg(self.home.path("state"));
            command.arg("--images").arg(variable("HEARTH_TEST_IMAGES"));
            command.arg("--firecracker").arg(variable("HEARTH_TEST_FIRECRACKER"));
            command.args(["--desired", "none.exs", "--vcpus-per-cpu", "64"]);
            Daemon::spawn(command)
        }

        fn instances(&self) -> PathBuf {
            self.home.path("state/instances")
        }

        /// The instances that have a directory.
        fn directories(&self) -> BTreeSet<String> {
            names(&self.instances())
        }

        /// The instances that the database names.
        fn named(&self) -> BTreeSet<String> {
            let path = self.home.path("state/hearth.db");
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY;
            let database =
                rusqlite::Connection::open_with_flags(path, flags).expect("the database");
            let mut query = database.prepare("SELECT id FROM instances").expect("a query");
            let ids = query.query_map([], |row| row.get(0)).expect("rows");
            ids.collect::<Result<_, _>>().expect("ids")
        }

        /// The pids of all processes that work in an instance's directory.
        fn processes(&self) -> Vec<(String, i32)> {
            let instances = self.instances().canonicalize().expect("a directory");
            let mut found = Vec::new();
            for entry in fs::read_dir("/proc").expect("/proc").flatten() {
                let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
                let Ok(cwd) = fs::read_link(entry.path().join("cwd")) else { continue };
                if cwd.parent() == Some(&instances) {
                    let name = cwd.file_name().expect("a name").to_string_lossy();
                    found.push((name.trim_end_matches(" (deleted)").to_owned(), pid));
                }
            }
            found.sort();
            found
        }

        /// Host and database name the same instances, each with one process.
        fn agrees(&self) -> Result<(), String> {
            let (named, directories) = (self.named(), self.directories());
            let processes: Vec<String> = self.processes().into_iter().map(|(id, _)| id).collect();
            let alive: BTreeSet<String> = processes.iter().cloned().collect();
            if named == directories && named == alive && alive.len() == processes.len() {
                return Ok(());
            }
            Err(format!("database {named:?}, directories {directories:?}, processes {processes:?}"))
        }

        /// Waits for rest, and compares.
        fn compare(&self, daemon: &Daemon) {
            let begin = Instant::now();
            loop {
                let stats = daemon.get("/stats").json();
                let status = |vm: &Value| vm["status"].as_str().unwrap_or_default().to_owned();
                let jobs: Vec<String> =
                    stats["jobs"].as_array().expect("jobs").iter().map(status).collect();
                let warm: Vec<String> =
                    stats["warm_pool"].as_array().expect("a pool").iter().map(status).collect();
                let rest = jobs.iter().all(|status| ["running", "stopped"].contains(&&**status))
                    && warm.iter().all(|status| status == "warm");
                let agrees = self.agrees();
                if rest && agrees.is_ok() {
                    return;
                }
                assert!(begin.elapsed() < DEADLINE, "no rest: {agrees:?} {stats:#}");
                std::thread::sleep(Duration::from_millis(50));
            }
        }
    }

    impl Drop for Host {
        /// A test that fails leaves no microVM behind.
        fn drop(&mut self) {
            for (_, pid) in self.processes() {
                let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }

    fn names(dir: &std::path::Path) -> BTreeSet<String> {
        let entries = fs::read_dir(dir).expect("a directory").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    /// One request; `None` where no whole answer came.
    fn ask(url: &str, method: &str, path: &str, body: &str) -> Option<(u16, Value)> {
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
    fn load(url: &str, journal: &mut Journal, rng: &mut Rng, stop: &AtomicBool) {
        let jobs: Vec<String> = journal.keys().cloned().collect();
        while !stop.load(Ordering::Relaxed) {
            let job = &jobs[rng.usize(..jobs.len())];
            let known = journal.get_mut(job).expect("a job of its own");
            let memory = 32 + rng.u64(..2);
            let (method, path, body) = match rng.u8(..10) {
                0..6 => {
                    let warm = rng.u8(..3);
                    let pool = match warm {
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
            let Some((status, answer)) = ask(url, method, &path, &body) else {
                known.doubtful = true;
                return;
            };
            match status {
                200..=202 if method == "POST" => {
                    let generation = answer["generation"].as_u64().expect("a generation");
                    assert!(generation >= known.generation, "{known:?} became {answer}");
                    let memory = answer["spec"]["resources"]["mem_mb"].as_u64().expect("memory");
                    *known = Known { generation, memory, deleted: false, doubtful: false };
                }
                202 | 204 => {
                    known.deleted = true;
                    known.doubtful = false;
                }
                404 => {
                    assert!(known.generation == 0 || known.deleted || known.doubtful, "{known:?}")
                }
                503 => {}
                other => panic!("{method} {path} answered {other}: {answer}"),
            }
        }
    }

    /// What was acknowledged is there.
    fn check(url: &str, journal: &Journal) {
        for (job, known) in journal {
            let (status, answer) = ask(url, "GET", &format!("/vms/{job}"), "").expect("an answer");
            let generation = answer["generation"].as_u64().unwrap_or_default();
            let same = match status {
                404 => known.generation == 0 || known.deleted || known.doubtful,
                200 if known.doubtful => generation >= known.generation,
                200 if known.deleted => answer["status"] == "stopping",
                200 => {
                    let memory = answer["spec"]["resources"]["mem_mb"].as_u64();
                    generation == known.generation && memory == Some(known.memory)
                }
                _ => false,
            };
            assert!(same, "{job}: {known:?} was acknowledged, and there is {status} {answer}");
        }
    }

    #[test]
    fn a_daemon_killed_at_any_moment_loses_nothing_acknowledged_and_leaks_nothing() {
        let kills = u32::try_from(number("HEARTH_KILLS", 100)).expect("a number of kills");
        let seed = number("HEARTH_SEED", 1);
        let mut rng = Rng::with_seed(seed);
        let host = Host { home: Home::new() };
        let mut journals: Vec<Journal> = (0..CLIENTS)
            .map(|client| {
                let name = |job| format!("c{client}-{job}");
                (0..JOBS_OF_CLIENT).map(|job| (name(job), Known::default())).collect()
            })
            .collect();
        for kill in 1..=kills {
            let daemon = host.start();
            journals.iter().for_each(|journal| check(&daemon.url, journal));
            let url = daemon.url.clone();
            let stop = AtomicBool::new(false);
            let lives = Duration::from_millis(rng.u64(1..300));
            let compares = kill % COMPARE_EVERY == 0 || kill == kills;
            std::thread::scope(|scope| {
                for journal in &mut journals {
                    let (url, stop, mut rng) = (&url, &stop, rng.fork());
                    scope.spawn(move || load(url, journal, &mut rng, stop));
                }
                std::thread::sleep(lives);
                if compares {
                    stop.store(true, Ordering::Relaxed);
                } else {
                    daemon.kill();
                    return;
                }
                // The clients end by themselves.
                std::thread::sleep(Duration::from_millis(200));
                host.compare(&daemon);
                daemon.kill();
            });
        }
        let daemon = host.start();
        for job in journals.iter().flat_map(Journal::keys) {
            ask(&daemon.url, "DELETE", &format!("/vms/{job}"), "").expect("an answer");
        }
        daemon.until("nothing is left", || {
            host.directories().is_empty()
                && host.processes().is_empty()
                && host.named().is_empty()
                && names(&host.home.path("state/logs")).is_empty()
        });
        let stats = daemon.get("/stats").json();
        assert_eq!(stats["unidentified"], serde_json::json!([]));
    }
}
