//! What all threads of a process share, and what a script has happen to any of them.

use crate::output::{Log, print};
use crate::script::{Does, Script};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// What all threads of a process share, but for the microVM.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) script: Mutex<Script>,
    pub(crate) log: Log,
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
