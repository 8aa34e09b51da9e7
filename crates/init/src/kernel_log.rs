//! The kernel's log, searched for the processes that the kernel killed for lack of memory.
//!
//! A victim can be waited for only after its kill was logged: in `__oom_kill_process` (Linux 6.1,
//! `mm/oom_kill.c`) the kernel holds the lock of the victim's memory while it logs, and the victim
//! takes that lock on its way out. So a reader of the log after a process was reaped finds the
//! record of its kill, unless later records have pushed it out of the kernel's buffer.

use hearth_guest::OomKill;
use rustix::event::{PollFd, PollFlags, poll};
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::{Mutex, PoisonError};

/// The device of the kernel's log: one record a read.
const DEVICE: &str = "/dev/kmsg";
/// Longest record of the device, in bytes (`PRINTK_MESSAGE_MAX` is less in every kernel).
const RECORD_BYTES_MAX: usize = 8192;
/// What begins the record of a kill: memory of the machine, or of a cgroup.
const KILLS: [&str; 2] = ["Out of memory", "Memory cgroup out of memory"];

/// Where the kernel's log was read to.
pub(crate) struct KernelLog {
    file: Mutex<File>,
    /// The same open file, to wait for it without the lock.
    waits: File,
}

/// Whether more can be read from a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum More {
    Later,
    Never,
}

/// Opens the log of this machine behind its last record.
///
/// # Errors
/// That of opening the device: a kernel may be built without it.
pub(crate) fn open_device() -> std::io::Result<File> {
    let mut file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(DEVICE)?;
    file.seek(SeekFrom::End(0))?;
    Ok(file)
}

impl KernelLog {
    /// Reads records from `file`, which must not block.
    ///
    /// # Errors
    /// If there is no descriptor left.
    pub(crate) fn new(file: File) -> std::io::Result<KernelLog> {
        Ok(KernelLog { waits: file.try_clone()?, file: Mutex::new(file) })
    }

    /// Waits for records.
    pub(crate) fn wait(&self) {
        let _ = poll(&mut [PollFd::new(&self.waits, PollFlags::IN)], None);
    }

    /// Calls `report` for each kill that has been logged since the last call. Calls come one after
    /// the other, so every kill that was logged before this one has been reported at its end.
    pub(crate) fn read(&self, mut report: impl FnMut(OomKill)) -> More {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = vec![0; RECORD_BYTES_MAX];
        loop {
            match file.read(&mut record) {
                Ok(0) => return More::Never,
                Ok(read) => oom_kill(&record[..read]).into_iter().for_each(&mut report),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return More::Later,
                // Records were overwritten before they were read; those that are left follow.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return More::Never,
            }
        }
    }
}

/// The kill that a record tells of: `3,425,3046865681,-;Out of memory: Killed process 42 (tail)
/// total-vm:…`. Before the semicolon stand level and facility; the kernel's own facility is 0, and
/// no process can write records of that one.
fn oom_kill(record: &[u8]) -> Option<OomKill> {
    let (prefix, text) = std::str::from_utf8(record).ok()?.split_once(';')?;
    let priority: u32 = prefix.split(',').next()?.parse().ok()?;
    let of_kernel = priority >> 3 == 0;
    let (cause, victim) = text.split_once(": Killed process ")?;
    let (pid, rest) = victim.split_once(" (")?;
    let (name, _) = rest.rsplit_once(") total-vm:")?;
    let is_kill = KILLS.iter().any(|known| cause.starts_with(known));
    let kill = OomKill { pid: pid.parse().ok()?, name: name.to_owned() };
    (of_kernel && is_kill).then_some(kill)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(record: &str, expected: Option<(u32, &str)>) {
        let expected = expected.map(|(pid, name)| OomKill { pid, name: name.to_owned() });
        assert_eq!(oom_kill(record.as_bytes()), expected, "{record}");
    }

    #[test]
    fn kill_for_lack_of_memory_is_read_from_its_record() {
        let end = "total-vm:22408kB, anon-rss:20224kB, file-rss:532kB, shmem-rss:0kB, UID:0 \
                   pgtables:80kB oom_score_adj:0\n";
        let tail = Some((42, "tail"));
        check(&format!("3,9,1,-;Out of memory: Killed process 42 (tail) {end}"), tail);
        check(&format!("3,9,1,-,caller=T1;Out of memory: Killed process 42 (tail) {end}"), tail);
        let cgroup = "Memory cgroup out of memory";
        check(&format!("3,9,1,-;{cgroup}: Killed process 42 (tail) {end} SUBSYSTEM=x\n"), tail);
        let own = "Out of memory (oom_kill_allocating_task)";
        check(&format!("3,9,1,-;{own}: Killed process 42 (tail) {end}"), tail);
        let odd = Some((7, r"a) (b\x0a"));
        check(&format!(r"3,9,1,-;Out of memory: Killed process 7 (a) (b\x0a) {end}"), odd);
    }

    #[test]
    fn other_records_tell_of_no_kill() {
        let kill = "Out of memory: Killed process 42 (tail) total-vm:1kB";
        // Facility 1 is that of processes, which may write what they like.
        check(&format!("11,9,1,-;{kill}"), None);
        check(&format!("3,9,1,-;tail: {kill}"), None);
        check("3,9,1,-;Out of memory: Killed process x (tail) total-vm:1kB", None);
        check("3,9,1,-;Out of memory and no killable processes...", None);
        check("6,9,1,-;tail invoked oom-killer: gfp_mask=0x140dca, order=0", None);
        check(kill, None);
        check("", None);
    }

    #[test]
    fn log_of_this_machine_is_read_to_its_end() {
        // Who may read it is the machine's choice.
        let Ok(mut file) = open_device() else { return };
        file.seek(SeekFrom::Start(0)).expect("the first record");
        let log = KernelLog::new(file).expect("a descriptor");
        assert_eq!(log.read(drop), More::Later);
        assert_eq!(log.read(drop), More::Later);
    }

    proptest::proptest! {
        #[test]
        fn any_record_is_read_without_a_panic(record in "\\PC{0,60}") {
            let _ = oom_kill(record.as_bytes());
            let _ = oom_kill(format!("3,1,1,-;Out of memory: Killed process {record}").as_bytes());
        }
    }
}
