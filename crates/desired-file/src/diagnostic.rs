//! What is wrong with a file, and where. Nothing here draws: see `render`.

use crate::node::Span;
use crate::{DEPTH_MAX, PROBLEMS_MAX};
use hearth_model::text::plain;
use std::fmt;

/// Longest sentence, in characters. Ours are shorter; what they quote may not be.
const SENTENCE_CHARS_MAX: usize = 400;

/// Longest JSON pointer. Those of known fields are shorter.
const POINTER_BYTES_MAX: usize = 1024;

/// One problem of a file, with its place counted out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// The bytes it is about, on one line.
    pub span: Span,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The column behind the last character; the same as `column` for a place between two.
    pub end_column: usize,
    /// A sentence without a full stop.
    pub message: String,
    /// A few words to stand under the place.
    pub label: Option<String>,
    /// How to fix it.
    pub help: Option<String>,
    /// The field as a JSON pointer into the list of `{job_id, tenant, spec}` that the file stands
    /// for, whatever its format; `None` if the problem is one of syntax.
    pub pointer: Option<String>,
    /// Other places that belong to it.
    pub related: Vec<Related>,
}

/// Another place that belongs to a problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The bytes, on one line.
    pub span: Span,
    /// The line, from 1.
    pub line: usize,
    /// What is there.
    pub label: String,
}

/// One field of a body that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldProblem {
    /// Where it is: a JSON pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong with it, a sentence without a full stop.
    pub detail: String,
    /// What to do about it.
    pub help: Option<String>,
}

/// All that is wrong with one file; never empty. `Display` draws it without colours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    pub(crate) label: String,
    pub(crate) text: String,
    items: Vec<Diagnostic>,
    omitted: usize,
}

impl Diagnostics {
    pub(crate) fn new(label: &str, text: &str, mut problems: Problems) -> Diagnostics {
        assert!(!problems.is_empty(), "a file without problems has no diagnostics");
        problems.kept.sort_by_key(|problem| problem.span);
        let omitted = problems.omitted;
        let places = Places::of(text);
        let items = problems.kept.into_iter().map(|problem| problem.place(text, &places)).collect();
        Diagnostics { label: label.to_owned(), text: text.to_owned(), items, omitted }
    }

    /// What the file was called.
    #[must_use]
    pub fn label(&self) -> &str {
        &self.label
    }

    /// The problems, in the order of the text.
    pub fn iter(&self) -> std::slice::Iter<'_, Diagnostic> {
        self.items.iter()
    }

    /// How many problems were found, with those that were left out.
    #[must_use]
    pub fn count(&self) -> usize {
        self.items.len() + self.omitted
    }

    /// How many were found beyond [`PROBLEMS_MAX`] and left out.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

impl<'a> IntoIterator for &'a Diagnostics {
    type Item = &'a Diagnostic;
    type IntoIter = std::slice::Iter<'a, Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl std::error::Error for Diagnostics {}

/// `12:5: message; help`, for logs and events.
impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        self.help.as_ref().map_or(Ok(()), |help| write!(f, "; {help}"))
    }
}

/// One problem while a file is read, before lines are counted.
#[derive(Clone, Debug)]
pub(crate) struct Problem {
    pub(crate) span: Span,
    message: String,
    label: Option<String>,
    help: Option<String>,
    pointer: Option<String>,
    related: Vec<(Span, String)>,
}

impl Problem {
    pub(crate) fn new(span: Span, message: impl Into<String>) -> Problem {
        Problem {
            span,
            message: clean(message.into()),
            label: None,
            help: None,
            pointer: None,
            related: Vec::new(),
        }
    }

    /// Where it is, for clients. A pointer that is too long ends at one of its parents.
    pub(crate) fn pointer(mut self, mut pointer: String) -> Problem {
        while pointer.len() > POINTER_BYTES_MAX {
            pointer.truncate(pointer.rfind('/').unwrap_or_default());
        }
        self.pointer = Some(pointer);
        self
    }

    pub(crate) fn nested_too_deeply(span: Span) -> Problem {
        Problem::new(span, format!("nested too deeply: {DEPTH_MAX} levels are the limit"))
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Problem {
        self.label = Some(clean(label.into()));
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Problem {
        self.help = Some(clean(help.into()));
        self
    }

    pub(crate) fn related(mut self, span: Span, label: impl Into<String>) -> Problem {
        self.related.push((span, clean(label.into())));
        self
    }

    pub(crate) fn place(self, text: &str, places: &Places) -> Diagnostic {
        let span = first_line(text, self.span);
        let (line, column) = places.find(text, span.start);
        let end_column = column + text[span.start..span.end].chars().count();
        let related = |(span, label): (Span, String)| {
            let span = first_line(text, span);
            Related { span, line: places.find(text, span.start).0, label }
        };
        Diagnostic {
            span,
            line,
            column,
            end_column,
            message: self.message,
            label: self.label,
            help: self.help,
            pointer: self.pointer,
            related: self.related.into_iter().map(related).collect(),
        }
    }
}

/// What a sentence quotes comes from the file: what is not seen is shown as escapes, so that
/// they reach no terminal or log, and a name of a megabyte is cut.
fn clean(text: String) -> String {
    let (kept, rest) = match text.char_indices().nth(SENTENCE_CHARS_MAX) {
        Some((end, _)) => (&text[..end], "…"),
        None => (text.as_str(), ""),
    };
    // A sentence is one line.
    plain(kept).replace('\t', "\\t").replace('\n', "\\n") + rest
}

/// The problems of one file while it is read: the first [`PROBLEMS_MAX`], and how many more.
#[derive(Debug, Default)]
pub(crate) struct Problems {
    kept: Vec<Problem>,
    omitted: usize,
}

impl Problems {
    pub(crate) fn push(&mut self, problem: Problem) {
        if self.kept.len() < PROBLEMS_MAX {
            self.kept.push(problem);
        } else {
            self.omitted += 1;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(crate) fn count(&self) -> usize {
        self.kept.len() + self.omitted
    }

    /// Whether what comes now is only counted.
    pub(crate) fn is_full(&self) -> bool {
        self.kept.len() == PROBLEMS_MAX
    }

    /// The first problem that is one of syntax.
    pub(crate) fn first_of_syntax(&self) -> Option<&Problem> {
        let of_syntax = self.kept.iter().filter(|problem| problem.pointer.is_none());
        of_syntax.min_by_key(|problem| problem.span)
    }

    /// The problems of a body, in the order of its text, and how many more there are.
    pub(crate) fn into_fields(mut self) -> (Vec<FieldProblem>, usize) {
        self.kept.sort_by_key(|problem| problem.span);
        let field = |problem: Problem| FieldProblem {
            pointer: problem.pointer.unwrap_or_default(),
            detail: problem.message,
            help: problem.help,
        };
        (self.kept.into_iter().map(field).collect(), self.omitted)
    }

    /// Counts problems that are not listed.
    pub(crate) fn omit(&mut self, count: usize) {
        self.omitted += count;
    }

    /// Forgets what reaches a place of the text.
    pub(crate) fn forget_from(&mut self, place: usize) {
        self.kept.retain(|problem| problem.span.end < place);
    }

    /// Forgets what came after there were `count` problems.
    pub(crate) fn rewind(&mut self, count: usize) {
        self.omitted = count.saturating_sub(PROBLEMS_MAX);
        self.kept.truncate(count);
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Problems {
        Problems { kept: vec![problem], omitted: 0 }
    }
}

/// Cuts a span to its first line: a caret under one line says more than a bar along thirty.
fn first_line(text: &str, span: Span) -> Span {
    let start = floor_boundary(text, span.start);
    let end = floor_boundary(text, span.end).max(start);
    let line = text[start..end].split(['\n', '\r']).next().unwrap_or_default();
    Span::new(start, start + line.trim_end().len())
}

fn floor_boundary(text: &str, place: usize) -> usize {
    let mut place = place.min(text.len());
    while !text.is_char_boundary(place) {
        place -= 1;
    }
    place
}

/// Where each line begins.
pub(crate) struct Places {
    starts: Vec<usize>,
}

impl Places {
    pub(crate) fn of(text: &str) -> Places {
        let breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        Places { starts: std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect() }
    }

    /// Line and column from 1, the column in characters; a byte order mark has no width.
    fn find(&self, text: &str, place: usize) -> (usize, usize) {
        let line = self.starts.partition_point(|start| *start <= place);
        let before = &text[self.starts[line - 1]..place];
        (line, before.chars().filter(|c| *c != '\u{FEFF}').count() + 1)
    }
}
