//! Words on the guest's console. Each line costs boot time, so only what went wrong is said; it
//! never carries the command's output.

use std::fmt::Arguments;

/// Writes `hearth-init: …` and a newline to the console, in one write. A console that is gone is
/// no reason to fail, so errors are dropped.
pub(crate) fn say(text: Arguments<'_>) {
    let line = format!("hearth-init: {text}\n");
    let _ = rustix::io::write(rustix::stdio::stderr(), line.as_bytes());
}

/// The text of an error and of all its causes, joined by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
