//! What the database's rows hold, and the conversions from and to the model. A row that does not
//! convert is damage and stops the daemon's start; nothing is guessed.

use crate::exit::{EndRow, ExitNote, JobExit};
use crate::json::SpecForm;
use hearth_model::{
    Assignment, Creation, Digest, End, Exit, Generation, Images, Instance, InstanceId,
    InstanceState, Job, JobId, Mono, Outcome, PoolKey, PoolTenant, Progress, Resolution, Slot,
    SpecHash, Stage, Tenant, Wanted,
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What is kept of a job beside what decides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobNotes {
    /// Instances that are gone, oldest first, for their logs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub past: Vec<Past>,
    /// The code of the last exit that had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<u8>,
    /// How the last instance of its current run exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitNote>,
    /// The status that was last shown, and since when.
    pub status: String,
    /// Its reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Since when, RFC 3339 UTC.
    pub since: String,
    /// When its outcome came about, on the host's monotonic clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at_ms: Option<u64>,
    /// Who asked for its deletion, as [`crate::caller_word`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deleted_by: Option<String>,
}

/// An instance that is gone and whose logs are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "PastRow")]
pub struct Past {
    /// Its id.
    pub instance: String,
    /// When it was removed, on the host's monotonic clock.
    pub removed_at_ms: u64,
}

/// Once it was the name alone.
#[derive(Deserialize)]
#[serde(untagged)]
enum PastRow {
    Name(String),
    Since { instance: String, removed_at_ms: u64 },
}

impl From<PastRow> for Past {
    fn from(row: PastRow) -> Past {
        match row {
            PastRow::Name(instance) => Past { instance, removed_at_ms: 0 },
            PastRow::Since { instance, removed_at_ms } => Past { instance, removed_at_ms },
        }
    }
}

impl JobNotes {
    /// How the last instance exited. Rows of older versions have no more than a code.
    #[must_use]
    pub fn exit(&self) -> Option<JobExit> {
        let code = |code| JobExit { end: End::Code(code), timed_out: false };
        self.exit.as_ref().map(ExitNote::exit).or_else(|| self.exit_code.map(code))
    }

    /// When its outcome came about.
    #[must_use]
    pub fn finished_at(&self) -> Option<Mono> {
        self.finished_at_ms.map(Mono::from_millis)
    }

    /// The instances that are gone, with when they were removed.
    pub fn past(&self) -> impl Iterator<Item = (InstanceId, Mono)> {
        self.past.iter().filter_map(|past| {
            let instance = InstanceId::parse(&past.instance).ok()?;
            Some((instance, Mono::from_millis(past.removed_at_ms)))
        })
    }
}

/// What a user wants of a job, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobRow<'a> {
    tenant: Cow<'a, str>,
    tenant_given: bool,
    generation: u64,
    run: u64,
    spec: SpecForm,
    wanted: WantedRow,
}

/// The progress of a job, with what is kept beside it, as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProgressRow<'a> {
    resolution: ResolutionRow,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<OutcomeRow>,
    #[serde(default, skip_serializing_if = "is_zero")]
    failures: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    last_failure: Option<Cow<'a, str>>,
    notes: Cow<'a, JobNotes>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum ResolutionRow {
    Known {
        images: ImagesRow,
        hash: String,
    },
    /// How far it is is not kept: the next daemon looks for itself.
    Preparing,
    Failed(String),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ImagesRow {
    kernel: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    modules: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rootfs: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum WantedRow {
    Running,
    Stopped,
    Deleted,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum OutcomeRow {
    Completed,
    Failed(String),
}

/// An instance as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct InstanceRow {
    slot: u32,
    assignment: AssignmentRow,
    hash: String,
    images: ImagesRow,
    spec: SpecForm,
    stage: String,
    created_at_ms: u64,
    running_since_ms: Option<u64>,
    ready_since_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "is_zero")]
    oom_kills: u32,
    stopping: Option<String>,
    exit: Option<ExitRow>,
    /// Whether its creation was seen to be done.
    started: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
enum AssignmentRow {
    Pool { tenant: Option<String>, hash: String },
    Job { job: String, run: u64, claimed_at_ms: Option<u64> },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ExitRow {
    end: EndRow,
    stop_requested: bool,
}

/// A generation of a row.
pub(crate) fn generation(number: u64) -> Result<Generation, String> {
    Generation::from_stored(number).ok_or_else(|| format!("bad generation {number}"))
}

/// A row holds what is not usual: most are written often and read once.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's form")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl<'a> JobRow<'a> {
    /// The row of a job.
    #[must_use]
    pub fn of(job: &'a Job) -> JobRow<'a> {
        JobRow {
            tenant: job.tenant.as_str().into(),
            tenant_given: job.tenant_given,
            generation: job.generation.0,
            run: job.run.0,
            spec: SpecForm(job.spec.clone()),
            wanted: match job.wanted {
                Wanted::Running => WantedRow::Running,
                Wanted::Stopped => WantedRow::Stopped,
                Wanted::Deleted => WantedRow::Deleted,
            },
        }
    }

    /// The job that it and its progress are of.
    pub(crate) fn into_job(self, id: &str, progress: Progress) -> Result<Job, String> {
        let (current, run) = (generation(self.generation)?, generation(self.run)?);
        if run > current {
            return Err(format!("it runs at generation {run}, and is at {current}"));
        }
        Ok(Job {
            id: JobId::parse(id).map_err(|error| error.to_string())?,
            tenant: Tenant::parse(&self.tenant).map_err(|error| error.to_string())?,
            tenant_given: self.tenant_given,
            generation: current,
            run,
            spec: self.spec.0,
            wanted: match self.wanted {
                WantedRow::Running => Wanted::Running,
                WantedRow::Stopped => Wanted::Stopped,
                WantedRow::Deleted => Wanted::Deleted,
            },
            progress,
        })
    }
}

impl<'a> ProgressRow<'a> {
    /// The row of a job's progress.
    #[must_use]
    pub fn of(progress: &'a Progress, notes: &'a JobNotes) -> ProgressRow<'a> {
        ProgressRow {
            resolution: match &progress.resolution {
                Resolution::Known { images, hash } => {
                    ResolutionRow::Known { images: ImagesRow::of(images), hash: hash.to_hex() }
                }
                Resolution::Preparing(_) => ResolutionRow::Preparing,
                Resolution::Failed(reason) => ResolutionRow::Failed(reason.clone()),
            },
            outcome: progress.outcome.as_ref().map(|outcome| match outcome {
                Outcome::Completed => OutcomeRow::Completed,
                Outcome::Failed(reason) => OutcomeRow::Failed(reason.clone()),
            }),
            failures: progress.failures,
            not_before_ms: progress.not_before.map(Mono::as_millis),
            last_failure: progress.last_failure.as_deref().map(Into::into),
            notes: Cow::Borrowed(notes),
        }
    }

    pub(crate) fn into_progress(self) -> Result<(Progress, JobNotes), String> {
        let resolution = match self.resolution {
            ResolutionRow::Known { images, hash } => Resolution::Known {
                images: images.into_images()?,
                hash: SpecHash::parse(&hash).ok_or("bad hash")?,
            },
            ResolutionRow::Preparing => Resolution::Preparing(None),
            ResolutionRow::Failed(reason) => Resolution::Failed(reason),
        };
        for past in &self.notes.past {
            InstanceId::parse(&past.instance).map_err(|error| error.to_string())?;
        }
        let progress = Progress {
            resolution,
            outcome: self.outcome.map(|outcome| match outcome {
                OutcomeRow::Completed => Outcome::Completed,
                OutcomeRow::Failed(reason) => Outcome::Failed(reason),
            }),
            failures: self.failures,
            not_before: self.not_before_ms.map(Mono::from_millis),
            last_failure: self.last_failure.map(Cow::into_owned),
        };
        Ok((progress, self.notes.into_owned()))
    }
}

impl ImagesRow {
    fn of(images: &Images) -> ImagesRow {
        ImagesRow {
            kernel: images.kernel.to_string(),
            modules: images.modules.map(|digest| digest.to_string()),
            rootfs: images.rootfs.map(|digest| digest.to_string()),
        }
    }

    fn into_images(self) -> Result<Images, String> {
        let parse = |hex: String| Digest::parse(&hex).ok_or_else(|| format!("bad digest {hex:?}"));
        Ok(Images {
            kernel: parse(self.kernel)?,
            modules: self.modules.map(parse).transpose()?,
            rootfs: self.rootfs.map(parse).transpose()?,
        })
    }
}

impl InstanceRow {
    /// The row of an instance.
    #[must_use]
    pub fn of(instance: &Instance) -> InstanceRow {
        InstanceRow {
            slot: instance.slot.0,
            assignment: match &instance.assignment {
                Assignment::Pool(key) => AssignmentRow::Pool {
                    tenant: match &key.tenant {
                        PoolTenant::Shared => None,
                        PoolTenant::Named(tenant) => Some(tenant.to_string()),
                    },
                    hash: key.hash.to_hex(),
                },
                Assignment::Job { job, run, claimed_at } => AssignmentRow::Job {
                    job: job.to_string(),
                    run: run.0,
                    claimed_at_ms: claimed_at.map(Mono::as_millis),
                },
            },
            hash: instance.hash.to_hex(),
            images: ImagesRow::of(&instance.images),
            spec: SpecForm(instance.spec.clone()),
            stage: instance.stage.as_str().to_owned(),
            created_at_ms: instance.created_at.as_millis(),
            running_since_ms: instance.running_since.map(Mono::as_millis),
            ready_since_ms: instance.ready_since.map(Mono::as_millis),
            oom_kills: instance.oom_kills,
            stopping: instance.stopping.clone(),
            exit: instance.exit().map(ExitRow::of),
            started: instance.creation == Creation::Confirmed,
        }
    }

    /// The instance. What it does now is not in the row: only the host can say.
    pub(crate) fn into_instance(self, id: &str) -> Result<Instance, String> {
        let hash = |hex: &str| SpecHash::parse(hex).ok_or_else(|| format!("bad hash {hex:?}"));
        let assignment = match self.assignment {
            AssignmentRow::Pool { tenant, hash: of } => Assignment::Pool(PoolKey {
                tenant: match tenant {
                    None => PoolTenant::Shared,
                    Some(tenant) => PoolTenant::Named(
                        Tenant::parse(&tenant).map_err(|error| error.to_string())?,
                    ),
                },
                hash: hash(&of)?,
            }),
            AssignmentRow::Job { job, run, claimed_at_ms } => Assignment::Job {
                job: JobId::parse(&job).map_err(|error| error.to_string())?,
                run: generation(run)?,
                claimed_at: claimed_at_ms.map(Mono::from_millis),
            },
        };
        Ok(Instance {
            id: InstanceId::parse(id).map_err(|error| error.to_string())?,
            slot: Slot::from_stored(self.slot).ok_or_else(|| format!("bad slot {}", self.slot))?,
            assignment,
            hash: hash(&self.hash)?,
            images: self.images.into_images()?,
            spec: self.spec.0,
            stage: match self.stage.as_str() {
                "app" => Stage::App,
                "init" => Stage::Init,
                other => return Err(format!("bad stage {other:?}")),
            },
            created_at: Mono::from_millis(self.created_at_ms),
            seen_at: None,
            awaiting_first_report: self.exit.is_none(),
            silence: 0,
            unconfined: false,
            running_since: self.running_since_ms.map(Mono::from_millis),
            ready_since: self.ready_since_ms.map(Mono::from_millis),
            oom_kills: self.oom_kills,
            oom_told_at: None,
            assign_failure: None,
            stopping: self.stopping,
            state: self.exit.map(|exit| InstanceState::Exited(exit.into_exit())),
            creation: if self.started { Creation::Confirmed } else { Creation::Unconfirmed },
        })
    }
}

impl ExitRow {
    fn of(exit: &Exit) -> ExitRow {
        ExitRow { end: EndRow::of(&exit.end), stop_requested: exit.stop_requested }
    }

    fn into_exit(self) -> Exit {
        Exit { end: self.end.into_end(), stop_requested: self.stop_requested }
    }
}
