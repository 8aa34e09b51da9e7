//! Elixir's data literals, read by hand: text to tree. What Elixir would have to evaluate is an
//! error that names the construct; what Elixir refuses is refused here too, except for a byte
//! order mark.
//!
//! It never evaluates anything and knows no field of a spec.

mod collection;
mod construct;
mod escape;
mod number;
mod scan;
mod skip;
mod text;
mod value;

use crate::Format;
use crate::diagnostic::{Problem, Problems};
use crate::node::{Kind, Node, Span};
use construct::Construct;
use scan::{Scanner, Stop};

/// Reads a file that is one Elixir value. The tree is `None` where a problem left no way to read
/// on; where there are problems and a tree, the parts in question are [`Kind::Invalid`].
pub(crate) fn read(text: &str) -> (Option<Node>, Problems) {
    let mut reader = Scanner::new(text);
    let tree = reader.file().ok();
    debug_assert!(tree.is_some() || !reader.problems.is_empty(), "a stop has a reason");
    (tree, reader.problems)
}

impl Scanner<'_> {
    fn file(&mut self) -> Result<Node, Stop> {
        if self.text.starts_with('\u{FEFF}') {
            self.at = '\u{FEFF}'.len_utf8();
        }
        self.skip_space();
        if self.peek().is_none() {
            return Err(self.stop(Format::Elixir.empty()));
        }
        let tree = self.value()?;
        self.skip_space();
        let rest = self.at;
        if rest < self.text.len() && tree.kind != Kind::Invalid {
            self.trailing(&tree);
        }
        Ok(tree)
    }

    fn trailing(&mut self, tree: &Node) {
        let start = self.at;
        let end = start + self.text[start..].find('\n').unwrap_or(self.text.len() - start);
        let problem = match self.peek() {
            Some(b')' | b']' | b'}') => Problem::new(
                Span::new(start, start + 1),
                format!("nothing is open that this `{}` could close", &self.text[start..=start]),
            )
            .related(tree.span, "the file's value begins here"),
            _ => Problem::new(Span::new(start, end), "the file holds more than one expression")
                .related(tree.span, "the first begins here")
                .help(
                    "write one list with every entry in it; Elixir would give the last expression",
                ),
        };
        self.report(problem);
    }
}

/// The problem of something that would have to be evaluated.
fn refusal(span: Span, construct: &Construct<'_>) -> Problem {
    let name = construct.name();
    Problem::new(
        span,
        format!("cannot take {name}: the file is read as data, nothing in it is evaluated"),
    )
    .label(construct.label())
    .help(construct.instead())
}
