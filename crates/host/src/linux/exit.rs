//! How an instance ended: from its status drive first, then its cgroup, its console, its process.
//! What can't be learned is said to be unknown, never success.

use super::instance::Instance;
use super::layout::{names, open_file};
use hearth_firecracker::{Console, ProcessExit, escaped};
use hearth_guest::{DriveError, Ending, STATUS_DRIVE_BYTES, Status, decode_status};
use hearth_model::{Boot, End, Exit};
use std::io::{self, Read};
use std::path::Path;

const SIGKILL: u8 = 9;
/// Lines of the console that a panic is shown with.
const PANIC_LINES: usize = 8;

/// What the guest wrote before its end, where it did.
pub(super) fn status(directory: &Path) -> io::Result<Option<Status>> {
    let mut bytes = Vec::new();
    let drive = open_file(&directory.join(names::STATUS))?;
    drive.take(STATUS_DRIVE_BYTES as u64).read_to_end(&mut bytes)?;
    match decode_status(&bytes) {
        Ok(status) => Ok(Some(status)),
        Err(DriveError::Blank) => Ok(None),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
    }
}

/// How it ended. `over_limit` says that its cgroup had it killed, and why; `console` is what is left of it, for
/// instances that were seen to end.
pub(super) fn classify(
    instance: &Instance,
    status: Option<&Status>,
    over_limit: Option<String>,
    console: Option<&Console>,
    process: ProcessExit,
) -> Exit {
    let asked = instance.is_stop_requested();
    // Before it has read its config a guest doesn't know its name; the drive is its own anyway.
    let own =
        |status: &&Status| status.instance.is_empty() || status.instance == instance.id.as_str();
    if let Some(status) = status.filter(own) {
        let stop_requested = asked || status.exit.stop_requested;
        return Exit { end: guest_end(&status.exit), stop_requested };
    }
    if let Some(why) = over_limit {
        return Exit { end: End::OverLimit(why), stop_requested: asked };
    }
    let panic = console.and_then(Console::panic).zip(console);
    let end = match (panic, process) {
        (Some((reason, console)), _) => {
            End::Panic(format!("{reason}\n{}", console.tail(PANIC_LINES).join("\n")))
        }
        (None, ProcessExit::Unknown) => End::Unknown,
        (None, ProcessExit::Code(0)) => End::Vmm(match instance.boot {
            Boot::Raw => "the guest shut down or restarted".to_owned(),
            Boot::Init => "the guest restarted without a word of how its command ended".to_owned(),
        }),
        (None, process) => End::Vmm(process.to_string()),
    };
    Exit { end, stop_requested: asked }
}

fn guest_end(exit: &hearth_guest::Exit) -> End {
    // An older init, which says nothing of kills, means any process of the guest.
    let killed_for_memory = exit.out_of_memory && exit.oom_kills.is_some();
    match &exit.ending {
        Ending::Signal(SIGKILL) if killed_for_memory => End::OutOfMemory,
        Ending::Code(code) => End::Code(*code),
        Ending::Signal(signal) => End::Signal(*signal),
        Ending::NotStarted(detail) => End::NotStarted(escaped(detail)),
        Ending::SetUp(detail) => End::SetUp(escaped(detail)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_is_the_commands_own_whatever_else_was_killed() {
        let exit = |ending: Ending| hearth_guest::Exit {
            out_of_memory: true,
            ..hearth_guest::Exit::of(ending)
        };
        assert_eq!(guest_end(&exit(Ending::Signal(9))), End::OutOfMemory);
        assert_eq!(guest_end(&exit(Ending::Signal(15))), End::Signal(15));
        assert_eq!(guest_end(&exit(Ending::Code(3))), End::Code(3));
        let plain = hearth_guest::Exit::of(Ending::Signal(9));
        assert_eq!(guest_end(&plain), End::Signal(9));
        let older = hearth_guest::Exit { oom_kills: None, ..exit(Ending::Signal(9)) };
        assert_eq!(guest_end(&older), End::Signal(9), "it says nothing of the command");
    }
}
