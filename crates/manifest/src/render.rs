//! Diagnostics as people read them: file, line, column, the line itself with a caret, and help.
//! It draws to a string; nothing is printed here.

use crate::diagnostic::{Diagnostic, Diagnostics};
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use std::fmt;
use std::ops::Range;

/// Whether a drawing carries colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Styling {
    /// Characters alone, for files, pipes and logs.
    Plain,
    /// ANSI colours, for terminals.
    Ansi,
}

impl Diagnostics {
    /// Draws every problem, with an empty line between two, and a last line with their number.
    #[must_use]
    pub fn render(&self, styling: Styling) -> String {
        let renderer = match styling {
            Styling::Plain => Renderer::plain(),
            Styling::Ansi => Renderer::styled(),
        };
        let renderer = renderer.decor_style(DecorStyle::Ascii);
        let mut drawing = String::new();
        for diagnostic in self {
            drawing.push_str(&renderer.render(&[self.group(diagnostic)]));
            drawing.push_str("\n\n");
        }
        drawing.push_str(&self.summary());
        drawing
    }

    fn group<'a>(&'a self, diagnostic: &'a Diagnostic) -> Group<'a> {
        let spans =
            || std::iter::once(diagnostic.span).chain(diagnostic.related.iter().map(|r| r.span));
        // Only the lines in question go to the renderer: it reads all that it is given.
        let start = line_start(&self.text, spans().map(|span| span.start).min().unwrap_or(0));
        let end = line_end(&self.text, spans().map(|span| span.end).max().unwrap_or(0));
        let line = diagnostic.related.iter().map(|r| r.line).fold(diagnostic.line, usize::min);
        let within = |range: Range<usize>| range.start - start..range.end - start;
        let primary = AnnotationKind::Primary
            .span(within(diagnostic.span.start..diagnostic.span.end))
            .label(diagnostic.label.as_deref());
        let related = diagnostic.related.iter().map(|related| {
            AnnotationKind::Context
                .span(within(related.span.start..related.span.end))
                .label(related.label.as_str())
        });
        let snippet = Snippet::source(&self.text[start..end])
            .path(self.label.as_str())
            .line_start(line)
            .annotation(primary)
            .annotations(related);
        let group = Level::ERROR.primary_title(diagnostic.message.as_str()).element(snippet);
        match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        }
    }

    fn summary(&self) -> String {
        let problems = match self.count() {
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        };
        let omitted = match self.omitted() {
            0 => String::new(),
            omitted => format!(", the last {omitted} not shown"),
        };
        format!("{}: {problems}{omitted}; nothing in it is applied", self.label)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(Styling::Plain))
    }
}

fn line_start(text: &str, place: usize) -> usize {
    text[..place].rfind('\n').map_or(0, |at| at + 1)
}

fn line_end(text: &str, place: usize) -> usize {
    text[place..].find('\n').map_or(text.len(), |at| place + at)
}
