//! TOML into the tree. The library reads on behind an error; what is left of an entry that has one
//! is dropped, so that nothing is said of fields that were only lost with it.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use crate::{DEPTH_MAX, PROBLEMS_MAX, duplicates};
use ::toml::Spanned;
use ::toml::de::{DeInteger, DeString, DeTable, DeValue, Error};
use std::borrow::Cow;
use std::ops::Range;

/// The key of the list of entries.
pub(crate) const ENTRIES: &str = "vm";

/// What the library says where it reads on as if nothing had been closed, so that all it says
/// after is about something that is not there.
const RUNAWAY: [&str; 2] = ["missing comma", "unclosed"];

/// Reads a TOML document: a map, always.
pub(crate) fn read(text: &str) -> (Option<Node>, Problems) {
    let mut problems = Problems::default();
    let (table, errors) = DeTable::parse_recoverable(text);
    let first_error = errors.iter().filter_map(Error::span).map(|span| span.start).min();
    report(text, &errors, &mut problems);
    let span = Span::new(0, text.len());
    let mut reader = Reader { problems, depth: 0 };
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
    let problem = Problem::new(Span::new(span.start, span.end), said);
    let found = text.get(span.clone()).unwrap_or_default();
    if said.starts_with("string values must be quoted") {
        problem.help(format!("write \"{found}\" if a string is meant"))
    } else if said.starts_with("duplicate key") {
        problem.help("remove one of the two; a further entry begins with `[[vm]]`")
    } else {
        problem
    }
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

struct Reader {
    problems: Problems,
    depth: usize,
}

impl Reader {
    fn table(&mut self, table: DeTable<'_>) -> Kind {
        let entries = table.into_iter().map(|(key, value)| {
            let span = span_of(&key);
            let key = Node::new(span, Kind::String(key.into_inner().into_owned()));
            Entry { key, value: self.value(value) }
        });
        let entries = entries.collect();
        Kind::Map(duplicates::without(entries, "remove one of the two", &mut self.problems))
    }

    fn value(&mut self, value: Spanned<DeValue<'_>>) -> Node {
        let span = span_of(&value);
        let kind = match value.into_inner() {
            DeValue::String(text) => Kind::String(DeString::into_owned(text)),
            DeValue::Integer(number) => integer(&number)
                .map_or_else(|| self.refuse(Problem::number_too_large(span)), Kind::Int),
            DeValue::Float(number) => match number.as_str().replace('_', "").parse::<f64>() {
                Ok(number) if number.is_finite() => Kind::Float(number),
                _ => self.refuse(Problem::new(span, "a number has to be finite")),
            },
            DeValue::Boolean(value) => Kind::Bool(value),
            DeValue::Datetime(_) => {
                let problem = Problem::new(span, "a date has no place in the file");
                self.refuse(problem.help("put it in quotes if a string is meant"))
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

    fn refuse(&mut self, problem: Problem) -> Kind {
        self.problems.push(problem);
        Kind::Invalid
    }
}

fn integer(number: &DeInteger<'_>) -> Option<i64> {
    let digits: Cow<'_, str> = match number.as_str() {
        plain if plain.contains('_') => plain.replace('_', "").into(),
        plain => plain.into(),
    };
    i64::from_str_radix(&digits, number.radix()).ok()
}

fn span_of<T>(spanned: &Spanned<T>) -> Span {
    let Range { start, end } = spanned.span();
    Span::new(start, end)
}
