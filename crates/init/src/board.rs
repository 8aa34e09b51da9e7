//! The board: the guest's report and who waits for its next change. It never talks to anyone.

use hearth_guest::{ClockReading, LateWorkload, OomKills, Phase, Report};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds the current report. Readers see the newest state, not every state in between: a report
/// is the whole state, so nothing is lost by skipping one.
pub(crate) struct Board {
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    report: Report,
    version: u64,
}

impl Board {
    /// A board of a guest that holds its command; `workload` is what is known of one that comes late.
    pub(crate) fn new(instance: String, workload: Option<LateWorkload>) -> Board {
        let report = Report {
            instance,
            phase: Phase::Held,
            ready: false,
            identity: None,
            ready_detail: None,
            oom_kills: OomKills::default(),
            // It can be asked.
            clock: Some(ClockReading::default()),
            workload,
        };
        Board { inner: Mutex::new(Inner { report, version: 1 }), changed: Condvar::new() }
    }

    /// Changes the report and wakes all who wait. A change that changes nothing is reported as well:
    /// it is how a repeated command is acknowledged.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Report)) {
        let mut inner = self.lock();
        change(&mut inner.report);
        inner.version += 1;
        self.changed.notify_all();
    }

    /// Wakes all who wait, so that they look at their `gone` flag.
    pub(crate) fn wake(&self) {
        let _inner = self.lock();
        self.changed.notify_all();
    }

    /// Waits for a report newer than `seen` (0 for the first); `None` once `gone` is set.
    pub(crate) fn newer(&self, seen: u64, gone: &AtomicBool) -> Option<(u64, Report)> {
        let mut inner = self.lock();
        loop {
            if gone.load(Ordering::Acquire) {
                return None;
            }
            if inner.version > seen {
                return Some((inner.version, inner.report.clone()));
            }
            inner = self.changed.wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The report as it is.
    pub(crate) fn report(&self) -> Report {
        self.lock().report.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
