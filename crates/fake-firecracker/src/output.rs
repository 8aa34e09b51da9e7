//! Where a process writes: stdout is the guest's serial port, and the log is the file that `--log-path`
//! names, else stdout too. What can't be written at once is dropped, as Firecracker does.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// The log.
#[derive(Debug)]
pub(crate) struct Log {
    file: Mutex<Option<File>>,
}

/// The guest's serial port.
#[derive(Debug, Default)]
pub(crate) struct Console {
    begun: Vec<u8>,
}

/// What a console holds back until a line ends.
const BEGUN_BYTES_MAX: usize = 512;

impl Log {
    pub(crate) fn open(path: Option<&Path>) -> io::Result<Log> {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
        let open = |path| {
            let mut options = OpenOptions::new();
            options.read(true).append(true).custom_flags(nonblocking).open(path)
        };
        Ok(Log { file: Mutex::new(path.map(open).transpose()?) })
    }

    pub(crate) fn line(&self, text: &str) {
        let line = format!("{text}\n");
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *file {
            Some(file) => drop(file.write_all(line.as_bytes())),
            None => print(line.as_bytes()),
        }
    }
}

impl Console {
    /// One byte out.
    pub(crate) fn put(&mut self, byte: u8) {
        self.begun.push(byte);
        if byte == b'\n' || self.begun.len() >= BEGUN_BYTES_MAX {
            self.flush();
        }
    }

    /// Writes what is held back.
    pub(crate) fn flush(&mut self) {
        print(&self.begun);
        self.begun.clear();
    }
}

/// Writes to stdout what it takes at once.
pub(crate) fn print(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(bytes);
    let _ = stdout.flush();
}
