//! `hearth validate FILE`.

use crate::args::ValidateArgs;
use crate::exit;
use crate::output::Output;
use crate::source::Source;

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
            output.valid(source.label(), file.jobs.len());
            exit::DONE
        }
        Err(diagnostics) => {
            output.invalid(&diagnostics);
            exit::ERROR
        }
    }
}
