//! From the bytes between delimiters to the text they mean.

use super::scan::Scanner;
use super::text::{Body, Close, Escapes};
use crate::diagnostic::Problem;
use crate::node::Span;

impl Scanner<'_> {
    /// The text that a body means; `None` where a problem in it was reported.
    pub(super) fn contents(&mut self, body: Body) -> Option<String> {
        let Span { start, end } = body.span;
        let raw = &self.text[start..end];
        if !body.valid {
            return None;
        }
        if let Some(at) = lone_carriage_return(raw) {
            let span = Span::new(start + at, start + at + 1);
            let problem = Problem::new(span, "a carriage return alone stands in the text");
            self.report(problem.help("write `\\r`, or end the line with a line feed"));
            return None;
        }
        if body.indent == 0 && !raw.contains('\\') {
            return Some(raw.replace("\r\n", "\n"));
        }
        let problems = self.problems.count();
        let mut bytes = Vec::with_capacity(raw.len());
        let mut line_start = start;
        for line in raw.split_inclusive('\n') {
            let line_end = line_start + line.len();
            let blanks = line.bytes().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
            let from = line_start + blanks.min(body.indent);
            match body.escapes {
                Escapes::Read => self.unescape(Span::new(from, line_end), &mut bytes),
                Escapes::Raw => copy_raw(&self.text[from..line_end], body.close, &mut bytes),
            }
            line_start = line_end;
        }
        if self.problems.count() > problems {
            return None;
        }
        String::from_utf8(bytes)
            .map_err(|_| {
                self.report(
                    Problem::new(body.span, "the text is not UTF-8")
                        .help("`\\xHH` gives one byte; write `\\u{H…}` for a character"),
                );
            })
            .ok()
    }

    fn unescape(&mut self, span: Span, bytes: &mut Vec<u8>) {
        let source = self.text;
        let mut at = span.start;
        while let Some(found) = source[at..span.end].find('\\') {
            bytes.extend_from_slice(&source.as_bytes()[at..at + found]);
            at += found;
            at += self.one_escape(at, span.end, bytes);
        }
        push_line_end(&source[at..span.end], bytes);
    }

    /// Reads the escape that begins at `start`, and returns its length.
    fn one_escape(&mut self, start: usize, end: usize, bytes: &mut Vec<u8>) -> usize {
        let source = &self.text[start..end];
        let Some(c) = source.chars().nth(1) else { return source.len() };
        let byte = match c {
            'a' => 7,
            'b' => 8,
            'd' => 127,
            'e' => 27,
            'f' => 12,
            'n' => b'\n',
            'r' => b'\r',
            's' => b' ',
            't' => b'\t',
            'v' => 11,
            '0' => 0,
            'x' | 'u' => return self.coded_escape(start, source, bytes),
            '\n' => return 2,
            '\r' if source[2..].starts_with('\n') => return 3,
            other => {
                bytes.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes());
                return 1 + other.len_utf8();
            }
        };
        bytes.push(byte);
        2
    }

    /// `\xHH`, `\uHHHH`, `\u{H…}` and the old `\x{H…}`.
    fn coded_escape(&mut self, start: usize, source: &str, bytes: &mut Vec<u8>) -> usize {
        let is_byte = source[1..].starts_with('x');
        let hex = |text: &str| text.bytes().take_while(u8::is_ascii_hexdigit).count();
        let braced = source[2..].starts_with('{');
        let digits_from = if braced { 3 } else { 2 };
        let found = hex(&source[digits_from..]);
        let (digits, len) = match (braced, is_byte) {
            (true, _) => {
                let closed = source[3 + found..].starts_with('}');
                (if closed && (1..=6).contains(&found) { found } else { 0 }, 4 + found)
            }
            (false, true) => (found.min(2), 2 + found.min(2)),
            (false, false) => (if found >= 4 { 4 } else { 0 }, 6),
        };
        let number = u32::from_str_radix(&source[digits_from..digits_from + digits], 16);
        let character = number.as_ref().ok().and_then(|number| char::from_u32(*number));
        match (number, character) {
            (Ok(number), _) if is_byte && !braced => bytes.extend(u8::try_from(number)),
            (_, Some(c)) => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            (number, _) => {
                let seen = if digits > 0 { len } else { digits_from + found };
                let span = Span::new(start, start + seen);
                let message = match number {
                    Ok(number) => format!("there is no character U+{number:04X}"),
                    Err(_) => format!("`{}` is not a complete escape", &source[..seen]),
                };
                self.report(
                    Problem::new(span, message).help("write `\\xHH`, `\\uHHHH` or `\\u{H…}`"),
                );
                return seen;
            }
        }
        len
    }
}

/// Where a carriage return stands that is not part of a line break. Of the formats YAML alone takes one
/// for a line break, and no format for a part of the text.
fn lone_carriage_return(raw: &str) -> Option<usize> {
    raw.match_indices('\r').map(|(at, _)| at).find(|at| !raw[*at..].starts_with("\r\n"))
}

/// The rest of a line, whose break is a line feed in the text, however it is written in the file: the same
/// text means the same in every format, and an editor that changes line ends changes no value.
fn push_line_end(rest: &str, bytes: &mut Vec<u8>) {
    match rest.strip_suffix("\r\n") {
        Some(rest) => bytes.extend(rest.bytes().chain([b'\n'])),
        None => bytes.extend_from_slice(rest.as_bytes()),
    }
}

/// An upper-case sigil: the closing delimiter loses its `\`, all else stays.
fn copy_raw(line: &str, close: Close, bytes: &mut Vec<u8>) {
    let end = line.len() - usize::from(line.ends_with("\r\n")) * 2;
    let (line, line_end) = line.split_at(end);
    let mut rest = line.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        let closes = match close {
            Close::Byte(close) => after.first() == Some(&close),
            Close::Heredoc(quote) => after.starts_with(&[quote; 3]),
        };
        match (byte, after.first()) {
            (b'\\', Some(_)) if closes => rest = after,
            (b'\\', Some(escaped)) => {
                bytes.extend_from_slice(&[b'\\', *escaped]);
                rest = &after[1..];
                continue;
            }
            _ => {}
        }
        bytes.push(rest[0]);
        rest = &rest[1..];
    }
    push_line_end(line_end, bytes);
}
