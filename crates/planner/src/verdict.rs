//! What the end of an instance means for its job.

use crate::backoff::{STREAK_ENDS_AFTER, backoff};
use hearth_model::{End, Exit, Instance, Job, Lifecycle, Mono, Outcome, Wanted};

/// What the end of an instance means for its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: Hearth asked for it, or the instance served an older generation.
    Nothing,
    /// The `job` is over.
    Over(Outcome),
    /// It is to be replaced, not before the given time.
    Again {
        /// Failures in a row, this one included.
        failures: u32,
        /// When it may start again.
        not_before: Mono,
        /// What happened, as a sentence.
        reason: String,
    },
}

/// What the end of an instance, seen at `now`, means for its job.
///
/// A microVM that was never started has done nothing and is no failure.
#[must_use]
pub fn verdict(job: &Job, instance: &Instance, exit: &Exit, now: Mono) -> Verdict {
    let serves = matches!(&instance.assignment,
        hearth_model::Assignment::Job { run, .. } if *run == job.run);
    if !serves || job.progress.outcome.is_some() {
        return Verdict::Nothing;
    }
    if exit.end == End::NeverStarted {
        let reason = "the microVM was never started".to_owned();
        return Verdict::Again { failures: job.progress.failures, not_before: now, reason };
    }
    if let End::NotCreated(reason) = &exit.end {
        // Nothing ran, so that a `job` has not failed by it.
        return again(job.progress.failures.saturating_add(1), now, reason.clone());
    }
    let asked = instance.stopping.is_some();
    match job.spec.lifecycle {
        Lifecycle::Job => {
            // What ended by itself before the stop reached it has done its work, or failed at it.
            let by_itself = job.wanted == Wanted::Running && !exit.stop_requested;
            if asked && !by_itself {
                return Verdict::Nothing;
            }
            let failures = job.progress.failures.saturating_add(1);
            match &exit.end {
                End::Code(0) => Verdict::Over(Outcome::Completed),
                end if failures > job.spec.retries => {
                    Verdict::Over(Outcome::Failed(end.to_string()))
                }
                end => again(failures, now, end.to_string()),
            }
        }
        Lifecycle::Service | Lifecycle::Daemon if asked => Verdict::Nothing,
        Lifecycle::Service | Lifecycle::Daemon => {
            let streak_over =
                instance.ready_since.is_some_and(|since| now.since(since) >= STREAK_ENDS_AFTER);
            let failures = if streak_over { 1 } else { job.progress.failures.saturating_add(1) };
            again(failures, now, exit.end.to_string())
        }
    }
}

fn again(failures: u32, now: Mono, reason: String) -> Verdict {
    Verdict::Again { failures, not_before: now.after(backoff(failures)), reason }
}
