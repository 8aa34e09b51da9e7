//! The tree that every format is read into. It knows places, and no format and no field.

/// A range of bytes of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// From one byte up to another.
    #[must_use]
    pub fn new(start: usize, end: usize) -> Span {
        Span { start, end }
    }

    /// A place between two bytes.
    #[must_use]
    pub fn at(place: usize) -> Span {
        Span { start: place, end: place }
    }

    /// From the start of this one to the end of another.
    #[must_use]
    pub fn to(self, other: Span) -> Span {
        Span { start: self.start, end: other.end }
    }
}

/// A value and its place.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Where it stands.
    pub span: Span,
    /// What it is.
    pub kind: Kind,
}

/// What a value is.
#[derive(Clone, Debug, PartialEq)]
pub enum Kind {
    /// `nil` or null.
    Nil,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer beyond 64 bits; its digits stand in the text.
    BigInt,
    /// A number with a fraction or an exponent, as near as it can be.
    Float(f64),
    /// A text.
    String(String),
    /// A name, in formats that tell it from a text.
    Atom(String),
    /// A list.
    List(Vec<Node>),
    /// A tuple, in formats that tell it from a list.
    Tuple(Vec<Node>),
    /// A map in the order it was written, without duplicate names.
    Map(Vec<Entry>),
    /// Something that is not data. The problem was reported where it was read.
    Invalid,
}

/// A key with its value.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// The key, of any kind.
    pub key: Node,
    /// The value.
    pub value: Node,
}

impl Kind {
    /// The integer of these digits, which may have a sign before them.
    pub(crate) fn integer(digits: &str, radix: u32) -> Kind {
        i64::from_str_radix(digits, radix).map_or(Kind::BigInt, Kind::Int)
    }
}

impl Node {
    /// A value at a place.
    #[must_use]
    pub fn new(span: Span, kind: Kind) -> Node {
        Node { span, kind }
    }

    /// The text of a string or an atom.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            Kind::String(text) | Kind::Atom(text) => Some(text),
            _ => None,
        }
    }

    /// The text of a key: as [`Node::text`], and Elixir's three atoms that are values too.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match &self.kind {
            Kind::Nil => Some("nil"),
            Kind::Bool(true) => Some("true"),
            Kind::Bool(false) => Some("false"),
            _ => self.text(),
        }
    }

    /// Whether it is an [`Kind::Invalid`] itself.
    #[must_use]
    pub fn is_invalid(&self) -> bool {
        self.kind == Kind::Invalid
    }

    /// The elements as pairs of name and value, if this is a list made of nothing else: Elixir's
    /// keyword list, which may stand for a map. An empty list is not one.
    #[must_use]
    pub fn keywords(&self) -> Option<Vec<(&Node, &Node)>> {
        let Kind::List(items) = &self.kind else { return None };
        let pair = |item: &'_ Node| match &item.kind {
            Kind::Tuple(pair) => match pair.as_slice() {
                [key, _] => matches!(key.kind, Kind::Atom(_) | Kind::Bool(_) | Kind::Nil),
                _ => false,
            },
            _ => false,
        };
        if items.is_empty() || !items.iter().all(pair) {
            return None;
        }
        Some(
            items
                .iter()
                .filter_map(|item| match &item.kind {
                    Kind::Tuple(pair) => Some((&pair[0], &pair[1])),
                    _ => None,
                })
                .collect(),
        )
    }

    /// The kind as a user would name it.
    #[must_use]
    pub fn describe(&self) -> &'static str {
        match self.kind {
            Kind::Nil => "nil",
            Kind::Bool(_) => "a boolean",
            Kind::Int(_) | Kind::BigInt => "an integer",
            Kind::Float(_) => "a floating-point number",
            Kind::String(_) => "a string",
            Kind::Atom(_) => "an atom",
            Kind::List(_) => "a list",
            Kind::Tuple(_) => "a tuple",
            Kind::Map(_) => "a map",
            Kind::Invalid => "something that is not data",
        }
    }
}
