//! What runs microVMs, behind one trait: [`sim`] in memory, [`linux`] with real Firecracker. Both
//! pass one contract suite. A host decides nothing: it does what it is asked and says what it sees.

pub mod linux;
mod log_changes;
pub mod sim;

use hearth_model::{Action, InstanceId, Lookup, Observation, Spec, StoredImage};
use std::{future::Future, pin::Pin, time::Duration};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

/// A boxed future, so that a host can be chosen at run time.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// A two-way stream of bytes into a guest.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// What runs microVMs.
///
/// Events are hints and [`Host::observe`] is the truth: a caller that is woken by [`Host::changes`] looks
/// again. Every action may be applied twice. A host never acts on a process whose identity it has
/// not verified.
pub trait Host: Send + Sync + 'static {
    /// The digests of the images that a spec names, after checking that they are what they should
    /// be: regular files beneath the images directory, an ELF kernel, a whole file system.
    ///
    /// An image that the host does not know yet has to be read whole. That takes place behind the
    /// call, for as long as somebody looks the image up now and then; after `patience`, and not
    /// before, the answer is how far it has come. Cancel safe.
    ///
    /// # Errors
    /// A permanent [`HostError`] names the image, what is wrong with it, and the remedy.
    fn resolve<'a>(
        &'a self,
        spec: &'a Spec,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Lookup, HostError>>;

    /// What the host has of any instance, or with `since` only of those that have changed after
    /// that revision (the [`Observation::revision`] of an earlier look): it costs what has changed.
    /// Removed instances are missing from both, which only a whole look shows. Cancel safe.
    ///
    /// # Errors
    /// Where the host cannot look; that is never an empty world.
    fn observe(&self, since: Option<u64>) -> BoxFuture<'_, Result<Observation, HostError>>;

    /// Applies an action. Idempotent. Has deadlines of its own.
    ///
    /// Cancelling it leaves an outcome that the next [`Host::observe`] shows.
    ///
    /// # Errors
    /// Where it could not be done; [`HostError::transient`] says whether trying again can help.
    fn apply(&self, action: Action) -> BoxFuture<'_, Result<(), HostError>>;

    /// The host's revision: a counter that grows when something may have changed.
    fn changes(&self) -> watch::Receiver<u64>;

    /// Whether the process of an instance lives, by a flag in memory: no I/O, no waiting.
    fn alive(&self, instance: &InstanceId) -> bool;

    /// The output of an instance as records, oldest first, from `query.after` on: whole lines, and
    /// parts of those that are not ended yet or are longer than [`LOG_LINE_BYTES_MAX`]. Works for
    /// instances that have ended, until their logs are dropped.
    ///
    /// # Errors
    /// Where the log cannot be read. An instance without a log has no lines.
    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogPage, HostError>>;

    /// Changes whenever records were added to the log of an instance since this was called, or the log was
    /// dropped. It costs nothing while nothing is written. A follower asks for it before it reads.
    fn log_changes(&self, instance: &InstanceId) -> watch::Receiver<()>;

    /// Connects to a TCP port on a guest's loopback.
    ///
    /// # Errors
    /// Where the guest is away or nothing listens on that port.
    fn connect<'a>(
        &'a self,
        instance: &'a InstanceId,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, HostError>>;

    /// The copies of images that the host has, and what it has made of them.
    ///
    /// # Errors
    /// If they can't be looked at.
    fn images(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, HostError>>;

    /// Notes that some copies are in use now, and removes others, by their names. A copy that an
    /// instance has stays. Returns the names of those that are gone. Idempotent; where it is cut off
    /// or fails in the middle the next one does the rest.
    ///
    /// # Errors
    /// If one can't be removed; the others are.
    fn keep_images(
        &self,
        used: Vec<String>,
        remove: Vec<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, HostError>>;

    /// What the host is and can hold.
    fn facts(&self) -> HostFacts;
}

/// What a host is and can hold.
#[derive(Clone, Debug, PartialEq)]
pub struct HostFacts {
    /// A line for logs and `version`, such as `Firecracker 1.12.1 on Linux 6.1`.
    pub description: String,
    /// What a user should know of it, as sentences: an old version, an emulated CPU.
    pub warnings: Vec<String>,
    /// Processors.
    pub cpus: u32,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// By how much deadlines are stretched: 1 on hardware, more where the CPU is emulated.
    pub time_factor: u32,
    /// What Firecracker needs beside a guest's memory, in MiB, for each instance.
    pub overhead_mib: u64,
}

/// Longest record of a log, in bytes of the guest's output. A longer line continues in the next
/// record.
pub const LOG_LINE_BYTES_MAX: usize = 256 * 1024;

/// Which part of a log is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogQuery {
    /// Only lines behind this cursor; 0 for all there are.
    pub after: u64,
    /// Only this many of the last lines.
    pub tail: Option<usize>,
}

/// Records of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogPage {
    /// Oldest first.
    pub lines: Vec<LogLine>,
    /// The cursor behind the last record, for the next query.
    pub next: u64,
}

impl LogPage {
    /// How many lines there are: the records of one line count once.
    #[must_use]
    pub fn line_count(&self) -> usize {
        self.line_ends().into_iter().filter(|end| *end).count()
    }

    /// Keeps the last `count` lines, each with all its records.
    pub fn keep_last(&mut self, count: usize) {
        let (mut left, mut kept) = (count, Vec::new());
        let mut keep = Vec::with_capacity(self.lines.len());
        for (line, end) in self.lines.iter().zip(self.line_ends()).rev() {
            if end {
                kept.retain(|stream| *stream != line.stream);
                if left > 0 {
                    left -= 1;
                    kept.push(line.stream);
                }
            }
            keep.push(kept.contains(&line.stream));
        }
        self.lines.retain(|_| keep.pop().unwrap_or(false));
    }

    /// Of each record, whether it is the last one of its line so far.
    fn line_ends(&self) -> Vec<bool> {
        let mut seen = Vec::new();
        let is_end = |line: &LogLine| {
            let last = !seen.contains(&line.stream);
            if last {
                seen.push(line.stream);
            }
            last || !line.partial
        };
        let mut ends: Vec<bool> = self.lines.iter().rev().map(is_end).collect();
        ends.reverse();
        ends
    }
}

/// One record of output: a line, or a part of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When the host received it, RFC 3339 UTC.
    pub at: String,
    /// `stdout`, `stderr`, or `hearth` for what the host itself has to say (lines lost).
    pub stream: &'static str,
    /// The line without its end, control characters as the app wrote them.
    pub text: String,
    /// Whether the line continues in the next record of this stream, if there is one: the app has
    /// not ended it yet, or it is longer than [`LOG_LINE_BYTES_MAX`].
    pub partial: bool,
    /// The cursor behind this record.
    pub cursor: u64,
}

/// Why a host could not do something.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HostError {
    message: String,
    transient: bool,
    outcome_unknown: bool,
    #[source]
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl HostError {
    /// Trying again may help.
    pub fn transient(message: impl Into<String>) -> HostError {
        HostError { message: message.into(), transient: true, outcome_unknown: false, source: None }
    }

    /// It may have been done, or may still be: the next look at the host shows. Trying again may
    /// help.
    pub fn outcome_unknown(message: impl Into<String>) -> HostError {
        HostError { message: message.into(), transient: true, outcome_unknown: true, source: None }
    }

    /// Trying again does not help before the cause is fixed.
    pub fn permanent(message: impl Into<String>) -> HostError {
        HostError {
            message: message.into(),
            transient: false,
            outcome_unknown: false,
            source: None,
        }
    }

    /// With its cause.
    #[must_use]
    pub fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> HostError {
        self.source = Some(source.into());
        self
    }

    /// Whether trying again may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.transient
    }

    /// Whether it may have been done all the same.
    #[must_use]
    pub fn has_unknown_outcome(&self) -> bool {
        self.outcome_unknown
    }

    /// The whole story in one sentence: this message and those of its causes.
    #[must_use]
    pub fn sentence(&self) -> String {
        let mut sentence = self.message.clone();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            sentence.push_str(": ");
            sentence.push_str(&error.to_string());
            cause = error.source();
        }
        sentence
    }
}

/// How long a whole [`Host::apply`] of a creation may take before the engine gives it up, on
/// hardware: every configuration call within its own 2 s, and copying images.
pub const CREATE_DEADLINE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    fn page(records: &[&str]) -> LogPage {
        let record = |text: &&str| LogLine {
            at: String::new(),
            stream: if text.starts_with('e') { "stderr" } else { "stdout" },
            partial: text.ends_with('+'),
            text: (*text).to_owned(),
            cursor: 0,
        };
        LogPage { lines: records.iter().map(record).collect(), next: 0 }
    }

    #[test]
    fn tail_counts_lines_and_keeps_all_their_records() {
        let all = ["o1+", "e1+", "o1", "o2+", "e1", "e2+", "o2+"];
        for (count, expected) in [
            (0, &[][..]),
            (1, &["o2+", "o2+"]),
            (2, &["o2+", "e2+", "o2+"]),
            (3, &["e1+", "o2+", "e1", "e2+", "o2+"]),
            (4, &all),
            (9, &all),
        ] {
            let mut page = page(&all);
            assert_eq!(page.line_count(), 4);
            page.keep_last(count);
            let texts: Vec<_> = page.lines.iter().map(|line| line.text.as_str()).collect();
            assert_eq!(texts, expected, "{count}");
        }
    }
}
