//! Diagnostics as people read them: file, line, column, the line itself with a caret, and help.
//! It draws to a string; nothing is printed here.

use crate::diagnostic::{Diagnostic, Diagnostics};
use crate::node::Span;
use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use hearth_model::text::{plain, visible};
use std::fmt;

/// Most bytes of the lines that are drawn for one problem. Beyond, its place is given without them:
/// such a line is of no use, and drawing it a hundred times takes long.
const DRAWN_BYTES_MAX: usize = 16 * 1024;

/// Whether a drawing carries colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Styling {
    /// Characters alone, for files, pipes and logs.
    Plain,
    /// ANSI colours, for terminals.
    Ansi,
}

/// A place to be marked.
#[derive(Clone, Copy)]
struct Mark<'a> {
    kind: AnnotationKind,
    span: Span,
    line: usize,
    label: Option<&'a str>,
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
        let primary = Mark {
            kind: AnnotationKind::Primary,
            span: diagnostic.span,
            line: diagnostic.line,
            label: diagnostic.label.as_deref(),
        };
        let related = diagnostic.related.iter().map(|related| Mark {
            kind: AnnotationKind::Context,
            span: related.span,
            line: related.line,
            label: Some(related.label.as_str()),
        });
        let marks: Vec<Mark<'a>> = std::iter::once(primary).chain(related).collect();
        let title = Level::ERROR.primary_title(diagnostic.message.as_str());
        let group = match self.snippet(&marks) {
            Some(snippet) => title.element(snippet),
            // Too far apart to be one piece, or on lines too long to be drawn at all.
            None => match self.snippet(&marks[..1]) {
                Some(snippet) => title
                    .element(snippet)
                    .elements(marks[1..].iter().filter_map(|mark| self.snippet(&[*mark]))),
                None => title.element(
                    Origin::path(plain(&self.label))
                        .line(diagnostic.line)
                        .char_column(diagnostic.column),
                ),
            },
        };
        group.elements(diagnostic.help.as_deref().map(|help| Level::HELP.message(help)))
    }

    /// The lines from the first mark to the last; only these go to the renderer, since it reads all
    /// that it is given.
    fn snippet<'a>(&'a self, marks: &[Mark<'a>]) -> Option<Snippet<'a, Annotation<'a>>> {
        let start = marks.iter().map(|mark| line_start(&self.text, mark.span.start)).min()?;
        let end = marks.iter().map(|mark| line_end(&self.text, mark.span.end)).max()?;
        if end - start > DRAWN_BYTES_MAX {
            return None;
        }
        // Carets stand beneath what is shown.
        let shown = |place: usize| visible(&self.text[start..place]).len();
        let annotations = marks.iter().map(|mark| {
            mark.kind.span(shown(mark.span.start)..shown(mark.span.end)).label(mark.label)
        });
        let snippet = Snippet::source(visible(&self.text[start..end]))
            .path(plain(&self.label))
            .line_start(marks.iter().map(|mark| mark.line).min()?)
            .annotations(annotations);
        Some(snippet)
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
        format!("{}: {problems}{omitted}; nothing in it is applied", plain(&self.label))
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
