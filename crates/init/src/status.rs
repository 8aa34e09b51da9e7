//! The status drive: how the command ended, for a host that may be away. It is written once, by
//! the init, and its digest distinguishes a whole page from a torn one.

use hearth_guest::{Ending, Exit, Status, encode_status};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

/// Longest text of an ending, in bytes: escaped in JSON it still fits on the drive.
const TEXT_BYTES_MAX: usize = 512;

/// Writes the status and waits for it to be on the drive.
///
/// # Errors
/// That of writing.
pub(crate) fn write(drive: &File, status: &Status) -> std::io::Result<()> {
    let page = encode_status(status).map_err(std::io::Error::other)?;
    drive.write_all_at(&page, 0)?;
    drive.sync_data()
}

/// A status with texts that fit. `tail` is the command's last output.
pub(crate) fn of(instance: &str, exit: Exit, uptime: Duration, tail: &[u8]) -> Status {
    let ending = match exit.ending {
        Ending::NotStarted(text) => Ending::NotStarted(cut(text)),
        Ending::SetUp(text) => Ending::SetUp(cut(text)),
        other => other,
    };
    Status {
        instance: instance.to_owned(),
        exit: Exit { ending, ..exit },
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        tail: String::from_utf8_lossy(tail).into_owned(),
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let at = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(at);
        text.push('…');
    }
    text
}

/// Time since the guest's boot.
pub(crate) fn uptime() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_guest::{OomKill, STATUS_DRIVE_BYTES, decode_status};

    #[test]
    fn status_with_long_texts_is_read_back_from_the_drive() {
        for text in ["short", &"é".repeat(5000), &"\u{1}".repeat(5000)] {
            let drive = tempfile::tempfile().expect("tempfile");
            drive.set_len(STATUS_DRIVE_BYTES as u64).expect("size");
            let ending = Ending::NotStarted(text.to_owned());
            let mut exit = Exit { out_of_memory: true, ..Exit::of(ending) };
            let kill = OomKill { pid: u32::MAX, name: r"\x01".repeat(15) };
            let oom_kills = exit.oom_kills.get_or_insert_default();
            (0..9).for_each(|_| oom_kills.add(kill.clone()));
            let tail = vec![0xff; 4000];
            write(&drive, &of("abc", exit, Duration::from_millis(1500), &tail)).expect("write");
            let mut page = vec![0; STATUS_DRIVE_BYTES];
            drive.read_exact_at(&mut page, 0).expect("read");
            let status = decode_status(&page).expect("decode");
            assert_eq!((status.instance.as_str(), status.uptime_ms), ("abc", 1500));
            let Ending::NotStarted(found) = status.exit.ending else { panic!("another ending") };
            assert!(text.starts_with(found.trim_end_matches('…')) && !found.is_empty());
            assert!(status.exit.out_of_memory);
            assert_eq!(status.exit.oom_kills.map(|kills| kills.count), Some(9));
        }
    }
}
