//! The `hearth` binary: `hearth serve`, and the command line that talks to it.
//!
//! `backup`, `restore` and `doctor` work on the state directory. Commands other than these, `serve`,
//! `validate`, `convert`, `config`, `kernel`, `completions` and `man` know only the HTTP API; `plan` and `apply` read a file for it.

mod args;
mod commands;
mod config;
mod convert;
mod declare;
mod env_file;
mod exit;
mod follow;
mod forward;
mod input;
mod interrupt;
mod kernel;
mod logging;
mod output;
mod pages;
mod ps;
mod run;
mod serve;
mod settings;
mod source;
mod span;
mod state;
mod status;
mod validate;
mod wait;

use args::{Args, Command, Format};
use output::{Output, Purpose};
use std::process::ExitCode;

/// What a request allocates is freed by another thread, the engine's, which is where the system's
/// allocator loses a third of the daemon's time (docs/adr/0009-allocator.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let args = match Args::read() {
        Ok(args) => args,
        Err(usage) => {
            let output = Output::new(Format::Table, usage.color, Purpose::Result);
            output.usage(&usage);
            return ExitCode::from(output.exit_code(usage.code));
        }
    };
    let output = Output::new(args.format(), args.color.into(), args.purpose());
    let code = run(args, &output).unwrap_or_else(|error| {
        output.error(&error);
        exit::code_of(&error)
    });
    ExitCode::from(output.exit_code(code))
}

fn run(args: Args, output: &Output) -> anyhow::Result<u8> {
    match args.command {
        Command::Serve(options) => serve::serve(options, output),
        Command::Validate(options) => Ok(validate::validate(&options, output)),
        Command::Convert(options) => convert::convert(&options, output),
        Command::Backup { file, state } => state::backup(&file, &state.into(), output),
        Command::Restore { file, state } => state::restore(&file, &state.into(), output),
        Command::Doctor { repair, state } => state::doctor(repair, &state.into(), output),
        Command::Kernel { command } => kernel::run(command, output),
        Command::Config { command } => config::run(command, output),
        Command::Completions { shell } => Ok(pages::completions(shell, output)),
        Command::Man { directory } => pages::manual(&directory, output),
        command => {
            let client = hearth_api::Client::new(args.url.clone());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(commands::run(command, &args.url, &client, output))
        }
    }
}
