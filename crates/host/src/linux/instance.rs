//! One instance in memory: what is known of it, for all who ask at the same time. It does nothing
//! by itself.

use super::instance_record::InstanceRecord;
use super::layout::{create_file, names};
use super::lock;
use hearth_firecracker::{Client, Directory, Process};
use hearth_guest::Command;
use hearth_model::{
    Boot, CreatedInstance, Exit, Identity, InstanceId, InstanceState, Observed, OomKills, Phase,
    Slot, SpecHash,
};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::{mpsc, watch};

/// Commands to a guest that may wait for its control stream; each is repeated by its sender.
const COMMANDS_MAX: usize = 8;

/// An instance.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) id: InstanceId,
    pub(super) slot: Slot,
    pub(super) hash: SpecHash,
    created: Mutex<Option<Arc<CreatedInstance>>>,
    pub(super) boot: Boot,
    pub(super) has_rootfs: bool,
    /// The version of the protocol that its init speaks.
    pub(super) protocol: u32,
    pub(super) directory: Arc<Directory>,
    /// Commands for the guest; the supervisor takes the receiving end.
    pub(super) commands: mpsc::Sender<Command>,
    pub(super) commands_taken: Mutex<Option<mpsc::Receiver<Command>>>,
    /// What the guest has, for those who tell it.
    pub(super) acknowledged: watch::Sender<Acknowledged>,
    state: watch::Sender<InstanceState>,
    oom_kills: Mutex<OomKills>,
    live: OnceLock<Live>,
    alive: AtomicBool,
    stop_requested: AtomicBool,
    /// How many probes its VMM has missed, as it is reported.
    silence: AtomicU32,
    /// The host's revision since which it is as it is.
    revision: AtomicU64,
}

/// What a guest says that it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Acknowledged {
    /// Its identity, by the last report.
    pub(super) identity: Option<hearth_guest::Identity>,
    /// How far a late workload is, by the last report.
    pub(super) workload: Option<hearth_guest::LateWorkload>,
    /// Whether its init has said that it takes a workload.
    pub(super) takes_workload: bool,
}

/// The process of an instance and its API.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) process: Process,
    pub(super) client: Client,
}

impl Instance {
    pub(super) fn new(
        id: InstanceId,
        record: &InstanceRecord,
        directory: Arc<Directory>,
    ) -> Instance {
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let stop_requested = directory.join(names::STOP_REQUESTED).exists();
        Instance {
            id,
            slot: record.slot(),
            hash: record.hash(),
            created: Mutex::new(record.created().map(Arc::new)),
            boot: record.boot(),
            has_rootfs: record.has_rootfs(),
            protocol: record.protocol(),
            directory,
            commands,
            commands_taken: Mutex::new(Some(receiver)),
            acknowledged: watch::channel(Acknowledged::default()).0,
            state: watch::channel(InstanceState::Booting).0,
            oom_kills: Mutex::default(),
            live: OnceLock::new(),
            alive: AtomicBool::new(false),
            stop_requested: AtomicBool::new(stop_requested),
            silence: AtomicU32::new(0),
            revision: AtomicU64::new(0),
        }
    }

    pub(super) fn state(&self) -> InstanceState {
        self.state.borrow().clone()
    }

    pub(super) fn watch(&self) -> watch::Receiver<InstanceState> {
        self.state.subscribe()
    }

    pub(super) fn observed(&self) -> Observed {
        let created = lock(&self.created).clone();
        // They are set before the state, so that a reader who sees how it ended sees these too.
        let state = self.state();
        let oom_kills = lock(&self.oom_kills).clone();
        let silence = self.silence.load(Ordering::Acquire);
        let confined = self.directory.is_of_jail();
        Observed { slot: self.slot, hash: self.hash, created, state, oom_kills, silence, confined }
    }

    /// Records, over a loss of the database too, the identity that is to be assigned. Blocks. There is
    /// one action on an instance at a time.
    pub(super) fn remember(&self, identity: &Identity) -> io::Result<()> {
        let Some(known) = lock(&self.created).clone() else { return Ok(()) };
        let assigned = known.assigned(identity);
        if assigned != *known {
            let mut record = InstanceRecord::read(self.directory.path(), &self.id)?;
            record.set_owner(&assigned.owner);
            record.write(self.directory.path())?;
            *lock(&self.created) = Some(Arc::new(assigned));
        }
        Ok(())
    }

    /// What a raw guest does as long as it runs. It is told nothing: its identity is what is remembered.
    pub(super) fn raw_state(&self) -> InstanceState {
        let owner = lock(&self.created);
        let identity = owner.as_ref().and_then(|made| made.owner.identity());
        InstanceState::Up {
            phase: Phase::Running,
            ready: true,
            acknowledged: identity.map(|identity| identity.generation),
            ready_detail: None,
        }
    }

    /// Returns what it was before.
    pub(super) fn set_silence(&self, silence: u32) -> u32 {
        self.silence.swap(silence, Ordering::AcqRel)
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(super) fn set_revision(&self, revision: u64) {
        self.revision.store(revision, Ordering::Release);
    }

    pub(super) fn live(&self) -> Option<&Live> {
        self.live.get()
    }

    /// Gives it its process; only the first call counts.
    pub(super) fn set_live(&self, live: Live) {
        if self.live.set(live).is_ok() {
            self.alive.store(true, Ordering::Release);
        }
    }

    /// Whether its process lives. The kernel is asked: the task that waits for the end may not have run
    /// yet, and a claim must not be answered with what is dead.
    pub(super) fn is_alive(&self) -> bool {
        let lives = |live: &Live| !live.process.has_exited();
        !self.is_noted_dead() && self.live().is_some_and(lives)
    }

    /// Whether the task that waits for its end has taken note of it.
    pub(super) fn is_noted_dead(&self) -> bool {
        !self.alive.load(Ordering::Acquire)
    }

    /// The process is gone; the flag is down before anything else is known of the exit.
    pub(super) fn set_dead(&self) {
        self.alive.store(false, Ordering::Release);
    }

    /// Whether this is news. An exit is final.
    pub(super) fn set_state(&self, new: InstanceState) -> bool {
        self.state.send_if_modified(|state| {
            let news = !matches!(state, InstanceState::Exited(_)) && *state != new;
            if news {
                *state = new;
            }
            news
        })
    }

    /// What the guest's kernel has killed so far. Returns whether this is news.
    pub(super) fn set_oom_kills(&self, new: OomKills) -> bool {
        let mut known = lock(&self.oom_kills);
        let news = new.count > known.count;
        if news {
            *known = new;
        }
        news
    }

    pub(super) fn set_exited(&self, exit: Exit) -> bool {
        self.set_dead();
        self.set_state(InstanceState::Exited(exit))
    }

    pub(super) fn is_stop_requested(&self) -> bool {
        self.stop_requested.load(Ordering::Acquire)
    }

    /// Remembers, over a restart of the daemon too, that the end was asked for.
    pub(super) fn request_stop(&self) {
        self.stop_requested.store(true, Ordering::Release);
        let marker = self.directory.join(names::STOP_REQUESTED);
        if let Err(error) = create_file(&marker) {
            tracing::warn!(instance = %self.id, %error, "cannot write the marker of a stop");
        }
    }
}
