//! What `hearth plan` and `hearth apply` print.

use super::Output;
use super::paint::Tone;
use hearth_api::{ChangedJob, Plan, SpecChange};

/// Whether a plan is still to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tense {
    /// It says what would be done.
    Ahead,
    /// It says what was done.
    Done,
}

impl Output {
    pub(crate) fn plan(&self, plan: &Plan, tense: Tense) {
        if self.printed(plan) {
            return;
        }
        for job in &plan.create {
            self.marked('+', job, "", Tone::Good);
        }
        for change in &plan.replace {
            self.changed_job(change, None);
        }
        for change in &plan.update {
            self.changed_job(change, Some("policy only, its microVM stays"));
        }
        for job in &plan.delete {
            self.marked('-', job, "", Tone::Bad);
        }
        for job in &plan.held {
            self.marked('!', job, " (no longer declared; --allow-delete deletes it)", Tone::Bad);
        }
        for job in &plan.kept {
            let why = " (no longer declared; it stays, since it was changed otherwise)";
            self.marked('=', job, why, Tone::Plain);
        }
        for entry in &plan.refused {
            self.marked('!', &entry.job_id, &format!(": {}", entry.reason), Tone::Bad);
        }
        for pool in &plan.pools {
            let noun = if pool.drained == 1 { "microVM" } else { "microVMs" };
            let drains = match tense {
                Tense::Ahead => "would drain",
                Tense::Done => "drains",
            };
            self.line(format_args!("pool {} {drains}: {} {noun}", pool.spec_hash, pool.drained));
        }
        self.line(counts(plan, tense));
    }

    fn changed_job(&self, change: &ChangedJob, note: Option<&str>) {
        let why = change.reason.as_deref().or(note);
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        self.marked('~', &change.job_id, &why, Tone::Busy);
        for SpecChange { path, from, to } in &change.changes {
            let (from, to) = (value(from), value(to));
            self.line(format_args!("  {}: {from} -> {to}", dotted(path)));
        }
    }

    fn marked(&self, mark: char, job: &str, more: &str, tone: Tone) {
        self.print(&self.begin().toned(format_args!("{mark} {job}"), tone).text(more));
    }
}

/// A JSON pointer as people write paths.
fn dotted(pointer: &str) -> String {
    let path = pointer.strip_prefix('/').unwrap_or(pointer).replace('/', ".");
    path.replace("~1", "/").replace("~0", "~")
}

fn value(value: &serde_json::Value) -> String {
    if value.is_null() { "(none)".to_owned() } else { value.to_string() }
}

fn counts(plan: &Plan, tense: Tense) -> String {
    let counted = [
        (plan.create.len(), "to create", "created"),
        (plan.replace.len(), "to replace", "replaced"),
        (plan.update.len(), "to update", "updated"),
        (plan.delete.len(), "to delete", "deleted"),
        (plan.held.len(), "held", "held"),
        (plan.refused.len(), "refused", "refused"),
    ];
    let mut words: Vec<String> = counted
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, ahead, done)| match tense {
            Tense::Ahead => format!("{count} {ahead}"),
            Tense::Done => format!("{count} {done}"),
        })
        .collect();
    if words.is_empty() {
        words.push("nothing to do".to_owned());
    }
    words.push(format!("{} unchanged", plan.unchanged));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::dotted;

    #[test]
    fn a_pointer_is_told_as_a_path() {
        assert_eq!(dotted("/warm_pool/min"), "warm_pool.min");
        assert_eq!(dotted("/env/a~1b~0c.d"), "env.a/b~c.d");
    }
}
