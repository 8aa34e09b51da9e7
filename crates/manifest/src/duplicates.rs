//! Keys that are given twice in one map, in any format.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Span};
use std::collections::HashMap;

/// Below this many entries, comparing all of them is quicker than a table.
const FEW: usize = 16;

/// Keeps the first of entries with one name, and reports the others.
pub(crate) fn without(entries: Vec<Entry>, help: &str, problems: &mut Problems) -> Vec<Entry> {
    if entries.len() <= FEW && !has_twins(&entries) {
        return entries;
    }
    let mut places: HashMap<String, Span> = HashMap::with_capacity(entries.len());
    let mut kept = Vec::with_capacity(entries.len());
    for entry in entries {
        let Some(name) = entry.key.name() else {
            kept.push(entry);
            continue;
        };
        if let Some(first) = places.get(name) {
            problems.push(
                Problem::new(entry.key.span, format!("duplicate key `{name}`"))
                    .related(*first, "first given here")
                    .help(help),
            );
        } else {
            places.insert(name.to_owned(), entry.key.span);
            kept.push(entry);
        }
    }
    kept
}

fn has_twins(entries: &[Entry]) -> bool {
    entries.iter().enumerate().any(|(at, entry)| {
        let name = entry.key.name();
        name.is_some() && entries[..at].iter().any(|other| other.key.name() == name)
    })
}
