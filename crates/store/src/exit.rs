//! How an instance exited, in events and beside the progress of its job.

use hearth_model::End;
use serde::{Deserialize, Serialize};

/// How an instance exited, and whether its job had run out of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobExit {
    /// How it exited; [`End::Unknown`] until it has.
    pub end: End,
    /// Whether the job had exceeded its `timeout_s`, and was stopped for that.
    pub timed_out: bool,
}

/// A [`JobExit`] as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitNote {
    /// The run of the job that it is of; 0 in an event, which has it beside.
    #[serde(default)]
    pub run: u64,
    end: EndRow,
    /// Whether the job had exceeded its `timeout_s`.
    #[serde(default)]
    pub timed_out: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndRow {
    Code(u8),
    Signal(u8),
    OutOfMemory,
    OverLimit(String),
    NotStarted(String),
    SetUp(String),
    Panic(String),
    Vmm(String),
    NotCreated(String),
    NeverStarted,
    Unknown,
}

impl ExitNote {
    /// Of an exit in this run.
    #[must_use]
    pub fn of(run: u64, exit: &JobExit) -> ExitNote {
        ExitNote { run, end: EndRow::of(&exit.end), timed_out: exit.timed_out }
    }

    /// The exit.
    #[must_use]
    pub fn exit(&self) -> JobExit {
        JobExit { end: self.end.clone().into_end(), timed_out: self.timed_out }
    }
}

impl EndRow {
    pub(crate) fn of(end: &End) -> EndRow {
        match end {
            End::Code(code) => EndRow::Code(*code),
            End::Signal(signal) => EndRow::Signal(*signal),
            End::OutOfMemory => EndRow::OutOfMemory,
            End::OverLimit(detail) => EndRow::OverLimit(detail.clone()),
            End::NotStarted(detail) => EndRow::NotStarted(detail.clone()),
            End::SetUp(detail) => EndRow::SetUp(detail.clone()),
            End::Panic(lines) => EndRow::Panic(lines.clone()),
            End::Vmm(detail) => EndRow::Vmm(detail.clone()),
            End::NotCreated(detail) => EndRow::NotCreated(detail.clone()),
            End::NeverStarted => EndRow::NeverStarted,
            End::Unknown => EndRow::Unknown,
        }
    }

    pub(crate) fn into_end(self) -> End {
        match self {
            EndRow::Code(code) => End::Code(code),
            EndRow::Signal(signal) => End::Signal(signal),
            EndRow::OutOfMemory => End::OutOfMemory,
            EndRow::OverLimit(detail) => End::OverLimit(detail),
            EndRow::NotStarted(detail) => End::NotStarted(detail),
            EndRow::SetUp(detail) => End::SetUp(detail),
            EndRow::Panic(lines) => End::Panic(lines),
            EndRow::Vmm(detail) => End::Vmm(detail),
            EndRow::NotCreated(detail) => End::NotCreated(detail),
            EndRow::NeverStarted => End::NeverStarted,
            EndRow::Unknown => End::Unknown,
        }
    }
}
