//! A desired-state file that is named on the command line, or comes on stdin.

use crate::input;
use crate::output::Output;
use anyhow::{Context, anyhow};
use clap::{Args as ClapArgs, ValueEnum};
use hearth_desired_file::{Diagnostics, File, Format, Styling, UnknownFormat};
use serde_json::json;
use std::path::PathBuf;

/// A desired-state file and its format.
#[derive(Debug, ClapArgs)]
pub(crate) struct SourceArgs {
    /// The file; - reads stdin
    pub(crate) file: PathBuf,
    /// Its format [default: by its extension]
    #[arg(long, value_enum, value_name = "FORMAT", required_if_eq("file", "-"))]
    pub(crate) input_format: Option<FileFormat>,
}

/// A format of desired-state files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FileFormat {
    /// Elixir's data literals
    Exs,
    /// TOML
    Toml,
    /// YAML
    #[value(alias = "yml")]
    Yaml,
    /// JSON
    Json,
}

impl From<FileFormat> for Format {
    fn from(format: FileFormat) -> Format {
        match format {
            FileFormat::Exs => Format::Elixir,
            FileFormat::Toml => Format::Toml,
            FileFormat::Yaml => Format::Yaml,
            FileFormat::Json => Format::Json,
        }
    }
}

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

/// Shows what is wrong with a file.
pub(crate) fn print_problems(diagnostics: &Diagnostics, output: &Output) {
    if output.for_programs() {
        let problems: Vec<_> = diagnostics
            .iter()
            .map(|problem| {
                json!({
                    "line": problem.line,
                    "column": problem.column,
                    "end_column": problem.end_column,
                    "message": problem.message,
                    "help": problem.help,
                    "pointer": problem.pointer,
                })
            })
            .collect();
        let omitted = diagnostics.omitted();
        let file = diagnostics.label();
        output.printed(&json!({ "file": file, "problems": problems, "omitted": omitted }));
        return;
    }
    let colour = output.colours_errors();
    let styling = if colour { Styling::Ansi } else { Styling::Plain };
    output.drawn(&diagnostics.render(styling));
}
