//! An operating system that refuses: no room, no descriptors, no memory, pids that are used again. The
//! daemon tolerates it, reports it, and continues once it is over.

mod system {
    use crate::support::client::ask;
    use crate::support::strace::Attached;
    use crate::support::{Daemon, Home, at_rest, behind, body};
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::path::{Path, PathBuf};
    use std::process::{Child, Command, Stdio};

    /// A small disk for a home's state, which the programs that are run `with` it see; it outlives them.
    struct SmallDisk {
        keeper: Child,
        /// The state on it.
        state: PathBuf,
    }

    impl SmallDisk {
        fn of(home: &Home) -> SmallDisk {
            let state = home.path("state");
            std::fs::create_dir(&state).expect("a directory");
            let script = "mount -t tmpfs -o size=512k,mode=700 tmpfs \"$0\" && echo && read end";
            let mut keeper = Command::new("unshare")
                .args(["--mount", "sh", "-c", script])
                .arg(&state)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("unshare runs");
            let mut mounted = [0];
            let stdout = keeper.stdout.as_mut().expect("a pipe");
            stdout.read_exact(&mut mounted).expect("it is mounted");
            let root = PathBuf::from(format!("/proc/{}/root", keeper.id()));
            let state = root.join(state.strip_prefix("/").expect("an absolute path"));
            SmallDisk { keeper, state }
        }

        fn with(&self, command: &Command) -> Command {
            let namespace = format!("--mount=/proc/{}/ns/mnt", self.keeper.id());
            let directory = command.get_current_dir().expect("a home").display();
            behind(&["nsenter", &namespace, &format!("--wd={directory}")], command)
        }

        fn fill(&self) {
            fill(&self.state.join("filler"));
        }

        fn free_space(&self) {
            std::fs::remove_file(self.state.join("filler")).expect("the filler can be removed");
        }
    }

    impl Drop for SmallDisk {
        fn drop(&mut self) {
            let _ = self.keeper.kill();
            let _ = self.keeper.wait();
        }
    }

    /// Writes until there is no room.
    fn fill(path: &Path) {
        let mut file = std::fs::File::create(path).expect("there is room for a name");
        for size in [4096, 512, 64, 1] {
            while file.write_all(&vec![b'x'; size]).is_ok() {}
        }
    }

    #[test]
    fn full_disk_refuses_only_changes_until_space_is_free() {
        let home = Home::new();
        let disk = SmallDisk::of(&home);
        let daemon = Daemon::spawn(disk.with(&home.serve(&["--desired", "none.exs"])));
        assert_eq!(daemon.post("/vms", &body("web", "service", "")).status, 202);
        daemon.until_job("web", "running");
        daemon.until("all is written", || at_rest(&daemon));

        disk.fill();
        let events = daemon.get("/events").json()["newest"].clone();
        let refused: Vec<_> = (0..20)
            .map(|number| {
                let answer = daemon.post("/vms", &body(&format!("late-{number}"), "service", ""));
                assert!([202, 507].contains(&answer.status), "{answer:?}");
                answer
            })
            .filter(|answer| answer.status == 507)
            .collect();
        // The last page of a file may have had room.
        assert!(refused.len() > 10, "{refused:?}");
        assert_eq!(refused[0].json()["type"], "urn:hearth:problem:disk-full", "{:?}", refused[0]);
        assert_eq!(daemon.post("/vms/web/stop", "").status, 507);
        assert_eq!(daemon.delete("/vms/web").status, 507);
        // What the engine has seen and could not record it has to see again.
        daemon.until_job("web", "running");
        let unready = daemon.get("/readyz");
        assert_eq!(unready.status, 503, "{unready:?}");
        assert!(unready.body.contains("full"), "{unready:?}");
        assert_eq!(daemon.jobs().len(), 21 - refused.len(), "{events}");

        disk.free_space();
        daemon.until("it is ready again", || daemon.get("/readyz").status == 200);
        assert_eq!(daemon.post("/vms", &body("room", "service", "")).status / 100, 2);
        daemon.until_job("room", "running");
        assert_eq!(daemon.delete("/vms/web").status / 100, 2);
        daemon.until("it is gone", || daemon.get("/vms/web").status == 404);
    }

    #[test]
    fn a_daemon_starts_on_a_full_disk_however_the_last_one_ended() {
        for killed in [false, true] {
            let home = Home::new();
            let disk = SmallDisk::of(&home);
            let start = || Daemon::spawn(disk.with(&home.serve(&["--desired", "none.exs"])));
            let daemon = start();
            daemon.post("/vms", &body("web", "service", ""));
            daemon.until_job("web", "running");
            daemon.until("all is written", || at_rest(&daemon));
            match killed {
                true => drop(daemon.kill()),
                false => drop(daemon.terminate()),
            }
            disk.fill();
            let mut doctor = home.hearth(["doctor", "--state-dir"]);
            let found = disk.with(doctor.arg(home.path("state"))).output().expect("doctor runs");
            let found = String::from_utf8_lossy(&found.stdout).into_owned();
            assert!(found.contains("whole, with 1 jobs"), "{found}");

            let full = disk.with(&home.serve(&["--desired", "none.exs"]));
            let daemon = Daemon::try_spawn(full).expect("it listens");
            assert_eq!(daemon.jobs(), ["web"]);
            let refused = (0..20).any(|number| {
                daemon.post("/vms", &body(&format!("late-{number}"), "service", "")).status == 507
            });
            assert!(refused);
            // The address was another before.
            let listen = std::fs::read_to_string(disk.state.join("listen")).unwrap_or_default();
            assert!(listen.is_empty() || listen.trim() == daemon.url, "{listen}");

            disk.free_space();
            daemon.until("there is room", || {
                daemon.post("/vms", &body("room", "service", "")).status / 100 == 2
            });
            daemon.until_job("room", "running");
            daemon.until_job("web", "running");
            drop(daemon.terminate());
            let daemon = start();
            daemon.until_job("room", "running");
        }
    }

    #[test]
    fn connections_leave_descriptors_for_what_the_daemon_does() {
        let home = Home::new();
        let wrapper = ["prlimit", "--nofile=64:64"];
        home.write("desired.exs", "[]");
        let daemon = Daemon::spawn(behind(&wrapper, &home.serve(&["--desired", "desired.exs"])));
        daemon.post("/vms", &body("web", "service", ""));
        daemon.until_job("web", "running");
        let authority = daemon.url.strip_prefix("http://").expect("an address");
        let connections = |count: usize| -> Vec<TcpStream> {
            (0..count).map(|_| TcpStream::connect(authority).expect("it is queued")).collect()
        };
        let idle = connections(40);
        let descriptors =
            || std::fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count();
        daemon.until("as many are served as may be", || descriptors() >= 32);
        // Files are read still, by paths that need descriptors.
        let declared = r#"[{"declared", %{rootfs: "r.ext4", kernel: "k", cmd: ["/a"],
            resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "service"}}]"#;
        home.write("desired.exs", declared);
        let mut most = 0;
        daemon.until("what the file declares is in the database", || {
            most = most.max(descriptors());
            home.declared().contains("declared")
        });
        assert!(most < 60, "{most} of 64");
        drop(idle);
        daemon.until("they are let go", || descriptors() < 24);
        // Those who say nothing have ten seconds; who asks meanwhile is told that there is no room.
        let before = descriptors();
        let idle = connections(32);
        daemon.until("all places are taken", || descriptors() >= before + 32);
        let refused = daemon.get("/vms/web");
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("1")),
            "{refused:?}"
        );
        assert_eq!(refused.json()["title"], "Too many connections");
        drop(idle);
        daemon.until("there is room again", || daemon.get("/vms/web").status == 200);
        assert_eq!(daemon.post("/vms", &body("late", "service", "")).status, 202);
        daemon.until_job("late", "running");
    }

    #[test]
    fn what_the_system_refuses_for_a_while_is_borne() {
        for (calls, error) in [
            ("accept4", "EMFILE"),
            ("accept4", "ENOMEM"),
            ("accept4", "ECONNABORTED"),
            ("sendto,writev", "ENOBUFS"),
            ("pwrite64", "EIO"),
            ("pwrite64", "ENOSPC"),
        ] {
            let home = Home::new();
            home.write("desired.exs", "[]");
            let mut daemon = home.start(&["--desired", "desired.exs"]);
            daemon.post("/vms", &body("web", "service", ""));
            daemon.until_job("web", "running");
            let inject = format!("inject={calls}:error={error}:when=1..6");
            let trace = format!("trace={calls}");
            let attached = Attached::to(&daemon, &["-e", &trace, "-e", &inject]);
            let mut known = Vec::new();
            for number in 0..12 {
                let job = format!("job-{number}");
                let asked = ask(&daemon.url, "POST", "/vms", &body(&job, "service", ""));
                match asked {
                    Some((200..=202, _)) => known.push(job),
                    Some((503 | 507, _)) | None => {}
                    Some(other) => panic!("{calls} {error}: {other:?}"),
                }
            }
            assert!(attached.interfered() > 0, "{calls} {error}: nothing was refused");
            assert_eq!(daemon.ended(), None, "{calls} {error}");
            for job in &known {
                daemon.until_job(job, "running");
            }
            daemon.post("/vms", &body("late", "service", ""));
            daemon.until_job("late", "running");
        }
    }
}

mod native {
    use crate::support::client::ask;
    use crate::support::native::Native;
    use crate::support::strace::Attached;
    use crate::support::{Daemon, behind, finished, shown};
    use std::fs;
    use std::os::unix::process::ExitStatusExt;
    use std::path::Path;
    use std::process::{Child, Command, Stdio};
    use std::time::{Duration, Instant};

    fn raw(job: &str) -> String {
        format!(
            r#"{{"job_id":"{job}","spec":{{"boot":"raw","kernel":"tiny",
            "resources":{{"vcpu":1,"mem_mb":32}},"lifecycle":"service"}}}}"#
        )
    }

    fn start(daemon: &Daemon, job: &str) {
        assert_eq!(daemon.post("/vms", &raw(job)).status, 202);
        daemon.until_job(job, "running");
    }

    /// Whether its pid is in use.
    fn is_there(pid: i32) -> bool {
        Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn signal_during_work_ends_the_daemon_in_time_and_no_microvm() {
        let host = Native::new();
        let daemon = host.start();
        start(&daemon, "web");
        let before = host.processes();
        for number in 0..30 {
            assert_eq!(daemon.post("/vms", &raw(&format!("late-{number}"))).status, 202);
        }
        let begin = Instant::now();
        let (status, _) = daemon.terminate();
        assert!(status.success() && begin.elapsed() < Duration::from_secs(10), "{status}");
        let left = host.processes();
        assert!(before.iter().all(|microvm| left.contains(microvm)), "{before:?} {left:?}");
        let daemon = host.start();
        daemon.until("all run", || {
            daemon.get("/stats").json()["jobs"]
                .as_array()
                .is_some_and(|jobs| jobs.iter().all(|job| job["status"] == "running"))
        });
        host.compare(&daemon);
        // Those that ran are the same.
        let now = host.processes();
        assert!(before.iter().all(|microvm| now.contains(microvm)), "{before:?} {now:?}");
        daemon.kill();
    }

    #[test]
    fn stopped_firecracker_is_noticed_then_replaced() {
        use rustix::process::{Pid, Signal, kill_process};
        let host = Native::new();
        let daemon = host.start();
        start(&daemon, "web");
        let before = host.processes();
        let pid = Pid::from_raw(before[0].1).expect("a pid");
        let reason =
            |job: &serde_json::Value| job["reason"].as_str().unwrap_or_default().to_owned();
        kill_process(pid, Signal::STOP).expect("it lives");
        let silent = daemon.until_job("web", "starting");
        assert!(reason(&silent).contains("VMM does not answer"), "{silent}");
        kill_process(pid, Signal::CONT).expect("it lives");
        daemon.until_job("web", "running");
        assert_eq!(host.processes(), before, "a short stop ends nothing");

        kill_process(pid, Signal::STOP).expect("it lives");
        daemon.until_job("web", "starting");
        // A daemon that was stopped itself takes no VMM for silent that has had no time to answer.
        let own = Pid::from_raw(i32::try_from(daemon.pid()).expect("a pid")).expect("a pid");
        kill_process(own, Signal::STOP).expect("it lives");
        std::thread::sleep(Duration::from_secs(1));
        kill_process(pid, Signal::CONT).expect("it lives");
        kill_process(own, Signal::CONT).expect("it lives");
        daemon.until_job("web", "running");
        assert_eq!(host.processes(), before);

        kill_process(pid, Signal::STOP).expect("it lives");
        let begin = Instant::now();
        while host.processes().iter().any(|process| *process == before[0]) {
            assert!(begin.elapsed() < Duration::from_secs(90), "{}", daemon.get("/vms/web").body);
            std::thread::sleep(Duration::from_millis(100));
        }
        daemon.until_job("web", "running");
        let events = daemon.get("/vms/web/events").body;
        assert!(events.contains("VMM does not answer: it missed"), "{events}");
        daemon.kill();
    }

    #[test]
    fn hanging_disk_aborts_the_daemon_after_30_s_and_no_microvm() {
        let host = Native::new();
        let mut daemon = host.start();
        start(&daemon, "web");
        let before = host.processes();
        let hang = "inject=fsync,fdatasync:delay_enter=600s";
        let options = ["-e", "trace=fsync,fdatasync", "-e", hang];
        let attached = Attached::to_thread(&daemon, "hearth-core", &options);
        let begin = Instant::now();
        let answer = ask(&daemon.url, "POST", "/vms", &raw("late"));
        assert!(matches!(answer, None | Some((503, _))), "acknowledged: {answer:?}");
        // The thread that hangs continues once it is released, unless the daemon has aborted by then.
        std::thread::sleep(Duration::from_secs(45).saturating_sub(begin.elapsed()));
        attached.kill();
        std::thread::sleep(Duration::from_secs(1));
        let ended = daemon.ended().expect("it has aborted");
        assert_eq!(ended.signal(), Some(6), "{ended}");
        assert_eq!(host.processes(), before);
        let daemon = host.start();
        daemon.until_job("web", "running");
        // The other's change was written and not synced: both are as well.
        assert!(host.processes().contains(&before[0]));
        daemon.kill();
    }

    #[test]
    fn refused_system_calls_during_creation_leave_nothing_behind() {
        let host = Native::new();
        let mut daemon = host.start();
        start(&daemon, "web");
        let web = host.processes();
        for (round, (calls, error)) in [
            ("openat,openat2,open", "EMFILE"),
            ("openat,openat2,open", "ENFILE"),
            ("openat,openat2,open", "ENOMEM"),
            ("clone3,clone", "EAGAIN"),
            ("pidfd_open", "EMFILE"),
            ("linkat,link", "ENOSPC"),
            ("rename,renameat,renameat2", "EIO"),
        ]
        .into_iter()
        .enumerate()
        {
            // Once in three of each thread's calls, and none of Firecracker's.
            let inject = format!("inject={calls}:error={error}:when=1..30+3");
            let trace = format!("trace={calls}");
            let attached = Attached::to(&daemon, &["-b", "execve", "-e", &trace, "-e", &inject]);
            let jobs: Vec<String> = (0..4).map(|number| format!("job-{round}-{number}")).collect();
            let mut known = Vec::new();
            for job in jobs {
                match ask(&daemon.url, "POST", "/vms", &raw(&job)) {
                    Some((200..=202, _)) => known.push(job),
                    Some((503 | 507, _)) | None => {}
                    Some(other) => panic!("{calls} {error}: {other:?}"),
                }
            }
            std::thread::sleep(Duration::from_secs(1));
            assert!(attached.interfered() > 0, "{calls} {error}: nothing was refused");
            assert_eq!(daemon.ended(), None, "{calls} {error}");
            known.iter().for_each(|job| drop(daemon.until_job(job, "running")));
            host.compare(&daemon);
            assert!(
                web.iter().all(|process| host.processes().contains(process)),
                "{calls} {error}"
            );
        }
        daemon.kill();
    }

    #[test]
    fn unreadable_database_stops_the_start_and_no_microvm() {
        let host = Native::new();
        let daemon = host.start();
        start(&daemon, "web");
        daemon.terminate();
        let microvms = host.processes();
        let path = host.home.path("state/hearth.db");
        let whole = fs::read(&path).expect("the database");
        let newer = {
            let copy = host.home.path("newer.db");
            fs::write(&copy, &whole).expect("a copy");
            let database = rusqlite::Connection::open(&copy).expect("a database");
            database.pragma_update(None, "user_version", 1000).expect("a version");
            drop(database);
            fs::read(copy).expect("a copy")
        };
        let half = {
            let copy = host.home.path("half.db");
            fs::write(&copy, &whole).expect("a copy");
            let database = rusqlite::Connection::open(&copy).expect("a database");
            database.execute_batch("DROP TABLE log_drops").expect("a change");
            drop(database);
            fs::read(copy).expect("a copy")
        };
        let mut flipped = whole.clone();
        flipped[..16].iter_mut().for_each(|byte| *byte ^= 0xff);
        let mut scrambled = whole.clone();
        scrambled[4096..].iter_mut().for_each(|byte| *byte = byte.wrapping_mul(31) ^ 0x55);
        for (what, bytes) in [
            ("of a newer version", newer),
            ("half migrated", half),
            ("without its header", flipped),
            ("with other pages", scrambled),
            ("cut off", whole[..whole.len() / 2].to_vec()),
        ] {
            fs::write(&path, bytes).expect("the database can be written");
            let refused = finished(host.serve());
            assert_eq!(refused.status.code(), Some(1), "{what}: {}", shown(&refused));
            let text = shown(&refused);
            assert!(text.contains("cannot start from the state in"), "{what}: {text}");
            assert!(text.contains("restore"), "{what}: {text}");
            assert_eq!(host.processes(), microvms, "{what}");
        }
        fs::write(&path, whole).expect("the database can be written");
        let daemon = host.start();
        daemon.until_job("web", "running");
        assert_eq!(host.processes(), microvms);
        daemon.kill();
    }

    /// A pid namespace, in which the next pid can be chosen.
    struct Pids {
        init: Child,
    }

    impl Pids {
        fn new() -> Pids {
            // Its first process waits for no child, and so its children are reaped by the kernel.
            let script = ["--pid", "--fork", "--mount-proc", "--kill-child=KILL", "env"];
            let init = Command::new("unshare")
                .args(script)
                .args(["--ignore-signal=CHLD", "cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .spawn()
                .expect("unshare starts");
            let pids = Pids { init };
            let begin = Instant::now();
            while !fs::read_to_string(format!("/proc/{}/comm", pids.first().unwrap_or(0)))
                .is_ok_and(|name| name == "cat\n")
            {
                assert!(begin.elapsed() < Duration::from_secs(10), "there is no namespace");
                std::thread::sleep(Duration::from_millis(5));
            }
            pids
        }

        fn first(&self) -> Option<i32> {
            children(self.init.id().cast_signed()).first().copied()
        }

        /// The same command in the namespace.
        fn within(&self, command: &Command) -> Command {
            let first = self.first().expect("the namespace lives").to_string();
            behind(&["nsenter", "--target", &first, "--pid", "--mount", "--"], command)
        }
    }

    impl Drop for Pids {
        fn drop(&mut self) {
            // With its first process ends all that is in it.
            let _ = self.init.kill();
            let _ = self.init.wait();
        }
    }

    fn children(pid: i32) -> Vec<i32> {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        text.unwrap_or_default().split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }

    /// The pid of a process in the namespace below this one, in which its daemon is. A jail has one more.
    fn inner(pid: i32) -> i32 {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find(|line| line.starts_with("NSpid:")).expect("its pids");
        line.split_whitespace().nth(2).and_then(|pid| pid.parse().ok()).expect("a pid")
    }

    fn kill(pid: i32) {
        let process = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(process, rustix::process::Signal::KILL).expect("a signal");
        let begin = Instant::now();
        while is_there(pid) {
            assert!(begin.elapsed() < Duration::from_secs(10), "{pid} does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn process_that_reuses_a_firecracker_pid_is_never_killed() {
        let host = Native::new();
        let pids = Pids::new();
        let daemon = Daemon::spawn(pids.within(&host.serve()));
        start(&daemon, "web");
        let (instance, firecracker) = host.processes()[0].clone();
        let reused = inner(firecracker);
        let served_by = children(daemon.pid().cast_signed())[0];
        kill(served_by);
        daemon.wait();
        kill(firecracker);

        // In its very directory, so that only its start and its program tell them apart. The kernel takes its
        // time to let go of a pid.
        let script = r#"cd "$2" && for turn in $(seq 100); do
            echo $(($1 - 1)) > /proc/sys/kernel/ns_last_pid; sleep 600 & child=$!
            if [ $child = $1 ]; then wait; exit; fi
            kill $child; wait; sleep 0.05
            done"#;
        let mut victim = Command::new("sh");
        victim.args(["-c", script, "sh", &reused.to_string()]);
        victim.arg(host.home.path("state/instances").join(&instance));
        let mut victim = pids.within(&victim).spawn().expect("it starts");
        let begin = Instant::now();
        let sleeper = loop {
            let there = host.processes().into_iter().map(|(_, pid)| pid);
            let mut same = there.filter(|pid| inner(*pid) == reused);
            if let Some(pid) = same.next() {
                break pid;
            }
            assert!(
                begin.elapsed() < Duration::from_secs(10),
                "{reused} was not reused: {:?}",
                host.processes().iter().map(|(_, pid)| inner(*pid)).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(5));
        };

        let daemon = Daemon::spawn(pids.within(&host.serve()));
        daemon.until("another microVM runs", || {
            daemon.get("/vms/web").json()["status"] == "running"
                && host.processes().iter().any(|(id, _)| *id != instance)
        });
        assert_eq!(daemon.delete("/vms/web").status / 100, 2);
        daemon.until("it is deleted", || daemon.get("/vms/web").status == 404);
        assert!(is_there(sleeper), "it was killed");
        kill(children(daemon.pid().cast_signed())[0]);
        daemon.wait();
        kill(sleeper);
        victim.wait().expect("it can be reaped");
    }
}
