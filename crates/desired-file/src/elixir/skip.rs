//! Stepping over an expression that was refused, so that what follows it is still read.

use super::scan::{Scanner, Stop};

impl Scanner<'_> {
    /// Steps over tokens up to the comma or bracket that ends the expression, which stays.
    /// Blanks before it stay too.
    pub(super) fn skip_expression(&mut self) -> Result<(), Stop> {
        let mut closers = Vec::new();
        let mut end = self.at;
        loop {
            self.skip_space();
            let at_end = match self.peek() {
                None | Some(b')' | b']' | b'}') => closers.is_empty(),
                Some(b',') => closers.is_empty() && !self.block_follows(),
                Some(_) => false,
            };
            if at_end {
                self.at = end;
                return Ok(());
            }
            self.skip_token(&mut closers)?;
            end = self.at;
        }
    }

    /// Steps over an interpolation from behind its `#{` to behind its `}`.
    pub(super) fn skip_interpolation(&mut self) -> Result<(), Stop> {
        let mut closers = vec!["}"];
        while !closers.is_empty() {
            self.skip_space();
            self.skip_token(&mut closers)?;
        }
        Ok(())
    }

    /// `, do: …` and `, else: …` continue the expression before them.
    fn block_follows(&self) -> bool {
        let rest = self.rest()[1..].trim_start();
        rest.starts_with("do:") || rest.starts_with("else:")
    }

    /// One token of an expression. What has to be closed is kept in `closers`; where brackets do
    /// not match, there is no knowing where the expression ends.
    fn skip_token(&mut self, closers: &mut Vec<&'static str>) -> Result<(), Stop> {
        let start = self.at;
        match self.peek() {
            None => return Err(Stop),
            Some(b'<') if self.rest().starts_with("<<") => {
                closers.push(">>");
                self.at += 1;
            }
            Some(b'>') if closers.last() == Some(&">>") && self.rest().starts_with(">>") => {
                closers.pop();
                self.at += 1;
            }
            Some(b'(') => closers.push(")"),
            Some(b'[') => closers.push("]"),
            Some(b'{') => closers.push("}"),
            Some(byte @ (b')' | b']' | b'}')) => {
                let expected = closers.pop().and_then(|closer| closer.bytes().next());
                if expected != Some(byte) {
                    return Err(Stop);
                }
            }
            Some(b'"' | b'\'') => {
                self.skip_quoted()?;
                return Ok(());
            }
            Some(b'~') if self.peek_after(1).is_some_and(|byte| byte.is_ascii_alphabetic()) => {
                return self.skip_sigil();
            }
            Some(b'?') => {
                self.at += 1;
                if self.peek() == Some(b'\\') {
                    self.at += 1;
                }
            }
            _ if self.word_len() > 0 => {
                self.at += self.word_len();
                let word = &self.text[start..self.at];
                let key = self.peek() == Some(b':') && self.peek_after(1) != Some(b':');
                match word {
                    "fn" | "do" if !key => closers.push("end"),
                    "end" if closers.last() == Some(&"end") => drop(closers.pop()),
                    _ => {}
                }
                return Ok(());
            }
            _ => {}
        }
        self.bump();
        Ok(())
    }
}
