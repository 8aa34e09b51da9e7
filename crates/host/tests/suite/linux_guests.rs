//! The real host with Linux guests, where KVM can boot them. The images are those of
//! `cargo xtask images`.

mod lab {
    use crate::contract::Subject;
    use crate::support::{Lab, image, job, raw, variable};
    use hearth_host::Host;
    use hearth_model::{
        Action, Boot, End, Exit, Generation, InstanceId, InstanceState, Owner, Phase, PoolTenant,
        Ready, ReadyCheck, Signal, Spec, Stage,
    };
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn lab() -> Lab {
        Lab::new(variable("HEARTH_TEST_IMAGES")).await
    }

    /// A script in a Linux guest.
    fn script(text: &str) -> Spec {
        Spec {
            boot: Boot::Init,
            rootfs: Some(image("rootfs-test.ext4")),
            cmd: ["/bin/sh", "-c", text].map(str::to_owned).to_vec(),
            ..raw("vmlinux")
        }
    }

    fn is_running(state: &InstanceState) -> bool {
        matches!(state, InstanceState::Up { phase: Phase::Running, .. })
    }

    fn is_ready(state: &InstanceState) -> bool {
        matches!(state, InstanceState::Up { phase: Phase::Running, ready: true, .. })
    }

    /// Waits until the log ends with the time, in seconds since 1970, give or take two.
    async fn until_right(lab: &Lab, id: &InstanceId) {
        let end = Instant::now() + Duration::from_secs(30) * lab.host.facts().time_factor;
        loop {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
            let texts = lab.texts(id).await;
            let last = texts.last().and_then(|text| text.parse::<u64>().ok());
            if last.is_some_and(|last| last.abs_diff(now) <= 2) {
                return;
            }
            assert!(Instant::now() < end, "it is {now}, and the log ends with {last:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test]
    async fn the_real_host_keeps_the_contract_with_linux_guests() {
        let lab = lab().await;
        let patience = Duration::from_secs(60) * lab.host.facts().time_factor;
        let service = script("while true; do sleep 1; done");
        let job = Some(script("echo hello"));
        Subject { host: &lab.host, service, job, unread: None, patience }.check().await;
    }

    #[tokio::test]
    async fn exit_code_environment_and_ordered_output_are_observed() {
        let lab = lab().await;
        // Another user opens the streams by name.
        let mut spec = script(
            "echo $GREETING; echo oops >&2; echo two; \
             echo nobody:x:65534:65534::/:/bin/sh >> /etc/passwd; \
             su nobody -c 'id -un > /dev/stdout; cat /dev/stdin; echo er >> /dev/stderr'; \
             printf three; exit 7",
        );
        spec.env.insert("GREETING".to_owned(), "hello world".to_owned());
        let id = lab.create("exits", spec, Stage::App, Owner::Job(job("web", 1))).await;
        assert_eq!(lab.exit(&id).await, Exit { end: End::Code(7), stop_requested: false });
        let mut texts = lab.texts(&id).await;
        texts.sort();
        assert_eq!(texts, ["er", "hello world", "nobody", "oops", "three", "two"]);
        lab.remove(&id).await;
    }

    /// A copy would need as much room on the scratch disk as the busybox in it has, some 2 MB.
    #[tokio::test]
    async fn image_directory_is_renamed_and_disk_stays_with_its_image() {
        let lab = lab().await;
        let spec = script(
            "used() { /bin2/busybox df -k / | /bin2/busybox awk 'END {print $3}'; }
             /bin/busybox ln -s /bin /bin2; before=$(used); /bin/busybox rm /bin2
             /bin/busybox mv /bin /bin2 || exit 1; after=$(used)
             [ ! -e /bin ] && [ $((after - before)) -lt 500 ] || exit 2
             # A renamed directory is one of the image still: what is in it can be changed.
             /bin2/busybox touch /bin2/new && /bin2/busybox mv /bin2 /etc/bin || exit 3
             /etc/bin/busybox ls /etc/bin/new",
        );
        let id = lab.create("renames", spec, Stage::App, Owner::Job(job("web", 1))).await;
        let texts = lab.texts(&id).await;
        assert_eq!(lab.exit(&id).await.end, End::Code(0), "{texts:?}");
        // Its disk, beneath a guest with another root file system.
        let images = std::fs::read_dir(lab.state.path().join("state/images")).expect("the store");
        let names = images.map(|file| file.expect("a file").path());
        let is_blank = |path: &std::path::PathBuf| path.to_string_lossy().contains("/.scratch-64");
        let blank = names.into_iter().find(is_blank).expect("the empty disk");
        std::fs::copy(lab.instance_dir(&id).join("scratch.img"), &blank).expect("copied");
        let spec = Spec { rootfs: Some(image("rootfs-web.ext4")), ..script("echo never") };
        let id = lab.create("foreign", spec, Stage::App, Owner::Job(job("web", 1))).await;
        let End::SetUp(why) = lab.exit(&id).await.end else { panic!("it was used") };
        let expected = "the scratch disk holds changes to root filesystem rootfs-test.ext4 (";
        assert!(why.starts_with(expected), "{why}");
        assert!(lab.texts(&id).await.is_empty());
    }

    #[tokio::test]
    async fn missing_command_is_named() {
        let lab = lab().await;
        let mut spec = script("");
        spec.cmd = vec!["/app/bin/server".to_owned()];
        let id = lab.create("nocmd", spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let end = End::NotStarted("/app/bin/server: not found in rootfs-test.ext4".to_owned());
        assert_eq!(lab.exit(&id).await.end, end);
    }

    #[tokio::test]
    async fn only_a_command_that_its_kernel_killed_is_out_of_memory() {
        let lab = lab().await;
        let child = script("/bin/busybox tail /dev/zero; echo on; sleep 1; exit 3");
        let mut itself = script("");
        itself.cmd = ["/bin/busybox", "tail", "/dev/zero"].map(str::to_owned).to_vec();
        let killed = script("kill -9 $$");
        let run = async |id: &str, spec: Spec| {
            let id = lab.create(id, spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
            let end = lab.exit(&id).await.end;
            let seen = lab.host.observe(None).await.expect("a look").instances;
            let kills = seen[&id].oom_kills.last.iter().map(|kill| kill.name.clone()).collect();
            (end, kills, lab.texts(&id).await.contains(&"on".to_owned()))
        };
        let ends = tokio::join!(run("child", child), run("itself", itself), run("killed", killed));
        assert_eq!(ends.0, (End::Code(3), vec!["busybox".to_owned()], true));
        assert_eq!(ends.1, (End::OutOfMemory, vec![], false));
        assert_eq!(ends.2, (End::Signal(9), vec![], false));
    }

    /// A guest that takes all its memory keeps below the limit of its cgroup. That is lowered under another, since
    /// no guest gets at more than it was given.
    #[tokio::test]
    async fn a_microvm_over_its_limit_of_memory_is_killed_and_says_so() {
        let mut lab = lab().await;
        let mut greedy = script("");
        greedy.cmd = ["/bin/busybox", "tail", "/dev/zero"].map(str::to_owned).to_vec();
        let (memory, vcpus) = (u64::from(greedy.resources.mem_mib), greedy.resources.vcpu);
        let shared = || Owner::Pool(PoolTenant::Shared);
        let (greedy, idle, away) = tokio::join!(
            lab.create("greedy", greedy, Stage::App, shared()),
            lab.create("idle", script("sleep 1000"), Stage::App, shared()),
            lab.create("away", script("sleep 1000"), Stage::App, shared()),
        );
        let limit = |id: &InstanceId, name: &str| lab.limit(id, name);
        let max: u64 = limit(&greedy, "memory.max").parse().expect("bytes");
        assert_eq!(max >> 20, memory + 32 + memory / 128);
        assert_eq!(limit(&greedy, "memory.swap.max"), "0");
        assert_eq!(limit(&greedy, "pids.max"), (vcpus + 16).to_string());
        assert_eq!(limit(&greedy, "cpu.weight"), (vcpus * 100).to_string());
        assert_eq!(lab.exit(&greedy).await.end, End::OutOfMemory);
        let peak: u64 = limit(&greedy, "memory.peak").parse().expect("bytes");
        assert!(peak > memory << 19 && peak < max - (8 << 20), "{peak} of {max}");

        lab.wait(&idle, is_running).await;
        lab.wait(&away, is_running).await;
        let lower = |id: &InstanceId| std::fs::write(lab.cgroup(id).join("memory.max"), "16M");
        lower(&idle).expect("lowered");
        let killed = "killed by the host: it took more memory than its limit, 16 MiB";
        assert_eq!(lab.exit(&idle).await.end, End::OverLimit(killed.to_owned()));
        // Also where no daemon saw it end.
        lab.host.close().await;
        lower(&away).expect("lowered");
        lab.restart().await;
        assert_eq!(lab.exit(&away).await.end, End::OverLimit(killed.to_owned()));
    }

    #[tokio::test]
    async fn a_panic_of_the_guests_kernel_is_told_with_its_last_lines() {
        let lab = lab().await;
        let id = lab.create(
            "panics",
            script("echo c > /proc/sysrq-trigger"),
            Stage::App,
            Owner::Pool(PoolTenant::Shared),
        );
        let id = id.await;
        let exit = lab.exit(&id).await;
        let End::Panic(lines) = &exit.end else { panic!("{exit:?}") };
        assert!(lines.starts_with("sysrq triggered crash\n"), "{lines}");
    }

    #[tokio::test]
    async fn guest_is_ready_and_reachable_once_its_check_passes() {
        let lab = lab().await;
        let mut spec = script("sleep 5; exec /app/bin/server");
        spec.rootfs = Some(image("rootfs-web.ext4"));
        let check = ReadyCheck::Http { port: 4000, path: "/health".to_owned() };
        spec.ready = Some(Ready { check, timeout_s: 60 });
        let id = lab.create("ready", spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let first = lab.wait(&id, is_running).await;
        assert!(!is_ready(&first), "{first:?}");
        lab.wait(&id, is_ready).await;
        let mut stream = lab.host.connect(&id, 4000).await.expect("connected");
        let request = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.expect("written");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("answered");
        assert_eq!(&answer, b"HTTP/1.1 200");
        let refused = lab.host.connect(&id, 4001).await.err().expect("nothing listens there");
        assert!(refused.sentence().contains("port 4001"), "{}", refused.sentence());
        lab.stop(&id, 1).await;
    }

    #[tokio::test]
    async fn a_claimed_guest_shows_its_identity_and_runs_once_told() {
        let mut lab = lab().await;
        let spec = script(
            "cat /run/hearth/identity.json /etc/hosts /etc/hostname /etc/resolv.conf; hostname -i
             for name in localhost web-9; do ping -c 1 -W 9 $name | head -1; done
             ping -6 -c 1 -W 9 localhost | head -1
             date -s @1000000000; while true; do date +%s; sleep 0.2; done",
        );
        let pool = Owner::Pool(PoolTenant::Shared);
        let create = lab.creation("claimed", spec, Stage::Init, pool).await;
        let (id, spec) = (create.instance.clone(), create.spec.clone());
        lab.host.apply(Action::Create(Box::new(create))).await.expect("created");
        let held = |state: &InstanceState| {
            matches!(state, InstanceState::Up { phase: Phase::Held, acknowledged: None, .. })
        };
        lab.wait(&id, held).await;
        let tell = |identity| Action::AssignIdentity {
            instance: id.clone(),
            spec: spec.clone(),
            identity,
            release: true,
        };
        lab.host.apply(tell(job("web-9", 4))).await.expect("told");
        lab.says(&id, "\"job_id\": \"web-9\"").await;
        let acknowledged = |state: &InstanceState| {
            matches!(state, InstanceState::Up { phase: Phase::Running, acknowledged, .. }
                if *acknowledged == Some(Generation(4)))
        };
        lab.wait(&id, acknowledged).await;
        let refused = lab.host.apply(tell(job("other", 5))).await.expect_err("it serves another");
        assert!(!refused.is_transient());

        // Its names follow the claim.
        lab.says(&id, "PING localhost (::1)").await;
        let texts = lab.texts(&id).await;
        let count = |line: &str| texts.iter().filter(|text| *text == line).count();
        assert_eq!([count("127.0.0.1\tweb-9"), count("web-9"), count("127.0.0.1")], [1, 1, 1]);
        assert_eq!(count("127.0.0.1\tclaimed"), 0, "{texts:?}");
        for name in ["localhost", "web-9"] {
            let ping = format!("PING {name} (127.0.0.1)");
            assert!(texts.iter().any(|text| text.starts_with(&ping)), "{texts:?}");
        }

        // A clock that is off is set by the next daemon, and is right after a pause.
        lab.says(&id, "100000000").await;
        lab.restart().await;
        until_right(&lab, &id).await;
        let pid = std::fs::read_to_string(lab.instance_dir(&id).join("pid")).expect("a pid");
        for (signal, pause) in [("-STOP", Duration::from_secs(5)), ("-CONT", Duration::ZERO)] {
            let sent = std::process::Command::new("kill").args([signal, pid.trim()]).status();
            assert!(sent.expect("sent").success());
            tokio::time::sleep(pause).await;
        }
        until_right(&lab, &id).await;
        lab.stop(&id, 0).await;
    }

    #[tokio::test]
    async fn a_restart_of_the_daemon_misses_neither_output_nor_exit() {
        let mut lab = lab().await;
        let spec =
            script("n=0; while [ ! -e /tmp/end ]; do n=$((n+1)); echo line $n; sleep 1; done");
        let runs = lab.create("runs", spec, Stage::App, Owner::Job(job("web", 3))).await;
        let spec = script("echo first; sleep 4; echo last; exit 9");
        let ends = lab.create("ends", spec, Stage::App, Owner::Job(job("job", 1))).await;
        lab.says(&runs, "line 2").await;
        lab.says(&ends, "first").await;
        lab.host.close().await;
        let pid = std::fs::read_to_string(lab.instance_dir(&ends).join("pid")).expect("a pid");
        let zombie = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            stat.map_or(true, |stat| stat.contains(") Z "))
        };
        let end = Instant::now() + Duration::from_secs(300);
        while !zombie() {
            assert!(Instant::now() < end, "it does not end");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        lab.restart().await;
        assert_eq!(lab.exit(&ends).await, Exit { end: End::Code(9), stop_requested: false });
        assert_eq!(lab.texts(&ends).await, ["first", "last"]);
        let acknowledged = |state: &InstanceState| {
            matches!(state, InstanceState::Up { phase: Phase::Running, acknowledged, .. }
                if *acknowledged == Some(Generation(3)))
        };
        lab.wait(&runs, acknowledged).await;
        let seen = lab.texts(&runs).await.len();
        lab.says(&runs, &format!("line {}", seen + 3)).await;
        let texts = lab.texts(&runs).await;
        let expected: Vec<_> = (1..=texts.len()).map(|n| format!("line {n}")).collect();
        assert_eq!(texts, expected);
        lab.stop(&runs, 1).await;
    }

    #[tokio::test]
    async fn a_stop_gives_the_command_its_time_and_no_more() {
        let lab = lab().await;
        // Its worker is its own to end: it drains, and no signal comes to it from outside.
        let worker = "trap 'echo terminated' USR1 TERM; trap 'echo drained; exit' WINCH; \
                      while true; do sleep 0.1; done 2>/dev/null";
        let spec = script(&format!(
            "trap 'kill -WINCH $!' USR1; sh -c \"{worker}\" & wait; wait; echo bye; exit 3"
        ));
        let signal = Signal::parse("USR1").expect("a signal");
        let polite = lab.create("polite", spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let spec = script("trap '' TERM; echo deaf; while true; do sleep 0.1; done");
        let deaf = lab.create("deaf", spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        lab.wait(&polite, is_running).await;
        lab.says(&deaf, "deaf").await;
        // The trap is set a moment after the shell was started.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let instance = polite.clone();
        let stop = Action::Stop { instance, signal, timeout_s: 20 };
        let (stopped, ()) = tokio::join!(lab.host.apply(stop), lab.stop(&deaf, 1));
        stopped.expect("stopped");
        assert_eq!(lab.exit(&polite).await, Exit { end: End::Code(3), stop_requested: true });
        assert_eq!(lab.texts(&polite).await, ["drained", "bye"]);
        assert_eq!(lab.exit(&deaf).await, Exit { end: End::Signal(9), stop_requested: true });
    }

    #[tokio::test]
    async fn a_raw_linux_guest_boots_its_own_root() {
        let lab = lab().await;
        // A kernel of a distribution has its disk drivers as modules, so it finds no root.
        let spec = Spec { rootfs: Some(image("rootfs-test.ext4")), ..raw("vmlinux") };
        let id = lab.create("rawlinux", spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let exit = lab.exit(&id).await;
        let End::Panic(lines) = &exit.end else { panic!("{exit:?}") };
        assert!(lines.contains("Unable to mount root fs"), "{lines}");
        lab.says(&id, "Kernel panic").await;
    }
}
