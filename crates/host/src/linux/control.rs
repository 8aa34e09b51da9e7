//! The control stream: reports of the guest become the observed state, commands go to it. The
//! stream is made again whenever it breaks; nothing in it is trusted but its form.

use super::clock;
use super::instance::{Acknowledged, Instance};
use super::layout::names as files;
use super::{Shared, errors, lock, workload};
use crate::HostError;
use hearth_firecracker::{escaped, names, vsock};
use hearth_guest::{
    CONTROL_LINE_BYTES_MAX, CONTROL_PORT, ClockReading, Command, Hello, LATE_WORKLOAD,
    LateWorkload, Message, OOM_KILLS_LISTED_MAX, PROTOCOL_FIRST, Report,
};
use hearth_model::{
    Generation, Identity, InstanceId, InstanceState, OomKill, OomKills, Phase, Spec,
};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};

/// How long one attempt to connect lasts; then the next begins.
pub(super) const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
/// Pause after a stream broke.
pub(super) const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long a guest may take to acknowledge its workload and its identity. They are two lines, of a
/// mebibyte at most, that it keeps in memory: one that has not by then is not going to, and a job waits.
const ASSIGN_DEADLINE: Duration = Duration::from_secs(5);
/// After this long without an acknowledgement it is assigned again.
const ASSIGN_AGAIN: Duration = Duration::from_secs(1);

/// Characters of a failing check's words that are kept.
const READY_DETAIL_CHARS_MAX: usize = 1024;

/// Characters of a guest's reason to refuse a workload that are kept.
const REFUSAL_CHARS_MAX: usize = 256;

/// Characters of a killed process's name that are kept; the kernel has up to 15 bytes, each of which
/// it may write as four characters.
const OOM_NAME_CHARS_MAX: usize = 60;

/// Assigns an identity to a guest, again and again until it acknowledges. One that waits for its workload
/// gets that first.
pub(super) async fn assign_identity(
    shared: &Arc<Shared>,
    id: &InstanceId,
    spec: Arc<Spec>,
    identity: Identity,
    release: bool,
) -> Result<(), HostError> {
    let refused =
        |why| HostError::transient(format!("cannot assign an identity to instance {id}: {why}"));
    let instance = shared.instance(id).ok_or_else(|| refused("there is no such instance"))?;
    let remembered = tokio::task::spawn_blocking({
        let (instance, identity) = (Arc::clone(&instance), identity.clone());
        move || instance.remember(&identity)
    });
    let record = instance.directory.path().join(files::MANIFEST);
    remembered.await.map_err(errors::task)?.map_err(errors::file("write", &record))?;
    if instance.boot == hearth_model::Boot::Raw {
        // A raw guest takes no identity; it is only recorded.
        if instance.set_state(instance.raw_state()) {
            shared.bump(&instance);
        }
        return Ok(());
    }
    let assignment =
        IdentityAssignment { identity: workload::to_wire(&identity, id), spec, release };
    let acknowledged = assignment.until_acknowledged(&instance, ASSIGN_AGAIN * shared.factor());
    let acknowledged = tokio::time::timeout(ASSIGN_DEADLINE * shared.factor(), acknowledged).await;
    acknowledged.unwrap_or_else(|_| {
        let lacks = instance
            .acknowledged
            .borrow()
            .workload
            .as_ref()
            .is_some_and(|late| late.generation != Some(assignment.identity.generation));
        Err(refused(match lacks {
            true => "it does not acknowledge its workload",
            false => "it does not acknowledge",
        }))
    })
}

/// What a guest is to have.
struct IdentityAssignment {
    identity: hearth_guest::Identity,
    spec: Arc<Spec>,
    release: bool,
}

impl IdentityAssignment {
    /// Says it as often as it takes.
    async fn until_acknowledged(
        &self,
        instance: &Instance,
        again: Duration,
    ) -> Result<(), HostError> {
        let id = &instance.id;
        let mut acknowledged = instance.acknowledged.subscribe();
        let mut state = instance.watch();
        let mut was_delivered = false;
        loop {
            let seen = state.borrow_and_update().clone();
            if matches!(seen, InstanceState::Exited(_)) {
                let message = format!("cannot assign an identity to instance {id}: it has ended");
                return Err(HostError::transient(message));
            }
            let has = acknowledged.borrow_and_update().clone();
            if has.identity.as_ref().is_some_and(|known| !serves(known, &self.identity)) {
                let message = format!("instance {id} serves another job already");
                return Err(HostError::permanent(message));
            }
            if was_delivered && let Some(reason) = self.refusal(&has) {
                let message = format!("instance {id} refuses its workload: {reason}");
                return Err(HostError::permanent(message));
            }
            let known = has.identity.as_ref().map(|known| known.generation);
            if known >= Some(self.identity.generation) && !(self.release && is_held(&seen)) {
                return Ok(());
            }
            was_delivered |= self.say(instance, &seen, &has, was_delivered);
            // Either change ends the wait; both are looked at above.
            tokio::select! {
                biased;
                _ = acknowledged.changed() => {}
                _ = state.changed() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Why the guest has refused this workload.
    fn refusal(&self, has: &Acknowledged) -> Option<String> {
        let refused = has.workload.as_ref()?.refused.as_ref()?;
        let reason: String = refused.reason.chars().take(REFUSAL_CHARS_MAX).collect();
        (refused.generation == self.identity.generation).then(|| escaped(&reason))
    }

    /// Sends what can be sent now; a queue that is full has the same on its way. Returns whether the
    /// workload was.
    fn say(
        &self,
        instance: &Instance,
        state: &InstanceState,
        has: &Acknowledged,
        was_delivered: bool,
    ) -> bool {
        if *state == InstanceState::Booting {
            // The first report says whether it has its workload.
            return false;
        }
        let generation = self.identity.generation;
        let is_late = |late: &LateWorkload| {
            // What this call has delivered and the guest has acknowledged is not said again.
            is_held(state) && !(was_delivered && late.generation == Some(generation))
        };
        let is_late = has.workload.as_ref().is_some_and(is_late);
        if is_late {
            if !has.takes_workload {
                return false;
            }
            let workload = workload::of(&self.spec);
            let _ = instance.commands.try_send(Command::Workload { generation, workload });
        }
        let clock_ns = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let clock_ns = u64::try_from(clock_ns.as_nanos()).unwrap_or(u64::MAX);
        let (identity, go) = (self.identity.clone(), self.release);
        // A guest that has refused the workload does not take it.
        let _ = instance.commands.try_send(Command::Identity { identity, go, clock_ns });
        is_late
    }
}

fn serves(acknowledged: &hearth_guest::Identity, asked: &hearth_guest::Identity) -> bool {
    acknowledged.job_id == asked.job_id && acknowledged.tenant == asked.tenant
}

fn is_held(state: &InstanceState) -> bool {
    matches!(state, InstanceState::Up { phase: Phase::Held, .. })
}

/// Keeps the control stream of an instance. Never ends; dropped when the process is gone.
pub(super) async fn keep(shared: &Shared, instance: &Instance) {
    let Some(mut commands) = lock(&instance.commands_taken).take() else { return };
    let deadline = CONNECT_DEADLINE * shared.factor();
    loop {
        let uds = instance.directory.socket(names::VSOCK_SOCKET);
        if let Ok(stream) = vsock::connect(&uds, CONTROL_PORT, deadline).await {
            let (reader, writer) = stream.into_split();
            let (readings, clock) = watch::channel(None);
            // The first two end with the stream, and the third never; they are dropped together.
            tokio::select! {
                biased;
                () = read_reports(shared, instance, reader, &readings) => {}
                () = write_commands(instance, writer, &mut commands) => {}
                () = clock::keep(instance, clock, shared.clock_jumps.subscribe()) => {}
            }
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn read_reports(
    shared: &Shared,
    instance: &Instance,
    reader: OwnedReadHalf,
    readings: &watch::Sender<Option<ClockReading>>,
) {
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        let mut bounded = (&mut reader).take(CONTROL_LINE_BYTES_MAX as u64);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(count) if count > 0 && line.ends_with(b"\n") => {}
            _ => return,
        }
        match serde_json::from_slice::<Message>(&line) {
            Ok(Message::Report(report)) if report.instance == instance.id.as_str() => {
                readings.send_replace(report.clock);
                take_report(shared, instance, *report);
            }
            Ok(Message::Hello { hello }) => {
                let agreed = Hello::own().agreed(&hello);
                tracing::debug!(instance = %instance.id, ?agreed, "the guest has answered Hello");
                let takes_workload = agreed.capabilities.contains(LATE_WORKLOAD);
                instance
                    .acknowledged
                    .send_modify(|acknowledged| acknowledged.takes_workload = takes_workload);
            }
            Ok(Message::Unsupported { unsupported }) => {
                let command = escaped(&unsupported);
                tracing::warn!(instance = %instance.id, command, "the guest knows no such command");
            }
            Ok(_) | Err(_) => {
                tracing::warn!(instance = %instance.id, "a guest's report makes no sense");
                return;
            }
        }
    }
}

fn take_report(shared: &Shared, instance: &Instance, report: Report) {
    let acknowledged = report.identity.as_ref().map(|identity| Generation(identity.generation));
    let phase = match report.phase {
        hearth_guest::Phase::Held => Phase::Held,
        hearth_guest::Phase::Running => Phase::Running,
        hearth_guest::Phase::Stopping | hearth_guest::Phase::Ended => Phase::Stopping,
    };
    // The guest's words end up in terminals.
    let ready_detail = report
        .ready_detail
        .map(|detail| escaped(&detail.chars().take(READY_DETAIL_CHARS_MAX).collect::<String>()));
    let news = [
        instance.set_oom_kills(oom_kills(&report.oom_kills)),
        instance.set_state(InstanceState::Up {
            phase,
            ready: report.ready,
            acknowledged,
            ready_detail,
        }),
    ];
    instance.acknowledged.send_modify(|acknowledged| {
        (acknowledged.identity, acknowledged.workload) = (report.identity, report.workload);
    });
    if news.contains(&true) {
        shared.bump(instance);
    }
}

/// What a guest says of the processes that its kernel has killed.
pub(super) fn oom_kills(said: &hearth_guest::OomKills) -> OomKills {
    let kill = |kill: &hearth_guest::OomKill| {
        let name: String = kill.name.chars().take(OOM_NAME_CHARS_MAX).collect();
        OomKill { pid: kill.pid, name: escaped(&name) }
    };
    let last = said.last.iter().take(OOM_KILLS_LISTED_MAX).map(kill).collect();
    OomKills { count: said.count, last }
}

async fn write_commands(
    instance: &Instance,
    mut writer: OwnedWriteHalf,
    commands: &mut mpsc::Receiver<Command>,
) {
    // An init of the first protocol would end the stream.
    let mut hello = (instance.protocol > PROTOCOL_FIRST).then(|| Command::Hello(Hello::own()));
    loop {
        let command = match hello.take() {
            Some(hello) => Some(hello),
            None => commands.recv().await,
        };
        let Some(command) = command else { return };
        let Ok(mut line) = serde_json::to_vec(&command) else { continue };
        line.push(b'\n');
        // A command that is lost with its stream is sent again by the task that waits for its effect.
        if writer.write_all(&line).await.is_err() {
            return;
        }
    }
}
