//! Bodies of requests that declare jobs. JSON is read as in files, by the same reader, and the rules
//! of fields are the same; only the places are named as JSON pointers.
//!
//! Time and memory grow with the length of the body: a node takes about 50 bytes, and of the problems
//! the first [`PROBLEMS_MAX`](crate::PROBLEMS_MAX) are kept.

use crate::diagnostic::{Diagnostic, FieldProblem, Places, Problem, Problems};
use crate::fields::{self, Origin, Source};
use crate::node::{Entry, Kind, Node, Span};
use crate::{Declared, Format};
use hearth_model::{Declaration, Path, Segment, Value, text::suggest};

/// The fields of a body that declares many jobs.
pub const DECLARED_FIELDS: &[&str] = &["source", "entries", "allow_delete"];

/// Longest name of a file, in bytes: Linux's `PATH_MAX`.
const PATH_BYTES_MAX: usize = 4096;

/// What a body of many jobs says.
#[derive(Clone, Debug, PartialEq)]
pub struct DeclaredBody {
    /// The file that declares them, an absolute path; `None` if no file does.
    pub source: Option<String>,
    /// The entries, in their order. No two have the same job id.
    pub jobs: Vec<Declared>,
    /// Whether more than half of the file's jobs may be deleted at once.
    pub allow_delete: bool,
}

/// Why a body is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyError {
    /// It is not JSON. This is the first place that says so.
    NotJson(Box<Diagnostic>),
    /// It is JSON, and fields of it are wrong.
    Fields {
        /// The first of them, in the order of the text. There is at least one.
        problems: Vec<FieldProblem>,
        /// How many more there are.
        omitted: usize,
    },
}

/// Reads a body that declares one job, whose name it may leave out. The tree is the body as it was
/// read.
///
/// # Errors
/// [`BodyError`].
pub fn read_declaration(body: &[u8]) -> Result<(Declaration, Value), BodyError> {
    let Json { source, tree, mut problems } = json(body)?;
    if matches!(tree.kind, Kind::Map(_)) {
        if let Some(read) = fields::read_one(&tree, source, &mut problems)
            && problems.is_empty()
        {
            return Ok(read);
        }
    } else {
        problems.push(expected("an object", &tree, ""));
    }
    Err(refused(problems))
}

/// Reads a body that declares many jobs. It stops at an entry when its client has `gone`, since no
/// client sees its outcome.
///
/// # Errors
/// [`BodyError`].
pub fn read_declared(body: &[u8], gone: &dyn Fn() -> bool) -> Result<DeclaredBody, BodyError> {
    let Json { source, tree, mut problems } = json(body)?;
    let mut declared = DeclaredBody { source: None, jobs: Vec::new(), allow_delete: false };
    let Kind::Map(fields) = &tree.kind else {
        problems.push(expected("an object", &tree, ""));
        return Err(refused(problems));
    };
    let mut has_entries = false;
    for Entry { key, value } in fields {
        match (key.name().unwrap_or_default(), &value.kind) {
            ("source" | "allow_delete", Kind::Nil) => {}
            ("source", Kind::String(path)) => match source_fault(path) {
                None => declared.source = Some(path.clone()),
                Some(fault) => {
                    let help = "leave it out if no file declares the jobs";
                    let problem = Problem::new(value.span, fault).help(help);
                    problems.push(problem.pointer("/source".to_owned()));
                }
            },
            ("source", _) => problems.push(expected("a string", value, "/source")),
            ("allow_delete", Kind::Bool(allowed)) => declared.allow_delete = *allowed,
            ("allow_delete", _) => problems.push(expected("a boolean", value, "/allow_delete")),
            ("entries", Kind::Nil) => {}
            ("entries", kind) => {
                has_entries = true;
                match kind {
                    Kind::List(entries) => {
                        declared.jobs = fields::read_entries(entries, source, gone, &mut problems);
                    }
                    _ => problems.push(expected("a list", value, "/entries")),
                }
            }
            (name, _) => problems.push(unknown(name, key)),
        }
    }
    if !has_entries {
        let problem = Problem::new(tree.span, "missing field `entries`");
        problems.push(problem.pointer("/entries".to_owned()));
    }
    if problems.is_empty() { Ok(declared) } else { Err(refused(problems)) }
}

fn source_fault(path: &str) -> Option<String> {
    if path.len() > PATH_BYTES_MAX {
        Some(format!("has {} bytes; a path has at most {PATH_BYTES_MAX}", path.len()))
    } else if !path.starts_with('/') || path.contains('\0') {
        Some(format!("{path:?} is not an absolute path"))
    } else {
        None
    }
}

/// A body that is JSON. Keys that it has twice are among the problems.
struct Json<'b> {
    source: Source<'b>,
    tree: Node,
    problems: Problems,
}

fn json(body: &[u8]) -> Result<Json<'_>, BodyError> {
    let not_json = |problem: Problem, text: &str| {
        BodyError::NotJson(Box::new(problem.place(text, &Places::of(text))))
    };
    let text = std::str::from_utf8(body).map_err(|error| {
        let (valid, rest) = body.split_at(error.valid_up_to());
        let byte = rest.first().copied().unwrap_or_default();
        let text = String::from_utf8_lossy(valid);
        let message = format!("byte 0x{byte:02X} is not UTF-8");
        not_json(Problem::new(Span::at(valid.len()), message), &text)
    })?;
    if text.trim().is_empty() {
        return Err(not_json(Problem::new(Span::at(0), "it is empty"), ""));
    }
    let (tree, problems) = Format::Json.read(text);
    if let Some(problem) = problems.first_of_syntax() {
        return Err(not_json(problem.clone(), text));
    }
    let source = Source { text, format: Format::Json, origin: Origin::Body };
    let tree = tree.unwrap_or_else(|| Node::new(Span::at(0), Kind::Invalid));
    Ok(Json { source, tree, problems })
}

fn expected(what: &str, found: &Node, pointer: &str) -> Problem {
    let message = format!("expected {what}, found {}", Format::Json.describe(found));
    Problem::new(found.span, message).pointer(pointer.to_owned())
}

fn unknown(name: &str, key: &Node) -> Problem {
    let help = match suggest(name, DECLARED_FIELDS) {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known fields are {}", DECLARED_FIELDS.join(", ")),
    };
    let pointer = Path(vec![Segment::Key(name.to_owned())]).pointer();
    Problem::new(key.span, format!("unknown field `{name}`")).help(help).pointer(pointer)
}

fn refused(problems: Problems) -> BodyError {
    let (problems, omitted) = problems.into_fields();
    BodyError::Fields { problems, omitted }
}
