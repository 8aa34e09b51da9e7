//! TOML into the tree. The library reads on behind an error; what is left of an entry that has one
//! is dropped, so that nothing is said of fields that were only lost with it.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use crate::{DEPTH_MAX, PROBLEMS_MAX};
use ::toml::Spanned;
use ::toml::de::{DeString, DeTable, DeValue, Error};
use hearth_model::fields::quoted;
use std::ops::Range;

/// The key of the list of entries.
pub(crate) const ENTRIES: &str = "vm";

/// What the library says when it reads on as if nothing had been closed: the errors that follow
/// are about something that does not exist.
const RUNAWAY: [&str; 2] = ["missing comma", "unclosed"];

/// What the library says where a value is not a literal of TOML, as `01234` and `1.2.3`.
const NO_LITERAL: [&str; 2] = ["unexpected leading zero", "invalid "];

/// Reads a TOML document: a map, always.
pub(crate) fn read(text: &str) -> (Option<Node>, Problems) {
    let mut problems = Problems::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    let first_error = errors.iter().filter_map(Error::span).map(|span| span.start).min();
    report(text, &errors, &mut problems);
    let span = Span::new(0, text.len());
    let mut reader = TomlReader { text, problems, depth: 0 };
    let mut tree = Node::new(span, reader.table(table.into_inner()));
    if let Some(first_error) = first_error {
        keep_entries_before(&mut tree, first_error);
    }
    let read_nothing = matches!(&tree.kind, Kind::Map(entries) if entries.is_empty());
    if read_nothing && first_error.is_none() {
        reader.problems.push(crate::Format::Toml.empty());
    }
    (Some(tree).filter(|_| !read_nothing), reader.problems)
}

fn report(text: &str, errors: &[Error], problems: &mut Problems) {
    let mut last = None;
    // Far more than are kept; a file of nothing but errors has millions.
    for (at, error) in errors.iter().enumerate().take(10 * PROBLEMS_MAX) {
        if problems.is_full() {
            problems.omit(errors.len() - at);
            break;
        }
        let span = error.span().unwrap_or_default();
        let between = |last: usize| text.get(last.min(span.start)..last.max(span.start));
        // Behind the first on a line, the library sees only the wake of that one.
        if last.and_then(between).is_none_or(|between| between.contains('\n')) {
            problems.push(problem_of(text, error, span.clone()));
        }
        last = Some(span.start);
        if RUNAWAY.iter().any(|start| error.message().starts_with(start)) {
            break;
        }
    }
}

fn problem_of(text: &str, error: &Error, span: Range<usize>) -> Problem {
    let said = error.message();
    if said.starts_with("cannot recurse further") {
        return Problem::nested_too_deeply(Span::new(span.start, span.end));
    }
    let problem = Problem::new(Span::new(span.start, span.end), said);
    let found = text.get(span.clone()).unwrap_or_default();
    if said.starts_with("string values must be quoted") {
        problem.help(format!("write \"{found}\" if a string is meant"))
    } else if said.starts_with("duplicate key") {
        problem.help("remove one of the two; a further entry begins with `[[vm]]`")
    } else if let Some(token) = NO_LITERAL
        .iter()
        .any(|start| said.starts_with(start))
        .then(|| token_at(text, span.start))
        .filter(|token| token.start < token.end)
    {
        let help = format!("{} if a string is meant", quoted(&text[token.start..token.end]));
        Problem::new(token, said).help(help)
    } else {
        problem
    }
}

/// The word at a place, up to what separates values.
fn token_at(text: &str, at: usize) -> Span {
    let ends = |c: char| c.is_whitespace() || "=,[]{}\"'#".contains(c);
    let at = text.floor_char_boundary(at);
    let start = text[..at]
        .rfind(ends)
        .map_or(0, |before| before + text[before..].chars().next().map_or(0, char::len_utf8));
    let end = text[at..].find(ends).map_or(text.len(), |len| at + len);
    Span::new(start, end)
}

/// Drops the entries that an error stands in or before: their fields are not all there.
fn keep_entries_before(tree: &mut Node, first_error: usize) {
    let Kind::Map(fields) = &mut tree.kind else { return };
    for field in fields.iter_mut() {
        match &mut field.value.kind {
            Kind::List(entries) if field.key.text() == Some(ENTRIES) => {
                let ends = entries.iter().skip(1).map(|entry| entry.span.start);
                let whole = ends.take_while(|end| *end <= first_error).count();
                entries.truncate(whole);
            }
            _ => field.value.kind = Kind::Invalid,
        }
    }
    fields.retain(|field| !field.value.is_invalid());
}

struct TomlReader<'a> {
    text: &'a str,
    problems: Problems,
    depth: usize,
}

impl TomlReader<'_> {
    fn table(&mut self, table: DeTable<'_>) -> Kind {
        let entries = table.into_iter().map(|(key, value)| {
            let span = span_of(&key);
            let key = Node::new(span, Kind::String(key.into_inner().into_owned()));
            Entry { key, value: self.value(value) }
        });
        Kind::Map(entries.collect())
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let span = span_of(&value);
        let kind = match value.into_inner() {
            DeValue::String(text) => Kind::String(self.with_line_feeds(text, span)),
            DeValue::Integer(number) => {
                Kind::integer(&number.as_str().replace('_', ""), number.radix())
            }
            DeValue::Float(number) => {
                Kind::Float(number.as_str().replace('_', "").parse().unwrap_or(f64::NAN))
            }
            DeValue::Boolean(value) => Kind::Bool(value),
            DeValue::Datetime(_) => {
                let problem = Problem::new(span, "a date has no place in the file");
                let written = self.text.get(span.start..span.end).unwrap_or_default();
                self.refuse(problem.help(format!("{} if a string is meant", quoted(written))))
            }
            DeValue::Array(_) | DeValue::Table(_) if self.depth == DEPTH_MAX => {
                self.refuse(Problem::nested_too_deeply(span))
            }
            DeValue::Array(items) => {
                self.depth += 1;
                let items = items.into_iter().map(|item| self.value(item)).collect();
                self.depth -= 1;
                Kind::List(items)
            }
            DeValue::Table(table) => {
                self.depth += 1;
                let table = self.table(table);
                self.depth -= 1;
                table
            }
        };
        Node::new(span, kind)
    }

    /// The text, with a line feed for each line break of the file, as TOML leaves open and the other
    /// formats have it. What is written as an escape stays.
    fn with_line_feeds(&self, text: DeString<'_>, span: Span) -> String {
        let written = self.text.get(span.start..span.end).unwrap_or_default();
        if written.contains("\r\n")
            && let Ok(value) = DeValue::parse(&written.replace("\r\n", "\n"))
            && let DeValue::String(text) = value.into_inner()
        {
            return text.into_owned();
        }
        text.into_owned()
    }

    fn refuse(&mut self, problem: Problem) -> Kind {
        self.problems.push(problem);
        Kind::Invalid
    }
}

fn span_of<T>(spanned: &Spanned<T>) -> Span {
    let Range { start, end } = spanned.span();
    Span::new(start, end)
}
