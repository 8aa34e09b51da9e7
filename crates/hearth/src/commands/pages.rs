//! What comes of the command line's own description: shell completions and manual pages.

use crate::exit;
use crate::output::Output;
use anyhow::Context;
use clap::{Args as ClapArgs, Command};
use clap_complete::Shell;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The command line of `hearth completions`.
#[derive(Debug, ClapArgs)]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// The command line of `hearth man`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ManArgs {
    /// Output directory; created if absent
    directory: PathBuf,
}

/// Prints a shell's completions for a command line.
pub(crate) fn completions(args: &CompletionsArgs, mut line: Command, output: &Output) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut line, "hearth", &mut script);
    output.script(&script);
    exit::DONE
}

/// Writes a manual page for each command of a command line.
///
/// # Errors
/// Where the directory cannot be written to.
pub(crate) fn manual(args: &ManArgs, line: Command, output: &Output) -> anyhow::Result<u8> {
    let directory = &args.directory;
    let label = directory.display();
    let operation = || format!("cannot write the manual to {label}");
    std::fs::create_dir_all(directory).with_context(operation)?;
    clap_mangen::generate_to(line, directory).with_context(operation)?;
    print_manual(directory, output);
    Ok(exit::DONE)
}

fn print_manual(directory: &Path, output: &Output) {
    if !output.printed(&json!({ "directory": directory })) {
        output.line(format_args!(
            "the manual is in {0}; man -l {0}/hearth.1 shows it",
            directory.display()
        ));
    }
}
