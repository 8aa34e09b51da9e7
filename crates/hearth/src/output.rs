//! How things are printed: streams, colours, tables, and text or JSON. It knows no command; no module
//! prints but through it.

mod paint;
mod streams;

pub(crate) use paint::{Line, Tone, Word, age, shortened, span};
pub(crate) use streams::{Purpose, Stream};

use crate::exit;
use anstream::{AutoStream, ColorChoice};
use clap::ValueEnum;
use hearth_api::ClientError;
use hearth_model::text::{plain, plain_json, visible};
use serde::Serialize;
use serde_json::json;
use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::pin::Pin;
use streams::Streams;

/// How things are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Table,
    /// For people with wide screens
    Wide,
    /// For programs: the API's JSON, one value a line
    Json,
    /// The same as YAML, one document a value
    Yaml,
}

/// Whether to use colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl From<Color> for ColorChoice {
    fn from(color: Color) -> ColorChoice {
        match color {
            Color::Auto => ColorChoice::Auto,
            Color::Always => ColorChoice::Always,
            Color::Never => ColorChoice::Never,
        }
    }
}

/// What is shown instead of a command's output.
#[derive(Debug)]
pub(crate) struct Usage {
    pub(crate) color: ColorChoice,
    /// The exit code.
    pub(crate) code: u8,
    /// Whether somebody asked for it, so that it belongs on stdout.
    pub(crate) is_asked_for: bool,
    /// With its colours, unless the command line has escape sequences of its own.
    pub(crate) styled: Option<String>,
    /// Without colours, and with what the command line has.
    pub(crate) bare: String,
}

/// Prints in one format.
#[derive(Debug)]
pub(crate) struct Output {
    format: Format,
    /// Whether stdout takes colours.
    colour: bool,
    /// Whether stderr does.
    error_colour: bool,
    /// Whether a YAML document was printed, so that the next begins with a line of its own.
    in_stream: Cell<bool>,
    streams: Streams,
}

impl Output {
    /// Colours go where `choice` says; [`ColorChoice::Auto`] looks at each stream, and at
    /// `NO_COLOR`, `CLICOLOR`, `CLICOLOR_FORCE` and `TERM`.
    pub(crate) fn new(format: Format, choice: ColorChoice, purpose: Purpose) -> Output {
        choice.write_global();
        Output {
            format,
            colour: AutoStream::choice(&io::stdout()) != ColorChoice::Never,
            error_colour: AutoStream::choice(&io::stderr()) != ColorChoice::Never,
            in_stream: Cell::new(false),
            streams: Streams::new(purpose),
        }
    }

    /// The exit code of a command that ends with `code`: lost output is an error whatever it did.
    pub(crate) fn exit_code(&self, code: u8) -> u8 {
        if self.streams.is_whole() { code } else { exit::ERROR }
    }

    /// Whether nothing more can be shown.
    pub(crate) fn is_over(&self) -> bool {
        self.streams.is_over()
    }

    /// Waits until the reader of the output is gone, if that can be known. Cancel safe.
    pub(crate) async fn reader_gone(&self) {
        self.streams.reader_gone().await;
    }

    /// What comes before the reader of the output is `gone`; `None` once nothing more can be shown.
    pub(crate) async fn before<T>(
        &self,
        gone: &mut Pin<&mut impl Future<Output = ()>>,
        next: impl Future<Output = T>,
    ) -> Option<T> {
        if self.is_over() {
            return None;
        }
        tokio::select! {
            // What is dropped is not missed: the command ends.
            biased;
            () = gone => None,
            next = next => Some(next),
        }
    }

    /// Whether tables are wide.
    pub(crate) fn is_wide(&self) -> bool {
        self.format == Format::Wide
    }

    /// Whether stderr takes colours.
    pub(crate) fn colours_errors(&self) -> bool {
        self.error_colour
    }

    /// Prints a value where programs read; whether it did.
    pub(crate) fn printed<T: Serialize + ?Sized>(&self, value: &T) -> bool {
        match self.format {
            Format::Table | Format::Wide => return false,
            Format::Json => self.exact(&(json_line(value) + "\n")),
            Format::Yaml => {
                if self.in_stream.replace(true) {
                    self.line("---");
                }
                self.exact(&(yaml(value).trim_end().to_owned() + "\n"));
            }
        }
        true
    }

    pub(crate) fn for_programs(&self) -> bool {
        matches!(self.format, Format::Json | Format::Yaml)
    }

    /// A line in the making, for stdout.
    pub(crate) fn begin(&self) -> Line {
        Line::new(self.colour)
    }

    /// A line in the making, for stderr.
    pub(crate) fn begin_remark(&self) -> Line {
        Line::new(self.error_colour)
    }

    /// Prints a line on stdout.
    pub(crate) fn print(&self, line: &Line) {
        self.exact(&format!("{line}\n"));
    }

    pub(crate) fn line(&self, text: impl Display) {
        self.print(&self.begin().text(text));
    }

    /// Prints on stdout what is fit for it as it is.
    fn exact(&self, text: &str) {
        self.write(Stream::Stdout, text.as_bytes());
    }

    pub(crate) fn write(&self, stream: Stream, bytes: &[u8]) {
        if let Err(lost) = self.streams.write(stream, bytes) {
            self.error(&lost.into());
        }
    }

    /// Prints a line on stderr.
    pub(crate) fn remark(&self, line: &Line) {
        self.streams.remark(format!("{line}\n").as_bytes());
    }

    pub(crate) fn rows<const N: usize>(
        &self,
        header: [&str; N],
        rows: impl Iterator<Item = [Word; N]>,
    ) {
        for text in paint::table(header, rows, self.colour) {
            self.exact(&(text + "\n"));
        }
    }

    /// The help, the version, or what is wrong with a command line.
    pub(crate) fn usage(&self, usage: &Usage) {
        let colour = if usage.is_asked_for { self.colour } else { self.error_colour };
        let text = match &usage.styled {
            Some(styled) if colour => styled.into(),
            _ => plain(&usage.bare),
        };
        match usage.is_asked_for {
            true => self.exact(&text),
            false => self.streams.remark(text.as_bytes()),
        }
    }

    /// An error with its causes, and what the daemon said of it.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        if self.for_programs() {
            let problem = error.downcast_ref::<ClientError>().and_then(ClientError::problem);
            let json = match problem {
                Some(problem) => json!({ "error": format!("{error}"), "problem": problem }),
                None => json!({ "error": format!("{error:#}"), "help": help_for(error) }),
            };
            return self.remark(&self.begin_remark().text(json_line(&json)));
        }
        let causes = error.chain().skip(1);
        let line = self.begin_remark().toned("hearth:", Tone::Bad).text(format_args!(" {error}"));
        self.remark(&causes.fold(line, |line, cause| line.text(format_args!(": {cause}"))));
        if let Some(help) = help_for(error) {
            self.remark(&self.begin_remark().text(help));
        }
    }

    /// A drawing of problems, which has its colours.
    pub(crate) fn drawn(&self, drawing: &str) {
        let drawing = if self.error_colour { visible(drawing) } else { plain(drawing) };
        self.streams.remark(format!("{}\n", drawing.trim_end()).as_bytes());
    }

    /// Something that is good to know.
    pub(crate) fn note(&self, text: &str) {
        self.remark(&self.begin_remark().text(format_args!("hearth: {text}")));
    }

    /// The final output of a command that ends at once, whatever else it is about to print.
    pub(crate) fn final_remark(text: &str) {
        Streams::new(Purpose::Result).remark(format!("hearth: {}\n", plain(text)).as_bytes());
    }

    /// What is waited for, for somebody who watches.
    pub(crate) fn waiting(&self, text: &str) {
        if io::stderr().is_terminal() {
            self.note(text);
        }
    }

    /// A shell's script, as it is.
    pub(crate) fn script(&self, script: &[u8]) {
        self.write(Stream::Stdout, script);
    }

    /// A file's text: as it is, but on a terminal.
    pub(crate) fn text(&self, text: &str) {
        let text = format!("{}\n", text.trim_end_matches('\n'));
        self.exact(&if io::stdout().is_terminal() { plain(&text) } else { text.into() });
    }
}

/// What to do about an error that does not say so itself.
fn help_for(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<ClientError>()? {
        ClientError::Connect { .. } => Some(
            "is it running? start it with `hearth serve`, or name another by --url or HEARTH_URL",
        ),
        _ => None,
    }
}

pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// A value as JSON on one line.
pub(crate) fn json_line<T: Serialize + ?Sized>(value: &T) -> String {
    plain_json(&serde_json::to_string(value).unwrap_or_default()).into_owned()
}

/// A value as a YAML document: as JSON, which is YAML, where it has characters that are not seen.
fn yaml<T: Serialize + ?Sized>(value: &T) -> String {
    let yaml = serde_saphyr::to_string(&value).unwrap_or_default();
    if plain(&yaml) == yaml { yaml } else { json_line(value) }
}

pub(crate) fn or_dash(text: Option<&str>) -> String {
    text.unwrap_or("-").to_owned()
}
