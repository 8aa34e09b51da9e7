//! YAML into the tree, from the parser's events: scalars by YAML 1.2's core schema, so that `yes`
//! and `on` are texts, and a key is always a text. Aliases are copied, up to a budget.
//!
//! The parser stops at its first error; the entries that were whole before it are kept.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use crate::{DEPTH_MAX, FILE_BYTES_MAX, Format};
use granit_parser::{ErrorKind, Event, Parser, ScalarStyle, ScanError, Tag};
use std::collections::HashMap;

/// What aliases may add to a file, in bytes of its text: as much as a file may have.
const COPIED_BYTES_MAX: usize = FILE_BYTES_MAX;

/// Reads a stream of one document.
pub(crate) fn read(text: &str) -> (Option<Node>, Problems) {
    let mut options = granit_parser::options! {
        // A caret under the alias says more than the end of reading.
        emit_unresolved_aliases: true,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    };
    options.set_emit_comments(false);
    let mut builder = Builder { text, ..Builder::default() };
    for event in Parser::new_from_str_with_options(text, options) {
        let step = match event {
            Ok((event, span)) => {
                let range = span.byte_range().unwrap_or_default();
                builder.event(event, Span::new(range.start, range.end))
            }
            Err(error) => Err(refused(text, &error)),
        };
        if let Err(problem) = step {
            builder.problems.push(*problem);
            return builder.stopped();
        }
    }
    if builder.root.is_none() && builder.problems.is_empty() {
        builder.problems.push(Format::Yaml.empty());
    }
    (builder.root, builder.problems)
}

fn refused(text: &str, error: &ScanError) -> Box<Problem> {
    let start = error.marker().byte_offset().unwrap_or_default();
    let end = text.get(start..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8);
    if matches!(error.kind(), ErrorKind::RecursionLimitExceeded) {
        return Box::new(Problem::nested_too_deeply(Span::new(start, start + end)));
    }
    let said = error.info().replace('\n', " ");
    let tab = said.contains("tab");
    let problem = Problem::new(Span::new(start, start + end), said);
    Box::new(match error.kind() {
        _ if tab => problem.help("indent by spaces"),
        ErrorKind::UnexpectedCharacter { .. } => {
            problem.help("put the text in quotes if it is one: \"…\"")
        }
        ErrorKind::MappingValueNotAllowed => {
            problem.help("put a text that holds `: ` in quotes: \"…\"")
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::ExpectedBlockSequenceEntry => {
            problem.help("what belongs together is indented by the same number of spaces")
        }
        _ => problem,
    })
}

/// A list or a map that is not closed yet.
struct Open {
    span: Span,
    is_map: bool,
    anchor: usize,
    /// Of a map, keys and values in turn.
    nodes: Vec<Node>,
}

/// What an alias stands for.
struct Anchored {
    node: Node,
    height: usize,
    bytes: usize,
}

#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    problems: Problems,
    open: Vec<Open>,
    /// Complete nodes by the number of their anchor; one that is missing is still open.
    anchored: HashMap<usize, Anchored>,
    copied_bytes: usize,
    root: Option<Node>,
}

type Step = Result<(), Box<Problem>>;

impl Builder<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Step {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => {
                let problem = Problem::new(span, "the file holds more than one document");
                Err(Box::new(problem.help("write one list with every entry in it")))
            }
            Event::Scalar(text, style, anchor, tag) => {
                let is_key = self.at_key();
                let kind = self.scalar(&text, style, tag.as_deref(), is_key, span);
                self.add(Node::new(span, kind), anchor)
            }
            Event::SequenceStart(_, anchor, tag) => self.enter(span, false, anchor, tag.as_deref()),
            Event::MappingStart(_, anchor, tag) => self.enter(span, true, anchor, tag.as_deref()),
            Event::SequenceEnd | Event::MappingEnd => self.leave(span),
            Event::Alias(anchor) => self.alias(anchor, span),
            Event::UnresolvedAlias(name) => {
                let message = format!("no anchor `&{name}` stands before this alias");
                let help = format!("write `&{name}` before the value that is meant");
                self.problems.push(Problem::new(span, message).help(help));
                self.add(Node::new(span, Kind::Invalid), 0)
            }
            _ => Ok(()),
        }
    }

    fn at_key(&self) -> bool {
        self.open.last().is_some_and(|open| open.is_map && open.nodes.len().is_multiple_of(2))
    }

    fn scalar(
        &mut self,
        text: &str,
        style: ScalarStyle,
        tag: Option<&Tag>,
        is_key: bool,
        span: Span,
    ) -> Kind {
        let is_text = match tag.map(|tag| (tag, tag.core_suffix())) {
            None => false,
            Some((_, Some("str"))) => true,
            // The tag `!` alone means: as it stands.
            Some((tag, _)) if tag.handle().is_empty() && tag.suffix() == "!" => true,
            Some((tag, _)) => return self.refuse_tag(tag, span),
        };
        let plain = style == ScalarStyle::Plain && !is_text;
        if is_key && plain && is_null(text) {
            let problem = Problem::new(span, "a key is missing").help("put it in quotes");
            self.problems.push(problem);
            return Kind::Invalid;
        }
        if is_key && text == "<<" && plain {
            let problem = Problem::new(span, "cannot take the merge key `<<`")
                .help("write the fields, or name the whole value by an alias: `field: *name`");
            self.problems.push(problem);
            return Kind::Invalid;
        }
        if plain && !is_key { resolve(text) } else { Kind::String(text.to_owned()) }
    }

    fn refuse_tag(&mut self, tag: &Tag, span: Span) -> Kind {
        let problem = Problem::new(span, format!("cannot take the tag `{}`", tag.original()));
        self.problems.push(problem.help("remove it; of the tags, `!!str` is read"));
        Kind::Invalid
    }

    fn enter(&mut self, span: Span, is_map: bool, anchor: usize, tag: Option<&Tag>) -> Step {
        if self.open.len() == DEPTH_MAX {
            return Err(Box::new(Problem::nested_too_deeply(span)));
        }
        let known = if is_map { "map" } else { "seq" };
        if let Some(tag) = tag.filter(|tag| tag.core_suffix() != Some(known)) {
            self.refuse_tag(tag, span);
        }
        self.open.push(Open { span, is_map, anchor, nodes: Vec::new() });
        Ok(())
    }

    fn leave(&mut self, end: Span) -> Step {
        let Some(open) = self.open.pop() else { return Ok(()) };
        // A block ends where the next token begins: what lies between is none of it.
        let inside = self.text.get(open.span.start..end.end).unwrap_or_default();
        let span = Span::new(open.span.start, open.span.start + inside.trim_end().len());
        let kind = if open.is_map {
            let mut nodes = open.nodes.into_iter();
            let mut entries = Vec::with_capacity(nodes.len() / 2);
            while let (Some(key), Some(value)) = (nodes.next(), nodes.next()) {
                entries.push(Entry { key, value });
            }
            Kind::Map(entries)
        } else {
            Kind::List(open.nodes)
        };
        self.add(Node::new(span, kind), open.anchor)
    }

    fn add(&mut self, node: Node, anchor: usize) -> Step {
        if anchor != 0 {
            let bytes = weight(&node);
            self.charge(bytes, node.span)?;
            let height = height(&node);
            self.anchored.insert(anchor, Anchored { node: node.clone(), height, bytes });
        }
        match self.open.last_mut() {
            Some(open) => open.nodes.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Step {
        let Some(anchored) = self.anchored.get(&anchor) else {
            self.problems.push(Problem::new(span, "the alias stands inside the value it names"));
            return self.add(Node::new(span, Kind::Invalid), 0);
        };
        if self.open.len() + anchored.height > DEPTH_MAX {
            return Err(Box::new(Problem::nested_too_deeply(span)));
        }
        let (bytes, is_key) = (anchored.bytes, self.at_key());
        self.charge(bytes, span)?;
        let Node { span: source, kind } = self.anchored[&anchor].node.clone();
        let node = match kind {
            Kind::Nil | Kind::Bool(_) | Kind::Int(_) | Kind::BigInt | Kind::Float(_) if is_key => {
                let text = self.text[source.start..source.end].to_owned();
                Node::new(span, Kind::String(text))
            }
            // The whole is shown where it is named, its parts where they stand.
            Kind::String(_) | Kind::List(_) | Kind::Map(_) => Node::new(span, kind),
            // A hint quotes what was written.
            kind => Node::new(source, kind),
        };
        self.add(node, 0)
    }

    fn charge(&mut self, bytes: usize, span: Span) -> Step {
        self.copied_bytes += bytes;
        if self.copied_bytes <= COPIED_BYTES_MAX {
            return Ok(());
        }
        let message = format!("aliases add more than {COPIED_BYTES_MAX} bytes to the file");
        Err(Box::new(Problem::new(span, message).help("write the values")))
    }

    /// The result when reading cannot continue: the list of entries, with those that are whole.
    fn stopped(mut self) -> (Option<Node>, Problems) {
        self.open.truncate(1);
        let root = self.open.pop().filter(|open| !open.is_map);
        let root = root.map(|open| Node::new(open.span, Kind::List(open.nodes)));
        (root, self.problems)
    }
}

/// A plain scalar by the core schema.
fn resolve(text: &str) -> Kind {
    match text {
        _ if is_null(text) => return Kind::Nil,
        "true" | "True" | "TRUE" => return Kind::Bool(true),
        "false" | "False" | "FALSE" => return Kind::Bool(false),
        _ => {}
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !unsigned.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return Kind::String(text.to_owned());
    }
    let radix = |prefix: &str, radix: u32| {
        let digits = text.strip_prefix(prefix)?;
        let all = !digits.is_empty() && digits.chars().all(|c| c.is_digit(radix));
        all.then(|| Kind::integer(digits, radix))
    };
    if unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return Kind::integer(text, 10);
    }
    if let Some(integer) = radix("0x", 16).or_else(|| radix("0o", 8)) {
        return integer;
    }
    match text.parse() {
        Ok(float) if is_float(unsigned) => Kind::Float(float),
        _ => Kind::String(text.to_owned()),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// `[0-9]+.[0-9]*` or `.[0-9]+`, then maybe an exponent.
fn is_float(unsigned: &str) -> bool {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    digits(whole)
        && digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}

/// How many bytes a copy takes, about.
fn weight(node: &Node) -> usize {
    size_of::<Node>()
        + match &node.kind {
            Kind::String(text) => text.len(),
            Kind::List(items) => items.iter().map(weight).sum(),
            Kind::Map(entries) => {
                entries.iter().map(|entry| weight(&entry.key) + weight(&entry.value)).sum()
            }
            _ => 0,
        }
}

fn height(node: &Node) -> usize {
    match &node.kind {
        Kind::List(items) => 1 + items.iter().map(height).max().unwrap_or(0),
        Kind::Map(entries) => {
            let deepest = entries.iter().map(|entry| height(&entry.key).max(height(&entry.value)));
            1 + deepest.max().unwrap_or(0)
        }
        _ => 0,
    }
}
