//! The desired-state file: from its text to the jobs that it declares, with a place in the text for
//! every value and every error.
//!
//! Three layers, so that another format needs only the first: a format reads text into a neutral
//! tree (`elixir` into [`Node`]), `fields` reads declared jobs from the tree by the rules of
//! `hearth-model`, and `render` draws what is wrong.
//!
//! It never opens a file, never evaluates anything, and never gives a part of a file: a file with
//! one problem declares nothing.

mod diagnostic;
mod elixir;
mod fields;
mod node;
mod render;

pub use diagnostic::{Diagnostic, Diagnostics, Related};
pub use elixir::DEPTH_MAX;
pub use node::{Entry, Kind, Node, Span};
pub use render::Styling;

use diagnostic::Problem;
use hearth_model::{JobId, Spec, Tenant};
use std::borrow::Cow;

/// Most bytes of a file. The seed's example has 1.5 kB for three jobs, so this holds over 10,000.
pub const FILE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Most problems that are kept of one file: more than anyone reads, little enough to draw.
pub const PROBLEMS_MAX: usize = 100;

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

/// Reads a desired-state file in the Elixir form. `label` is what diagnostics call it, usually its
/// path; it is not opened.
///
/// # Errors
/// Every problem of the file that could be found in one run, in the order of the text, up to
/// [`PROBLEMS_MAX`]. There is at least one.
pub fn parse(label: &str, bytes: impl AsRef<[u8]>) -> Result<File, Diagnostics> {
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
    let (tree, mut problems) = elixir::read(text);
    let jobs = tree.map(|tree| fields::read(&tree, &mut problems)).unwrap_or_default();
    if problems.is_empty() {
        Ok(File { jobs })
    } else {
        Err(Diagnostics::new(label, text, problems))
    }
}

/// Reads a file in the Elixir form as far as its tree, whatever it declares.
///
/// # Errors
/// As [`parse`], without the problems of fields.
pub fn parse_tree(label: &str, text: &str) -> Result<Node, Diagnostics> {
    match elixir::read(text) {
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
