//! One value: which literal it is, or which construct it is instead.

use super::construct::{Construct, OPERATORS, of_word};
use super::refusal;
use super::scan::{Scanner, Space, Stop};
use crate::diagnostic::Problem;
use crate::node::{Kind, Node, Span};
use hearth_model::fields::quoted;

impl<'a> Scanner<'a> {
    /// The value that begins here, with whatever operators follow it.
    pub(super) fn value(&mut self) -> Result<Node, Stop> {
        let node = self.literal()?;
        self.without_operators(node)
    }

    fn literal(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        match self.peek() {
            Some(b'[') => self.list(),
            Some(b'{') => self.tuple(),
            Some(b'%') => self.map(),
            Some(b'"') => self.string(),
            Some(b'~') => self.sigil(),
            Some(b':') => self.atom(),
            Some(b'0'..=b'9') => Ok(self.number()),
            Some(b'-' | b'+') if self.sign_of_number() => Ok(self.number()),
            Some(b'\'') => self.charlist(),
            Some(b'?') => {
                let c = self.rest().chars().nth(1).filter(|c| !c.is_whitespace() && *c != '\\');
                self.refuse(start, &Construct::Character(c))
            }
            Some(b'@') => self.refuse(start, &Construct::Attribute),
            Some(b'(') => self.refuse(start, &Construct::Parentheses),
            Some(b'<') if self.rest().starts_with("<<") => self.refuse(start, &Construct::Binary),
            Some(b'&') if !self.rest().starts_with("&&") => self.refuse(start, &Construct::Capture),
            _ if self.word_len() > 0 => self.word(),
            _ => match self.operator() {
                Some(op) => self.refuse(start, &Construct::Operator(op)),
                None if self.rest().starts_with(char::is_alphabetic) => {
                    let rest = self.rest();
                    let inside = |c: char| c.is_alphanumeric() || c == '_';
                    let word = &rest[..rest.find(|c| !inside(c)).unwrap_or(rest.len())];
                    self.refuse(start, &Construct::Variable(word))
                }
                None => Err(self.unexpected("a value")),
            },
        }
    }

    fn sign_of_number(&self) -> bool {
        let after = self.rest()[1..].trim_start_matches([' ', '\t']);
        after.starts_with(|c: char| c.is_ascii_digit())
    }

    /// A bare word where a value is due: one of three values, or a construct.
    fn word(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let word = &self.rest()[..self.word_len()];
        let value = match word {
            "nil" => Kind::Nil,
            "true" => Kind::Bool(true),
            "false" => Kind::Bool(false),
            _ => return self.refuse_word(start, word),
        };
        self.at += word.len();
        Ok(Node::new(self.from(start), value))
    }

    fn refuse_word(&mut self, start: usize, word: &'a str) -> Result<Node, Stop> {
        let name = self.dotted_len();
        let after = &self.text[start + name..];
        match first_operator(after.trim_start()) {
            Some("|") => return self.refuse(start, &Construct::MapUpdate),
            Some("=") => return self.refuse(start, &Construct::Operator("=")),
            _ => {}
        }
        let followed = after.starts_with('(')
            || after.starts_with([' ', '\t'])
                && after
                    .trim_start_matches([' ', '\t'])
                    .starts_with(|c: char| c.is_alphanumeric() || "\"':[%{~".contains(c));
        let dotted = &self.text[start..start + name];
        let construct = match of_word(word) {
            Some(construct) if dotted == word => construct,
            _ if followed => Construct::Call(dotted),
            _ if dotted.rsplit('.').next().is_some_and(starts_upper) => Construct::Module(dotted),
            _ if dotted.contains('.') => Construct::Call(dotted),
            _ => Construct::Variable(word),
        };
        self.refuse(start, &construct)
    }

    /// How many bytes `Foo.Bar.baz` has.
    fn dotted_len(&self) -> usize {
        let mut ahead = Scanner::new(self.text);
        ahead.at = self.at;
        loop {
            ahead.at += ahead.word_len();
            let Some(b'.') = ahead.peek() else { return ahead.at - self.at };
            ahead.at += 1;
            if ahead.word_len() == 0 {
                return ahead.at - 1 - self.at;
            }
        }
    }

    /// The operator that stands here, if one does.
    pub(super) fn operator(&self) -> Option<&'static str> {
        first_operator(self.rest())
    }

    /// As [`Reader::operator`], and the operators that are words.
    fn joining_operator(&self) -> Option<&'a str> {
        let rest = self.rest();
        let word = &rest[..self.word_len()];
        let joins = matches!(word, "and" | "or" | "in" | "not" | "when" | "do");
        if joins && !rest[word.len()..].starts_with(':') {
            return Some(word);
        }
        if rest.starts_with("<<") || rest.starts_with("...") {
            return None;
        }
        self.operator()
    }

    /// Refuses the expression that a value is the beginning of, if an operator follows.
    fn without_operators(&mut self, node: Node) -> Result<Node, Stop> {
        let end = self.at;
        self.skip_space();
        let Some(op) = self.joining_operator() else {
            self.at = end;
            return Ok(node);
        };
        let span = Span::new(self.at, self.at + op.len());
        // A value that was refused has its problem already.
        if !node.is_invalid() {
            let problem = refusal(span, &Construct::Operator(op));
            self.report(match self.longer_number(&node, span) {
                Some(token) => problem.help(format!("{} if a string is meant", quoted(token))),
                None => problem,
            });
        }
        self.at = span.end;
        self.skip_expression()?;
        Ok(Node::new(self.from(node.span.start), Kind::Invalid))
    }

    /// What only looks like a calculation: `1.2.3`, `2026-01-01`.
    fn longer_number(&self, node: &Node, operator: Span) -> Option<&'a str> {
        let is_number = matches!(node.kind, Kind::Int(_) | Kind::BigInt | Kind::Float(_));
        let text = self.text;
        let is_joined = node.span.end == operator.start
            && text[operator.end..].starts_with(|c: char| c.is_ascii_alphanumeric());
        let rest = &text[node.span.start..];
        let inside = |c: char| c.is_ascii_alphanumeric() || "._-+:/".contains(c);
        let len = rest.find(|c| !inside(c)).unwrap_or(rest.len());
        (is_number && is_joined).then(|| &rest[..len])
    }

    /// Reports a construct that begins at `start`, and steps over its whole expression.
    pub(super) fn refuse(&mut self, start: usize, construct: &Construct<'_>) -> Result<Node, Stop> {
        let problems = self.problems.count();
        let skipped = self.skip_expression();
        let span = self.from(start);
        self.problems.rewind(problems);
        self.report(refusal(span, construct));
        skipped.map(|()| Node::new(span, Kind::Invalid))
    }

    /// An atom: `:name`, `:"any text"`, `:+`.
    fn atom(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        self.at += 1;
        let text = match self.peek() {
            Some(b'"' | b'\'') => self.quoted()?,
            _ => {
                let operator = || OPERATORS.iter().find(|op| self.rest().starts_with(**op));
                let len = match self.atom_len() {
                    0 => operator().map_or(0, |op| op.len()),
                    len => len,
                };
                let foreign = |c: char| !c.is_ascii() && c.is_alphabetic();
                if len == 0 || self.rest()[len..].starts_with(foreign) {
                    self.at = start;
                    return Err(self.misplaced_colon());
                }
                self.at += len;
                Some(self.text[start + 1..self.at].to_owned())
            }
        };
        let kind = match text {
            None => Kind::Invalid,
            Some(text) => match text.as_str() {
                "nil" => Kind::Nil,
                "true" => Kind::Bool(true),
                "false" => Kind::Bool(false),
                _ => Kind::Atom(text),
            },
        };
        Ok(Node::new(self.from(start), kind))
    }

    fn misplaced_colon(&mut self) -> Stop {
        let span = Span::new(self.at, self.at + 1);
        self.at += 1;
        let help = match self.rest().chars().next() {
            Some(c) if !c.is_whitespace() && !c.is_control() => {
                "a name that is not made of ASCII letters, digits and `_` is quoted: `:\"…\"`"
            }
            _ => "write `name: value`, `\"name\" => value` or `:name`, without a space before `:`",
        };
        self.stop(Problem::new(span, "expected a name right after `:`").help(help))
    }

    /// Nothing that may stand here.
    pub(super) fn unexpected(&mut self, expected: &str) -> Stop {
        let start = self.at;
        let found = self.shown_char();
        self.bump();
        let problem = Problem::new(self.from(start), format!("expected {expected}, found {found}"));
        let quotes = ['\u{201C}', '\u{201D}', '\u{2018}', '\u{2019}'];
        let problem = match self.text[start..].chars().next() {
            Some(c) if quotes.contains(&c) => problem.help("use straight quotes: \"…\""),
            Some('\r') => problem.help("end lines with a line feed, or with both"),
            Some(c) if c.is_whitespace() => problem.help("use a plain space"),
            Some(';') => problem.help("values are separated by `,`"),
            _ => problem,
        };
        self.stop(problem)
    }

    /// A comma, or what may stand in its place at the end. Two slips that leave no doubt about
    /// what is meant are reported and passed: a comma that begins a line, and one that is missing.
    pub(super) fn separator(&mut self, close: u8) -> Result<(), Stop> {
        let end = self.at;
        let space = self.skip_space();
        match self.peek() {
            Some(b',') => {
                if space == Space::NewLine {
                    let span = Span::new(self.at, self.at + 1);
                    self.report(
                        Problem::new(span, "a comma cannot begin a line in Elixir")
                            .help("put it at the end of the line before"),
                    );
                }
                self.at += 1;
                Ok(())
            }
            None => Ok(()),
            Some(byte) if byte == close || matches!(byte, b')' | b']' | b'}') => Ok(()),
            Some(byte) if self.word_len() > 0 || b"\"'[{%~:@?0123456789(<".contains(&byte) => {
                let (close, next) = (char::from(close), self.shown_next());
                self.report(
                    Problem::new(Span::at(end), format!("expected `,` or `{close}`, found {next}"))
                        .label("a comma is missing here"),
                );
                Ok(())
            }
            Some(_) => Err(self.unexpected(&format!("`,` or `{}`", char::from(close)))),
        }
    }

    fn shown_next(&self) -> String {
        let ends = |c: &char| !matches!(c, ',' | ')' | ']' | '}') && !c.is_whitespace();
        let next: String = self.rest().chars().take(40).take_while(ends).collect();
        format!("`{next}`")
    }
}

fn first_operator(text: &str) -> Option<&'static str> {
    // After nearly every value a comma or bracket follows, which its first byte shows.
    if !text.starts_with(|c: char| "+-*/<>=!&|^.:\\~".contains(c)) {
        return None;
    }
    let operator = OPERATORS.iter().find(|op| text.starts_with(**op)).copied();
    operator.filter(|_| !text.starts_with("=>"))
}

fn starts_upper(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_uppercase())
}
