//! The desired-state file: from its text to the jobs that it declares, with a place in the text for
//! every value and every error.
//!
//! Three layers, of which each format has only the first: a format reads text into a neutral tree
//! ([`Node`]), `fields` reads declared jobs from the tree by the rules of `hearth-model`, and
//! `render` draws what is wrong. `write` is the way back, to the text of any format.
//!
//! It never opens a file, never evaluates anything, and never gives a part of a file: a file with
//! one problem declares nothing.

mod body;
mod diagnostic;
mod duplicates;
mod elixir;
mod fields;
mod format;
mod json;
mod node;
mod render;
mod toml;
mod write;
mod yaml;

pub use body::{BodyError, DECLARED_FIELDS, DeclaredBody, read_declaration, read_declared};
pub use diagnostic::{Diagnostic, Diagnostics, FieldProblem, Related};
pub use format::{Format, UnknownFormat};
pub use hearth_model::PROBLEMS_MAX;
pub use node::{Entry, Kind, Node, Span};
pub use render::Styling;
pub use write::write;

use diagnostic::Problem;
use fields::{Origin, Source};
use hearth_model::{JobId, Spec, Tenant};
use std::borrow::Cow;

/// Most bytes of a file. The seed's example has 1.5 kB for three jobs, so this holds over 10,000.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Deepest nesting of lists, maps and the like. A spec needs 5; the readers recurse, so there has to
/// be an end.
pub const DEPTH_MAX: usize = 64;

/// Largest file for which the other formats are tried where its own does not fit: enough for any
/// file that a person named wrongly.
const MISTAKEN_BYTES_MAX: usize = 256 * 1024;

/// What a file declares.
#[derive(Clone, Debug, PartialEq)]
pub struct File {
    /// Its entries, in the order of the file. No two have the same job id.
    pub jobs: Vec<Declared>,
}

/// One entry of a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Declared {
    /// The job's name, unique in its file.
    pub job_id: JobId,
    /// The tenant, or `None` where the entry leaves it out.
    pub tenant: Option<Tenant>,
    /// What the job runs.
    pub spec: Spec,
    /// Where the entry stands, in bytes of the file.
    pub span: Span,
}

/// Reads a desired-state file in the format of its extension. `label` is what diagnostics call
/// it, usually its path; it is not opened.
///
/// # Errors
/// As [`parse_as`], or that the name has no known extension.
pub fn parse(label: &str, bytes: impl AsRef<[u8]>) -> Result<File, Diagnostics> {
    match Format::of(label) {
        Ok(format) => parse_as(format, label, bytes),
        Err(unknown) => {
            let problem = Problem::new(Span::at(0), unknown.to_string()).help(UnknownFormat::HELP);
            Err(Diagnostics::new(label, "", problem.into()))
        }
    }
}

/// Reads a desired-state file in a format, whatever its name.
///
/// # Errors
/// Every problem of the file that could be found in one run, in the order of the text, up to
/// [`PROBLEMS_MAX`]. There is at least one.
pub fn parse_as(format: Format, label: &str, bytes: impl AsRef<[u8]>) -> Result<File, Diagnostics> {
    let bytes = bytes.as_ref();
    let text = match checked_text(bytes) {
        Ok(text) => text,
        Err(problem) => {
            let shown = &bytes[..bytes.len().min(FILE_BYTES_MAX)];
            // Bytes that are not UTF-8 come after the problem's place, so it stays where it is.
            let text = String::from_utf8_lossy(shown);
            return Err(Diagnostics::new(label, &text, (*problem).into()));
        }
    };
    let (tree, mut problems) = format.read(text);
    let shaped = tree.as_ref().is_some_and(|tree| format.fits(tree));
    if (!problems.is_empty() || !shaped)
        && let Some(problem) = mistaken(format, text)
    {
        return Err(Diagnostics::new(label, text, problem.into()));
    }
    let source = Source { text, format, origin: Origin::File };
    let jobs = tree.map(|tree| fields::read(&tree, source, &mut problems)).unwrap_or_default();
    if problems.is_empty() {
        Ok(File { jobs })
    } else {
        Err(Diagnostics::new(label, text, problems))
    }
}

/// The one problem of a file that is not in its format and is in another.
fn mistaken(format: Format, text: &str) -> Option<Problem> {
    if text.len() > MISTAKEN_BYTES_MAX {
        return None;
    }
    // Of YAML's flow style, in which JSON with a slip is right, too.
    let is_json = format == Format::Json
        && text.trim_start_matches('\u{FEFF}').trim_start().starts_with(['[', '{']);
    let reads = |other: &Format| {
        if is_json && *other == Format::Yaml {
            return false;
        }
        let (tree, problems) = other.read(text);
        *other != format && problems.is_empty() && tree.is_some_and(|tree| other.holds_jobs(&tree))
    };
    // JSON before YAML, which reads it too.
    let others = [Format::Json, Format::Toml, Format::Elixir, Format::Yaml];
    let other = others.into_iter().find(reads)?;
    let problem =
        Problem::new(Span::at(0), format!("the file is read as {format}, and holds {other}"));
    Some(problem.help(format!("name it so that it ends in .{}", other.extension())))
}

/// Reads a file in the Elixir form as far as its tree, whatever it declares.
///
/// # Errors
/// As [`parse_as`], without the problems of fields.
pub fn parse_tree(label: &str, text: &str) -> Result<Node, Diagnostics> {
    match Format::Elixir.read(text) {
        (Some(tree), problems) if problems.is_empty() => Ok(tree),
        (_, problems) => Err(Diagnostics::new(label, text, problems)),
    }
}

fn checked_text(bytes: &[u8]) -> Result<&str, Box<Problem>> {
    if bytes.len() > FILE_BYTES_MAX {
        let problem = Problem::new(Span::at(0), "cannot read the file: it is too large")
            .label(format!("{} bytes; {FILE_BYTES_MAX} is the limit", bytes.len()));
        return Err(Box::new(problem));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        let byte = bytes.get(at).copied().unwrap_or_default();
        let help: Cow<'static, str> = "save the file as UTF-8".into();
        Box::new(
            Problem::new(Span::at(at), "cannot read the file: it is not UTF-8")
                .label(format!("byte 0x{byte:02X}"))
                .help(help),
        )
    })
}
