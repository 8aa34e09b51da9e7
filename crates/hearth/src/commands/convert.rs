//! `hearth convert FILE`.

use crate::exit;
use crate::output::{Output, counted};
use crate::source::{FileFormat, Source, SourceArgs, print_problems};
use anyhow::{Context, anyhow};
use clap::Args as ClapArgs;
use hearth_desired_file::{Format, UnknownFormat};
use serde_json::json;
use std::fs::Permissions;
use std::io::{ErrorKind, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// The command line of `hearth convert`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ConvertArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// The format to write [default: by the extension of --into]
    #[arg(long, value_enum, value_name = "FORMAT", required_unless_present = "into")]
    pub(crate) to: Option<FileFormat>,
    /// A new file to write to [default: stdout]
    #[arg(long, value_name = "FILE")]
    pub(crate) into: Option<PathBuf>,
}

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
            print_problems(&diagnostics, output);
            return Ok(exit::ERROR);
        }
    };
    let text = hearth_desired_file::write(format, &file.jobs);
    match &args.into {
        None => output.text(&text),
        Some(path) => {
            create(path, &text)?;
            print_converted(source.label(), path, file.jobs.len(), output);
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

fn print_converted(label: &str, path: &Path, jobs: usize, output: &Output) {
    let path = path.display().to_string();
    if !output.printed(&json!({ "file": label, "jobs": jobs, "into": path })) {
        output.line(format_args!("{label}: {} written to {path}", counted(jobs, "job")));
    }
}
