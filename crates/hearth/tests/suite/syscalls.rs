//! kill -9 of the daemon at each of its system calls that change something, one after the other. A client
//! writes down what was acknowledged; after the kill a daemon starts from what is there, has all of it,
//! comes to rest and leaves nothing behind.
//!
//! strace counts the calls of each thread for itself, so that a point is a call and a number.
//! `HEARTH_SYSCALLS` says how many points are tried (`all` for all), `HEARTH_SEED` begins another run.

use crate::support::client::{Journal, Wish, ask, check, journal};
use crate::support::strace::{Record, traced};
use crate::support::{Daemon, Home, names, number};
use fastrand::Rng;
use std::collections::BTreeMap;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::time::Duration;

/// Calls that change what lasts, or tell somebody. A file that was only made is what a kill at the first
/// write to it leaves.
const CALLS: &str = "pwrite64,write,writev,ftruncate,fsync,fdatasync,rename,renameat,renameat2,\
    unlink,unlinkat,mkdir,linkat,sendto,bind,listen,accept4,flock,fchmod,chmod,clone3";
const SIGKILL: i32 = 9;
const JOBS: usize = 3;
const REQUESTS: usize = 8;

fn jobs() -> impl Iterator<Item = String> {
    (0..JOBS).map(|job| format!("job-{job}"))
}

/// Asks for so many things, as long as there are answers.
fn load(url: &str, journal: &mut Journal, rng: &mut Rng) {
    for _ in 0..REQUESTS {
        let job = format!("job-{}", rng.usize(..JOBS));
        if !Wish::any(&job, rng).ask(url, journal) {
            return;
        }
        std::thread::sleep(Duration::from_millis(rng.u64(..20)));
    }
}

/// A daemon to be killed, and what has to be so afterwards.
trait Host {
    fn home(&self) -> &Home;
    fn serve(&self) -> Command;
    /// Options of strace that keep it to the daemon.
    fn options(&self) -> &[&str];
    /// The host is as the database says.
    fn compare(&self, daemon: &Daemon);
    fn is_empty(&self) -> bool;
}

/// The calls of a whole run: for each, how often the thread makes it that makes it most.
fn calls(host: &impl Host, seed: u64) -> BTreeMap<String, usize> {
    let fifo = host.home().path("trace");
    let record = Record::begin(fifo.clone());
    let trace = format!("trace={CALLS}");
    let options = [host.options(), &["-e", &trace]].concat();
    let daemon = Daemon::spawn(traced(&host.serve(), &options, &fifo));
    load(&daemon.url, &mut journal(jobs()), &mut Rng::with_seed(seed));
    host.compare(&daemon);
    daemon.terminate();
    let mut of_threads = BTreeMap::<(String, String), usize>::new();
    for line in record.end().lines() {
        let (thread, call) = line.split_once(' ').expect("a thread and a call");
        if let Some((name, _)) = call.trim_start().split_once('(') {
            *of_threads.entry((name.to_owned(), thread.to_owned())).or_default() += 1;
        }
    }
    let mut calls = BTreeMap::<String, usize>::new();
    for ((name, _), count) in of_threads {
        let most = calls.entry(name).or_default();
        *most = count.max(*most);
    }
    calls.retain(|name, _| CALLS.split(',').any(|call| call == name));
    calls
}

/// A run that is killed at a point, and what follows. Returns whether the point was reached.
fn kill_at(host: &impl Host, call: &str, number: usize, seed: u64) -> bool {
    let mut journal = journal(jobs());
    let (trace, inject) =
        (format!("trace={call}"), format!("inject={call}:signal=KILL:when={number}"));
    let options = [host.options(), &["-e", &trace, "-e", &inject]].concat();
    let traced = traced(&host.serve(), &options, "/dev/null".as_ref());
    let ended = match Daemon::try_spawn(traced) {
        Err(ended) => ended,
        Ok(daemon) => {
            if daemon.ready().is_some() {
                load(&daemon.url, &mut journal, &mut Rng::with_seed(seed));
            }
            daemon.terminate().0
        }
    };
    let killed = ended.signal() == Some(SIGKILL);
    assert!(killed || ended.success(), "it ended by {ended}");

    let daemon = Daemon::spawn(host.serve());
    check(&daemon.url, &journal);
    // It serves as any other, and nothing of the run before hinders it.
    load(&daemon.url, &mut journal, &mut Rng::with_seed(seed + 1));
    host.compare(&daemon);
    check(&daemon.url, &journal);
    for job in jobs() {
        ask(&daemon.url, "DELETE", &format!("/vms/{job}"), "").expect("an answer");
    }
    daemon.until("nothing is left", || host.is_empty());
    assert_eq!(daemon.get("/stats").json()["unidentified"], serde_json::json!([]));
    daemon.terminate();
    let left = names(&host.home().path("state"));
    let known = ["hearth.db", "hearth.lock", "listen", "images", "instances", "logs"];
    assert!(left.iter().all(|name| known.contains(&&**name)), "{left:?}");
    killed
}

fn kill_everywhere<H: Host + 'static>(host: fn() -> H, most: usize) {
    let seed = number("HEARTH_SEED", 1) as u64;
    let mut rng = Rng::with_seed(seed);
    let mut points = Vec::new();
    for (call, count) in calls(&host(), seed) {
        let mut numbers: Vec<usize> = (1..=count).collect();
        rng.shuffle(&mut numbers);
        points.extend(numbers.into_iter().enumerate().map(|(turn, at)| (turn, call.clone(), at)));
    }
    // Each call has its turn, however rare it is.
    points.sort();
    points.truncate(number("HEARTH_SYSCALLS", most));
    let mut reached = 0;
    for (_, call, number) in &points {
        // Where it fails, the thread's name says at what.
        let thread = std::thread::Builder::new().name(format!("{call} {number}"));
        let (call, number) = (call.clone(), *number);
        let killed = thread.spawn(move || kill_at(&host(), &call, number, seed)).expect("a thread");
        reached += usize::from(killed.join().expect("what follows the kill is as it should be"));
    }
    assert!(reached * 2 > points.len(), "most points of one run are reached by another");
}

mod system {
    use super::{Host, kill_everywhere};
    use crate::support::{Daemon, Home, at_rest};
    use std::process::Command;

    /// Points that are tried unless told otherwise.
    const POINTS: usize = 60;

    struct Sim {
        home: Home,
    }

    impl Host for Sim {
        fn home(&self) -> &Home {
            &self.home
        }

        fn serve(&self) -> Command {
            self.home.serve(&["--desired", "none.exs"])
        }

        fn options(&self) -> &[&str] {
            &[]
        }

        fn compare(&self, daemon: &Daemon) {
            daemon.until("all stands as wanted", || at_rest(daemon));
        }

        fn is_empty(&self) -> bool {
            self.home.named().is_empty()
        }
    }

    fn sim() -> impl Host {
        Sim { home: Home::new() }
    }

    #[test]
    fn kill_at_any_system_call_loses_nothing_acknowledged() {
        kill_everywhere(sim, POINTS);
    }
}

mod native {
    use crate::support::native::Native;
    use crate::support::{Daemon, Home};
    use crate::syscalls::{Host, kill_everywhere};
    use std::process::Command;

    /// Points that are tried unless told otherwise.
    const POINTS: usize = 10;

    impl Host for Native {
        fn home(&self) -> &Home {
            &self.home
        }

        fn serve(&self) -> Command {
            self.serve()
        }

        fn options(&self) -> &[&str] {
            // A Firecracker is let go of when it begins.
            &["-b", "execve"]
        }

        fn compare(&self, daemon: &Daemon) {
            self.compare(daemon);
        }

        fn is_empty(&self) -> bool {
            self.is_empty()
        }
    }

    #[test]
    fn kill_at_any_system_call_leaves_no_unknown_microvm() {
        kill_everywhere(Native::new, POINTS);
    }
}
