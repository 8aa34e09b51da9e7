//! `hearth validate FILE`.

use crate::exit;
use crate::output::{Format, Output, counted};
use crate::source::{Source, SourceArgs, print_problems};
use clap::Args as ClapArgs;
use serde_json::json;

/// The command line of `hearth validate`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ValidateArgs {
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    /// How to show the problems; the same as --output
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
}

/// Checks a file and shows every problem of it. Returns the exit code.
pub(crate) fn validate(args: &ValidateArgs, output: &Output) -> u8 {
    let source = match Source::read(&args.source) {
        Ok(source) => source,
        Err(error) => {
            output.error(&error);
            return exit::UNREAD;
        }
    };
    match source.parse() {
        Ok(file) => {
            print_valid(source.label(), file.jobs.len(), output);
            exit::DONE
        }
        Err(diagnostics) => {
            print_problems(&diagnostics, output);
            exit::ERROR
        }
    }
}

fn print_valid(label: &str, jobs: usize, output: &Output) {
    if !output.printed(&json!({ "file": label, "jobs": jobs, "problems": [] })) {
        output.line(format_args!("{label}: {}, no problems", counted(jobs, "job")));
    }
}
