//! The reader's place in the text: bytes, space, comments, names.

use crate::DEPTH_MAX;
use crate::diagnostic::{Problem, Problems};
use crate::node::Span;

/// Reads on from `at`; problems gather while it does.
pub(super) struct Scanner<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
    pub(super) depth: usize,
    pub(super) problems: Problems,
    /// Comments before here were looked at; a place may be passed twice.
    commented: usize,
}

/// There is no way to read on. The reason is among the problems.
#[derive(Debug)]
pub(super) struct Stop;

/// What lay between two tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    /// Nothing, blanks, or a comment's end of file.
    SameLine,
    /// At least one line break.
    NewLine,
}

impl<'a> Scanner<'a> {
    pub(super) fn new(text: &'a str) -> Scanner<'a> {
        Scanner { text, at: 0, depth: 0, problems: Problems::default(), commented: 0 }
    }

    pub(super) fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    pub(super) fn peek_after(&self, offset: usize) -> Option<u8> {
        self.text.as_bytes().get(self.at + offset).copied()
    }

    /// Steps over one character, whole.
    pub(super) fn bump(&mut self) {
        self.at += self.rest().chars().next().map_or(0, char::len_utf8);
    }

    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let eaten = self.peek() == Some(byte);
        self.at += usize::from(eaten);
        eaten
    }

    pub(super) fn from(&self, start: usize) -> Span {
        Span::new(start, self.at)
    }

    /// Records a problem after which reading continues.
    pub(super) fn report(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Notes a problem after which there is no reading on.
    pub(super) fn stop(&mut self, problem: Problem) -> Stop {
        self.problems.push(problem);
        Stop
    }

    /// Goes one level deeper; the caller comes back up by taking one from `depth`.
    pub(super) fn enter(&mut self, open: Span) -> Result<(), Stop> {
        if self.depth == DEPTH_MAX {
            return Err(self.stop(Problem::nested_too_deeply(open)));
        }
        self.depth += 1;
        Ok(())
    }

    /// Steps over blanks, line breaks, continued lines and comments.
    pub(super) fn skip_space(&mut self) -> Space {
        let mut space = Space::SameLine;
        loop {
            match self.peek() {
                Some(b' ' | b'\t') => self.at += 1,
                Some(b'\n') => {
                    self.at += 1;
                    space = Space::NewLine;
                }
                Some(b'\r') if self.peek_after(1) == Some(b'\n') => self.at += 1,
                Some(b'\\') if self.rest()[1..].starts_with('\n') => self.at += 2,
                Some(b'\\') if self.rest()[1..].starts_with("\r\n") => self.at += 3,
                Some(b'#') => self.comment(),
                _ => return space,
            }
        }
    }

    fn comment(&mut self) {
        let start = self.at;
        self.at += self.rest().find('\n').unwrap_or(self.rest().len());
        if start >= self.commented {
            self.commented = self.at;
            self.refuse_bidi(start, "a comment");
        }
    }

    /// Characters that reorder what is shown can hide what is read; Elixir refuses them too.
    /// Returns whether there was one from `start` to here.
    pub(super) fn refuse_bidi(&mut self, start: usize, place: &str) -> bool {
        let bidi = |c: char| matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
        let read = &self.text[start..self.at];
        // Most text is ASCII, which is quicker to know than to search.
        let Some((at, found)) =
            (!read.is_ascii()).then(|| read.char_indices().find(|(_, c)| bidi(*c))).flatten()
        else {
            return false;
        };
        let span = Span::new(start + at, start + at + found.len_utf8());
        let code = u32::from(found);
        self.report(
            Problem::new(span, format!("{place} holds the invisible character U+{code:04X}"))
                .label("changes the direction of the text that follows")
                .help(format!("remove it; in a string `\\u{code:04X}` can stand for it")),
        );
        true
    }

    /// How many bytes a name has that begins here: letters, digits and `_`, then maybe `?` or `!`.
    pub(super) fn word_len(&self) -> usize {
        let bytes = self.rest().as_bytes();
        if !bytes.first().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'_') {
            return 0;
        }
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        let len = bytes.iter().take_while(|byte| plain(byte)).count();
        len + usize::from(matches!(bytes.get(len), Some(b'?' | b'!')))
    }

    /// As [`Reader::word_len`], for atoms and keys, which may hold `@` too.
    pub(super) fn atom_len(&self) -> usize {
        if self.word_len() == 0 {
            return 0;
        }
        let bytes = self.rest().as_bytes();
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'@');
        let len = bytes.iter().take_while(|byte| plain(byte)).count();
        len + usize::from(matches!(bytes.get(len), Some(b'?' | b'!')))
    }

    /// The character here, as a message shows it.
    pub(super) fn shown_char(&self) -> String {
        self.rest().chars().next().map_or("the end of the file".to_owned(), |c| {
            if c.is_control() || c.is_whitespace() || !c.is_ascii() {
                format!("{c:?} (U+{:04X})", u32::from(c))
            } else {
                format!("`{c}`")
            }
        })
    }
}

/// Text of the file for a message: its first line, up to 40 characters.
pub(super) fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim_end();
    let mut shown: String = line.chars().take(40).filter(|c| !c.is_control()).collect();
    if shown.len() < text.trim_end().len() {
        shown.push('…');
    }
    shown
}
