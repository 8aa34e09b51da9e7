//! SIGINT and SIGTERM to a command that waits. A thread of its own hears them, since a command may be
//! held up by a reader that takes nothing of its output.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::io;

/// A signal that asks the command to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interrupt(i32);

impl Interrupt {
    /// The exit code of a command that ends for it: what a shell shows of one that dies of it.
    pub(crate) fn exit_code(self) -> u8 {
        128 + u8::try_from(self.0).unwrap_or_default()
    }

    /// Ends this process as if there were no handler.
    pub(crate) fn die(self) {
        // It fails for signals that can't be handled alone.
        let _ = emulate_default_handler(self.0);
    }
}

/// From now on calls `hear` for each such signal, instead of ending the process.
///
/// # Errors
/// Where the system refuses a handler or a thread.
pub(crate) fn listen(mut hear: impl FnMut(Interrupt) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    let listening = move || signals.forever().for_each(|signal| hear(Interrupt(signal)));
    std::thread::Builder::new().name("hearth-signals".to_owned()).spawn(listening).map(drop)
}
