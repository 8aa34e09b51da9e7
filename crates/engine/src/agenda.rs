//! What the plans so far expect: what each job waits for, who waits for room, and when time alone
//! makes a plan due again. It is derived from plans and never stored.

use hearth_model::{JobId, Mono};
use hearth_planner::{NextCheck, Queue, Subject, Waiting};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// From one plan for all to the next. In between only those are planned for whom something has
/// changed; this is the net under it, and costs 1 % of a core with 10,000 jobs.
const RESYNC_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(crate) struct Agenda {
    waiting: BTreeMap<JobId, Waiting>,
    queue: Queue,
    alarms: BTreeSet<(Mono, Subject)>,
    alarm_of: BTreeMap<Subject, Mono>,
    resync_at: Mono,
}

impl Agenda {
    /// What a job waits for, by the last plan that was made for it.
    pub(crate) fn waiting(&self, job: &JobId) -> Option<&Waiting> {
        self.waiting.get(job)
    }

    /// What a job waited for is no longer so.
    pub(crate) fn forget(&mut self, job: &JobId) {
        self.waiting.remove(job);
    }

    /// Who waits for room.
    pub(crate) fn queue(&self) -> &Queue {
        &self.queue
    }

    /// When the next plan is due, if nothing happens before.
    pub(crate) fn next(&self) -> Option<Mono> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// Those whose time has come; each once.
    pub(crate) fn due(&mut self, now: Mono) -> Vec<Subject> {
        let mut due = Vec::new();
        while let Some((at, _)) = self.alarms.first()
            && *at <= now
        {
            let Some((_, subject)) = self.alarms.pop_first() else { break };
            self.alarm_of.remove(&subject);
            due.push(subject);
        }
        due
    }

    pub(crate) fn is_resync_due(&self, now: Mono) -> bool {
        now >= self.resync_at
    }

    /// Forgets everything: a plan for all was made, whose checks follow.
    pub(crate) fn restart(&mut self, now: Mono) {
        *self = Agenda { resync_at: now.after(RESYNC_EVERY), ..Agenda::default() };
    }

    /// Notes when a plan expects one to be checked next, and forgets what the previous plan expected.
    pub(crate) fn note(&mut self, subject: Subject, next_check: NextCheck) {
        if let Some(at) = self.alarm_of.remove(&subject) {
            self.alarms.remove(&(at, subject.clone()));
        }
        if let Some(at) = next_check.wake_at {
            self.alarm_of.insert(subject.clone(), at);
            self.alarms.insert((at, subject.clone()));
        }
        match subject {
            Subject::Job(id) => {
                if next_check.waiting.as_ref().is_some_and(Waiting::is_for_room) {
                    self.queue.jobs.insert(id.clone());
                } else {
                    self.queue.jobs.remove(&id);
                }
                match next_check.waiting {
                    Some(waiting) => self.waiting.insert(id, waiting),
                    None => self.waiting.remove(&id),
                };
            }
            Subject::Pool(key) => {
                if next_check.unfilled {
                    self.queue.pools.insert(key);
                } else {
                    self.queue.pools.remove(&key);
                }
            }
        }
    }
}
