//! Jobs as text, in each format: what [`parse_as`](crate::parse_as) reads back as the same jobs.
//! Comments and the layout of a file that was read are not kept.

use crate::{Declared, Format};
use hearth_model::Value;
use std::fmt::Write;

/// What is longer in one line is broken into several.
const LINE_CHARS_MAX: usize = 80;

/// Longest key of YAML that needs no `?` before it.
const YAML_KEY_BYTES_MAX: usize = 1000;

/// Jobs as the text of a desired-state file.
#[must_use]
pub fn write<'a>(format: Format, jobs: impl IntoIterator<Item = &'a Declared>) -> String {
    let mut writer = Writer { format, text: String::new() };
    for job in jobs {
        writer.job(job);
    }
    writer.finish()
}

struct Writer {
    format: Format,
    text: String,
}

impl Writer {
    fn job(&mut self, job: &Declared) {
        let first = self.text.is_empty();
        let id = quoted(job.job_id.as_str(), self.format);
        let tenant = job.tenant.as_ref().map(|tenant| quoted(tenant.as_str(), self.format));
        let spec = job.spec.write();
        match self.format {
            Format::Elixir => {
                self.text.push_str(if first { "[\n  {" } else { ",\n\n  {" });
                self.text.push_str(&id);
                self.text.extend(tenant.iter().flat_map(|tenant| [", ", tenant]));
                self.text.push_str(",\n   ");
                self.broken(&spec, 3);
                self.text.push('}');
            }
            Format::Json => {
                self.text.push_str(if first { "[\n  {\n" } else { ",\n  {\n" });
                let _ = writeln!(self.text, "    \"job_id\": {id},");
                if let Some(tenant) = tenant {
                    let _ = writeln!(self.text, "    \"tenant\": {tenant},");
                }
                self.text.push_str("    \"spec\": ");
                self.broken(&spec, 4);
                self.text.push_str("\n  }");
            }
            Format::Yaml => {
                self.text.push_str(if first { "" } else { "\n" });
                let _ = writeln!(self.text, "- job_id: {id}");
                if let Some(tenant) = tenant {
                    let _ = writeln!(self.text, "  tenant: {tenant}");
                }
                self.text.push_str("  spec:\n");
                self.block(&spec, 4);
            }
            Format::Toml => {
                self.text.push_str(if first { "" } else { "\n" });
                let _ = writeln!(self.text, "[[vm]]\njob_id = {id}");
                if let Some(tenant) = tenant {
                    let _ = writeln!(self.text, "tenant = {tenant}");
                }
                self.table("vm.spec", &spec);
            }
        }
    }

    fn finish(mut self) -> String {
        match (self.format, self.text.is_empty()) {
            (Format::Toml, true) => "vm = []\n".to_owned(),
            (_, true) => "[]\n".to_owned(),
            (Format::Elixir | Format::Json, false) => {
                self.text.push_str("\n]\n");
                self.text
            }
            (Format::Toml | Format::Yaml, false) => self.text,
        }
    }

    /// A value over as many lines as it needs, the first of them where the text ends.
    fn value(&mut self, value: &Value, indent: usize) {
        let line = inline(value, self.format);
        if line.chars().count() <= LINE_CHARS_MAX - indent.min(LINE_CHARS_MAX / 2) {
            self.text.push_str(&line);
        } else {
            self.broken(value, indent);
        }
    }

    /// A list or a map with one element a line; anything else as it is.
    fn broken(&mut self, value: &Value, indent: usize) {
        let elements: Vec<(String, &Value)> = match value {
            Value::List(items) => items.iter().map(|item| (String::new(), item)).collect(),
            Value::Map(entries) => {
                let arrows = needs_arrows(entries, self.format);
                let named = |(name, value)| (key(name, self.format, arrows), value);
                entries.iter().map(|(name, value)| named((name, value))).collect()
            }
            _ => return self.text.push_str(&inline(value, self.format)),
        };
        let (open, close) = brackets(value, self.format);
        self.text.push_str(open);
        for (at, (key, value)) in elements.iter().enumerate() {
            self.text.push_str(if at == 0 { "\n" } else { ",\n" });
            self.indent(indent + 2);
            self.text.push_str(key);
            self.value(value, indent + 2);
        }
        self.text.push('\n');
        self.indent(indent);
        self.text.push_str(close);
    }

    fn indent(&mut self, indent: usize) {
        self.text.extend(std::iter::repeat_n(' ', indent));
    }

    /// A map as a block of YAML; nested ones too where they are long.
    fn block(&mut self, value: &Value, indent: usize) {
        let Value::Map(entries) = value else { return };
        for (name, value) in entries {
            self.indent(indent);
            let name = key(name, self.format, false);
            if name.len() > YAML_KEY_BYTES_MAX {
                self.text.push_str("? ");
                self.text.push_str(name.trim_end_matches(": "));
                self.text.push('\n');
                self.indent(indent);
                self.text.push(':');
            } else {
                self.text.push_str(name.trim_end());
            }
            let line = inline(value, self.format);
            let fits = line.chars().count() <= LINE_CHARS_MAX;
            match value {
                Value::Map(_) if !fits => {
                    self.text.push('\n');
                    self.block(value, indent + 2);
                }
                Value::List(items) if !fits => {
                    self.text.push('\n');
                    for item in items {
                        self.indent(indent + 2);
                        let _ = writeln!(self.text, "- {}", inline(item, self.format));
                    }
                }
                _ => {
                    let _ = writeln!(self.text, " {line}");
                }
            }
        }
    }

    /// A map as a table of TOML; a long one in it becomes a table of its own, behind all else.
    fn table(&mut self, path: &str, value: &Value) {
        let Value::Map(entries) = value else { return };
        let _ = writeln!(self.text, "\n[{path}]");
        let is_table = |value: &Value| {
            matches!(value, Value::Map(_))
                && inline(value, self.format).chars().count() > LINE_CHARS_MAX
        };
        let (tables, plain): (Vec<_>, Vec<_>) =
            entries.iter().partition(|(_, value)| is_table(value));
        for (name, value) in plain {
            self.text.push_str(&key(name, self.format, false));
            self.value(value, 0);
            self.text.push('\n');
        }
        for (name, value) in tables {
            let name = key(name, self.format, false);
            self.table(&format!("{path}.{}", name.trim_end_matches(" = ")), value);
        }
    }
}

fn brackets(value: &Value, format: Format) -> (&'static str, &'static str) {
    match (value, format) {
        (Value::List(_), _) => ("[", "]"),
        (_, Format::Elixir) => ("%{", "}"),
        _ => ("{", "}"),
    }
}

/// A value in one line.
fn inline(value: &Value, format: Format) -> String {
    let elements: Vec<String> = match value {
        Value::Null if format == Format::Elixir => return "nil".to_owned(),
        Value::Null | Value::Bool(_) | Value::Int(_) | Value::BigInt(_) | Value::Float(_) => {
            return value.to_string();
        }
        Value::String(text) => return quoted(text, format),
        Value::List(items) => items.iter().map(|item| inline(item, format)).collect(),
        Value::Map(entries) => {
            let arrows = needs_arrows(entries, format);
            let entry = |(name, value): &(String, Value)| {
                format!("{}{}", key(name, format, arrows), inline(value, format))
            };
            entries.iter().map(entry).collect()
        }
    };
    let (open, close) = brackets(value, format);
    let space = match (value, format) {
        (Value::Map(_), Format::Toml) if !elements.is_empty() => " ",
        _ => "",
    };
    format!("{open}{space}{}{space}{close}", elements.join(", "))
}

/// Whether a map's keys have to be strings in Elixir: if one is not a plain name, then all of them.
fn needs_arrows(entries: &[(String, Value)], format: Format) -> bool {
    format == Format::Elixir && !entries.iter().all(|(name, _)| is_plain(name))
}

/// A key with what stands between it and its value.
fn key(name: &str, format: Format, arrows: bool) -> String {
    match format {
        Format::Elixir if arrows => format!("{} => ", quoted(name, format)),
        Format::Elixir => format!("{name}: "),
        Format::Toml if is_plain(name) => format!("{name} = "),
        Format::Toml => format!("{} = ", quoted(name, format)),
        Format::Yaml if is_plain(name) && !is_yaml_word(name) => format!("{name}: "),
        Format::Yaml | Format::Json => format!("{}: ", quoted(name, format)),
    }
}

/// Letters, digits and `_`, and short enough for an atom.
fn is_plain(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.len() <= 64
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// What some reader of YAML takes for something else than a text.
fn is_yaml_word(name: &str) -> bool {
    let words = ["null", "true", "false", "yes", "no", "on", "off", "y", "n"];
    words.iter().any(|word| name.eq_ignore_ascii_case(word))
}

/// A text in double quotes. What no reader minds stands as it is; the rest is escaped in the one
/// way that all four formats share.
fn quoted(text: &str, format: Format) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '#' if format == Format::Elixir && chars.peek() == Some(&'{') => quoted.push_str("\\#"),
            c if is_unsafe(c) => {
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Control characters, line ends beyond ASCII, what reorders the text that is shown, and what is
/// no character of YAML. All of them are below U+10000.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
        || matches!(c, '\u{FEFF}' | '\u{FFFE}' | '\u{FFFF}')
}
