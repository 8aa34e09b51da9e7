//! From the tree to declared jobs, the same for every format. The rules of the fields are
//! `hearth-model`'s; here each error gets its place, and entries that are the same job are found.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use crate::{Declared, Format, toml};
use hearth_model::{Declaration, FieldError, JobId, Path, Segment, Target, Value};
use std::collections::HashMap;

/// The jobs that a tree declares. What is wrong goes to `problems`; then the jobs are not complete.
pub(crate) fn read(tree: &Node, format: Format, problems: &mut Problems) -> Vec<Declared> {
    let entries = match entries(tree, format, problems) {
        Some(entries) => entries,
        None => return Vec::new(),
    };
    let mut jobs = Vec::with_capacity(entries.len());
    let mut places: HashMap<JobId, Span> = HashMap::with_capacity(entries.len());
    for (index, entry) in entries.iter().enumerate() {
        let mut reader = Reader { format, index, problems, subject: String::new() };
        let Some((id, declaration)) = reader.entry(entry) else { continue };
        if let Some((job_id, span)) = id {
            if let Some(first) = places.get(&job_id) {
                let message = format!("two entries have the job id `{job_id}`");
                let problem = Problem::new(span, message)
                    .label("again here")
                    .related(*first, "first given here")
                    .help("a job id names one job; rename or remove one of the two")
                    .pointer(format!("/{index}/job_id"));
                problems.push(problem);
                continue;
            }
            places.insert(job_id.clone(), span);
            if let Some(Declaration { tenant, spec, .. }) = declaration {
                jobs.push(Declared { job_id, tenant, spec, span: entry.span });
            }
        }
    }
    jobs
}

/// The entries of a file: its list, or in TOML the list that `[[vm]]` makes.
fn entries<'n>(tree: &'n Node, format: Format, problems: &mut Problems) -> Option<&'n [Node]> {
    match &tree.kind {
        Kind::List(entries) if format != Format::Toml => return Some(entries),
        Kind::Map(fields) if format == Format::Toml => return list_of(fields, problems),
        Kind::Invalid => {}
        _ => {
            let message = format!("expected a list, found {}", format.describe(tree));
            problems.push(Problem::new(tree.span, message).help(format.form()));
        }
    }
    None
}

fn list_of<'n>(fields: &'n [Entry], problems: &mut Problems) -> Option<&'n [Node]> {
    let mut list = None;
    for Entry { key, value } in fields {
        let name = key.text().unwrap_or_default();
        match &value.kind {
            Kind::List(entries) if name == toml::ENTRIES => list = Some(entries.as_slice()),
            Kind::Invalid => {}
            _ => {
                let problem = if name == toml::ENTRIES {
                    Problem::new(key.span, format!("expected a list, found {}", value.describe()))
                        .help("an entry begins with `[[vm]]`, in two brackets each")
                } else {
                    Problem::new(key.span, format!("unknown field `{name}`"))
                        .help(Format::Toml.form())
                };
                problems.push(problem);
            }
        }
    }
    list
}

/// The fields of an entry by their names; in a tuple they have no keys of their own.
struct Parts<'n>(Vec<(&'n str, Option<&'n Node>, &'n Node)>);

impl<'n> Parts<'n> {
    fn of_tuple(parts: &'n [Node]) -> Option<Parts<'n>> {
        match parts {
            [id, spec] => Some(Parts(vec![("job_id", None, id), ("spec", None, spec)])),
            [id, tenant, spec] => Some(Parts(vec![
                ("job_id", None, id),
                ("tenant", None, tenant),
                ("spec", None, spec),
            ])),
            _ => None,
        }
    }

    fn of_map(entries: &'n [Entry]) -> Parts<'n> {
        let named = |Entry { key, value }: &'n Entry| Some((key.name()?, Some(key), value));
        Parts(entries.iter().filter_map(named).collect())
    }

    fn find(&self, name: &str) -> Option<(Option<&'n Node>, &'n Node)> {
        let part = self.0.iter().find(|(known, ..)| *known == name);
        part.map(|(_, key, value)| (*key, *value))
    }

    /// The node that names the job, if one does.
    fn id(&self) -> Option<&'n Node> {
        let given = |name: &str| self.find(name).filter(|(_, value)| value.kind != Kind::Nil);
        given("job_id").or_else(|| given("vm_id")).map(|(_, value)| value)
    }
}

/// Where a path leads.
enum Place {
    /// To a value, or to a key, or to a map that lacks the key.
    At(Span),
    /// To something whose problem was reported already.
    Reported,
}

/// A job's name with its place, and what is declared of it; each only where it could be read.
type Read = (Option<(JobId, Span)>, Option<Declaration>);

struct Reader<'a> {
    format: Format,
    /// Which entry of the list.
    index: usize,
    problems: &'a mut Problems,
    /// Begins every message with the job whose entry is read.
    subject: String,
}

impl Reader<'_> {
    fn error_with_help(&mut self, span: Span, message: &str, help: &str) {
        self.problems.push(self.problem(span, message).help(help));
    }

    fn problem(&self, span: Span, message: &str) -> Problem {
        Problem::new(span, format!("{}{message}", self.subject)).pointer(format!("/{}", self.index))
    }

    fn entry(&mut self, entry: &Node) -> Option<Read> {
        let parts = match &entry.kind {
            Kind::Tuple(parts) => match Parts::of_tuple(parts) {
                Some(parts) => parts,
                None => {
                    let message = format!("expected 2 or 3 elements, found {}", parts.len());
                    self.error_with_help(entry.span, &message, self.format.entry_form());
                    return None;
                }
            },
            Kind::Map(entries) if self.format != Format::Elixir => Parts::of_map(entries),
            Kind::Invalid => return None,
            _ => {
                let message = format!("expected an entry, found {}", self.format.describe(entry));
                self.error_with_help(entry.span, &message, self.format.entry_form());
                return None;
            }
        };
        let id = parts.id().and_then(|node| Some((JobId::parse(node.text()?).ok()?, node.span)));
        if let Some((job_id, _)) = &id {
            self.subject = format!("job `{job_id}`: ");
        }
        if parts.id().is_none() && !hides_a_key(entry) {
            let message = "missing field `job_id`";
            let problem = self.problem(entry.span, message);
            self.problems.push(problem.help(self.format.entry_form()));
        }
        let value = self.parts(entry, &parts);
        Some((id, self.declaration(entry, &parts, &value)))
    }

    fn parts(&mut self, entry: &Node, parts: &Parts<'_>) -> Value {
        match &entry.kind {
            Kind::Map(entries) => self.map(entries.iter().map(|e| (&e.key, &e.value))),
            _ => Value::Map(
                parts
                    .0
                    .iter()
                    .map(|(name, _, node)| ((*name).to_owned(), self.value(node)))
                    .collect(),
            ),
        }
    }

    fn declaration(
        &mut self,
        entry: &Node,
        parts: &Parts<'_>,
        value: &Value,
    ) -> Option<Declaration> {
        let errors = match Declaration::read(value) {
            Ok(declaration) => return Some(declaration),
            Err(errors) => errors,
        };
        self.problems.omit(errors.omitted());
        let mut errors = errors.into_iter();
        while let Some(error) = errors.next() {
            if self.problems.is_full() {
                self.problems.omit(errors.len() + 1);
                break;
            }
            if let Place::At(span) = locate(entry, parts, &error) {
                let problem = self.problem(span, &sentence(&error));
                let problem = problem.pointer(format!("/{}{}", self.index, error.path.pointer()));
                self.problems.push(match error.help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
            }
        }
        None
    }

    /// The value without its places. What has no counterpart is reported, and null in its place.
    fn value(&mut self, node: &Node) -> Value {
        match &node.kind {
            Kind::Nil | Kind::Invalid => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(number) => Value::Int(*number),
            Kind::Float(number) => Value::Float(*number),
            Kind::String(text) | Kind::Atom(text) => Value::String(text.clone()),
            Kind::Map(entries) => self.map(entries.iter().map(|Entry { key, value }| (key, value))),
            Kind::List(items) => match node.keywords() {
                Some(entries) => self.map(entries.into_iter()),
                None => Value::List(items.iter().map(|item| self.value(item)).collect()),
            },
            Kind::Tuple(_) => {
                let help = "a list is written `[…]` and a map `%{…}`";
                self.error_with_help(node.span, "a tuple has no place in a spec", help);
                Value::Null
            }
        }
    }

    fn map<'n>(&mut self, entries: impl Iterator<Item = (&'n Node, &'n Node)>) -> Value {
        let mut map: Vec<(String, Value)> = Vec::new();
        let mut places: HashMap<&str, Span> = HashMap::new();
        for (key, value) in entries {
            let Some(name) = key.name() else {
                if !key.is_invalid() {
                    let found = self.format.describe(key);
                    let message = format!("a key is a string, not {found}");
                    self.problems.push(self.problem(key.span, &message));
                }
                continue;
            };
            if let Some(first) = places.insert(name, key.span) {
                let message = format!("{}duplicate key `{name}`", self.subject);
                let problem = Problem::new(key.span, message);
                self.problems.push(problem.related(first, "given before here"));
                continue;
            }
            map.push((name.to_owned(), self.value(value)));
        }
        Value::Map(map)
    }
}

/// What an error says, with the part of its path that its sentence leaves out.
fn sentence(error: &FieldError) -> String {
    let steps = match error.path.0.as_slice() {
        [Segment::Key(spec), steps @ ..]
            if spec == "spec" && (!steps.is_empty() || error.target == Target::Value) =>
        {
            steps
        }
        steps => steps,
    };
    let steps = match (error.target, steps.split_last()) {
        (Target::Key | Target::Absent, Some((_, parents))) => parents,
        _ => steps,
    };
    if steps.is_empty() {
        return error.detail.clone();
    }
    format!("`{}`: {}", Path(steps.to_vec()), error.detail)
}

/// Where an error belongs.
fn locate(entry: &Node, parts: &Parts<'_>, error: &FieldError) -> Place {
    let mut node = entry;
    let mut key = None;
    for (at, segment) in error.path.0.iter().enumerate() {
        let next = match segment {
            Segment::Key(name) if at == 0 => parts.find(name),
            Segment::Key(name) => lookup(node, name).map(|(key, value)| (Some(key), value)),
            Segment::Index(index) => match &node.kind {
                Kind::List(items) => items.get(*index).map(|item| (None, item)),
                _ => None,
            },
        };
        match next {
            Some((next_key, next)) => (key, node) = (next_key, next),
            None if hides_a_key(node) => return Place::Reported,
            None => return Place::At(node.span),
        }
        if is_reported(node) {
            return Place::Reported;
        }
    }
    match (error.target, key) {
        (Target::Key, Some(key)) => Place::At(key.span),
        _ => Place::At(node.span),
    }
}

/// Whether this is in the value's place for something that was reported.
fn is_reported(node: &Node) -> bool {
    matches!(node.kind, Kind::Invalid | Kind::Tuple(_))
}

fn lookup<'n>(node: &'n Node, name: &str) -> Option<(&'n Node, &'n Node)> {
    let named = |key: &Node| key.name() == Some(name);
    match &node.kind {
        Kind::Map(entries) => {
            entries.iter().find(|entry| named(&entry.key)).map(|entry| (&entry.key, &entry.value))
        }
        _ => node.keywords()?.into_iter().find(|(key, _)| named(key)),
    }
}

/// Whether a key could not be read, so that none is surely missing.
fn hides_a_key(node: &Node) -> bool {
    matches!(&node.kind, Kind::Map(entries) if entries.iter().any(|entry| entry.key.is_invalid()))
}
