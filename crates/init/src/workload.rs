//! The workload of the guest, which is written once: on the config drive, or by the first command that
//! brings one. It starts nothing.

use hearth_guest::{Delivery, LateWorkload, RefusedWorkload, Workload};

/// The workload, or that it has not come.
pub(crate) enum WorkloadCell {
    /// It was on the config drive.
    Inline(Workload),
    /// It comes late.
    Late {
        /// The one that came first, with its generation.
        taken: Option<(u64, Workload)>,
        /// The last one that came, if it was another.
        refused: Option<RefusedWorkload>,
    },
}

impl WorkloadCell {
    /// That of a config.
    pub(crate) fn new(delivery: Delivery) -> WorkloadCell {
        match delivery {
            Delivery::Inline(workload) => WorkloadCell::Inline(workload),
            Delivery::Late { .. } => WorkloadCell::Late { taken: None, refused: None },
        }
    }

    /// What is to run, once it has come.
    pub(crate) fn get(&self) -> Option<&Workload> {
        match self {
            WorkloadCell::Inline(workload) => Some(workload),
            WorkloadCell::Late { taken, .. } => taken.as_ref().map(|(_, workload)| workload),
        }
    }

    /// Whether the guest has the workload that the host has sent last.
    pub(crate) fn is_agreed(&self) -> bool {
        match self {
            WorkloadCell::Inline(_) => true,
            WorkloadCell::Late { taken, refused } => taken.is_some() && refused.is_none(),
        }
    }

    /// Takes the first workload. The same one again changes nothing, and another one is refused.
    pub(crate) fn take(&mut self, generation: u64, workload: Workload) {
        // A host that has put it on the drive sends none, and no report could answer this one.
        let WorkloadCell::Late { taken, refused } = self else { return };
        let (known, first) = taken.get_or_insert_with(|| (generation, workload.clone()));
        *refused = match (*known == generation, *first == workload) {
            (true, true) => None,
            (true, false) => Some("the guest has another workload of this generation".to_owned()),
            (false, _) => Some(format!("the guest has the workload of generation {known}")),
        }
        .map(|reason| RefusedWorkload { generation, reason });
    }

    /// What is reported of a late one.
    pub(crate) fn report(&self) -> Option<LateWorkload> {
        match self {
            WorkloadCell::Inline(_) => None,
            WorkloadCell::Late { taken, refused } => Some(LateWorkload {
                generation: taken.as_ref().map(|(generation, _)| *generation),
                refused: refused.clone(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workload(cmd: &str) -> Workload {
        Workload { cmd: vec![cmd.to_owned()], env: std::collections::BTreeMap::new(), ready: None }
    }

    fn late() -> WorkloadCell {
        WorkloadCell::new(Delivery::LATE)
    }

    #[test]
    fn first_workload_stays_and_its_repeat_is_acknowledged() {
        let mut cell = late();
        assert_eq!((cell.get(), cell.report()), (None, Some(LateWorkload::default())));
        for _ in 0..2 {
            cell.take(3, workload("/a"));
            assert_eq!(cell.get(), Some(&workload("/a")));
            let acknowledged = LateWorkload { generation: Some(3), refused: None };
            assert_eq!(cell.report(), Some(acknowledged));
        }
    }

    #[test]
    fn another_workload_is_refused_with_a_reason() {
        let mut cell = late();
        cell.take(3, workload("/a"));
        for (generation, cmd, reason) in [
            (3, "/b", "the guest has another workload of this generation"),
            (4, "/a", "the guest has the workload of generation 3"),
            (2, "/b", "the guest has the workload of generation 3"),
        ] {
            cell.take(generation, workload(cmd));
            assert_eq!(cell.get(), Some(&workload("/a")), "the first one stays");
            let refused = Some(RefusedWorkload { generation, reason: reason.to_owned() });
            assert_eq!(cell.report(), Some(LateWorkload { generation: Some(3), refused }));
        }
        cell.take(3, workload("/a"));
        assert_eq!(cell.report().and_then(|report| report.refused), None);
    }

    #[test]
    fn workload_of_the_config_drive_is_replaced_by_none() {
        let mut cell = WorkloadCell::new(Delivery::Inline(workload("/a")));
        cell.take(3, workload("/b"));
        assert_eq!((cell.get(), cell.report()), (Some(&workload("/a")), None));
    }
}
