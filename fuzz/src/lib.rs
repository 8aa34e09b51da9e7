//! What the fuzz targets share: an engine over a host that has nothing, in time that stands still.

mod mutate;

pub use mutate::mutate;

use hearth_engine::{
    Ask, Call, Config, Effect, Engine, Input, Now, Preconditions, Refusal, ReplyTo,
};
use hearth_host::sim::{SimConfig, SimState};
use hearth_model::{Caller, InstanceId, Mono, Observation, Observed, Resolution, Spec};
use hearth_planner::{Capacity, Limits};
use hearth_store::Sqlite;
use std::collections::BTreeMap;
use std::sync::mpsc::channel;
use std::time::Duration;

/// The boot of the host that an engine takes for its own.
pub const BOOT_ID: &str = "a6f0b0f2-5e3c-4f0e-9d3a-6f2c1d0e9b8a";

/// What an engine is told at its start.
pub fn config() -> Config {
    Config {
        capacity: Capacity { vcpus: 64, memory_mib: 64 * 1024, overhead_mib: 5, scratch_mib: None },
        limits: Limits::default(),
        disk_overcommit: hearth_engine::DiskOvercommit::Warn,
        retention: hearth_engine::Retention::default(),
        boot_id: BOOT_ID.to_owned(),
        seed: 1,
    }
}

/// Some time after the host's boot.
pub fn now(seconds: u64) -> Now {
    let mono = Mono(Duration::from_secs(1_000_000 + seconds));
    Now { mono, wall: "2026-11-24T12:00:00Z".to_owned() }
}

/// An engine on an empty database.
pub fn engine() -> Engine {
    Engine::open(Sqlite::in_memory().expect("memory is there"), config()).expect("it is empty")
}

/// The images of a spec on a host that has all of them.
pub fn resolution(spec: &Spec) -> Resolution {
    let mut machine = SimState::new(SimConfig::default());
    match machine.resolve(spec) {
        Ok(lookup) => Resolution::of(spec, lookup),
        Err(error) => Resolution::Failed(error.sentence()),
    }
}

/// Asks an engine something.
pub fn ask<A: Ask>(engine: &mut Engine, seconds: u64, ask: A) -> Result<A::Reply, Refusal> {
    ask_if(engine, seconds, Preconditions::NONE, ask)
}

/// Asks an engine something, if the preconditions hold.
pub fn ask_if<A: Ask>(
    engine: &mut Engine,
    seconds: u64,
    preconditions: Preconditions,
    ask: A,
) -> Result<A::Reply, Refusal> {
    let (sender, receiver) = channel();
    let request = ask.reply_to(ReplyTo::new(move |reply| drop(sender.send(reply))));
    let inputs = vec![Input::Request(Call { caller: Caller::Unknown, preconditions, request })];
    for effect in engine.step(&now(seconds), inputs, &|_| false) {
        if let Effect::Reply(reply) = effect {
            reply.deliver();
        }
    }
    receiver.try_recv().expect("every request is answered")
}

/// A whole look at a host.
pub fn look(seconds: u64, instances: impl Iterator<Item = (InstanceId, Observed)>) -> Input {
    let observation = Observation {
        whole: true,
        revision: 1,
        instances: instances.collect(),
        scratch_mib: None,
        unidentified: BTreeMap::new(),
    };
    Input::Observed { began: now(seconds).mono, observation }
}

/// Whether no terminal takes any of it for a command.
pub fn is_tame(text: &str) -> bool {
    text.chars().all(|c| {
        let reorders = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        !(c.is_control() || reorders)
    })
}

/// A directory that a target may fill: beneath `TMPDIR`, best in memory. The caller that runs the target
/// removes it.
pub fn work_dir() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("hearth-fuzz-").tempdir().expect("a directory is made")
}
