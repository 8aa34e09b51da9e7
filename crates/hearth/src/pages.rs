//! What comes of the command line's own description: shell completions and manual pages.

use crate::args::Args;
use crate::exit;
use crate::output::Output;
use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;
use std::path::Path;

/// Prints a shell's completions.
pub(crate) fn completions(shell: Shell, output: &Output) -> u8 {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "hearth", &mut script);
    output.script(&script);
    exit::DONE
}

/// Writes a manual page for each command.
///
/// # Errors
/// Where the directory cannot be written to.
pub(crate) fn manual(directory: &Path, output: &Output) -> anyhow::Result<u8> {
    let label = directory.display();
    let operation = || format!("cannot write the manual to {label}");
    std::fs::create_dir_all(directory).with_context(operation)?;
    clap_mangen::generate_to(Args::command(), directory).with_context(operation)?;
    output.manual(directory);
    Ok(exit::DONE)
}
