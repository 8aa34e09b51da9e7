//! Strings, heredocs, sigils, and the names in quotes of atoms and keys.

use super::construct::Construct;
use super::refusal;
use super::scan::{Scanner, Stop};
use crate::diagnostic::Problem;
use crate::node::{Kind, Node, Span};

/// What ends a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// One byte.
    Byte(u8),
    /// Three quotes that begin a line, after blanks.
    Heredoc(u8),
}

/// Whether `\` and `#{` mean something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Escapes {
    /// As in `"…"` and lower-case sigils.
    Read,
    /// As in upper-case sigils: only the closing delimiter is escaped.
    Raw,
}

/// The text between delimiters as it stands in the file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Body {
    pub(super) span: Span,
    /// Blanks that are taken from the front of each line.
    pub(super) indent: usize,
    pub(super) close: Close,
    pub(super) escapes: Escapes,
    /// False where a problem in it was reported.
    pub(super) valid: bool,
}

impl Scanner<'_> {
    /// A string or a heredoc.
    pub(super) fn string(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let body = self.open_body(start, Escapes::Read)?;
        let text = self.contents(body);
        Ok(Node::new(self.from(start), text.map_or(Kind::Invalid, Kind::String)))
    }

    /// The text of a quoted atom or key; `None` where a problem in it was reported.
    pub(super) fn quoted(&mut self) -> Result<Option<String>, Stop> {
        let start = self.at;
        let close = Close::Byte(self.peek().unwrap_or_default());
        self.at += 1;
        let body = self.body(start, close, Escapes::Read)?;
        Ok(self.contents(body))
    }

    pub(super) fn charlist(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let problems = self.problems.count();
        let body = self.open_body(start, Escapes::Read)?;
        self.problems.rewind(problems);
        let text = &self.text[body.span.start..body.span.end];
        let construct = Construct::Charlist(text.trim_start());
        self.refuse(start, &construct)
    }

    /// `~s ~S ~w ~W` in any of their delimiters; every other sigil is refused.
    pub(super) fn sigil(&mut self) -> Result<Node, Stop> {
        let start = self.at;
        let letter = self.rest().chars().nth(1).filter(char::is_ascii_alphabetic);
        let Some(letter) = letter else { return Err(self.unexpected("a value")) };
        let problems = self.problems.count();
        let body = self.sigil_body(start)?;
        if !matches!(letter, 's' | 'S' | 'w' | 'W') {
            self.problems.rewind(problems);
            return self.refuse(start, &Construct::Sigil(letter));
        }
        let modifiers = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric()) {
            self.at += 1;
        }
        let span = self.from(start);
        let words = letter.eq_ignore_ascii_case(&'w');
        let modifier = &self.text[modifiers..self.at];
        let text = self.contents(body);
        let atoms = match (words, modifier) {
            (_, "") | (true, "s") => false,
            (true, "a") => true,
            _ => {
                self.report(refused_modifier(Span::new(modifiers, self.at), letter, modifier));
                return Ok(Node::new(span, Kind::Invalid));
            }
        };
        let kind = match text {
            None => Kind::Invalid,
            Some(text) if words => Kind::List(split_words(&text, body.span, atoms)),
            Some(text) => Kind::String(text),
        };
        Ok(Node::new(span, kind))
    }

    fn sigil_body(&mut self, start: usize) -> Result<Body, Stop> {
        let upper = self.peek_after(1).is_some_and(|letter| letter.is_ascii_uppercase());
        let escapes = if upper { Escapes::Raw } else { Escapes::Read };
        self.at += 2;
        let close = match self.peek() {
            Some(b'"' | b'\'') => return self.open_body(start, escapes),
            Some(b'(') => b')',
            Some(b'[') => b']',
            Some(b'{') => b'}',
            Some(b'<') => b'>',
            Some(byte @ (b'/' | b'|')) => byte,
            _ => return Err(self.unexpected("a sigil's delimiter, one of / | \" ' ( [ { <")),
        };
        self.at += 1;
        self.body(start, Close::Byte(close), escapes)
    }

    /// From a quote, or three of them, to behind the end of the text.
    fn open_body(&mut self, start: usize, escapes: Escapes) -> Result<Body, Stop> {
        let quote = self.peek().unwrap_or_default();
        if !(self.peek_after(1) == Some(quote) && self.peek_after(2) == Some(quote)) {
            self.at += 1;
            return self.body(start, Close::Byte(quote), escapes);
        }
        self.at += 3;
        let rest = self.rest().trim_start_matches([' ', '\t']);
        let blanks = self.rest().len() - rest.len();
        let line_break =
            if rest.starts_with("\r\n") { 2 } else { usize::from(rest.starts_with('\n')) };
        if line_break == 0 {
            let marks = String::from(char::from(quote)).repeat(3);
            let problem = Problem::new(
                self.from(start),
                format!("expected a line break right after the opening {marks}"),
            );
            return Err(self.stop(problem.help("the text begins on the next line")));
        }
        self.at += blanks + line_break;
        self.body(start, Close::Heredoc(quote), escapes)
    }

    /// From the first byte of a text to behind its end.
    pub(super) fn body(
        &mut self,
        start: usize,
        close: Close,
        escapes: Escapes,
    ) -> Result<Body, Stop> {
        let first = self.at;
        let mut body = Body { span: Span::at(first), indent: 0, close, escapes, valid: true };
        let mut line_starts = true;
        loop {
            if let Close::Heredoc(quote) = close
                && line_starts
                && let Some(indent) = self.heredoc_end(quote)
            {
                body.span.end = self.at;
                body.indent = indent;
                self.at += indent + 3;
                break;
            }
            line_starts = false;
            match self.peek() {
                None => return Err(self.text_never_closed(start, close)),
                Some(byte) if close == Close::Byte(byte) => {
                    body.span.end = self.at;
                    self.at += 1;
                    break;
                }
                Some(b'\\') => {
                    self.at += 1;
                    if self.rest().starts_with("\r\n") {
                        self.at += 1;
                    }
                    line_starts = self.peek() == Some(b'\n');
                    self.bump();
                }
                Some(b'#') if escapes == Escapes::Read && self.peek_after(1) == Some(b'{') => {
                    self.interpolation()?;
                    body.valid = false;
                }
                Some(byte) => {
                    line_starts = byte == b'\n';
                    self.at += 1;
                }
            }
        }
        let end = std::mem::replace(&mut self.at, body.span.end);
        body.valid &= !self.refuse_bidi(first, "the text");
        self.at = end;
        Ok(body)
    }

    /// The blanks before the three quotes, if this line has nothing else before them.
    fn heredoc_end(&self, quote: u8) -> Option<usize> {
        let rest = self.rest().trim_start_matches([' ', '\t']).as_bytes();
        rest.starts_with(&[quote; 3]).then(|| self.rest().len() - rest.len())
    }

    fn interpolation(&mut self) -> Result<(), Stop> {
        let start = self.at;
        self.at += 2;
        let problems = self.problems.count();
        self.enter(Span::new(start, start + 2))?;
        let skipped = self.skip_interpolation();
        self.depth -= 1;
        if skipped.is_ok() {
            self.problems.rewind(problems);
        }
        self.report(refusal(self.from(start), &Construct::Interpolation));
        skipped
    }

    fn text_never_closed(&mut self, start: usize, close: Close) -> Stop {
        let close = match close {
            Close::Byte(byte) => char::from(byte).to_string(),
            Close::Heredoc(quote) => String::from(char::from(quote)).repeat(3),
        };
        let problem = Problem::new(
            self.from(start),
            format!("expected `{close}` to close the text, found the end of the file"),
        );
        self.stop(problem.label("the text begins here"))
    }

    /// Steps over a quoted text; what is in it is of no interest.
    pub(super) fn skip_quoted(&mut self) -> Result<(), Stop> {
        let problems = self.problems.count();
        let start = self.at;
        self.open_body(start, Escapes::Read)?;
        self.problems.rewind(problems);
        Ok(())
    }

    /// Steps over a sigil; what is in it is of no interest.
    pub(super) fn skip_sigil(&mut self) -> Result<(), Stop> {
        let problems = self.problems.count();
        self.sigil_body(self.at)?;
        self.problems.rewind(problems);
        Ok(())
    }
}

fn refused_modifier(span: Span, letter: char, modifier: &str) -> Problem {
    let problem =
        Problem::new(span, format!("cannot take the modifier `{modifier}` of `~{letter}`"));
    match modifier {
        "c" => problem.help("charlists are not read; without it the words are strings"),
        _ if letter.eq_ignore_ascii_case(&'w') => {
            problem.help("`s` gives strings, as none does, and `a` gives atoms")
        }
        _ => problem.help("remove it"),
    }
}

/// Splits as Elixir does: at Unicode's blanks, but not at those that forbid a break. Each word
/// stands for the whole sigil's text, since escapes leave no place of its own.
fn split_words(text: &str, span: Span, atoms: bool) -> Vec<Node> {
    let blank = |c: char| c.is_whitespace() && !matches!(c, '\u{A0}' | '\u{2007}' | '\u{202F}');
    let words = text.split(blank).filter(|word| !word.is_empty());
    words
        .map(|word| {
            let kind = match word {
                "nil" if atoms => Kind::Nil,
                "true" if atoms => Kind::Bool(true),
                "false" if atoms => Kind::Bool(false),
                _ if atoms => Kind::Atom(word.to_owned()),
                _ => Kind::String(word.to_owned()),
            };
            Node::new(span, kind)
        })
        .collect()
}
