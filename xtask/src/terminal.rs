//! What the developer sees: lines on standard error, so that standard output stays that of the
//! command which was asked for.

use std::fmt::Display;
use std::io::{IsTerminal, Write};

/// Says one line.
pub(crate) fn say(line: impl Display) {
    // Standard error may be closed.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints one line to standard output: the answer of a command, not its progress.
pub(crate) fn answer(line: impl Display) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// Whether a person types and reads here, so that a pseudo-terminal makes sense.
pub(crate) fn is_interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}
