//! `hearth convert FILE`.

use crate::args::ConvertArgs;
use crate::exit;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, anyhow};
use hearth_manifest::{Format, UnknownFormat};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Writes a file's jobs in another format, to stdout or to a new file. Returns the exit code.
///
/// # Errors
/// Where the target's format is not known, or it cannot be written or is there already.
pub(crate) fn convert(args: &ConvertArgs, output: &Output) -> anyhow::Result<u8> {
    let source = match Source::read(&args.source) {
        Ok(source) => source,
        Err(error) => {
            output.error(&error);
            return Ok(exit::UNREAD);
        }
    };
    let format = match (args.to, &args.into) {
        (Some(format), _) => format.into(),
        (None, Some(path)) => Format::of(&path.display().to_string())
            .map_err(|error| anyhow!("{error}: {}; --to names another's", UnknownFormat::HELP))?,
        (None, None) => return Err(anyhow!("neither --to nor --into names a format")),
    };
    let file = match source.parse() {
        Ok(file) => file,
        Err(diagnostics) => {
            output.invalid(&diagnostics);
            return Ok(exit::ERROR);
        }
    };
    let text = hearth_manifest::write(format, &file.jobs);
    match &args.into {
        None => output.text(&text),
        Some(path) => {
            create(path, &text)?;
            output.converted(source.label(), path, file.jobs.len());
        }
    }
    Ok(exit::DONE)
}

/// Writes a file that is not there yet: nobody's comments are lost.
fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow!("{shown} is there already: remove it first, or name another file")
        }
        _ => anyhow::Error::new(error).context(format!("cannot create {shown}")),
    })?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {shown}"))
}
