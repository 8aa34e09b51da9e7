//! `hearth serve`.

use crate::output::Output;
use crate::settings::ServeArgs;
use crate::{config, logging};
use anyhow::Context;
use hearth_daemon::{Exit, Listen};
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Threads for files: twice as many as microVMs that boot at once, each of which waits in one for its
/// Firecracker. The runtime's own bound is 512, and each thread that ever was takes about a megabyte
/// of memory.
const FILE_THREADS_MAX: usize = 16;

/// What runs, whatever has become of its file.
const RUNNING: &str = "/proc/self/exe";

/// Runs the daemon until a signal ends it; if it is to restart in place, this does not return.
///
/// # Errors
/// Where it cannot start.
pub(crate) fn serve(args: ServeArgs, output: &Output) -> anyhow::Result<u8> {
    let installed = installed();
    match run(args, output)? {
        Exit::Stopped => {
            print_ended(output);
            Ok(0)
        }
        Exit::Reexec => Err(reexec(&installed, output)),
    }
}

/// When this returns everything is written, and everything that was open is closed.
fn run(args: ServeArgs, output: &Output) -> anyhow::Result<Exit> {
    let config::Resolved { settings, .. } = config::resolve(&args)?;
    let _written_at_the_end =
        logging::start(settings.log_format, &settings.log, output.colours_errors())?;
    let config = settings.into_config();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(FILE_THREADS_MAX)
        .build()
        .context("cannot start the runtime")?;
    let ended = runtime.block_on(async {
        let daemon = hearth_daemon::start(config).await?;
        for warning in &daemon.host_facts().warnings {
            tracing::warn!("{warning}");
        }
        print_serving(daemon.address(), &daemon.host_facts().description, output);
        anyhow::Ok(daemon.run().await)
    })?;
    // What still runs is told to go; nothing waits for it.
    runtime.shutdown_timeout(Duration::from_millis(500));
    Ok(ended)
}

/// Where this program is installed: the path by which it was called, links and all, so that whatever lies
/// there later is its next version. Once it has been replaced the kernel would not tell any more.
fn installed() -> PathBuf {
    let called = PathBuf::from(std::env::args_os().next().unwrap_or_default());
    let places = match called.components().count() {
        1 if called.is_relative() => std::env::var_os("PATH").unwrap_or_default(),
        _ => OsString::from("."),
    };
    let identity = |path: &Path| path.metadata().map(|file| (file.dev(), file.ino())).ok();
    let running = identity(Path::new(RUNNING));
    let path = std::env::split_paths(&places)
        .map(|place| place.join(&called))
        .find(|path| running.is_some() && identity(path) == running)
        .or_else(|| std::env::current_exe().ok().map(without_deleted));
    path.and_then(|path| std::path::absolute(path).ok()).unwrap_or_else(|| RUNNING.into())
}

/// The kernel says so behind the path of a program that is gone; the next may come to the same place.
fn without_deleted(path: PathBuf) -> PathBuf {
    let bytes = path.as_os_str().as_bytes();
    match bytes.strip_suffix(b" (deleted)") {
        Some(place) if !path.exists() => PathBuf::from(OsStr::from_bytes(place)),
        _ => path,
    }
}

/// Executes the program that is `installed` now, with the same arguments and environment, as the same
/// process: a supervisor notices nothing, and its children stay its children. If that program can't be
/// executed, the previous one continues.
fn reexec(installed: &Path, output: &Output) -> anyhow::Error {
    let error = become_program(installed);
    output.note(&format!(
        "cannot start {}: {error}; the previous program continues",
        installed.display()
    ));
    let error = become_program(Path::new(RUNNING));
    anyhow::Error::new(error).context("cannot restart in place")
}

/// Returns only where it can't.
fn become_program(program: &Path) -> io::Error {
    let mut args = std::env::args_os();
    let mut command = Command::new(program);
    if let Some(name) = args.next() {
        command.arg0(name);
    }
    command.args(args).exec()
}

fn print_serving(address: &Listen, host: &str, output: &Output) {
    output.line(format_args!("hearth: listening on {address} ({host})"));
}

fn print_ended(output: &Output) {
    output.line("hearth: ended; microVMs keep running, the next `hearth serve` takes them over");
}
