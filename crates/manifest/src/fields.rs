//! From the tree to declared jobs, the same for every format. The rules of the fields are
//! `hearth-model`'s; here each error gets its place, and entries that are the same job are found.

use crate::Declared;
use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use hearth_model::{FieldError, JobId, Path, Segment, Spec, Tenant, Value};
use std::collections::HashMap;

/// The jobs that a tree declares. What is wrong goes to `problems`; then the jobs are not complete.
pub(crate) fn read(tree: &Node, problems: &mut Problems) -> Vec<Declared> {
    let entries = match &tree.kind {
        Kind::List(entries) => entries.as_slice(),
        Kind::Invalid => return Vec::new(),
        _ => {
            let problem =
                Problem::new(tree.span, format!("expected a list, found {}", tree.describe()))
                    .help("the file is a list of entries: `[{\"vm_id\", \"tenant\", %{…}}, …]`");
            problems.push(problem);
            return Vec::new();
        }
    };
    let mut jobs = Vec::with_capacity(entries.len());
    let mut places: HashMap<JobId, Span> = HashMap::with_capacity(entries.len());
    for entry in entries {
        let mut reader = Reader { problems, subject: String::new() };
        let Some(declared) = reader.entry(entry) else { continue };
        let (job_id, id_span) = declared.job_id;
        if let Some(first) = places.get(&job_id) {
            let problem = Problem::new(id_span, format!("two entries have the job id `{job_id}`"))
                .label("again here")
                .related(*first, "first given here")
                .help("a job id names one job; rename or remove one of the two");
            problems.push(problem);
            continue;
        }
        places.insert(job_id.clone(), id_span);
        if let (Some(tenant), Some(spec)) = (declared.tenant, declared.spec) {
            jobs.push(Declared { job_id, tenant, spec, span: entry.span });
        }
    }
    jobs
}

/// As much of an entry as could be read.
struct Draft {
    job_id: (JobId, Span),
    /// The outer `None`: it could not be read. The inner: it was left out.
    tenant: Option<Option<Tenant>>,
    spec: Option<Spec>,
}

/// Where a path of the spec leads.
enum Place {
    /// To a value, or to a key, or to a map that lacks the key.
    At(Span),
    /// To something whose problem was reported already.
    Reported,
}

struct Reader<'a> {
    problems: &'a mut Problems,
    /// Begins every message with the job whose entry is read.
    subject: String,
}

impl Reader<'_> {
    fn error(&mut self, span: Span, message: &str) {
        self.error_with_help(span, message, None);
    }

    fn error_with_help(&mut self, span: Span, message: &str, help: Option<&str>) {
        let problem = Problem::new(span, format!("{}{message}", self.subject));
        self.problems.push(match help {
            Some(help) => problem.help(help),
            None => problem,
        });
    }

    fn entry(&mut self, entry: &Node) -> Option<Draft> {
        let form = "an entry is `{vm_id, tenant, spec}` or `{vm_id, spec}`";
        let (id, tenant, spec) = match &entry.kind {
            Kind::Tuple(parts) => match parts.as_slice() {
                [id, spec] => (id, None, spec),
                [id, tenant, spec] => (id, Some(tenant), spec),
                parts => {
                    let message = format!("expected 2 or 3 elements, found {}", parts.len());
                    self.error_with_help(entry.span, &message, Some(form));
                    return None;
                }
            },
            Kind::Invalid => return None,
            _ => {
                let message = format!("expected an entry, found {}", entry.describe());
                self.error_with_help(entry.span, &message, Some(form));
                return None;
            }
        };
        let job_id = self.name(id, "the job id", JobId::parse);
        if let Some(job_id) = &job_id {
            self.subject = format!("job `{job_id}`: ");
        }
        let tenant = match tenant {
            None => Some(None),
            Some(node) if node.kind == Kind::Nil => Some(None),
            Some(node) => self.name(node, "the tenant", Tenant::parse).map(Some),
        };
        let spec = self.spec(spec);
        Some(Draft { job_id: (job_id?, id.span), tenant, spec })
    }

    /// A job id or a tenant.
    fn name<T>(
        &mut self,
        node: &Node,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, hearth_model::IdError>,
    ) -> Option<T> {
        let Some(text) = node.text() else {
            if !node.is_invalid() {
                let message = format!("{what} is a string or an atom, not {}", node.describe());
                self.error(node.span, &message);
            }
            return None;
        };
        parse(text).map_err(|error| self.error(node.span, &error.detail)).ok()
    }

    fn spec(&mut self, node: &Node) -> Option<Spec> {
        let value = self.value(node);
        let errors = match Spec::read(&value) {
            Ok(spec) => return Some(spec),
            Err(errors) => errors,
        };
        let count = errors.len();
        for (at, error) in errors.into_iter().enumerate() {
            if self.problems.is_full() {
                self.problems.omit(count - at);
                break;
            }
            if let Place::At(span) = locate(node, &error) {
                self.error_with_help(span, &sentence(&error), error.help.as_deref());
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
                self.error_with_help(node.span, "a tuple has no place in a spec", Some(help));
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
                    let message = format!("a key is a string or an atom, not {}", key.describe());
                    self.error(key.span, &message);
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
    let path = match error.path.0.split_last() {
        Some((Segment::Key(key), parents)) if names(&error.detail, key) => Path(parents.to_vec()),
        _ => error.path.clone(),
    };
    if path.0.is_empty() {
        return error.detail.clone();
    }
    format!("`{path}`: {}", error.detail)
}

/// Whether a sentence speaks of a key by its name.
fn names(detail: &str, key: &str) -> bool {
    detail.contains(&format!("`{key}`")) || detail.contains(&format!("{key:?}"))
}

/// Where an error of the spec belongs: to the key if its sentence names that, else to the value.
fn locate(spec: &Node, error: &FieldError) -> Place {
    let mut node = spec;
    let mut key_span = None;
    for segment in &error.path.0 {
        key_span = None;
        let next = match segment {
            Segment::Key(name) => match lookup(node, name) {
                Some((key, value)) => {
                    key_span = names(&error.detail, name).then_some(key.span);
                    Some(value)
                }
                None if hides_a_key(node) => return Place::Reported,
                None => None,
            },
            Segment::Index(index) => match &node.kind {
                Kind::List(items) => items.get(*index),
                _ => None,
            },
        };
        match next {
            Some(next) => node = next,
            None => return Place::At(node.span),
        }
        if matches!(node.kind, Kind::Invalid | Kind::Tuple(_)) {
            return Place::Reported;
        }
    }
    if matches!(node.kind, Kind::Invalid | Kind::Tuple(_)) {
        return Place::Reported;
    }
    Place::At(key_span.unwrap_or(node.span))
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
