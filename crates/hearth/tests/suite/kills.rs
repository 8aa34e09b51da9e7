//! kill -9 of the daemon, again and again, under load, with real Firecracker and bare guests. Clients
//! write down each acknowledgement; what was acknowledged must be there after each kill, and what is on
//! the host must be what the database names. Unused copies of images are removed all the while.
//!
//! `HEARTH_KILLS` says how often, `HEARTH_SEED` begins another run.

mod native {
    use crate::support::client::{Journal, ask, check, journal, load};
    use crate::support::native::Native;
    use crate::support::number;
    use fastrand::Rng;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    const CLIENTS: usize = 3;
    const JOBS_OF_CLIENT: usize = 4;
    /// After so many kills everything is compared.
    const COMPARE_EVERY: usize = 5;

    #[test]
    fn kill_at_any_moment_loses_nothing_acknowledged_and_leaks_none() {
        let kills = number("HEARTH_KILLS", 10);
        let mut rng = Rng::with_seed(number("HEARTH_SEED", 1) as u64);
        let host = Native::new();
        let jobs = |client| (0..JOBS_OF_CLIENT).map(move |job| format!("c{client}-{job}"));
        let mut journals: Vec<Journal> = (0..CLIENTS).map(|client| journal(jobs(client))).collect();
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
                // Unused copies of images are removed meanwhile, and made again.
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) && prune(&url).is_some() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                });
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
        daemon.until("nothing is left", || host.is_empty());
        let stats = daemon.get("/stats").json();
        assert_eq!(stats["unidentified"], serde_json::json!([]));
        daemon.until("no copy of an image is left", || prune(&daemon.url) == Some(200));
        assert_eq!(daemon.get("/images").json()["items"], serde_json::json!([]));
    }

    /// Asks for the removal of all unused copies of images; the status of the answer.
    fn prune(url: &str) -> Option<u16> {
        let (status, answer) = ask(url, "POST", "/images/prune?all=true", "")?;
        assert!([200, 503].contains(&status), "a prune was answered {status}: {answer}");
        Some(status)
    }
}
