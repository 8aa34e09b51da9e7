//! Requests that change nothing. They are answered after the step's commit, so that all that they show is
//! on disk.

use crate::ask::{PlanImages, Read};
use crate::engine::Engine;
use crate::reply::{Refusal, Reply};
use hearth_store::{EventPage, Events};

impl Engine {
    pub(crate) fn read(&self, read: Read) -> Reply {
        match read {
            Read::Events(events, to) => to.with(self.events(&events)),
            Read::Ready(to) => to.with(self.ready()),
            Read::Plan(load, to) => to.with(Ok(self.plan_load(&load))),
            Read::PlanImages(PlanImages { stored, keep }, to) => {
                to.with(Ok(self.plan_images(&stored, keep)))
            }
        }
    }

    fn events(&self, events: &Events) -> Result<EventPage, Refusal> {
        if let Some(job) = &events.job
            && self.fleet.job(job).is_none()
            && !self.tombstones.contains_key(job)
        {
            return Err(Refusal::NotFound(job.clone()));
        }
        self.store.events(events).map_err(|error| Refusal::from(&error))
    }
}
