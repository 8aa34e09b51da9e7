//! The process: what it says at its start and its end, and the exit codes (`FcExitCode` in Firecracker's
//! `src/vmm/src/lib.rs`).

use crate::arguments::{self, Asked, Serve, Wrong};
use crate::output::{Log, print};
use crate::script::{Does, Script};
use crate::server;
use crate::vm::Vm;
use std::io;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(crate) const VERSION: &str = "1.12.1";
const SNAPSHOT_VERSION: &str = "v6.0.0";

const GENERIC_ERROR: u8 = 1;
const BAD_CONFIGURATION: u8 = 152;
const ARGUMENT_PARSING: u8 = 153;
const SIGHUP: i32 = 156;

/// What all threads of a process share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Held over a call: calls are served in order.
    pub(crate) vm: Mutex<Vm>,
    pub(crate) script: Mutex<Script>,
    pub(crate) log: Log,
}

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
    let shared =
        Arc::new(Shared { vm: Mutex::new(Vm::new(&serve.id)), script: Mutex::new(script), log });
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
    let failed = server::serve(&shared, &listener, serve.body_bytes_max);
    Err(failed.to_string())
}

/// What a script has happen that takes no answer.
pub(crate) fn before(shared: &Shared, does: &Does) {
    match does {
        Does::Hang => for_ever(),
        Does::Wait(ms) => std::thread::sleep(Duration::from_millis(*ms)),
        Does::Exit(code) => std::process::exit(*code),
        Does::Signal(number) => end_by(*number),
        Does::Flood { text, bytes } => flood(shared, text, *bytes),
        Does::Nothing | Does::Close | Does::Answer { .. } | Does::Garbage(_) => {}
    }
}

fn flood(shared: &Shared, text: &str, bytes: usize) {
    let page = text.repeat((4096 / text.len().max(1)).max(1));
    let mut left = bytes;
    while left > 0 {
        let piece = &page[..page.len().min(left)];
        print(piece.as_bytes());
        shared.log.line(piece);
        left -= piece.len();
        std::thread::sleep(Duration::from_micros(100));
    }
}

pub(crate) fn for_ever() -> ! {
    loop {
        std::thread::park();
    }
}

pub(crate) fn end_by(number: i32) -> ! {
    use rustix::process::{Signal, getpid, kill_process};
    let signal = Signal::from_named_raw(number).unwrap_or(Signal::KILL);
    loop {
        // The first of some signals only takes a handler of Rust's away.
        let _ = kill_process(getpid(), signal);
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
