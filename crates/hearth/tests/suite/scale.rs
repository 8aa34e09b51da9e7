//! Many real microVMs under one daemon: how soon it has them all again after a kill -9, how soon it
//! notices one that dies, and whether it grows while they come and go. What was measured is printed;
//! `HEARTH_INSTANCES`, `HEARTH_DEATHS` and `HEARTH_CHURN_SECONDS` make more of it.

#![expect(clippy::print_stdout, reason = "what was measured is its output")]

mod native {
    use crate::support::native::Native;
    use crate::support::{DEADLINE, Daemon, names, number};
    use rustix::process::{Pid, Signal, kill_process};
    use std::fmt;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    /// The kernel lies at 16 MiB.
    fn body(job: &str, memory: u64) -> String {
        format!(
            r#"{{"job_id":"{job}","tenant":"many","spec":{{"boot":"raw","kernel":"tiny",
            "resources":{{"vcpu":1,"mem_mb":{memory}}},"lifecycle":"service"}}}}"#
        )
    }

    /// Waits until all jobs run.
    fn until_all_run(daemon: &Daemon, count: usize) {
        let begin = Instant::now();
        loop {
            let jobs = daemon.get("/stats").json()["jobs"].as_array().expect("jobs").clone();
            let running = jobs.iter().filter(|job| job["status"] == "running").count();
            if running == count && jobs.len() == count {
                return;
            }
            let patience = DEADLINE + Duration::from_millis(200) * u32::try_from(count).unwrap();
            assert!(begin.elapsed() < patience, "{running} of {count} run");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn median(times: &mut [Duration]) -> (Duration, Duration) {
        times.sort();
        (times[times.len() / 2], times[times.len() - 1])
    }

    #[test]
    fn all_are_adopted_after_a_kill_and_one_that_dies_is_replaced() {
        let (count, deaths) = (number("HEARTH_INSTANCES", 60), number("HEARTH_DEATHS", 10));
        let host = Native::new();
        let daemon = host.start();
        for job in 0..count {
            let answer = daemon.post("/vms", &body(&format!("job-{job}"), 18));
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        until_all_run(&daemon, count);
        let before = host.processes();
        assert_eq!(before.len(), count);
        daemon.kill();

        let begin = Instant::now();
        let daemon = Daemon::try_spawn(host.serve()).expect("it listens");
        let listening = begin.elapsed();
        daemon.ready().expect("it is ready");
        until_all_run(&daemon, count);
        let adopted = begin.elapsed();
        assert_eq!(host.processes(), before, "none was touched");
        println!("{count} instances: listening after {listening:?}, all adopted after {adopted:?}");

        let mut noticed = Vec::new();
        let mut replaced = Vec::new();
        for death in 0..deaths {
            let job = format!("/vms/job-{death}");
            let was = daemon.get(&job).json()["vm_id"].as_str().expect("a microVM").to_owned();
            let id = was.strip_prefix("vm-").expect("its name");
            let victim = host.processes().into_iter().find(|(name, _)| name == id);
            let pid = Pid::from_raw(victim.expect("its process").1).expect("a pid");
            let begin = Instant::now();
            kill_process(pid, Signal::KILL).expect("a signal");
            let (mut seen, mut back) = (None, None);
            while back.is_none() {
                let now = daemon.get(&job).json();
                let changed = now["status"] != "running" || now["vm_id"] != was.as_str();
                if changed {
                    seen.get_or_insert(begin.elapsed());
                }
                if changed && now["status"] == "running" {
                    back = Some(begin.elapsed());
                }
                assert!(begin.elapsed() < DEADLINE, "{job} is not replaced: {now}");
            }
            noticed.extend(seen);
            replaced.extend(back);
        }
        let ((noticed, slowest), (replaced, last)) = (median(&mut noticed), median(&mut replaced));
        println!(
            "{deaths} deaths among them: noticed after {noticed:?} (slowest {slowest:?}), \
             replaced after {replaced:?} (slowest {last:?})"
        );
        for job in 0..count {
            daemon.delete(&format!("/vms/job-{job}"));
        }
        until_all_run(&daemon, 0);
        daemon.until("nothing is left", || host.is_empty());
    }

    /// What a daemon holds.
    #[derive(Clone, Copy)]
    struct Held {
        at: Duration,
        kib: u64,
        descriptors: usize,
        threads: usize,
    }

    impl Held {
        fn by(daemon: &Daemon, at: Duration) -> Held {
            let proc = format!("/proc/{}", daemon.pid());
            let status = std::fs::read_to_string(format!("{proc}/status")).expect("its status");
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse().ok());
            let count = |what| names(format!("{proc}/{what}").as_ref()).len();
            Held {
                at,
                kib: kib.expect("its memory"),
                descriptors: count("fd"),
                threads: count("task"),
            }
        }
    }

    impl fmt::Display for Held {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let Held { kib, descriptors, threads, .. } = self;
            write!(f, "{kib} KiB, {descriptors} descriptors, {threads} threads")
        }
    }

    /// The slope of memory over time, in KiB a minute, by least squares.
    fn slope(samples: &[Held]) -> f64 {
        let points: Vec<(f64, f64)> = samples
            .iter()
            .map(|held| (held.at.as_secs_f64() / 60.0, f64::from(u32::try_from(held.kib).unwrap())))
            .collect();
        let count = f64::from(u32::try_from(points.len()).unwrap());
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / count;
        let (x, y) = (mean(|point| point.0), mean(|point| point.1));
        let rise: f64 = points.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
        let run: f64 = points.iter().map(|point| (point.0 - x).powi(2)).sum();
        rise / run
    }

    #[test]
    fn daemon_with_churning_microvms_does_not_grow_or_leak() {
        let lasts = Duration::from_secs(number("HEARTH_CHURN_SECONDS", 12) as u64);
        let host = Native::new();
        let daemon = host.start();
        let empty = Held::by(&daemon, Duration::ZERO);
        let (stop, begin) = (AtomicBool::new(false), Instant::now());
        let mut samples = Vec::new();
        let mut changes = 0;
        std::thread::scope(|scope| {
            let churn = |client: u64| {
                let (daemon, stop) = (&daemon, &stop);
                move || {
                    let mut rng = fastrand::Rng::with_seed(client);
                    let mut changes = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        // Job names that were never there before, as well as those that were.
                        let job = match rng.u8(..4) {
                            0 => format!("once-{client}-{changes}"),
                            _ => format!("again-{client}-{}", rng.u8(..6)),
                        };
                        let answer = match rng.u8(..3) {
                            0 => daemon.delete(&format!("/vms/{job}")),
                            _ => daemon.post("/vms", &body(&job, 18 + rng.u64(..2))),
                        };
                        assert!([200, 201, 202, 204, 404].contains(&answer.status), "{answer:?}");
                        if job.starts_with("once") {
                            daemon.delete(&format!("/vms/{job}"));
                        }
                        changes += 1;
                        std::thread::sleep(Duration::from_millis(rng.u64(..40)));
                    }
                    changes
                }
            };
            let clients: Vec<_> = (0..3).map(|client| scope.spawn(churn(client))).collect();
            while begin.elapsed() < lasts {
                std::thread::sleep((lasts / 240).clamp(Duration::from_millis(50), DEADLINE));
                samples.push(Held::by(&daemon, begin.elapsed()));
            }
            stop.store(true, Ordering::Relaxed);
            changes = clients.into_iter().map(|client| client.join().expect("a client")).sum();
        });
        for job in daemon.jobs() {
            daemon.delete(&format!("/vms/{job}"));
        }
        until_all_run(&daemon, 0);
        daemon.until("nothing is left", || host.is_empty());
        let left = Held::by(&daemon, begin.elapsed());
        // What grows to its bound in the beginning: events, names of deleted jobs, the database's cache.
        let steady = &samples[samples.len() / 2..];
        let slope = slope(steady);
        println!(
            "{changes} changes in {lasts:?}: {empty} at first, {} in the middle, {} at the end, \
             {left} once nothing is left; the second half's memory grows by {slope:.1} KiB a minute",
            steady[0],
            steady[steady.len() - 1],
        );
        daemon.until("its descriptors are closed", || {
            Held::by(&daemon, Duration::ZERO).descriptors <= empty.descriptors + 4
        });
        assert!(left.kib < empty.kib + 128 * 1024, "{left} after {empty}");
    }
}
