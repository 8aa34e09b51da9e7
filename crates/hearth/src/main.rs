//! The `hearth` binary: `hearth serve`, and the command line that talks to it.
//!
//! Commands other than `serve`, `validate` and `kernel` know only the HTTP API.

mod args;
mod commands;
mod follow;
mod forward;
mod kernel;
mod logging;
mod output;
mod serve;
mod validate;

use args::{Args, Command};
use clap::Parser;
use output::Output;
use std::process::ExitCode;

/// Something went wrong; the reason is on stderr.
const EXIT_ERROR: u8 = 1;

fn main() -> ExitCode {
    let args = Args::parse();
    let output = Output::new(args.output);
    match run(args, &output) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            output.error(&error);
            ExitCode::from(EXIT_ERROR)
        }
    }
}

fn run(args: Args, output: &Output) -> anyhow::Result<u8> {
    match args.command {
        Command::Serve(options) => serve::serve(options, output),
        Command::Validate { file } => validate::validate(&file, output),
        Command::Kernel { command } => kernel::run(command, output),
        command => {
            let client = hearth_api::Client::new(args.url);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(commands::run(command, &client, output))
        }
    }
}
