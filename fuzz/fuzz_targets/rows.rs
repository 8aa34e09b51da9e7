//! A database that holds something else than what Hearth wrote. Three forms:
//!
//! - lines, each a row: the table's name and the columns with tabs between, put into a new database;
//! - `damage ` and then groups of four bytes, each a place in a small real database (three bytes)
//!   and what its byte is changed by (0: the file ends there);
//! - anything else: the whole file.
//!
//! What can't be taken over is refused with a sentence, and the file stays as it is. What is taken
//! over is what was there: memory and database are one, now and after some steps and a restart.

#![no_main]

use hearth_engine::{
    Config, Delete, Effect, Engine, Events, Input, List, Preconditions, Refusal, Repeat, Restart,
    Start, Stop, Upsert,
};
use hearth_fuzz::{ask, ask_if, config, look, now, resolution};
use hearth_model::{Assignment, InstanceState, JobId, Observed, OomKills, Phase};
use hearth_store::fuzzing::{TABLES, insert};
use hearth_store::{Sqlite, StoreError};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use std::path::PathBuf;
use std::sync::LazyLock;

/// Most rows of one database.
const ROWS_MAX: usize = 64;
/// Most bytes of one database.
const FILE_BYTES_MAX: usize = 256 * 1024;

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(hearth_fuzz::work_dir);
static REAL: LazyLock<Vec<u8>> = LazyLock::new(real);

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    hearth_fuzz::mutate(data, size, max_size, seed)
});

fuzz_target!(|input: &[u8]| -> Corpus {
    if let Some(damage) = input.strip_prefix(b"damage ") {
        file(&damaged(damage));
    } else if input.starts_with(b"SQLite") {
        if input.len() > FILE_BYTES_MAX {
            return Corpus::Reject;
        }
        file(input);
    } else {
        return rows(input);
    }
    Corpus::Keep
});

fn rows(input: &[u8]) -> Corpus {
    let store = Sqlite::in_memory().expect("memory is there");
    let mut taken = 0;
    for line in input.split(|&byte| byte == b'\n').take(ROWS_MAX) {
        let mut cells = line.split(|&byte| byte == b'\t');
        let table = cells.next().and_then(|table| str::from_utf8(table).ok()).unwrap_or_default();
        let cells: Vec<&[u8]> = cells.collect();
        taken += usize::from(insert(&store, table, &cells));
    }
    if taken == 0 {
        return Corpus::Reject;
    }
    match Engine::open(store, config()) {
        Ok(engine) => lives_on(engine, input.len() % 2 == 0),
        Err(error) => sentence(&error),
    }
    Corpus::Keep
}

/// Steps of an engine that took something over, on a host that lacks it, at first or only in
/// the end, and a restart.
fn lives_on(mut engine: Engine, at_first: bool) {
    reads(&mut engine);
    for seconds in [2, 3, 30] {
        let mut inputs = vec![seen(&engine, seconds, at_first && seconds < 30)];
        for _ in 0..3 {
            let effects = engine.step(&now(seconds), std::mem::take(&mut inputs), &|_| false);
            for effect in effects {
                match effect {
                    Effect::Apply(id, _) => inputs.push(Input::Done(id, Ok(()))),
                    Effect::Resolve(job, run, spec) => {
                        inputs.push(Input::Resolved(job, run, resolution(&spec)));
                    }
                    Effect::Reply(_) | Effect::WakeIn(_) | Effect::Log(_) => {}
                }
            }
            inputs.push(seen(&engine, seconds, at_first && seconds < 30));
        }
        engine.audit().expect("memory and database are one");
    }
    changes(&mut engine);
    engine.audit().expect("memory and database are one");
    let fleet = engine.fleet().jobs().clone();
    let engine = Engine::open(engine.into_store(), config()).expect("it is of our own making");
    assert_eq!(*engine.fleet().jobs(), fleet);
}

/// A look at a host on which every instance serves, or on which nothing is left.
fn seen(engine: &Engine, seconds: u64, all: bool) -> Input {
    let instances = engine.fleet().instances().values().filter(|_| all);
    look(
        seconds,
        instances.map(|instance| {
            let acknowledged = match &instance.assignment {
                Assignment::Job { run, .. } => Some(*run),
                Assignment::Pool(_) => None,
            };
            let phase = Phase::Running;
            let state = InstanceState::Up { phase, ready: true, acknowledged, ready_detail: None };
            let observed = Observed {
                slot: instance.slot,
                hash: instance.hash,
                created: None,
                state,
                oom_kills: OomKills::default(),
                silence: 0,
                confined: true,
            };
            (instance.id.clone(), observed)
        }),
    )
}

/// What only reads.
fn reads(engine: &mut Engine) {
    let jobs: Vec<JobId> = engine.fleet().jobs().keys().cloned().collect();
    let all = List { limit: 1000, ..List::default() };
    assert_eq!(engine.view().page(&all).jobs.len(), jobs.len());
    for (job, after) in [(None, None), (None, Some(0)), (jobs.first().cloned(), Some(1))] {
        let _ = ask(engine, 1, Events { job, after, limit: 100 });
    }
}

/// What a user does with each job.
fn changes(engine: &mut Engine) {
    let spec = serde_json::from_value(serde_json::json!({
        "kernel": "vmlinux", "boot": "raw", "lifecycle": "service",
        "resources": {"vcpu": 1, "mem_mb": 128}
    }));
    let hearth_store::json::SpecForm(spec) = spec.expect("it is right");
    for key in ["k", "key-1"] {
        let upsert = Upsert {
            job: JobId::parse("new").ok(),
            tenant: None,
            spec: spec.clone(),
            resolution: resolution(&spec),
        };
        let repeat = Some(Repeat { key: key.to_owned(), digest: "d".to_owned() });
        let _ = ask_if(engine, 31, Preconditions { repeat, generations: None }, upsert);
    }
    let jobs: Vec<JobId> = engine.fleet().jobs().keys().cloned().collect();
    for job in jobs {
        let spec = spec.clone();
        let restart = Restart { job: job.clone(), resolution: resolution(&spec), spec };
        let _ = ask(engine, 32, Stop { job: job.clone() });
        let _ = ask(engine, 32, Start { job: job.clone() });
        let _ = ask(engine, 32, restart);
        let _ = ask(engine, 32, Delete { job });
    }
}

fn file(bytes: &[u8]) {
    let path = DIR.path().join("hearth.db");
    let beside = |suffix: &str| PathBuf::from(format!("{}{suffix}", path.display()));
    for suffix in ["-wal", "-shm", "-journal"] {
        let _ = std::fs::remove_file(beside(suffix));
    }
    std::fs::write(&path, bytes).expect("a file is written");
    match Sqlite::open(&path).and_then(|store| Engine::open(store, config())) {
        Ok(mut engine) => reads_damaged(&mut engine),
        Err(error) => sentence(&error),
    }
}

/// A page that was not needed for the start may be damaged, and then says so.
fn reads_damaged(engine: &mut Engine) {
    for after in [None, Some(0)] {
        check(ask(engine, 1, Events { job: None, after, limit: 10 }));
    }
}

fn check<R>(reply: Result<R, Refusal>) {
    if let Err(refusal) = reply {
        assert!(!refusal.to_string().is_empty());
    }
}

fn sentence(error: &StoreError) {
    let text = error.to_string();
    assert!(text.starts_with("cannot ") || text.contains(" is damaged: "), "{text}");
}

fn damaged(damage: &[u8]) -> Vec<u8> {
    let mut bytes = REAL.clone();
    for group in damage.chunks_exact(4).take(64) {
        let at = u32::from_be_bytes([0, group[0], group[1], group[2]]) as usize;
        let at = at % bytes.len().max(1);
        match group[3] {
            0 => bytes.truncate(at),
            change => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= change;
                }
            }
        }
    }
    bytes
}

/// A small database in which every table has rows.
fn real() -> Vec<u8> {
    let path = DIR.path().join("real.db");
    let store = Sqlite::open(&path).expect("a database is made");
    let seed = include_str!("../corpus-seed/rows/every-table");
    for line in seed.lines() {
        let mut cells = line.split('\t');
        let table = cells.next().unwrap_or_default();
        let cells: Vec<&[u8]> = cells.map(str::as_bytes).collect();
        assert!(insert(&store, table, &cells), "{line}");
    }
    for (table, _) in TABLES {
        assert!(seed.contains(&format!("{table}\t")), "{table} has no row");
    }
    let config = Config { boot_id: "another".to_owned(), ..config() };
    drop(Engine::open(store, config).expect("the seed is right").into_store());
    std::fs::read(&path).expect("it was written just now")
}
