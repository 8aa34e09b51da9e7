//! The seed's jobs in real Linux guests on real Firecracker: declared in its file and over HTTP,
//! kept running, kept warm, surviving a kill -9. The guests boot slowly where KVM is emulated, so
//! each test takes one daemon through a whole story.

mod lab {
    use crate::guests::{Daemon, shell};
    use hearth_api::JobStatus;
    use serde_json::json;
    use std::path::Path;
    use std::process::Command;
    use std::time::{Duration, Instant};

    #[tokio::test]
    async fn seed_example_runs_is_claimed_replaced_and_outlives_daemon() {
        let repo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut daemon = Daemon::start(&repo.join("config/desired_vms.exs")).await;

        // Declared in the file: all three run, the lambda to its end; the pools fill.
        let web = daemon.until_status("web-api", JobStatus::Running).await;
        assert_eq!(web.tenant, "production");
        daemon.until_status("kafka-consumer", JobStatus::Running).await;
        let resized = daemon.until_status("image-resizer", JobStatus::Completed).await;
        assert_eq!(resized.exit_code, Some(0));
        assert!(!daemon.output("image-resizer").await.is_empty());
        let stats = daemon.until_warm(3).await;
        assert_eq!(stats.summary.total_jobs, 3);
        assert!(stats.warm_pool.iter().all(|vm| vm.vm_id.starts_with("warm-")));
        assert!(daemon.fetch("web-api", "/env").await.contains("MIX_ENV=prod"));

        // The same spec and tenant over HTTP: an instance of the pool, with its identity now.
        let (status, second) = daemon.post("web-2", Some("production"), &web.spec).await;
        assert_eq!((status, second.vm_id.is_some()), (201, true));
        daemon.until_status("web-2", JobStatus::Running).await;
        assert!(daemon.fetch("web-2", "/identity").await.contains("web-2"));

        // A killed Firecracker is replaced, from the pool.
        let warm_before = daemon.until_warm(3).await.warm_pool;
        let pid = daemon.process_of(web.vm_id.as_deref().unwrap());
        assert!(Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap().success());
        let replaced = daemon
            .until("web-api", "replaced", |job| {
                job.status == JobStatus::Running && job.vm_id != web.vm_id
            })
            .await;
        let suffix = replaced.vm_id.clone().unwrap().replace("vm-", "warm-");
        assert!(warm_before.iter().any(|vm| vm.vm_id == suffix), "{suffix} was not warm");
        assert!(daemon.fetch("web-api", "/identity").await.contains("web-api"));

        // kill -9 right after a 201: every microVM runs on and is adopted, and the claim stands.
        daemon.until_warm(3).await;
        let (status, third) = daemon.post("web-3", Some("production"), &web.spec).await;
        assert_eq!(status, 201);
        daemon.kill();
        let before = daemon.processes();
        daemon.launch().await;
        let adopted = daemon.until_status("web-3", JobStatus::Running).await;
        assert_eq!(adopted.vm_id, third.vm_id);
        assert!(daemon.fetch("web-3", "/identity").await.contains("web-3"));
        let web_api = daemon.until_status("web-api", JobStatus::Running).await;
        assert_eq!(web_api.vm_id, replaced.vm_id);
        let resized_again = daemon.until_status("image-resizer", JobStatus::Completed).await;
        assert_eq!(
            (resized_again.generation, resized_again.since),
            (resized.generation, resized.since),
            "a finished job stays as it is over a restart"
        );
        let after = daemon.processes();
        assert!(before.iter().all(|process| after.contains(process)), "{before:?} {after:?}");
        daemon.clean().await;
    }

    #[tokio::test]
    async fn exits_have_their_true_codes_and_what_cannot_run_says_why() {
        let empty = tempfile::NamedTempFile::with_suffix(".exs").unwrap();
        std::fs::write(empty.path(), "[]").unwrap();
        let mut daemon = Daemon::start(empty.path()).await;

        let (status, _) = daemon.post("seven", None, &shell("job", "echo out; exit 7")).await;
        assert_eq!(status, 202);
        let absent = json!({
            "rootfs": "rootfs-test.ext4", "kernel": "vmlinux", "cmd": ["/app/bin/server"],
            "resources": {"vcpu": 1, "mem_mb": 128}, "lifecycle": "job",
        });
        daemon.post("absent", None, &absent).await;
        let panic = shell("job", "echo c > /proc/sysrq-trigger; sleep 60");
        daemon.post("panic", None, &panic).await;
        let mut unread = shell("service", "true");
        unread["rootfs"] = json!("no-such-rootfs.ext4");
        daemon.post("unread", None, &unread).await;
        let unread = daemon.until_status("unread", JobStatus::Failed).await;
        assert!(unread.reason.unwrap().contains("no-such-rootfs.ext4"));

        // The console is read by a daemon, so that this one ends before the daemon goes away.
        let panic = daemon.until_status("panic", JobStatus::Failed).await;
        let reason = panic.reason.unwrap();
        assert!(reason.starts_with("guest kernel panicked: "), "{reason}");

        // An exit that happens while the daemon is away has its true code, and its final output.
        daemon.post("away", None, &shell("job", "echo begun; sleep 5; echo tail; exit 5")).await;
        daemon.until_status("away", JobStatus::Running).await;
        let away = daemon.client.job("away").await.unwrap();
        let pid = daemon.process_of(away.vm_id.as_deref().unwrap());
        daemon.kill();
        let deadline = Instant::now() + crate::guests::PATIENCE;
        while Path::new(&format!("/proc/{pid}/cwd")).read_link().is_ok() {
            assert!(Instant::now() < deadline, "the job does not end");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        daemon.launch().await;
        let away = daemon.until_status("away", JobStatus::Failed).await;
        assert_eq!((away.exit_code, away.reason.as_deref()), (Some(5), Some("exit code 5")));
        let output = daemon.output("away").await;
        assert!(output.contains("begun") && output.contains("tail"), "{output}");

        let seven = daemon.until_status("seven", JobStatus::Failed).await;
        assert_eq!(seven.exit_code, Some(7));
        assert!(daemon.output("seven").await.contains("out"));
        let absent = daemon.until_status("absent", JobStatus::Failed).await;
        assert_eq!(
            absent.reason.as_deref(),
            Some("/app/bin/server: not found in rootfs-test.ext4")
        );
        daemon.clean().await;
    }

    /// Where bare guests are killed a hundred times, these have what those have not: an init, a
    /// status drive, output, and a command that may run once only.
    #[tokio::test]
    async fn repeated_kills_of_the_daemon_lose_no_guest_exit_or_line() {
        const KILLS: u8 = 6;
        let empty = tempfile::NamedTempFile::with_suffix(".exs").unwrap();
        std::fs::write(empty.path(), "[]").unwrap();
        let mut daemon = Daemon::start(empty.path()).await;
        daemon.post("stays", None, &shell("service", "exec sleep 100000")).await;
        daemon.until_status("stays", JobStatus::Running).await;
        let stays = daemon.processes();
        assert_eq!(stays.len(), 1, "{stays:?}");
        let mut rng = fastrand::Rng::with_seed(u64::from(KILLS));
        for code in 1..=KILLS {
            let spec = shell("job", &format!("echo begun; sleep 2; echo over; exit {code}"));
            let (status, _) = daemon.post(&format!("code-{code}"), None, &spec).await;
            assert_eq!(status, 202);
            tokio::time::sleep(Duration::from_millis(rng.u64(..8000))).await;
            daemon.kill();
            // Often longer than a guest has left to live.
            tokio::time::sleep(Duration::from_millis(rng.u64(..4000))).await;
            daemon.launch().await;
            for code in 1..=code {
                daemon.client.job(&format!("code-{code}")).await.expect("it was acknowledged");
            }
        }
        for code in 1..=KILLS {
            let job = daemon.until_status(&format!("code-{code}"), JobStatus::Failed).await;
            let reason = job.reason.unwrap_or_default();
            assert_eq!((job.exit_code, job.generation), (Some(code), 1), "{reason}");
            assert_eq!(daemon.output(&job.job_id).await, "begun\nover\n");
        }
        daemon.until_status("stays", JobStatus::Running).await;
        assert_eq!(
            daemon.processes(),
            stays,
            "it is the process that it was, and no other is left"
        );
        let own: Vec<_> = stays.into_iter().map(|(instance, pid)| (instance, vec![pid])).collect();
        let deadline = Instant::now() + crate::guests::PATIENCE;
        while daemon.cgroups().is_some_and(|cgroups| cgroups != own) {
            assert!(Instant::now() < deadline, "{:?}", daemon.cgroups());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        daemon.clean().await;
    }

    #[tokio::test]
    async fn an_instance_with_a_check_is_warm_only_once_it_passes() {
        let empty = tempfile::NamedTempFile::with_suffix(".exs").unwrap();
        std::fs::write(empty.path(), "[]").unwrap();
        let daemon = Daemon::start(empty.path()).await;
        let mut spec = shell("service", "sleep 4; touch /tmp/up; exec sleep 1000");
        spec["ready"] = json!({"exec": ["/bin/sh", "-c", "test -e /tmp/up"]});
        spec["warm_pool"] = json!({"min": 1, "max": 1});
        daemon.post("slow", None, &spec).await;
        let unready = |reason: &Option<String>| {
            reason.as_ref().is_some_and(|reason| reason.starts_with("not ready"))
        };
        let deadline = Instant::now() + crate::guests::PATIENCE;
        loop {
            let stats = daemon.client.stats().await.unwrap();
            if stats.warm_pool.iter().any(|vm| vm.status == "starting" && unready(&vm.reason)) {
                break;
            }
            assert_eq!(stats.summary.total_warm, 0, "warm before its check passed");
            assert!(Instant::now() < deadline, "{stats:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        daemon.until_warm(1).await;
        daemon.until_status("slow", JobStatus::Running).await;
        daemon.clean().await;
    }
}
