//! From the tree to declared jobs, the same for every format. The rules of the fields are
//! `hearth-model`'s; here each error gets its place, and entries that are the same job are found.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use crate::{Declared, Format, toml};
use hearth_model::{Declaration, FieldError, FieldPart, JobId, Path, Segment, Value};
use std::collections::HashMap;

/// What declarations are read from.
#[derive(Clone, Copy)]
pub(crate) struct Source<'t> {
    /// The whole text, of which hints quote parts.
    pub(crate) text: &'t str,
    pub(crate) format: Format,
    pub(crate) origin: Origin,
}

/// Where a text comes from, which decides how its places are named.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file, whose reader sees lines: a message begins with the job's name.
    File,
    /// A request, whose reader sees JSON pointers.
    Body,
}

/// The jobs that a tree declares. What is wrong goes to `problems`; then the jobs are not complete.
pub(crate) fn read(tree: &Node, source: Source<'_>, problems: &mut Problems) -> Vec<Declared> {
    let entries = entries(tree, source.format, problems).unwrap_or_default();
    read_entries(entries, source, &|| false, problems)
}

/// The jobs of a list of entries, up to the one at which the client has `gone`.
pub(crate) fn read_entries(
    entries: &[Node],
    source: Source<'_>,
    gone: &dyn Fn() -> bool,
    problems: &mut Problems,
) -> Vec<Declared> {
    let pointer = match source.origin {
        Origin::File => "",
        Origin::Body => "/entries",
    };
    let mut jobs = Vec::new();
    let mut places: HashMap<JobId, (usize, Span)> = HashMap::new();
    for (index, entry) in entries.iter().enumerate() {
        if gone() {
            break;
        }
        let at = format!("{pointer}/{index}");
        let mut reader = EntryReader { source, at, problems, subject: String::new() };
        let Some(Read { id, declaration, .. }) = reader.entry(entry) else { continue };
        let Some(Id { job_id, field, span }) = id else { continue };
        if let Some((first, first_span)) = places.get(&job_id) {
            let message = match source.origin {
                Origin::File => format!("two entries have the job id `{job_id}`"),
                Origin::Body => format!("{pointer}/{first} declares job \"{job_id}\" already"),
            };
            let problem = Problem::new(span, message)
                .label("again here")
                .related(*first_span, "first given here")
                .help("a job id names one job; rename or remove one of the two")
                .pointer(format!("{pointer}/{index}/{field}"));
            problems.push(problem);
            continue;
        }
        places.insert(job_id.clone(), (index, span));
        if let Some(Declaration { tenant, spec, .. }) = declaration {
            jobs.push(Declared { job_id, tenant, spec, span: entry.span });
        }
    }
    jobs
}

/// One declaration, which may leave out its name, and the tree that it was read from.
pub(crate) fn read_one(
    tree: &Node,
    source: Source<'_>,
    problems: &mut Problems,
) -> Option<(Declaration, Value)> {
    let mut reader = EntryReader { source, at: String::new(), problems, subject: String::new() };
    let Kind::Map(entries) = &tree.kind else { return None };
    let Read { declaration, value, .. } = reader.parts(tree, &Parts::of_map(entries));
    Some((declaration?, value))
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

    /// The node that names the job, if one does, and the field that it is.
    fn id(&self) -> Option<(&'static str, &'n Node)> {
        let given = |name| match self.find(name) {
            Some((_, value)) if value.kind != Kind::Nil => Some((name, value)),
            _ => None,
        };
        given("job_id").or_else(|| given("vm_id"))
    }
}

/// Where a path leads.
enum Place {
    /// To a value, or to a key, or to a map that lacks the key.
    At(Span),
    /// To something whose problem was reported already.
    Reported,
}

/// A job's name, and where it stands.
struct Id {
    job_id: JobId,
    field: &'static str,
    span: Span,
}

/// What an entry says, each part only if it could be read.
struct Read {
    id: Option<Id>,
    declaration: Option<Declaration>,
    value: Value,
}

struct EntryReader<'a> {
    source: Source<'a>,
    /// The pointer of the entry that is read.
    at: String,
    problems: &'a mut Problems,
    /// Begins every message with the job whose entry is read.
    subject: String,
}

impl EntryReader<'_> {
    fn error_with_help(&mut self, span: Span, message: &str, help: &str) {
        self.problems.push(self.problem(span, message).help(help));
    }

    fn problem(&self, span: Span, message: &str) -> Problem {
        Problem::new(span, format!("{}{message}", self.subject)).pointer(self.at.clone())
    }

    fn entry(&mut self, entry: &Node) -> Option<Read> {
        let format = self.source.format;
        let parts = match &entry.kind {
            Kind::Tuple(parts) => match Parts::of_tuple(parts) {
                Some(parts) => parts,
                None => {
                    let message = format!("expected 2 or 3 elements, found {}", parts.len());
                    self.error_with_help(entry.span, &message, format.entry_form());
                    return None;
                }
            },
            Kind::Map(entries) if format != Format::Elixir => Parts::of_map(entries),
            Kind::Invalid => return None,
            _ => {
                let message = format!("expected an entry, found {}", format.describe(entry));
                self.error_with_help(entry.span, &message, format.entry_form());
                return None;
            }
        };
        if parts.id().is_none() && !hides_a_key(entry) {
            let problem = self.problem(entry.span, "missing field `job_id`");
            let problem = problem.pointer(format!("{}/job_id", self.at));
            self.problems.push(problem.help(format.entry_form()));
        }
        Some(self.parts(entry, &parts))
    }

    fn parts(&mut self, entry: &Node, parts: &Parts<'_>) -> Read {
        let id = parts.id().and_then(|(field, node)| {
            let job_id = JobId::parse(node.text()?).ok()?;
            Some(Id { job_id, field, span: node.span })
        });
        if let Some(Id { job_id, .. }) = id.as_ref().filter(|_| self.source.origin == Origin::File)
        {
            self.subject = format!("job `{job_id}`: ");
        }
        let value = match &entry.kind {
            Kind::Map(entries) => self.map(entries.iter().map(|e| (&e.key, &e.value))),
            _ => {
                let fields = parts.0.iter();
                Value::Map(
                    fields.map(|(name, _, node)| ((*name).to_owned(), self.value(node))).collect(),
                )
            }
        };
        let declaration = self.declaration(entry, parts, &value);
        Read { id, declaration, value }
    }

    fn declaration(
        &mut self,
        entry: &Node,
        parts: &Parts<'_>,
        value: &Value,
    ) -> Option<Declaration> {
        let text = |path: &Path| {
            let (_, node) = find(entry, parts, path)?;
            let is_text = matches!(node.kind, Kind::String(_) | Kind::Atom(_));
            (!is_text).then(|| self.text(node).to_owned())
        };
        let errors = match Declaration::read(value, &text) {
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
                let problem = self.problem(span, &self.sentence(&error));
                let problem = problem.pointer(format!("{}{}", self.at, error.path.pointer()));
                self.problems.push(match error.help {
                    Some(help) => problem.help(help),
                    None => problem,
                });
            }
        }
        None
    }

    fn text(&self, node: &Node) -> &str {
        self.source.text.get(node.span.start..node.span.end).unwrap_or_default()
    }

    /// The value without its places. What has no counterpart is reported and becomes null.
    fn value(&mut self, node: &Node) -> Value {
        match &node.kind {
            Kind::Nil | Kind::Invalid => Value::Null,
            Kind::Bool(value) => Value::Bool(*value),
            Kind::Int(number) => Value::Int(*number),
            Kind::BigInt => Value::BigInt(self.text(node).to_owned()),
            Kind::Float(_) => Value::Float(self.text(node).to_owned()),
            Kind::String(text) | Kind::Atom(text) => Value::String(text.clone()),
            Kind::Map(entries) => self.map(entries.iter().map(|Entry { key, value }| (key, value))),
            Kind::List(items) => match node.keywords() {
                Some(entries) => self.keywords(entries),
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
        let mut map: Vec<(String, Value)> = Vec::with_capacity(entries.size_hint().0);
        for (key, value) in entries {
            if let Some(name) = key.name() {
                map.push((name.to_owned(), self.value(value)));
            } else if !key.is_invalid() {
                let message =
                    format!("a key is a string, not {}", self.source.format.describe(key));
                self.problems.push(self.problem(key.span, &message));
            }
        }
        Value::Map(map)
    }

    /// A keyword list for a map. It may have a name twice in Elixir, but a map may not.
    fn keywords(&mut self, mut entries: Vec<(&Node, &Node)>) -> Value {
        let mut places: HashMap<&str, Span> = HashMap::new();
        entries.retain(|(key, _)| {
            let Some(name) = key.name() else { return true };
            let Some(first) = places.get(name) else {
                places.insert(name, key.span);
                return true;
            };
            let problem = self.problem(key.span, &format!("duplicate key `{name}`"));
            self.problems.push(problem.related(*first, "given before here"));
            false
        });
        self.map(entries.into_iter())
    }

    /// What an error says. In a file it names the field, too, of which the caret shows only the line.
    fn sentence(&self, error: &FieldError) -> String {
        match self.source.origin {
            Origin::File => sentence(error),
            Origin::Body => error.detail.clone(),
        }
    }
}

/// What an error says, with the part of its path that its sentence leaves out.
fn sentence(error: &FieldError) -> String {
    let steps = match error.path.0.as_slice() {
        [Segment::Key(spec), steps @ ..]
            if spec == "spec" && (!steps.is_empty() || error.target == FieldPart::Value) =>
        {
            steps
        }
        steps => steps,
    };
    let steps = match (error.target, steps.split_last()) {
        (FieldPart::Key | FieldPart::Absent, Some((_, parents))) => parents,
        _ => steps,
    };
    if steps.is_empty() {
        return error.detail.clone();
    }
    format!("`{}`: {}", Path(steps.to_vec()), error.detail)
}

/// The node to which a path leads, with its key if it has one.
fn find<'n>(
    entry: &'n Node,
    parts: &Parts<'n>,
    path: &Path,
) -> Option<(Option<&'n Node>, &'n Node)> {
    let root = (None, entry);
    path.0
        .iter()
        .enumerate()
        .try_fold(root, |(_, node), (at, segment)| step(node, parts, at, segment))
}

fn step<'n>(
    node: &'n Node,
    parts: &Parts<'n>,
    at: usize,
    segment: &Segment,
) -> Option<(Option<&'n Node>, &'n Node)> {
    match segment {
        Segment::Key(name) if at == 0 => parts.find(name),
        Segment::Key(name) => lookup(node, name).map(|(key, value)| (Some(key), value)),
        Segment::Index(index) => match &node.kind {
            Kind::List(items) => items.get(*index).map(|item| (None, item)),
            _ => None,
        },
    }
}

/// Where an error belongs.
fn locate(entry: &Node, parts: &Parts<'_>, error: &FieldError) -> Place {
    let mut node = entry;
    let mut key = None;
    for (at, segment) in error.path.0.iter().enumerate() {
        match step(node, parts, at, segment) {
            Some((next_key, next)) => (key, node) = (next_key, next),
            None if hides_a_key(node) => return Place::Reported,
            None => return Place::At(node.span),
        }
        if is_reported(node) {
            return Place::Reported;
        }
    }
    match (error.target, key) {
        (FieldPart::Key, Some(key)) => Place::At(key.span),
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
