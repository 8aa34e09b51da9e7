//! Elixir files that are made up: trees, their many spellings, and the reader's words in no order.
#![allow(dead_code, reason = "each test binary uses a part of this")]

use hearth_desired_file::{Entry, Kind, Node, Span};
use proptest::prelude::*;
use std::fmt::Write;

pub(crate) fn node(kind: Kind) -> Node {
    Node::new(Span::at(0), kind)
}

/// The tree without places, which printing does not keep.
pub(crate) fn bare(tree: &Node) -> Node {
    node(match &tree.kind {
        Kind::List(nodes) => Kind::List(nodes.iter().map(bare).collect()),
        Kind::Tuple(nodes) => Kind::Tuple(nodes.iter().map(bare).collect()),
        Kind::Map(entries) => Kind::Map(
            entries
                .iter()
                .map(|Entry { key, value }| Entry { key: bare(key), value: bare(value) })
                .collect(),
        ),
        other => other.clone(),
    })
}

fn name() -> impl Strategy<Value = String> {
    "[a-zA-Z_][a-zA-Z0-9_@]{0,8}[?!]?|.{0,6}"
        .prop_filter("atoms that are values", |name| !matches!(&**name, "nil" | "true" | "false"))
        .prop_map(|name| without_bidi(&name))
}

fn without_bidi(text: &str) -> String {
    let bidi = |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    text.chars().filter(|c| !bidi(*c)).collect()
}

pub(crate) fn trees() -> impl Strategy<Value = Node> {
    let leaf = prop_oneof![
        Just(Kind::Nil),
        any::<bool>().prop_map(Kind::Bool),
        any::<i64>().prop_map(Kind::Int),
        Just(Kind::BigInt),
        (-1.0e15..1.0e15).prop_map(Kind::Float),
        "(?s).{0,12}".prop_map(|text| Kind::String(without_bidi(&text))),
        name().prop_map(Kind::Atom),
    ]
    .prop_map(node);
    leaf.prop_recursive(6, 48, 6, |inner| {
        let list = prop::collection::vec(inner.clone(), 0..6);
        let map = prop::collection::btree_map(name(), (any::<bool>(), inner), 0..6);
        prop_oneof![
            list.clone().prop_map(Kind::List),
            list.prop_map(Kind::Tuple),
            map.prop_map(|entries| {
                Kind::Map(
                    entries
                        .into_iter()
                        .map(|(name, (atom, value))| {
                            let key = if atom { Kind::Atom(name) } else { Kind::String(name) };
                            Entry { key: node(key), value }
                        })
                        .collect(),
                )
            }),
        ]
        .prop_map(node)
    })
}

/// A tree as Elixir, in one of its many ways, which `style` picks.
pub(crate) fn printed(tree: &Node, style: u64) -> String {
    let mut printer = Printer { style, text: String::new() };
    printer.print(tree);
    printer.text
}

struct Printer {
    style: u64,
    text: String,
}

impl Printer {
    fn pick(&mut self, ways: u64) -> u64 {
        self.style = self.style.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.style >> 33) % ways
    }

    fn space(&mut self) {
        let spaces = ["", " ", "\n", "\t", "\r\n  ", " # a \"comment\" [\n", "\\\n", "\n\n"];
        let way = self.pick(spaces.len() as u64);
        self.text.push_str(spaces[way as usize]);
    }

    fn quoted(&mut self, text: &str, quote: char) {
        self.text.push(quote);
        for c in text.chars() {
            match (c, self.pick(8)) {
                ('\\' | '#', _) => self.text.extend(['\\', c]),
                (c, _) if c == quote => self.text.extend(['\\', c]),
                ('\n', 0..4) => self.text.push_str("\\n"),
                ('\r', _) => self.text.push_str("\\r"),
                (c, 0) => {
                    let _ = write!(self.text, "\\u{{{:X}}}", u32::from(c));
                }
                (c, 1) if c.is_ascii() => {
                    let _ = write!(self.text, "\\x{:02x}", u32::from(c));
                }
                (c, _) => self.text.push(c),
            }
        }
        self.text.push(quote);
    }

    fn plain(name: &str) -> bool {
        let body = name.strip_suffix(['?', '!']).unwrap_or(name);
        body.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
            && body.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '@'))
    }

    fn atom(&mut self, name: &str) {
        self.text.push(':');
        match (Printer::plain(name), self.pick(3)) {
            (true, 0 | 1) => self.text.push_str(name),
            (_, 0) => self.quoted(name, '\''),
            _ => self.quoted(name, '"'),
        }
    }

    fn print(&mut self, tree: &Node) {
        match &tree.kind {
            Kind::Nil => self.text.push_str("nil"),
            Kind::Bool(value) => self.text.push_str(if *value { "true" } else { "false" }),
            Kind::Int(number) => {
                let sign = if *number < 0 { "-" } else { "" };
                let size = number.unsigned_abs();
                let _ = match self.pick(4) {
                    0 => write!(self.text, "{sign}0x{size:X}"),
                    1 => write!(self.text, "{sign}0o{size:o}"),
                    2 => write!(self.text, "{sign}0b{size:b}"),
                    _ => write!(self.text, "{number}"),
                };
            }
            Kind::BigInt => self.text.push_str("9223372036854775808"),
            Kind::Float(number) => {
                let _ = match self.pick(2) {
                    0 => write!(self.text, "{number:?}"),
                    _ => write!(self.text, "{number:.20e}"),
                };
            }
            Kind::String(text) => self.quoted(text, '"'),
            Kind::Atom(name) => self.atom(name),
            Kind::List(nodes) => self.sequence("[", nodes, "]"),
            Kind::Tuple(nodes) => self.sequence("{", nodes, "}"),
            Kind::Map(entries) => self.map(entries),
            Kind::Invalid => unreachable!("not among the trees"),
        }
    }

    fn sequence(&mut self, open: &str, nodes: &[Node], close: &str) {
        self.text.push_str(open);
        for (at, node) in nodes.iter().enumerate() {
            self.space();
            self.print(node);
            self.comma(at, nodes.len());
        }
        self.space();
        self.text.push_str(close);
    }

    fn comma(&mut self, at: usize, len: usize) {
        if at + 1 < len || self.pick(2) == 0 {
            self.text.push(',');
        }
    }

    fn map(&mut self, entries: &[Entry]) {
        self.text.push_str("%{");
        // `name: value` only where nothing but its like follows.
        let arrows = entries.iter().rposition(|entry| matches!(entry.key.kind, Kind::String(_)));
        for (at, Entry { key, value }) in entries.iter().enumerate() {
            self.space();
            match &key.kind {
                Kind::Atom(name) if arrows.is_none_or(|last| at > last) => {
                    if Printer::plain(name) && self.pick(4) > 0 {
                        self.text.push_str(name);
                    } else {
                        self.quoted(name, '"');
                    }
                    self.text.push_str(": ");
                }
                _ => {
                    self.print(key);
                    self.space();
                    self.text.push_str("=>");
                }
            }
            self.space();
            self.print(value);
            self.comma(at, entries.len());
        }
        self.space();
        self.text.push('}');
    }
}

/// The reader's words.
pub(crate) const TOKENS: &[&str] = &[
    "[",
    "]",
    "{",
    "}",
    "%{",
    "(",
    ")",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\n",
    "\r\n",
    " ",
    ",",
    ":",
    ": ",
    "=>",
    "~w(",
    "~S|",
    "~s\"\"\"\n",
    "|",
    "\\",
    "\\u",
    "\\x",
    "#",
    "#{",
    "a",
    "a: ",
    ":b",
    "nil",
    "if",
    "do",
    "end",
    "fn",
    "<<",
    ">>",
    "<>",
    ".",
    "..",
    "-",
    "1",
    "_",
    "0x",
    "e5",
    "?",
    "!",
    "@",
    "&",
    "é",
    "\u{FEFF}",
    "\u{202E}",
    "\0",
    "true",
    "Foo",
    "System.get_env",
    ";",
];
