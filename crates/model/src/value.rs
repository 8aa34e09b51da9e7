//! A format-neutral tree, from which a spec is read and to which it is written. Files, requests
//! and database rows all pass through it, so that there is one grammar of fields.

use std::fmt;

/// A node of the tree.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null` or `nil`.
    Null,
    /// A truth value.
    Bool(bool),
    /// An integer.
    Int(i64),
    /// An integer beyond 64 bits, as it was written.
    BigInt(String),
    /// A number with a fraction or an exponent, as it was written.
    Float(String),
    /// A text; in Elixir, an atom as well.
    String(String),
    /// A list.
    List(Vec<Value>),
    /// A map in the order it was written, without duplicate keys.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// The kind as a user would name it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Int(_) | Value::BigInt(_) => "an integer",
            Value::Float(_) => "a floating-point number",
            Value::String(_) => "a string",
            Value::List(_) => "a list",
            Value::Map(_) => "a map",
        }
    }

    /// The value at a key of a map.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Value::Map(entries) => entries.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Null => f.write_str("null"),
            Value::Bool(b) => b.fmt(f),
            Value::Int(i) => i.fmt(f),
            Value::BigInt(text) | Value::Float(text) => f.write_str(text),
            Value::String(s) => write!(f, "{s:?}"),
            Value::List(_) | Value::Map(_) => f.write_str(self.kind()),
        }
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::String(text.to_owned())
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Value {
        Value::Int(i64::from(number))
    }
}
