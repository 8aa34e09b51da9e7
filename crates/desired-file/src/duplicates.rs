//! Keys that are given twice in one map: the same rule for every format, and for requests.

use crate::Format;
use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use hearth_model::{Path, Segment};
use std::collections::HashSet;

/// Reports the entries of each map that have the name of an earlier one, and removes them.
pub(crate) fn remove(tree: &mut Node, format: Format, problems: &mut Problems) {
    let mut walk = Walk { format, problems, reported: HashSet::new() };
    walk.node(tree, Step::root());
}

/// The way to a node, as a list from its end.
#[derive(Clone, Copy)]
struct Step<'a> {
    parent: Option<&'a Step<'a>>,
    segment: Option<Name<'a>>,
}

#[derive(Clone, Copy)]
enum Name<'a> {
    Key(&'a str),
    Index(usize),
}

impl<'a> Step<'a> {
    fn root() -> Step<'a> {
        Step { parent: None, segment: None }
    }

    fn to(&'a self, name: Name<'a>) -> Step<'a> {
        Step { parent: Some(self), segment: Some(name) }
    }

    fn path(&self) -> Path {
        let mut path = self.parent.map(Step::path).unwrap_or_default();
        path.0.extend(self.segment.map(|name| match name {
            Name::Key(key) => Segment::Key(key.to_owned()),
            Name::Index(index) => Segment::Index(index),
        }));
        path
    }
}

struct Walk<'a> {
    format: Format,
    problems: &'a mut Problems,
    /// What an alias of YAML repeats is reported once.
    reported: HashSet<Span>,
}

impl Walk<'_> {
    fn node(&mut self, node: &mut Node, step: Step<'_>) {
        let is_keywords = self.format == Format::Elixir && node.keywords().is_some();
        match &mut node.kind {
            Kind::List(pairs) if is_keywords => {
                for pair in pairs {
                    let Kind::Tuple(pair) = &mut pair.kind else { continue };
                    let [key, value] = pair.as_mut_slice() else { continue };
                    self.value(key, value, step);
                }
            }
            Kind::List(nodes) => {
                for (index, node) in nodes.iter_mut().enumerate() {
                    self.node(node, step.to(Name::Index(index)));
                }
            }
            // An entry of Elixir's form has its fields by their places.
            Kind::Tuple(nodes) => {
                let fields: &[&str] = match nodes.len() {
                    2 => &["job_id", "spec"],
                    _ => &["job_id", "tenant", "spec"],
                };
                for (index, node) in nodes.iter_mut().enumerate() {
                    let field =
                        fields.get(index).map_or(Name::Index(index), |name| Name::Key(name));
                    self.node(node, step.to(field));
                }
            }
            Kind::Map(entries) => {
                self.without_twins(entries, &step);
                for Entry { key, value } in entries {
                    // The table of TOML stands for its list of entries.
                    if self.format == Format::Toml && step.parent.is_none() {
                        self.node(value, step);
                    } else {
                        self.value(key, value, step);
                    }
                }
            }
            _ => {}
        }
    }

    fn value(&mut self, key: &Node, value: &mut Node, parent: Step<'_>) {
        match key.name() {
            Some(name) => self.node(value, parent.to(Name::Key(name))),
            None => self.node(value, parent),
        }
    }

    fn without_twins(&mut self, entries: &mut Vec<Entry>, step: &Step<'_>) {
        let twins = twins(entries);
        for (twin, first) in &twins {
            let (key, first) = (&entries[*twin].key, entries[*first].key.span);
            let is_alias = self.format == Format::Yaml && !self.reported.insert(key.span);
            if !is_alias {
                self.report(key.name().unwrap_or_default(), key.span, first, step);
            }
        }
        let mut twins = twins.iter().map(|(twin, _)| *twin).peekable();
        let mut index = 0..;
        entries.retain(|_| twins.next_if_eq(&index.next().unwrap_or_default()).is_none());
    }

    fn report(&mut self, name: &str, span: Span, first: Span, step: &Step<'_>) {
        if self.problems.is_full() {
            return self.problems.omit(1);
        }
        let help = match self.format {
            Format::Json => "remove one of the two; most readers of JSON would take the last",
            Format::Elixir => "remove one of the two; Elixir would take the last with a warning",
            Format::Toml | Format::Yaml => "remove one of the two",
        };
        let problem = Problem::new(span, format!("duplicate key `{name}`"))
            .related(first, "first given here")
            .help(help)
            .pointer(step.to(Name::Key(name)).path().pointer());
        self.problems.push(problem);
    }
}

/// The entries that have the name of an earlier one, each with the first of that name, in order.
fn twins(entries: &[Entry]) -> Vec<(usize, usize)> {
    let name = |index: &usize| entries[*index].key.name();
    let mut order: Vec<usize> = (0..entries.len()).filter(|index| name(index).is_some()).collect();
    // A stable sort: entries of one name stay in their order.
    order.sort_by_key(name);
    let same_name = order.chunk_by(|left, right| name(left) == name(right));
    let mut twins: Vec<(usize, usize)> =
        same_name.flat_map(|same| same[1..].iter().map(|twin| (*twin, same[0]))).collect();
    twins.sort_unstable();
    twins
}
