//! A desired-state file that is named on the command line, or comes on stdin.

use crate::args::SourceArgs;
use anyhow::{Context, anyhow};
use hearth_manifest::{Diagnostics, File, Format, UnknownFormat};
use std::io::{self, Read};

/// The bytes of a file, and how to read them.
pub(crate) struct Source {
    label: String,
    format: Format,
    bytes: Vec<u8>,
}

impl Source {
    /// Reads the file, or stdin for `-`.
    ///
    /// # Errors
    /// Where it cannot be read, or its format is not known.
    pub(crate) fn read(args: &SourceArgs) -> anyhow::Result<Source> {
        let stdin = args.file.as_os_str() == "-";
        let label = if stdin { "stdin".to_owned() } else { args.file.display().to_string() };
        let format = match args.input_format {
            Some(format) => format.into(),
            None => Format::of(&label).map_err(|error| {
                anyhow!("{error}: {}; --input-format names another's", UnknownFormat::HELP)
            })?,
        };
        let mut bytes = Vec::new();
        // One byte more than is allowed, so that what is too large is told as such.
        let limit = u64::try_from(hearth_manifest::FILE_BYTES_MAX)? + 1;
        let read = if stdin {
            io::stdin().take(limit).read_to_end(&mut bytes)
        } else {
            let file = std::fs::File::open(&args.file);
            file.and_then(|file| file.take(limit).read_to_end(&mut bytes))
        };
        read.with_context(|| format!("cannot read {label}"))?;
        Ok(Source { label, format, bytes })
    }

    /// What the file is called.
    pub(crate) fn label(&self) -> &str {
        &self.label
    }

    /// The jobs that it declares.
    ///
    /// # Errors
    /// Every problem of it.
    pub(crate) fn parse(&self) -> Result<File, Diagnostics> {
        hearth_manifest::parse_as(self.format, &self.label, &self.bytes)
    }
}
