//! A desired-state file that is named on the command line, or comes on stdin.

use crate::args::SourceArgs;
use crate::input;
use anyhow::{Context, anyhow};
use hearth_desired_file::{Diagnostics, File, Format, UnknownFormat};

/// The bytes of a file, and how to read them.
pub(crate) struct Source {
    label: String,
    format: Format,
    bytes: Vec<u8>,
    is_stream: bool,
}

impl Source {
    /// Reads the file, or stdin for `-`.
    ///
    /// # Errors
    /// Where it cannot be read, is too large, or its format is not known.
    pub(crate) fn read(args: &SourceArgs) -> anyhow::Result<Source> {
        let stdin = input::is_stdin(&args.file);
        let label = if stdin { "stdin".to_owned() } else { args.file.display().to_string() };
        let format = match args.input_format {
            Some(format) => format.into(),
            None => Format::of(&label).map_err(|error| {
                anyhow!("{error}: {}; --input-format names another's", UnknownFormat::HELP)
            })?,
        };
        let bytes = input::read(&args.file, hearth_desired_file::FILE_BYTES_MAX as u64)
            .with_context(|| format!("cannot read {label}"))?;
        Ok(Source { label, format, bytes, is_stream: input::is_stream(&args.file) })
    }

    /// What the file is called.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// Whether it came on stdin or by a pipe, and so has no name under which it comes again.
    pub(crate) fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// The jobs that it declares.
    ///
    /// # Errors
    /// Every problem of it.
    pub(crate) fn parse(&self) -> Result<File, Diagnostics> {
        hearth_desired_file::parse_as(self.format, &self.label, &self.bytes)
    }
}
