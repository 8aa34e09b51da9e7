//! The real host with bare-metal guests. Needs `/dev/kvm`; see `crate::support::variable`.

mod native {
    use crate::contract::Subject;
    use crate::support::{Lab, image, job, raw};
    use hearth_fake_firecracker::kernels;
    use hearth_host::Host;
    use hearth_model::machine::{Origin, RateLimit};
    use hearth_model::{Action, End, InstanceState, Owner, Phase, PoolTenant, Signal, Spec, Stage};
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    /// A directory with guests: `speaker` says `OK` once and halts, `flooder` never stops saying
    /// `x`, `rebooter` resets the machine.
    fn images() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a directory");
        let kernels = [
            ("speaker", kernels::speaker("OK\n")),
            ("flooder", kernels::flooder("x")),
            ("rebooter", kernels::rebooter()),
        ];
        for (name, kernel) in kernels {
            std::fs::write(dir.path().join(name), kernel).expect("written");
        }
        let path = dir.path().to_owned();
        (dir, path)
    }

    fn is_up(state: &InstanceState) -> bool {
        matches!(state, InstanceState::Up { phase: Phase::Running, ready: true, .. })
    }

    fn pid(lab: &Lab, id: &hearth_model::InstanceId) -> i32 {
        let pid = std::fs::read_to_string(lab.instance_dir(id).join("pid")).expect("a pid file");
        pid.trim().parse().expect("a pid")
    }

    fn is_there(pid: i32) -> bool {
        std::path::Path::new("/proc").join(pid.to_string()).exists()
    }

    fn kill(pid: i32) {
        let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    }

    #[tokio::test]
    async fn the_real_host_keeps_the_contract_with_bare_guests() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        let patience = std::time::Duration::from_secs(30);
        let subject =
            Subject { host: &lab.host, service: raw("speaker"), job: None, unread: None, patience };
        subject.check().await;
    }

    /// A line of `/proc/<pid>/status`.
    fn status(pid: i32, field: &str) -> String {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {field} in {status}")).to_owned()
    }

    /// Whether a process has another user than this test, which is root.
    fn is_confined(pid: i32) -> bool {
        !status(pid, "Uid").starts_with("0\t")
    }

    #[tokio::test]
    async fn confined_firecracker_owns_its_disks_and_no_directory() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        assert!(lab.jailed, "only root can confine");
        let id =
            lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        lab.wait(&id, is_up).await;
        let pid = pid(&lab, &id);
        let users: Vec<u32> =
            status(pid, "Uid").split('\t').map(|user| user.parse().expect("a user")).collect();
        let first = hearth_host::linux::FIRST_USER;
        assert!(users.iter().all(|user| *user == users[0] && *user >= first), "{users:?}");
        assert_eq!((status(pid, "NoNewPrivs"), status(pid, "Seccomp")), ("1".into(), "2".into()));
        assert_eq!(status(pid, "CapBnd"), "0000000000000000");
        for namespace in ["mnt", "pid", "net", "ipc", "uts"] {
            let of = |process: &str| {
                std::fs::read_link(format!("/proc/{process}/ns/{namespace}")).expect("a namespace")
            };
            assert_ne!(of(&pid.to_string()), of("self"), "{namespace}");
        }
        let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mounts");
        let points: Vec<&str> =
            mounts.lines().filter_map(|mount| mount.split(' ').nth(4)).collect();
        assert_eq!(points, ["/", "/firecracker", "/dev"]);
        // What it could change: nothing but files that were made for it.
        let mut dirs = vec![lab.instance_dir(&id)];
        let mut own = Vec::new();
        while let Some(dir) = dirs.pop() {
            let found = dir.metadata().expect("a directory");
            assert_eq!((found.uid(), found.mode() & 0o022), (0, 0), "{}", dir.display());
            for entry in std::fs::read_dir(&dir).expect("read").flatten() {
                let found = entry.metadata().expect("metadata");
                if found.is_dir() {
                    dirs.push(entry.path());
                } else if found.uid() != 0 {
                    own.push(entry.file_name().to_string_lossy().into_owned());
                }
            }
        }
        own.sort();
        assert_eq!(own, ["api.sock", "log.fifo", "vsock.sock"]);
        let kernel = lab.instance_dir(&id).join("kernel").metadata().expect("a kernel");
        assert_eq!((kernel.uid(), kernel.mode() & 0o777), (0, 0o444));
        lab.stop(&id, 0).await;
    }

    #[tokio::test]
    async fn what_runs_is_adopted_when_confining_is_turned_on_or_off() {
        let (_images, path) = images();
        let mut lab = Lab::new(path).await;
        let owner = || Owner::Pool(PoolTenant::Shared);
        for (turn, jailed) in [false, true, false].into_iter().enumerate() {
            lab.jailed = jailed;
            lab.restart().await;
            let id = lab.create(&format!("a{turn}"), raw("speaker"), Stage::App, owner()).await;
            lab.wait(&id, is_up).await;
            assert_eq!(is_confined(pid(&lab, &id)), jailed);
            for before in 0..turn {
                let id = hearth_model::InstanceId::parse(&format!("a{before}")).expect("an id");
                assert!(lab.host.alive(&id), "it is adopted");
                assert_eq!(is_confined(pid(&lab, &id)), before == 1, "and as it was");
            }
        }
        let seen = lab.host.observe(None).await.expect("a look").instances;
        let confined: Vec<bool> = seen.values().map(|seen| seen.confined).collect();
        assert_eq!(confined, [false, true, false]);
        for turn in 0..3 {
            let id = hearth_model::InstanceId::parse(&format!("a{turn}")).expect("an id");
            lab.stop(&id, 0).await;
            lab.remove(&id).await;
            assert!(!lab.instance_dir(&id).exists());
        }
    }

    #[tokio::test]
    async fn a_bare_guest_runs_speaks_is_stopped_and_leaves_nothing() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        lab.wait(&id, is_up).await;
        assert!(lab.host.alive(&id));
        lab.says(&id, "OK").await;
        let (instance, spec) = (id.clone(), std::sync::Arc::new(raw("speaker")));
        let tell =
            Action::AssignIdentity { instance, spec, identity: job("web", 1), release: true };
        lab.host.apply(tell).await.expect("a raw guest needs no telling");
        let refused = lab.host.apply(Action::Remove { instance: id.clone() }).await;
        assert!(refused.expect_err("it runs").is_transient());
        let pid = pid(&lab, &id);
        lab.stop(&id, 10).await;
        assert!(!lab.host.alive(&id) && !is_there(pid));
        let exit = lab.exit(&id).await;
        assert!(exit.stop_requested && matches!(exit.end, End::Vmm(_)), "{exit:?}");
        lab.stop(&id, 10).await;
        lab.remove(&id).await;
        lab.remove(&id).await;
        assert!(!lab.instance_dir(&id).exists());
        assert_eq!(lab.state_of(&id).await, None);
        assert_eq!(lab.texts(&id).await, ["OK"]);
        lab.host.apply(Action::DropLogs { instance: id.clone() }).await.expect("dropped");
        assert!(lab.texts(&id).await.is_empty());
    }

    #[tokio::test]
    async fn a_second_creation_by_the_same_name_changes_nothing() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let first = pid(&lab, &id);
        lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        assert_eq!(pid(&lab, &id), first);
        lab.stop(&id, 0).await;
    }

    #[tokio::test]
    async fn a_restart_adopts_what_runs_and_learns_what_ended() {
        let (_images, path) = images();
        let mut lab = Lab::new(path).await;
        let stays =
            lab.create("stays", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let dies =
            lab.create("dies", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let (kept, killed) = (pid(&lab, &stays), pid(&lab, &dies));
        lab.host.close().await;
        kill(killed);
        lab.restart().await;
        lab.wait(&stays, is_up).await;
        assert_eq!(pid(&lab, &stays), kept);
        assert_eq!(lab.exit(&dies).await.end, End::Unknown);
        assert!(!lab.host.alive(&dies) && lab.host.alive(&stays));
        lab.stop(&stays, 0).await;
        assert!(!is_there(kept));
        for id in [&stays, &dies] {
            lab.remove(id).await;
        }
        lab.restart().await;
        assert!(lab.host.observe(None).await.expect("a look").instances.is_empty());
    }

    #[tokio::test]
    async fn a_killed_firecracker_is_seen_at_once() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("flooder"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        lab.wait(&id, is_up).await;
        kill(pid(&lab, &id));
        let exit = lab.exit(&id).await;
        assert!(!exit.stop_requested);
        assert_eq!(exit.end, End::Vmm("Firecracker ended by signal 9 (killed)".to_owned()));
    }

    #[tokio::test]
    async fn a_guest_that_resets_ends_its_instance() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("rebooter"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let exit = lab.exit(&id).await;
        assert_eq!(exit.end, End::Vmm("the guest shut down or restarted".to_owned()));
    }

    #[tokio::test]
    async fn a_failed_creation_leaves_nothing() {
        let (_images, path) = images();
        let lab = Lab::new(path).await;
        let mut spec = raw("speaker");
        spec.resources.mem_mib = 0;
        let create = lab.creation("a1", spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let id = create.instance.clone();
        let error = lab.host.apply(Action::Create(Box::new(create))).await.expect_err("refused");
        assert!(!error.is_transient(), "{}", error.sentence());
        assert!(!lab.instance_dir(&id).exists());
        assert_eq!(lab.state_of(&id).await, None);
        let mut small = raw("speaker");
        small.resources.mem_mib = 16;
        let small = lab.creation("a1", small, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let error = lab.host.apply(Action::Create(Box::new(small))).await.expect_err("refused");
        assert!(error.sentence().contains("is mem_mb 16 too little"), "{}", error.sentence());
        let mut gone =
            lab.creation("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let Origin::Boot { kernel, .. } = &mut gone.machine.origin;
        *kernel = hearth_model::Digest([0; 32]);
        let error = lab.host.apply(Action::Create(Box::new(gone))).await.expect_err("refused");
        assert!(error.sentence().contains("not in the store"), "{}", error.sentence());
        assert_eq!(lab.state_of(&id).await, None);
    }

    #[tokio::test]
    async fn firecracker_takes_a_rate_limited_drive() {
        let (_images, path) = images();
        // A superblock's magic is what the host looks for (ext4's layout, `s_magic`).
        let mut rootfs = vec![0; 4096];
        rootfs[1024 + 0x38..][..2].copy_from_slice(&0xef53_u16.to_le_bytes());
        std::fs::write(path.join("rootfs.ext4"), rootfs).expect("written");
        let lab = Lab::new(path).await;
        let spec = Spec { rootfs: Some(image("rootfs.ext4")), ..raw("speaker") };
        let owner = Owner::Pool(PoolTenant::Shared);
        let mut create = lab.creation("a1", spec, Stage::App, owner).await;
        let limit = RateLimit { bytes_per_s: Some(1 << 20), ops_per_s: Some(100) };
        create.machine.drives[0].rate_limit = Some(limit);
        let id = create.instance.clone();
        lab.host.apply(Action::Create(Box::new(create))).await.expect("created");
        lab.wait(&id, is_up).await;
        lab.stop(&id, 0).await;
    }

    #[tokio::test]
    async fn what_cannot_be_identified_is_reported_and_left_alone() {
        let (_images, path) = images();
        let mut lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let pid = pid(&lab, &id);
        let record = lab.instance_dir(&id).join("manifest.json");
        let text = std::fs::read_to_string(&record).expect("a record");
        lab.host.close().await;
        std::fs::write(&record, "{").expect("written");
        lab.restart().await;
        let seen = lab.host.observe(None).await.expect("a look");
        assert!(seen.instances.is_empty());
        assert!(
            seen.unidentified[id.as_str()].contains("cannot read its instance record"),
            "{seen:?}"
        );
        for action in [
            Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 0 },
            Action::Remove { instance: id.clone() },
            Action::DropLogs { instance: id.clone() },
        ] {
            let refused = lab.host.apply(action).await.expect_err("it is left alone");
            assert!(refused.sentence().contains("is left alone"), "{}", refused.sentence());
        }
        assert!(is_there(pid) && record.exists());
        std::fs::write(&record, text).expect("written");
        let begin = std::time::Instant::now();
        while lab.state_of(&id).await.is_none() {
            assert!(begin.elapsed() < std::time::Duration::from_secs(60), "it is not looked at");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(is_there(pid), "it is the same");
        assert!(lab.host.observe(None).await.expect("a look").unidentified.is_empty());
        lab.stop(&id, 0).await;
    }

    #[tokio::test]
    async fn what_a_daemon_left_half_made_or_half_removed_is_removed() {
        let (_images, path) = images();
        let mut lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let instances = lab.instance_dir(&id).parent().expect("a parent").to_owned();
        for (name, file) in
            [("a2", None), ("a3", Some("manifest.json.new")), ("a4.gone", Some("pid"))]
        {
            std::fs::create_dir(instances.join(name)).expect("made");
            if let Some(file) = file {
                std::fs::write(instances.join(name).join(file), "{").expect("written");
            }
        }
        lab.restart().await;
        let left = || std::fs::read_dir(&instances).expect("read").count();
        let begin = std::time::Instant::now();
        while left() > 1 && begin.elapsed() < std::time::Duration::from_secs(30) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        assert!(
            left() == 1 && lab.instance_dir(&id).exists(),
            "what runs is there, and nothing else"
        );
        let seen = lab.host.observe(None).await.expect("a look");
        assert_eq!((seen.instances.len(), seen.unidentified.len()), (1, 0), "{seen:?}");
        lab.stop(&id, 0).await;
    }

    #[tokio::test]
    async fn power_loss_makes_no_exit_never_started_and_lost_are_removed() {
        let (_images, path) = images();
        let mut lab = Lab::new(path).await;
        let [old, lost] = ["a1", "a2"];
        let old =
            lab.create(old, raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let lost =
            lab.create(lost, raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let pids = [pid(&lab, &old), pid(&lab, &lost)];
        lab.host.close().await;
        pids.into_iter().for_each(kill);
        // An earlier boot's record, of before the start; and one of which nothing came to disk.
        let record = lab.instance_dir(&old).join("manifest.json");
        let text = std::fs::read_to_string(&record).expect("a record");
        let mut fields: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        fields["host_boot"] = "another".into();
        fields["process"] = serde_json::Value::Null;
        fields["started"] = false.into();
        std::fs::write(&record, fields.to_string()).expect("written");
        let folder = lab.instance_dir(&lost);
        std::fs::write(folder.join("manifest.json"), "").expect("emptied");
        lab.restart().await;
        assert_eq!(lab.exit(&old).await.end, End::Unknown);
        assert!(!folder.exists());
        let seen = lab.host.observe(None).await.expect("a look");
        assert_eq!((seen.instances.len(), seen.unidentified.len()), (1, 0), "{seen:?}");
    }

    #[tokio::test]
    async fn a_process_that_was_never_started_is_ended_at_the_next_start() {
        let (_images, path) = images();
        let mut lab = Lab::new(path).await;
        let id =
            lab.create("a1", raw("speaker"), Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let pid = pid(&lab, &id);
        let record = lab.instance_dir(&id).join("manifest.json");
        lab.host.close().await;
        // As if the daemon had ended between the spawn and the record that names the process.
        let text = std::fs::read_to_string(&record).expect("a record");
        let mut fields: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        fields["process"] = serde_json::Value::Null;
        fields["started"] = false.into();
        std::fs::write(&record, fields.to_string()).expect("written");
        lab.restart().await;
        assert_eq!(lab.exit(&id).await.end, End::NeverStarted);
        assert!(!is_there(pid));
    }
}
