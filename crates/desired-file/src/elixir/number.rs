//! Integers and floats.

use super::scan::Scanner;
use crate::diagnostic::Problem;
use crate::node::{Kind, Node};
use hearth_model::fields::quoted;

impl Scanner<'_> {
    /// A number, with the sign that may stand before it. A digit is due here after the sign.
    pub(super) fn number(&mut self) -> Node {
        let start = self.at;
        let sign = self.peek().filter(|byte| matches!(byte, b'-' | b'+'));
        if sign.is_some() {
            self.at += 1;
            self.skip_space();
        }
        let negative = sign == Some(b'-');
        let kind = match (self.peek(), self.peek_after(1), self.peek_after(2)) {
            (Some(b'0'), Some(b'x'), Some(b)) if b.is_ascii_hexdigit() => {
                Some(self.radix(16, negative))
            }
            (Some(b'0'), Some(b'o'), Some(b'0'..=b'7')) => Some(self.radix(8, negative)),
            (Some(b'0'), Some(b'b'), Some(b'0' | b'1')) => Some(self.radix(2, negative)),
            _ => self.decimal(negative),
        };
        let end = self.at;
        if self.word_len() > 0 || self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            return self.number_with_tail(start, end);
        }
        let kind = kind.unwrap_or_else(|| {
            let span = self.from(start);
            let help = format!("{} if a string is meant", quoted(&self.text[start..self.at]));
            self.report(Problem::new(span, "the number is too large").help(help));
            Kind::Invalid
        });
        Node::new(self.from(start), kind)
    }

    /// `512MB`, `1_`, `0b12`: the digits end, and something clings to them.
    fn number_with_tail(&mut self, start: usize, end: usize) -> Node {
        while self.peek().is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            self.at += 1;
        }
        let span = self.from(start);
        let (number, tail) = (&self.text[start..end], &self.text[end..self.at]);
        let rule = if tail.starts_with('_') {
            "`_` stands between two digits".to_owned()
        } else if number == "0" && tail.starts_with(['x', 'o', 'b']) {
            "`0x` stands before hexadecimal digits, `0o` before octal, `0b` before binary ones"
                .to_owned()
        } else {
            format!("or {number}: a unit is part of a field's name, as in `mem_mb`")
        };
        let help = format!("{} if a string is meant; {rule}", quoted(&self.text[start..self.at]));
        self.report(
            Problem::new(span, format!("`{tail}` cannot follow the number {number}")).help(help),
        );
        Node::new(span, Kind::Invalid)
    }

    /// Steps over digits with single `_` between them, and gives them without.
    fn digits(&mut self, radix: u32) -> String {
        let is_digit = |byte: Option<u8>| byte.is_some_and(|byte| char::from(byte).is_digit(radix));
        let mut digits = String::new();
        loop {
            match self.peek() {
                Some(byte) if is_digit(Some(byte)) => digits.push(char::from(byte)),
                Some(b'_') if !digits.is_empty() && is_digit(self.peek_after(1)) => {}
                _ => return digits,
            }
            self.at += 1;
        }
    }

    fn radix(&mut self, radix: u32, negative: bool) -> Kind {
        self.at += 2;
        let digits = self.digits(radix);
        Kind::integer(&format!("{}{digits}", sign(negative)), radix)
    }

    /// `None` where the number is beyond the range of a float.
    fn decimal(&mut self, negative: bool) -> Option<Kind> {
        let whole = self.digits(10);
        let fraction = self.peek() == Some(b'.')
            && self.peek_after(1).is_some_and(|byte| byte.is_ascii_digit());
        if !fraction {
            return Some(Kind::integer(&format!("{}{whole}", sign(negative)), 10));
        }
        self.at += 1;
        let mut text = format!("{}{whole}.{}", sign(negative), self.digits(10));
        if matches!(self.peek(), Some(b'e' | b'E')) {
            let signed = usize::from(matches!(self.peek_after(1), Some(b'-' | b'+')));
            if self.peek_after(1 + signed).is_some_and(|byte| byte.is_ascii_digit()) {
                text.push_str(&self.text[self.at..=self.at + signed]);
                self.at += 1 + signed;
                text.push_str(&self.digits(10));
            }
        }
        text.parse().ok().filter(|float: &f64| float.is_finite()).map(Kind::Float)
    }
}

fn sign(negative: bool) -> &'static str {
    if negative { "-" } else { "" }
}
