//! Makes a failing schedule smaller: what can be left out without it passing is left out.

use crate::schedule::{Item, Schedule};
use crate::{Database, outcome};

/// The schedule without what its failure does not need, and the failure. `None` where it passes.
#[must_use]
pub fn smallest(schedule: &Schedule, database: Database) -> Option<(Schedule, String)> {
    let mut failure = fails(schedule, database)?;
    let mut items = schedule.items.clone();
    let mut chunk = items.len().div_ceil(2).max(1);
    loop {
        let mut at = 0;
        let mut shrunk = false;
        while at < items.len() {
            let end = (at + chunk).min(items.len());
            let fewer: Vec<Item> = [&items[..at], &items[end..]].concat();
            match fails(&Schedule { seed: schedule.seed, items: fewer.clone() }, database) {
                Some(still) => {
                    (items, failure, shrunk) = (fewer, still, true);
                }
                None => at = end,
            }
        }
        if chunk == 1 && !shrunk {
            return Some((Schedule { seed: schedule.seed, items }, failure));
        }
        chunk = (chunk / 2).max(1);
    }
}

fn fails(schedule: &Schedule, database: Database) -> Option<String> {
    outcome(schedule, database).err()
}
