//! `hearth convert FILE`.

use crate::args::ConvertArgs;
use crate::exit;
use crate::output::Output;
use crate::source::Source;
use anyhow::{Context, anyhow};
use hearth_desired_file::{Format, UnknownFormat};
use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
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
    let text = hearth_desired_file::write(format, &file.jobs);
    match &args.into {
        None => output.text(&text),
        Some(path) => {
            create(path, &text)?;
            output.converted(source.label(), path, file.jobs.len());
        }
    }
    Ok(exit::DONE)
}

/// Writes a new file, whole or not at all. It replaces none: comments would be lost.
fn create(path: &Path, text: &str) -> anyhow::Result<()> {
    let shown = path.display();
    let is_there = || anyhow!("{shown} is there already: remove it first, or name another file");
    if path.symlink_metadata().is_ok() {
        return Err(is_there());
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let mut builder = tempfile::Builder::new();
    // As any new file: the user's umask takes away what others may not do.
    builder.prefix(".hearth-").permissions(Permissions::from_mode(0o666));
    let mut file = builder
        .tempfile_in(directory.unwrap_or(Path::new(".")))
        .with_context(|| format!("cannot create {shown}"))?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.as_file().sync_all());
    written.with_context(|| format!("cannot write {shown}"))?;
    file.persist_noclobber(path).map(drop).map_err(|error| match error.error.kind() {
        ErrorKind::AlreadyExists => is_there(),
        _ => anyhow::Error::new(error.error).context(format!("cannot create {shown}")),
    })
}
