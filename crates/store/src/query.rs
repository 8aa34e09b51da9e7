//! Questions about what happened, and what is kept of answers.

use crate::event::Event;
use hearth_model::JobId;

/// Which events, and how many of them.
#[derive(Clone, Debug)]
pub struct Events {
    /// Only of this job.
    pub job: Option<JobId>,
    /// Only those behind this one, from there on; the newest where `None`.
    pub after: Option<u64>,
    /// At most this many.
    pub limit: usize,
}

/// Some of the events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventPage {
    /// Oldest first.
    pub events: Vec<Event>,
    /// Whether there are more behind them.
    pub more: bool,
    /// The oldest event that is kept, of any job; 0 where there is none.
    pub oldest: u64,
    /// The newest, of any job; 0 where there is none.
    pub newest: u64,
}

/// How a change was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// A warm instance was claimed for an upsert: 201.
    Claimed,
    /// It will be so: 202.
    Pending,
    /// It is so already: 200.
    Done,
}

impl Accepted {
    /// The word in the database.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Accepted::Claimed => "claimed",
            Accepted::Pending => "pending",
            Accepted::Done => "done",
        }
    }

    /// What a word in the database means.
    pub(crate) fn parse(word: &str) -> Option<Accepted> {
        let all = [Accepted::Claimed, Accepted::Pending, Accepted::Done];
        all.into_iter().find(|accepted| accepted.as_str() == word)
    }
}
