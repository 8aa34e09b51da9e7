//! How a job stands, in one word and one sentence. Derived, never stored.

use crate::fleet::Fleet;
use crate::world::Waiting;
use hearth_model::{
    Assignment, Instance, InstanceId, InstanceState, Job, Mono, Outcome, Phase, Resolution, Status,
    Wanted,
};

/// How a job stands, and why. It follows from the job, its instances and what it waits for, and so stays the
/// same until one of them changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// In one word.
    pub status: Status,
    /// In a sentence, where the word is not all.
    pub reason: Option<Reason>,
    /// The instance that serves it or will.
    pub instance: Option<InstanceId>,
}

/// Why a job stands as it does. The time is not in it, so that it is as good later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    text: String,
    /// The end of a back-off, which the sentence ends with.
    next_start: Option<Mono>,
}

impl Reason {
    /// The sentence at a time, which says how long a back-off still takes.
    #[must_use]
    pub fn at(&self, now: Mono) -> String {
        let Reason { text, next_start } = self;
        next_start.map_or_else(
            || text.clone(),
            |until| {
                let seconds = until.since(now).as_secs_f64().ceil();
                format!("{text}, next start in {seconds} s")
            },
        )
    }

    /// The same with something before it.
    fn behind(self, before: &str) -> Reason {
        Reason { text: format!("{before}{}", self.text), ..self }
    }
}

impl From<String> for Reason {
    fn from(text: String) -> Reason {
        Reason { text, next_start: None }
    }
}

impl From<&str> for Reason {
    fn from(text: &str) -> Reason {
        Reason::from(text.to_owned())
    }
}

/// How a job stands. `waiting` is what the last plan said of it.
#[must_use]
pub fn status(fleet: &Fleet, job: &Job, waiting: Option<&Waiting>) -> JobStatus {
    let instances = fleet.of_job(&job.id);
    let mut live: Vec<&Instance> = instances.filter(|instance| instance.exit().is_none()).collect();
    live.sort_by_key(|instance| instance.created_at);
    let serves = |instance: &&Instance| serves_its_run(instance) && instance.stopping.is_none();
    let serving = live.iter().rev().copied().find(serves);
    let current = live.iter().rev().copied().find(|instance| is_current(instance, job));
    let shown = current.or(serving).or(live.last().copied());
    let is = |status, reason: Option<Reason>, instance: Option<&Instance>| JobStatus {
        status,
        reason,
        instance: instance.map(|instance| instance.id.clone()),
    };
    match (job.wanted, &job.progress.outcome) {
        (Wanted::Deleted, _) => return is(Status::Stopping, Some("being deleted".into()), shown),
        (Wanted::Stopped, _) if shown.is_some() => return is(Status::Stopping, None, shown),
        (Wanted::Stopped, _) => return is(Status::Stopped, None, None),
        (_, Some(Outcome::Completed)) => return is(Status::Completed, None, shown),
        (_, Some(Outcome::Failed(reason))) => {
            return is(Status::Failed, Some(reason.clone().into()), shown);
        }
        (Wanted::Running, None) => {}
    }
    if let Some(instance) = serving.filter(|instance| is_current(instance, job)) {
        return is(Status::Running, None, Some(instance));
    }
    if let Some(instance) = serving {
        return is(Status::Running, Some(rollout(job, current, waiting)), Some(instance));
    }
    if let Resolution::Failed(reason) = &job.progress.resolution {
        return is(Status::Failed, Some(reason.clone().into()), None);
    }
    if let Some(instance) = current {
        return is(Status::Starting, Some(progress(instance).into()), Some(instance));
    }
    is(Status::Pending, Some(wait(job, waiting)), None)
}

/// Whether an instance serves the generation that it is for, which may be an older one.
pub(crate) fn serves_its_run(instance: &Instance) -> bool {
    match &instance.assignment {
        Assignment::Job { run, .. } => instance.serves(*run),
        Assignment::Pool(_) => false,
    }
}

/// Whether an instance serves the job's current generation and is to stay.
pub(crate) fn is_current(instance: &Instance, job: &Job) -> bool {
    let serves = matches!(&instance.assignment,
        Assignment::Job { job: of, run, .. } if *of == job.id && *run == job.run);
    serves && instance.stopping.is_none() && instance.exit().is_none()
}

fn rollout(job: &Job, current: Option<&Instance>, waiting: Option<&Waiting>) -> Reason {
    let generation = job.run;
    if let Resolution::Failed(reason) = &job.progress.resolution {
        let text = format!(
            "generation {generation} can't start, the previous one keeps serving: {reason}"
        );
        return text.into();
    }
    let how = current.map_or_else(|| wait(job, waiting), |instance| progress(instance).into());
    match &job.progress.last_failure {
        Some(failure) if job.progress.failures > 0 => how.behind(&format!(
            "generation {generation} failed ({failure}), the previous one keeps serving; "
        )),
        _ => how.behind(&format!("replacing it with generation {generation}: ")),
    }
}

fn progress(instance: &Instance) -> String {
    if instance.awaiting_first_report {
        return "it has not reported since the daemon started".to_owned();
    }
    if instance.is_silent() {
        return "its VMM does not answer; unless it does soon, it is replaced".to_owned();
    }
    match &instance.state {
        None => "being created".to_owned(),
        Some(InstanceState::Booting) => "booting".to_owned(),
        Some(InstanceState::Up { phase: Phase::Held | Phase::Running, .. })
            if let Some(failure) = &instance.assign_failure =>
        {
            failure.clone()
        }
        Some(InstanceState::Up { phase: Phase::Held, .. }) => {
            "waiting for the start signal".to_owned()
        }
        Some(InstanceState::Up { ready: false, ready_detail: Some(detail), .. }) => {
            format!("not ready: {detail}")
        }
        Some(InstanceState::Up { ready: false, .. }) => "waiting to be ready".to_owned(),
        Some(InstanceState::Up { phase: Phase::Running, .. }) => {
            "waiting for the guest to take its identity".to_owned()
        }
        Some(InstanceState::Up { phase: Phase::Stopping, .. }) => "stopping".to_owned(),
        Some(InstanceState::Exited(exit)) => format!("ended: {}", exit.end),
    }
}

fn wait(job: &Job, waiting: Option<&Waiting>) -> Reason {
    if let Resolution::Preparing(progress) = &job.progress.resolution {
        let unknown = || "preparing its images".to_owned();
        return progress.as_ref().map_or_else(unknown, ToString::to_string).into();
    }
    let text = match waiting {
        Some(Waiting::BackOff(until)) => {
            let failure = job.progress.last_failure.as_deref().unwrap_or("it ended");
            let text = format!("{failure}; {} failures in a row", job.progress.failures);
            return Reason { text, next_start: Some(*until) };
        }
        Some(Waiting::Predecessor) => "waiting for its predecessor to stop".to_owned(),
        Some(Waiting::Capacity { need, total }) if !need.fits(*total) => format!(
            "waiting for capacity: it needs {need} and the host has {total} in all; \
             lower its resources"
        ),
        Some(Waiting::Capacity { need, .. }) => format!("waiting for capacity: it needs {need}"),
        Some(Waiting::Disk { need_mib, left_mib }) => format!(
            "no room for its scratch disk: it may take {need_mib} MiB and {left_mib} MiB are left; \
             free some of the state directory's disk, or lower disk_mb"
        ),
        Some(Waiting::Turn) => "waiting for others to boot".to_owned(),
        None => "about to start".to_owned(),
    };
    text.into()
}
