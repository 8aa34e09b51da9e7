//! The `hearth` binary: `hearth serve`, and the command line that talks to it.
//!
//! `backup`, `restore` and `doctor` work on the state directory. Commands other than these, `serve`,
//! `validate`, `convert`, `config`, `kernel`, `completions` and `man` know only the HTTP API; `plan` and `apply` read a file for it.

mod args;
mod commands;
mod config;
mod env_file;
mod exit;
mod input;
mod interrupt;
mod lifecycle;
mod logging;
mod output;
mod settings;
mod source;
mod span;
mod tally;
mod wait;

use args::{Args, Command};
use clap::CommandFactory;
use commands::{
    change, convert, declare, events, forward, get, images, kernel, logs, pages, ps, run, serve,
    state, stats, status, validate, version,
};
use hearth_api::Client;
use output::{Format, Output, Purpose};
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
        match error.downcast_ref::<config::Problems>() {
            Some(problems) => commands::config::print_problems(problems, &output),
            None => output.error(&error),
        }
        exit::code_of(&error)
    });
    ExitCode::from(output.exit_code(code))
}

fn run(args: Args, output: &Output) -> anyhow::Result<u8> {
    let client = &Client::new(args.url.clone());
    match args.command {
        Command::Serve(args) => serve::serve(args, output),
        Command::Validate(args) => Ok(validate::validate(&args, output)),
        Command::Convert(args) => convert::convert(&args, output),
        Command::Plan(args) => asked(declare::plan(&args, client, output)),
        Command::Apply(args) => asked(declare::apply(args, client, output)),
        Command::Run(args) => asked(run::run_job(*args, client, output)),
        Command::Ps(args) => asked(ps::ps(args, client, output)),
        Command::Get(args) => asked(get::get(&args, client, output)),
        Command::Status => asked(status::status(&args.url, client, output)),
        Command::Stats => asked(stats::stats(client, output)),
        Command::Logs(args) => asked(logs::logs(args, client, output)),
        Command::Rm(args) => asked(change::remove(args, client, output)),
        Command::Stop(args) => asked(change::stop(args, client, output)),
        Command::Start(args) => asked(change::start(args, client, output)),
        Command::Restart(args) => asked(change::restart(args, client, output)),
        Command::Events(args) => asked(events::events(args, client, output)),
        Command::PortForward(args) => asked(forward::forward(args, client, output)),
        Command::Backup(args) => state::backup(args, output),
        Command::Restore(args) => state::restore(args, output),
        Command::Doctor(args) => state::doctor(args, output),
        Command::Image { command } => asked(images::image(command, client, output)),
        Command::Kernel { command } => kernel::run(command, output),
        Command::Config { command } => commands::config::run(command, output),
        Command::Version => asked(version::version(client, output)),
        Command::Completions(args) => Ok(pages::completions(&args, Args::command(), output)),
        Command::Man(args) => pages::manual(&args, Args::command(), output),
    }
}

/// The exit code of a command that asks a daemon.
fn asked(command: impl Future<Output = anyhow::Result<u8>>) -> anyhow::Result<u8> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(command)
}
