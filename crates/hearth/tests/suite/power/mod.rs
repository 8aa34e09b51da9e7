//! Loss of power. kill -9 leaves what the kernel holds in memory, so it can't tell whether what was
//! acknowledged is on disk. Here a run of the real daemon is recorded with strace, the files that a
//! loss of power may leave at each moment of it are made from the record, and the daemon's own code
//! opens them: they are whole, and what was acknowledged before that moment is there.
//!
//! `HEARTH_POWER` says how many different remains are opened (`all` for all), `HEARTH_SEED` begins
//! another run.

mod disk;
mod trace;

use crate::support::client::{Journal, Known, Wish, journal};
use crate::support::strace::{Record, traced};
use crate::support::{Daemon, number};
use disk::{Disk, Remains};
use fastrand::Rng;
use hearth_engine::{Config, Engine, Retention};
use hearth_model::{Generation, JobId, Wanted};
use hearth_planner::{Capacity, Limits};
use hearth_store::Sqlite;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;
use trace::Event;

const SIGABRT: i32 = 6;
const JOBS: usize = 4;
/// Remains that are opened unless told otherwise.
const OPENED: usize = 4000;
/// The first of a moment's remains: nothing, everything, names alone, data alone.
const PLAIN: usize = 4;
/// Of so many remains one is given to a whole daemon too.
const STARTED_EVERY: usize = 400;

/// A run: what happened to the files, and what was asked for and acknowledged.
struct Run {
    root: PathBuf,
    events: Vec<Event>,
    /// What was known before anything was asked, and after each answer.
    known: Vec<Journal>,
    /// The job of each request.
    asked: Vec<String>,
}

struct Recorder {
    rng: Rng,
    run: Run,
}

impl Recorder {
    /// Of what happens beneath a directory.
    fn new(root: PathBuf) -> Recorder {
        let known = vec![journal((0..JOBS).map(|job| format!("job-{job}")))];
        let run = Run { root, events: Vec::new(), known, asked: Vec::new() };
        Recorder { rng: Rng::with_seed(number("HEARTH_SEED", 1) as u64), run }
    }

    /// A daemon's life: it is asked for so many things, and ends, if it has not by itself.
    fn life(
        &mut self,
        serve: &Command,
        more: &[&str],
        requests: usize,
        end: impl FnOnce(Daemon) -> ExitStatus,
    ) -> ExitStatus {
        let fifo = self.run.root.join("trace");
        let record = Record::begin(fifo.clone());
        // Beyond the largest write.
        let options = ["-y", "-xx", "-s", "10000000", "-e", trace::CALLS];
        let options = [&options[..], more].concat();
        let traced = traced(serve, &options, &fifo);
        let mut told = 0..0;
        let ended = match Daemon::try_spawn(traced) {
            Err(ended) => ended,
            Ok(daemon) => match daemon.ready() {
                Some(before) => {
                    told = before..before + self.ask(&daemon.url, requests);
                    end(daemon)
                }
                None => daemon.wait(),
            },
        };
        let first = self.run.events.len();
        trace::read(&record.end(), &self.run.root, &mut self.run.events);
        let events = self.run.events[first..].iter_mut();
        let answers: Vec<&mut Event> =
            events.filter(|event| matches!(event, Event::Answer)).collect();
        assert!(answers.len() >= told.end, "each answer is in the trace");
        for (at, event) in answers.into_iter().enumerate() {
            // The first were to those who asked whether the daemon is ready, and behind the last one
            // may have been cut off.
            if !told.contains(&at) {
                *event = Event::Other;
            }
        }
        ended
    }

    /// Asks for so many things. Returns how many were answered.
    fn ask(&mut self, url: &str, requests: usize) -> usize {
        for answered in 0..requests {
            let job = format!("job-{}", self.rng.usize(..JOBS));
            let known = self.run.known.last_mut().expect("the first");
            let mut next = known.clone();
            let wish = Wish::any(&job, &mut self.rng);
            if !wish.ask(url, &mut next) {
                // It may have happened or not, for all that follows.
                known.get_mut(&job).expect("a job").outcome_unknown = true;
                return answered;
            }
            self.run.known.push(next);
            self.run.asked.push(job);
            std::thread::sleep(Duration::from_millis(self.rng.u64(..30)));
        }
        requests
    }
}

/// What the daemon's own code finds in a state directory.
#[derive(Debug)]
struct StoredState {
    /// Generation, memory in MiB, and what is wanted.
    jobs: HashMap<String, (u64, u64, Wanted)>,
    tombstones: HashMap<String, u64>,
}

impl StoredState {
    /// Opens the state directory as a daemon does.
    fn open(state: &Path) -> Result<StoredState, String> {
        let path = state.join("hearth.db");
        std::fs::create_dir_all(state).expect("a directory");
        let config = Config {
            capacity: Capacity {
                vcpus: 100,
                memory_mib: 100_000,
                overhead_mib: 0,
                scratch_mib: None,
            },
            limits: Limits::default(),
            disk_overcommit: hearth_engine::DiskOvercommit::Warn,
            retention: Retention::default(),
            boot_id: "after the loss of power".to_owned(),
            seed: 1,
        };
        let store = Sqlite::open(&path).map_err(chain)?;
        let engine = Engine::open(store, config).map_err(chain)?;
        let jobs = engine.fleet().jobs().iter().map(|(id, job)| {
            let memory = u64::from(job.spec.resources.mem_mib);
            (id.to_string(), (job.generation.0, memory, job.wanted))
        });
        let jobs = jobs.collect();
        let tombstone = |number| {
            let id = format!("job-{number}");
            let Generation(generation) = engine.tombstone(&JobId::parse(&id).ok()?)?;
            Some((id, generation))
        };
        let tombstones = (0..JOBS).filter_map(tombstone).collect();
        drop(engine);
        let database = rusqlite::Connection::open(&path).map_err(chain)?;
        let verdict: String =
            database.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(chain)?;
        if verdict != "ok" {
            return Err(format!("the database is damaged: {verdict}"));
        }
        Ok(StoredState { jobs, tombstones })
    }

    /// Whether a job stands as it was acknowledged last.
    fn stands(&self, id: &str, known: &Known) -> bool {
        if known.outcome_unknown {
            return true;
        }
        let gone = self.tombstones.get(id).is_some_and(|&at| at > known.generation);
        match self.jobs.get(id) {
            None => known.generation == 0 || (known.deleted && gone),
            Some((generation, _, Wanted::Deleted)) => {
                known.deleted && *generation > known.generation
            }
            Some((generation, memory, wanted)) => {
                let stopped = *wanted == Wanted::Stopped;
                (*generation, *memory) == (known.generation, known.memory)
                    && (stopped, false) == (known.stopped, known.deleted)
            }
        }
    }
}

fn chain(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += &format!(": {cause}");
        source = cause.source();
    }
    text
}

impl Run {
    /// Every moment of the run with what a loss of power may then leave: how many requests were
    /// answered, and whether it is one of the plain cases.
    fn moments(&self, visit: &mut dyn FnMut(&Disk, Remains, usize, bool)) {
        let mut rng = Rng::with_seed(1);
        let mut disk = Disk::new(&self.root);
        let mut answered = 0;
        for (number, event) in self.events.iter().enumerate() {
            let told = matches!(event, Event::Answer);
            answered += usize::from(told);
            if disk.apply(number, event) || told {
                for (at, remains) in disk.remains(&mut rng).into_iter().enumerate() {
                    if at < PLAIN || !told {
                        visit(&disk, remains, answered, at < PLAIN);
                    }
                }
            }
        }
        assert_eq!(answered, self.asked.len());
    }

    /// Opens what a loss of power may leave: all plain cases, and of the others as many as make
    /// `most`. Returns how many different ones were opened, and what is wrong.
    fn lose_power(
        &self,
        most: usize,
        start: &dyn Fn(&Disk, &Remains, &Journal),
    ) -> (usize, Vec<String>) {
        let (mut plain, mut others) = (HashSet::new(), BTreeSet::new());
        self.moments(&mut |_, remains, _, is_plain| {
            match is_plain {
                true => plain.insert(digest(&remains)),
                false => others.insert(digest(&remains)),
            };
        });
        others.retain(|digest| !plain.contains(digest));
        let wanted = most.saturating_sub(plain.len()).min(others.len());
        let others = Rng::with_seed(2).choose_multiple(others, wanted);
        let chosen: HashSet<u64> = plain.into_iter().chain(others).collect();
        let mut found = HashMap::new();
        let mut wrong = Vec::new();
        self.moments(&mut |disk, remains, answered, _| {
            let digest = digest(&remains);
            if !chosen.contains(&digest) {
                return;
            }
            let opened = found.len();
            let found = found.entry(digest).or_insert_with(|| {
                let place = place();
                disk.put(&remains, place.path());
                if opened % STARTED_EVERY == 0 {
                    start(disk, &remains, &self.doubted(answered));
                }
                StoredState::open(&place.path().join("state"))
            });
            let verdict = match found {
                Ok(found) => self.compare(found, answered),
                Err(error) => Err(error.clone()),
            };
            if let Err(error) = verdict {
                wrong.push(format!("after {answered} answers {error}; on disk is {remains:?}"));
            }
        });
        (found.len(), wrong)
    }

    /// What was acknowledged is there, and the next request has happened or has not.
    fn compare(&self, found: &StoredState, answered: usize) -> Result<(), String> {
        for (job, known) in &self.known[answered] {
            let next = self.asked.get(answered).filter(|asked| *asked == job);
            let next = next.map(|_| &self.known[answered + 1][job]);
            if !found.stands(job, known) && !next.is_some_and(|next| found.stands(job, next)) {
                return Err(format!("{job} was {known:?}, and there is {found:?}"));
            }
        }
        Ok(())
    }

    /// What was acknowledged; the next request may have happened or not.
    fn doubted(&self, answered: usize) -> Journal {
        let mut journal = self.known[answered].clone();
        if let Some(asked) = self.asked.get(answered) {
            journal.get_mut(asked).expect("a job").outcome_unknown = true;
        }
        journal
    }

    /// The run as it would have been without some events.
    fn without(&self, drop: impl Fn(&Event) -> bool) -> Run {
        let event = |event: &Event| if drop(event) { Event::Other } else { event.clone() };
        Run {
            root: self.root.clone(),
            events: self.events.iter().map(event).collect(),
            known: self.known.clone(),
            asked: self.asked.clone(),
        }
    }
}

fn digest(remains: &Remains) -> u64 {
    let mut hasher = DefaultHasher::new();
    remains.hash(&mut hasher);
    hasher.finish()
}

/// A directory in memory where there is such, since nothing in it has to last.
fn place() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}

mod system {
    use crate::power::disk::{Disk, Remains};
    use crate::power::trace::Event;
    use crate::power::{OPENED, Recorder, SIGABRT};
    use crate::support::client::{Journal, check};
    use crate::support::{Daemon, Home, number};
    use std::os::unix::process::ExitStatusExt;
    use std::process::ExitStatus;

    /// Recorded lives of daemons over the simulated host.
    struct Recorded {
        home: Home,
        recorder: Recorder,
    }

    impl Recorded {
        fn new() -> Recorded {
            let home = Home::new();
            Recorded { recorder: Recorder::new(home.path("")), home }
        }

        fn life(
            &mut self,
            more: &[&str],
            requests: usize,
            end: impl FnOnce(Daemon) -> ExitStatus,
        ) -> ExitStatus {
            let serve = self.home.serve(&["--desired", "none.exs"]);
            self.recorder.life(&serve, more, requests, end)
        }
    }

    fn kill(daemon: Daemon) -> ExitStatus {
        daemon.kill()
    }

    fn terminate(daemon: Daemon) -> ExitStatus {
        daemon.terminate().0
    }

    /// A daemon starts from what remains, and knows what was acknowledged.
    fn start(disk: &Disk, remains: &Remains, journal: &Journal) {
        let home = Home::new();
        disk.put(remains, &home.path(""));
        let daemon = home.start(&["--desired", "none.exs"]);
        check(&daemon.url, journal);
    }

    #[test]
    fn whatever_a_loss_of_power_leaves_holds_what_was_acknowledged() {
        let mut recorded = Recorded::new();
        recorded.life(&[], 16, terminate);
        recorded.life(&[], 16, kill);
        recorded.life(&[], 12, kill);
        let (opened, wrong) =
            recorded.recorder.run.lose_power(number("HEARTH_POWER", OPENED), &start);
        assert!(wrong.is_empty(), "{} are wrong, such as {}", wrong.len(), wrong[0]);
        assert!(opened > 500, "a run has more moments than that: {opened}");
    }

    #[test]
    fn a_sync_that_fails_ends_the_daemon_and_loses_nothing() {
        let every = if number("HEARTH_POWER", OPENED) == usize::MAX { 1 } else { 4 };
        let mut aborted = 0;
        for call in (5..23).step_by(every) {
            let mut recorded = Recorded::new();
            recorded.life(&[], 5, kill);
            let inject = format!("inject=fsync:error=EIO:when={call}");
            let ended = recorded.life(&["-e", &inject], 10, terminate);
            aborted += usize::from(ended.signal() == Some(SIGABRT));
            // The next daemon continues from what is in memory, and what it acknowledges lasts.
            recorded.life(&[], 5, kill);
            let failed = |event: &Event| matches!(event, Event::Sync { failed: true, .. });
            assert!(recorded.recorder.run.events.iter().any(failed), "call {call} was not reached");
            let (_, wrong) = recorded.recorder.run.lose_power(0, &|_, _, _| ());
            assert!(wrong.is_empty(), "{} are wrong, such as {}", wrong.len(), wrong[0]);
        }
        assert!(aborted > 0, "no daemon ended by it");
    }

    #[test]
    fn a_sync_that_is_left_out_is_found() {
        let mut recorded = Recorded::new();
        recorded.life(&[], 12, kill);
        let run = recorded.recorder.run;
        let syncs = |name: &'static str| {
            move |event: &Event| match event {
                Event::Sync { path, .. } => path.ends_with(name),
                _ => false,
            }
        };
        let of_log = run.without(syncs("hearth.db-wal")).lose_power(0, &|_, _, _| ()).1;
        assert!(!of_log.is_empty(), "a log that is not synced loses what was acknowledged");
        let of_names = run.without(syncs("state")).lose_power(0, &|_, _, _| ()).1;
        assert!(!of_names.is_empty(), "a database whose name is not synced is lost");
    }
}

mod native {
    use crate::power::{JOBS, Recorder};
    use crate::support::behind;
    use crate::support::client::{ask, check};
    use crate::support::native::Native;
    use crate::support::{Daemon, number};

    /// Remains that a daemon is started from unless told otherwise.
    const STARTED: usize = 12;
    /// And at most: each takes the better part of a second.
    const STARTED_MAX: usize = 400;

    /// All that the daemon writes: instances' directories and records too. These are not synced, so that
    /// the order that file systems with a journal keep is relied on; in another, what has no record is
    /// left alone and reported.
    #[test]
    fn power_loss_leftovers_are_removed_and_instances_run_again() {
        let host = Native::new();
        let mut recorder = Recorder::new(host.home.path(""));
        let serve = host.serve();
        recorder.life(&serve, &["-b", "execve"], 10, Daemon::kill);
        drop(host);
        let run = recorder.run;
        let mut left = 0;
        run.moments(&mut |disk, remains, _, _| {
            if disk.is_of_journal(&remains) {
                left += 1;
            }
        });
        let every = (left / number("HEARTH_POWER", STARTED).min(STARTED_MAX)).max(1);
        let mut at = 0;
        run.moments(&mut |disk, remains, answered, _| {
            if !disk.is_of_journal(&remains) {
                return;
            }
            at += 1;
            if at % every != 0 {
                return;
            }
            let host = Native::new();
            disk.put(&remains, &host.home.path(""));
            // The next boot of the machine.
            let boot = host.home.write("boot_id", "11111111-2222-3333-4444-555555555555\n");
            let script = format!(
                "mount --bind {} /proc/sys/kernel/random/boot_id && exec \"$@\"",
                boot.display()
            );
            let wrapper = ["unshare", "--mount", "sh", "-c", &script, "sh"];
            let daemon = Daemon::spawn(behind(&wrapper, &host.serve()));
            check(&daemon.url, &run.doubted(answered));
            host.compare(&daemon);
            assert_eq!(daemon.get("/stats").json()["unidentified"], serde_json::json!([]));
            for job in (0..JOBS).map(|job| format!("job-{job}")) {
                ask(&daemon.url, "DELETE", &format!("/vms/{job}"), "").expect("an answer");
            }
            daemon.until("nothing is left", || host.is_empty());
            daemon.kill();
        });
    }
}
