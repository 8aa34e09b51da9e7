//! The process: what it says at its start and its end, and the exit codes (`FcExitCode` in Firecracker's
//! `src/vmm/src/lib.rs`).

use crate::api::VERSION;
use crate::arguments::{self, Asked, Serve, Wrong};
use crate::output::{Log, print};
use crate::script::{Does, Script};
use crate::server;
use crate::shared::{Shared, before, end_by, for_ever};
use crate::vm::Vm;
use std::io;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};

const SNAPSHOT_VERSION: &str = "v6.0.0";

const GENERIC_ERROR: u8 = 1;
const BAD_CONFIGURATION: u8 = 152;
const ARGUMENT_PARSING: u8 = 153;
const SIGHUP: i32 = 156;

/// Runs the process to its end.
#[must_use]
pub fn run() -> ExitCode {
    match arguments::parse(std::env::args().skip(1)) {
        Ok(Asked::Version) => {
            print(format!("Firecracker v{VERSION}\n\n").as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Asked::SnapshotVersion) => {
            print(format!("{SNAPSHOT_VERSION}\n").as_bytes());
            ExitCode::SUCCESS
        }
        Ok(Asked::Serve(serve)) => match serve_until_the_end(serve) {
            Ok(never) => match never {},
            Err(text) => {
                print(format!("{text}\nFirecracker exiting with error. exit_code=1\n").as_bytes());
                ExitCode::from(GENERIC_ERROR)
            }
        },
        Err(wrong) => refuse(&wrong),
    }
}

enum Never {}

fn serve_until_the_end(serve: Serve) -> Result<Never, String> {
    let log = Log::open(serve.log_path.as_deref()).map_err(|error| {
        format!("Could not initialize logger: Failed to open target file: {error}")
    })?;
    let script = Script::read(&serve.id).map_err(|error| format!("the script: {error}"))?;
    hang_up_at_sighup().map_err(|error| error.to_string())?;
    let launch = script.at_launch();
    let shared = Arc::new(Shared { script: Mutex::new(script), log });
    let deaf = matches!(launch, Some(Does::Close));
    if let Some(does) = launch {
        before(&shared, &does);
    }
    let listener = UnixListener::bind(&serve.api_sock).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "RunWithApiError error: Failed to open the API socket at: {}. Check that it is not \
             already used.",
            serve.api_sock.display()
        ),
        _ => format!(
            "RunWithApiError error: Failed to bind and run the HTTP server: IO error: {error}"
        ),
    })?;
    if deaf {
        drop(listener);
        for_ever();
    }
    let vm = Arc::new(Mutex::new(Vm::new(&serve.id)));
    let failed = server::serve(&vm, &shared, &listener, serve.body_bytes_max);
    Err(failed.to_string())
}

fn hang_up_at_sighup() -> io::Result<()> {
    let mut signals = signal_hook::iterator::Signals::new([signal_hook::consts::SIGHUP])?;
    std::thread::spawn(move || {
        if signals.forever().next().is_some() {
            std::process::exit(SIGHUP);
        }
    });
    Ok(())
}

fn refuse(wrong: &Wrong) -> ExitCode {
    let (code, text) = match wrong {
        Wrong::Unexpected(name) => (
            ARGUMENT_PARSING,
            format!(
                "Arguments parsing error: Found argument '{name}' which wasn't expected, or isn't \
                 valid in this context."
            ),
        ),
        Wrong::NoValue(name) => (
            ARGUMENT_PARSING,
            format!(
                "Arguments parsing error: The argument '{name}' requires a value, but none was \
                 supplied."
            ),
        ),
        Wrong::Level(level) => (
            BAD_CONFIGURATION,
            format!(
                "Invalid value for logger level: Failed to parse string to level filter: {level}."
            ),
        ),
        Wrong::Id(id) => {
            print(format!("Firecracker panicked: Invalid instance ID: {id}\n").as_bytes());
            end_by(6);
        }
    };
    print(format!("{text}\nFirecracker exiting with error. exit_code={code}\n").as_bytes());
    ExitCode::from(code)
}
