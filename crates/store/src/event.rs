//! What is recorded of what happens, for `/events` and the log: a closed catalogue of kinds, each with
//! its word and its fields.

use crate::exit::{ExitNote, JobExit};
use hearth_model::{Caller, Generation, InstanceId, JobId, OomKill, Status};
use serde::{Deserialize, Serialize};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Grows with every event.
    pub id: u64,
    /// When, RFC 3339 UTC.
    pub at: String,
    /// The job it is about.
    pub job: Option<JobId>,
    /// The instance it is about.
    pub instance: Option<InstanceId>,
    /// The generation it served.
    pub generation: Option<Generation>,
    /// Who asked for it, for a change that was asked for. `None` for what follows from one, and in
    /// what a version recorded that did not have it.
    pub caller: Option<Caller>,
    /// What happened.
    pub kind: EventKind,
    /// The same as a sentence, for people.
    pub message: String,
}

/// The kinds of events. A field is `None` in what a version recorded that did not have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A change of a job was accepted: of its spec, of what is wanted of it, or its deletion.
    Accepted,
    /// An instance that the database did not name was adopted as it runs.
    Adopted,
    /// A warm instance was claimed for a job.
    Claimed,
    /// An instance is being created, for a job or a pool.
    Creating,
    /// A job is deleted with its instances.
    Deleted,
    /// Something failed.
    Error,
    /// An instance exited.
    Exited(Option<JobExit>),
    /// A desired-state file or an apply changed jobs.
    Loaded,
    /// The kernel of a guest killed processes for lack of memory, and the guest keeps running.
    OomKill {
        /// The last of them, oldest first.
        killed: Vec<OomKill>,
        /// How many there were.
        count: Option<u32>,
    },
    /// A job has another status.
    Status {
        /// Which.
        status: Option<Status>,
        /// Why, or what it waits for; a sentence.
        reason: Option<String>,
    },
    /// Hearth stops an instance.
    Stopping {
        /// Why; a sentence.
        reason: Option<String>,
    },
    /// A kind that this version does not know, recorded by another one.
    Unknown,
}

/// The fields of a kind as they are stored.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Details {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exit: Option<ExitNote>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    killed: Vec<(u32, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    status: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl EventKind {
    /// The word on the wire and in the database.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            EventKind::Accepted => "accepted",
            EventKind::Adopted => "adopted",
            EventKind::Claimed => "claimed",
            EventKind::Creating => "creating",
            EventKind::Deleted => "deleted",
            EventKind::Error => "error",
            EventKind::Exited(_) => "exited",
            EventKind::Loaded => "loaded",
            EventKind::OomKill { .. } => "oom-kill",
            EventKind::Status { .. } => "status",
            EventKind::Stopping { .. } => "stopping",
            EventKind::Unknown => "unknown",
        }
    }

    /// The fields as JSON, if there are any.
    pub(crate) fn details(&self) -> Option<String> {
        let details = match self {
            EventKind::Exited(exit) => Details {
                exit: exit.as_ref().map(|exit| ExitNote::of(0, exit)),
                ..Details::default()
            },
            EventKind::OomKill { killed, count } => {
                let killed = killed.iter().map(|kill| (kill.pid, kill.name.clone())).collect();
                Details { killed, count: *count, ..Details::default() }
            }
            EventKind::Status { status, reason } => {
                let status = status.map(|status| status.as_str().to_owned());
                Details { status, reason: reason.clone(), ..Details::default() }
            }
            EventKind::Stopping { reason } => {
                Details { reason: reason.clone(), ..Details::default() }
            }
            _ => return None,
        };
        Some(serde_json::to_string(&details).expect("texts and numbers are JSON"))
    }

    /// A kind as it was stored. What cannot be read of its fields is left out: an event is never a
    /// reason to refuse the others.
    pub(crate) fn from_stored(kind: &str, details: Option<&str>) -> EventKind {
        let details = details.and_then(|json| serde_json::from_str(json).ok());
        let Details { exit, killed, count, status, reason } = details.unwrap_or_default();
        match kind {
            "accepted" => EventKind::Accepted,
            "adopted" => EventKind::Adopted,
            "claimed" => EventKind::Claimed,
            "creating" => EventKind::Creating,
            "deleted" => EventKind::Deleted,
            "error" => EventKind::Error,
            "exited" => EventKind::Exited(exit.map(|exit| exit.exit())),
            "loaded" => EventKind::Loaded,
            "oom-kill" => {
                let killed = killed.into_iter().map(|(pid, name)| OomKill { pid, name }).collect();
                EventKind::OomKill { killed, count }
            }
            "status" => {
                let known = |name: String| {
                    Status::ALL.iter().copied().find(|status| status.as_str() == name)
                };
                EventKind::Status { status: status.and_then(known), reason }
            }
            "stopping" => EventKind::Stopping { reason },
            _ => EventKind::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{EventKind, JobExit};
    use hearth_model::{End, OomKill, Status};

    #[test]
    fn every_kind_is_stored_with_its_fields() {
        let exit = |end, timed_out| EventKind::Exited(Some(JobExit { end, timed_out }));
        for kind in [
            EventKind::Accepted,
            EventKind::Adopted,
            EventKind::Claimed,
            EventKind::Creating,
            EventKind::Deleted,
            EventKind::Error,
            exit(End::Code(3), false),
            exit(End::Signal(9), true),
            exit(End::Panic("BUG".into()), false),
            EventKind::Loaded,
            EventKind::OomKill {
                killed: vec![OomKill { pid: 7, name: "app".into() }],
                count: Some(3),
            },
            EventKind::Status { status: Some(Status::Failed), reason: Some("why".into()) },
            EventKind::Stopping { reason: Some("stopped".into()) },
            EventKind::Unknown,
        ] {
            let details = kind.details();
            assert_eq!(EventKind::from_stored(kind.as_str(), details.as_deref()), kind);
        }
    }

    #[test]
    fn rows_of_older_and_newer_versions_are_read() {
        assert_eq!(EventKind::from_stored("exited", None), EventKind::Exited(None));
        let status = EventKind::Status { status: None, reason: None };
        assert_eq!(EventKind::from_stored("status", Some(r#"{"status":"napping"}"#)), status);
        assert_eq!(EventKind::from_stored("moved", Some(r#"{"to":5}"#)), EventKind::Unknown);
        assert_eq!(EventKind::from_stored("exited", Some("{")), EventKind::Exited(None));
    }
}
