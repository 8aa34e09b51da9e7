//! JSON into the tree, by RFC 8259. Slips that leave no doubt about what is meant are reported and
//! passed, so that one run finds them all.

use crate::diagnostic::{Problem, Problems};
use crate::node::{Entry, Kind, Node, Span};
use crate::{DEPTH_MAX, Format};
use hearth_model::fields::quoted;

/// Reads a text that is one JSON value. The tree is `None` where there was no way to read on.
pub(crate) fn read(text: &str) -> (Option<Node>, Problems) {
    let mut reader = JsonReader { text, at: 0, depth: 0, problems: Problems::default() };
    let tree = reader.file().ok();
    (tree, reader.problems)
}

/// There is no way to read on. The reason is among the problems.
struct Stop;

struct JsonReader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    problems: Problems,
}

impl<'a> JsonReader<'a> {
    fn file(&mut self) -> Result<Node, Stop> {
        if self.text.starts_with('\u{FEFF}') {
            self.at = '\u{FEFF}'.len_utf8();
        }
        self.skip_space();
        if self.peek().is_none() {
            return Err(self.stop(Format::Json.empty()));
        }
        let tree = self.value()?;
        self.skip_space();
        if self.at < self.text.len() {
            let span = Span::new(self.at, self.text.len());
            let problem = Problem::new(span, "there is more than one value")
                .related(tree.span, "the first begins here")
                .label("write one list with every entry in it");
            self.problems.push(problem);
        }
        Ok(tree)
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn from(&self, start: usize) -> Span {
        Span::new(start, self.at)
    }

    fn stop(&mut self, problem: Problem) -> Stop {
        self.problems.push(problem);
        Stop
    }

    fn skip_space(&mut self) {
        loop {
            match self.peek() {
                Some(b' ' | b'\t' | b'\n' | b'\r') => self.at += 1,
                Some(b'#') => self.comment("\n"),
                Some(b'/') if self.rest().starts_with("//") => self.comment("\n"),
                Some(b'/') if self.rest().starts_with("/*") => self.comment("*/"),
                _ => return,
            }
        }
    }

    fn comment(&mut self, end: &str) {
        let start = self.at;
        self.at += self.rest().find(end).map_or(self.rest().len(), |at| at + end.len());
        let problem = Problem::new(self.from(start), "JSON has no comments").help("remove it");
        self.problems.push(problem.label("the other three formats have them"));
    }

    fn value(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'[') => self.list()?,
            Some(b'{') => self.map()?,
            Some(b'"') => self.string()?,
            Some(b'\'') => self.single_quoted()?,
            Some(b'-' | b'+' | b'0'..=b'9') => self.number(),
            _ => match self.word() {
                "" => return Err(self.unexpected("a value")),
                "null" => Kind::Nil,
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                word => self.bare_word(word),
            },
        };
        Ok(Node::new(self.from(start), kind))
    }

    /// Steps over letters, digits, `_`, and what may stand between them.
    fn word(&mut self) -> &'a str {
        let rest = self.rest();
        let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.');
        let word = &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())];
        self.at += word.len();
        word
    }

    fn bare_word(&mut self, word: &str) -> Kind {
        let help = match word.to_ascii_lowercase().as_str() {
            "none" | "nil" | "undefined" | "null" => "write `null`".to_owned(),
            "true" | "yes" | "on" => format!("write `true`, or \"{word}\" if a string is meant"),
            "false" | "no" | "off" => format!("write `false`, or \"{word}\" if a string is meant"),
            _ => format!("{} if a string is meant", quoted(word)),
        };
        let span = Span::new(self.at - word.len(), self.at);
        self.problems.push(Problem::new(span, format!("`{word}` is not a JSON value")).help(help));
        Kind::Invalid
    }

    fn enter(&mut self) -> Result<Span, Stop> {
        let open = Span::new(self.at, self.at + 1);
        if self.depth == DEPTH_MAX {
            return Err(self.stop(Problem::nested_too_deeply(open)));
        }
        self.depth += 1;
        self.at += 1;
        self.skip_space();
        Ok(open)
    }

    fn list(&mut self) -> Result<Kind, Stop> {
        let open = self.enter()?;
        let mut items = Vec::new();
        while !self.closes(b']', open, "list")? {
            items.push(self.value()?);
            self.separator(b']')?;
        }
        Ok(Kind::List(items))
    }

    fn map(&mut self) -> Result<Kind, Stop> {
        let open = self.enter()?;
        let mut entries = Vec::new();
        while !self.closes(b'}', open, "map")? {
            let key = self.key()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("`:` behind the key"));
            }
            self.at += 1;
            self.skip_space();
            let value = self.value()?;
            entries.push(Entry { key, value });
            self.separator(b'}')?;
        }
        Ok(Kind::Map(entries))
    }

    fn key(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let kind = match self.peek() {
            Some(b'"') => self.string()?,
            Some(b'\'') => self.single_quoted()?,
            _ => match self.word() {
                "" => return Err(self.unexpected("a key in quotes")),
                word => {
                    let problem = Problem::new(self.from(start), "a key has to be quoted");
                    self.problems.push(problem.help(format!("write \"{word}\"")));
                    Kind::String(word.to_owned())
                }
            },
        };
        Ok(Node::new(self.from(start), kind))
    }

    /// Whether the list or map ends here; steps behind its end.
    fn closes(&mut self, close: u8, open: Span, what: &str) -> Result<bool, Stop> {
        let expected = || format!("expected `{}` to close the {what}", char::from(close));
        match self.peek() {
            Some(byte) if byte == close => {
                self.at += 1;
                self.depth -= 1;
                Ok(true)
            }
            None => {
                let end = self.text.trim_end().len();
                let message = format!("{}, found the end of the text", expected());
                let problem = Problem::new(Span::at(end), message);
                Err(self.stop(
                    problem
                        .label("the text ends here")
                        .related(open, format!("the {what} begins here")),
                ))
            }
            Some(found @ (b']' | b'}')) => {
                let span = Span::new(self.at, self.at + 1);
                let message = format!("{}, found `{}`", expected(), char::from(found));
                let problem = Problem::new(span, message);
                Err(self.stop(problem.related(open, format!("the {what} begins here"))))
            }
            Some(_) => Ok(false),
        }
    }

    /// The comma between two elements, with its slips: one too many, or none.
    fn separator(&mut self, close: u8) -> Result<(), Stop> {
        let end = self.at;
        self.skip_space();
        match self.peek() {
            Some(b',') => {
                let comma = Span::new(self.at, self.at + 1);
                self.at += 1;
                self.skip_space();
                if matches!(self.peek(), Some(b']' | b'}')) {
                    let message = "JSON has no comma behind the last element";
                    self.problems.push(Problem::new(comma, message).help("remove it"));
                }
                Ok(())
            }
            None | Some(b']' | b'}') => Ok(()),
            Some(b'"' | b'\'' | b'[' | b'{' | b'-' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z') => {
                let close = char::from(close);
                let problem = Problem::new(Span::at(end), format!("expected `,` or `{close}`"));
                self.problems.push(problem.label("a comma is missing here"));
                Ok(())
            }
            Some(_) => Err(self.unexpected(&format!("`,` or `{}`", char::from(close)))),
        }
    }

    fn unexpected(&mut self, expected: &str) -> Stop {
        let start = self.at;
        let found = match self.rest().chars().next() {
            None => "the end of the text".to_owned(),
            Some(c) => {
                self.at += c.len_utf8();
                if c.is_control() || c.is_whitespace() || !c.is_ascii() {
                    format!("{c:?} (U+{:04X})", u32::from(c))
                } else {
                    format!("`{c}`")
                }
            }
        };
        let span = self.from(start);
        self.stop(Problem::new(span, format!("expected {expected}, found {found}")))
    }

    fn single_quoted(&mut self) -> Result<Kind, Stop> {
        let start = self.at;
        let rest = &self.rest()[1..];
        let Some(len) = rest.find(['\'', '\n']).filter(|len| rest.as_bytes()[*len] == b'\'') else {
            return Err(self.unexpected("a value"));
        };
        self.at += len + 2;
        let text = &rest[..len];
        let problem = Problem::new(self.from(start), "JSON has double quotes only");
        self.problems.push(problem.help(format!("write \"{text}\"")));
        Ok(Kind::String(text.to_owned()))
    }

    fn string(&mut self) -> Result<Kind, Stop> {
        let start = self.at;
        self.at += 1;
        let problems = self.problems.count();
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let special = |byte: &u8| matches!(byte, b'"' | b'\\' | ..0x20);
            let plain = rest.as_bytes().iter().position(special).unwrap_or(rest.len());
            text.push_str(&rest[..plain]);
            self.at += plain;
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    let sound = self.problems.count() == problems;
                    return Ok(if sound { Kind::String(text) } else { Kind::Invalid });
                }
                Some(b'\\') => self.escape(&mut text),
                Some(b'\n') | None => {
                    let problem = Problem::new(self.from(start), "the string has no closing `\"`");
                    return Err(self.stop(problem.help("a line break in a string is `\\n`")));
                }
                Some(byte) => {
                    let span = Span::new(self.at, self.at + 1);
                    let escape = format!("\\u{byte:04X}");
                    let message = "a control character stands in the string";
                    self.problems.push(
                        Problem::new(span, message)
                            .help(format!("write `{escape}`, or `\\t` for a tab")),
                    );
                    self.at += 1;
                }
            }
        }
    }

    fn escape(&mut self, text: &mut String) {
        let start = self.at;
        self.at += 1;
        let simple = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{C}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(start, text),
            _ => {
                self.at += self.rest().chars().next().map_or(0, char::len_utf8);
                let span = self.from(start);
                let help = "JSON's escapes are \\\" \\\\ \\/ \\b \\f \\n \\r \\t \\uXXXX; \
                            `\\\\` gives a backslash";
                self.problems.push(Problem::new(span, "no escape of JSON").help(help));
                return;
            }
        };
        self.at += 1;
        text.push(simple);
    }

    /// `\uXXXX`, or two of them that are one character beyond U+FFFF.
    fn unicode_escape(&mut self, start: usize, text: &mut String) {
        self.at = start;
        let first = self.code_unit();
        let second = match first {
            Some(0xD800..=0xDBFF) => self.code_unit(),
            _ => None,
        };
        let units = first.into_iter().chain(second);
        match char::decode_utf16(units).collect::<Result<String, _>>() {
            Ok(read) if !read.is_empty() => text.push_str(&read),
            _ => {
                self.at = self.at.max(start + 2);
                let help = "`\\u` stands before four hexadecimal digits; a character beyond U+FFFF \
                            takes two of them";
                self.problems
                    .push(Problem::new(self.from(start), "no escape of a character").help(help));
            }
        }
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.rest().strip_prefix("\\u")?.get(..4)?;
        let unit = u16::from_str_radix(digits, 16).ok()?;
        // `from_str_radix` takes a sign.
        digits.starts_with(|c: char| c.is_ascii_hexdigit()).then(|| self.at += 6)?;
        Some(unit)
    }

    fn number(&mut self) -> Kind {
        let start = self.at;
        let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_');
        let rest = self.rest();
        let number = &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())];
        self.at += number.len();
        let span = self.from(start);
        let unsigned = number.strip_prefix('-').unwrap_or(number);
        if is_whole(unsigned) {
            return Kind::integer(number, 10);
        }
        // What is beyond the range of a float is infinite, and refused where it stands.
        if let Some(float) = number.parse().ok().filter(|_| is_fractional(unsigned)) {
            return Kind::Float(float);
        }
        let help = format!(
            "{} if a string is meant; a JSON number has decimal digits, without zeros in front",
            quoted(number)
        );
        self.refuse(Problem::new(span, format!("`{number}` is not a JSON number")).help(help))
    }

    fn refuse(&mut self, problem: Problem) -> Kind {
        self.problems.push(problem);
        Kind::Invalid
    }
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_whole(text: &str) -> bool {
    is_digits(text) && (text == "0" || !text.starts_with('0'))
}

/// A whole number with a fraction, an exponent, or both.
fn is_fractional(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let exponent = exponent.map(|exponent| exponent.strip_prefix(['-', '+']).unwrap_or(exponent));
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    is_whole(whole) && fraction.is_none_or(is_digits) && exponent.is_none_or(is_digits)
}
