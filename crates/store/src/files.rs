//! The files of a database while it is open: whether they are still the ones that were opened. SQLite holds
//! them open and would continue to write to files without a name, or beside what another process has put there.
//!
//! What is removed or replaced is noticed by its device and inode; what was changed in its place by its
//! length and time, since only this connection writes. A change that is not its own is looked at more
//! closely: programs that use SQLite may write too.

use crate::error::StoreError;
use crate::loss::{Loss, Means};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Stat};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the database of a daemon that has just been killed may be locked by what it had forked.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Ends the name of the copy that is made of a database when it is lost.
const SAVED: &str = ".saved";

/// A file or directory that has to stay where it is as long as a database is used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor {
    path: PathBuf,
    identity: (u64, u64),
    means: Means,
}

/// The length of a file, and when it was last written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: i64,
    written: (i64, i64),
}

/// The files of an open database.
#[derive(Debug)]
pub(crate) struct Files {
    /// The database, its log, and the index of that; where it has one.
    own: Vec<(Anchor, Stamp)>,
    /// What else has to stay.
    around: Vec<Anchor>,
}

/// Whether the files are as this connection left them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Same,
    /// Somebody else has written to them.
    Changed,
    /// And one is shorter than it was.
    Shorter,
}

impl Anchor {
    /// What is open as `file` has to stay at `path`.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn of(path: &Path, file: impl AsFd, means: Means) -> io::Result<Anchor> {
        let found = rustix::fs::fstat(file)?;
        Ok(Anchor::at(path, &found, means))
    }

    fn at(path: &Path, found: &Stat, means: Means) -> Anchor {
        Anchor { path: path.to_owned(), identity: (found.st_dev, found.st_ino), means }
    }

    /// What is at the path, if it is still the same.
    fn check(&self) -> Result<Stat, Loss> {
        let loss = |problem| Loss { problem, means: self.means };
        let path = self.path.display();
        // The path of the directory may be a link.
        let flags = match self.means {
            Means::Directory => AtFlags::empty(),
            Means::Lock | Means::Database => AtFlags::SYMLINK_NOFOLLOW,
        };
        match rustix::fs::statat(CWD, &self.path, flags) {
            Ok(found) if (found.st_dev, found.st_ino) == self.identity => Ok(found),
            Ok(_) => Err(loss(format!("{path} was replaced"))),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => {
                Err(loss(format!("{path} was removed")))
            }
            Err(errno) => {
                Err(loss(format!("{path} can't be looked at: {}", io::Error::from(errno))))
            }
        }
    }
}

impl Stamp {
    fn of(found: &Stat) -> Stamp {
        Stamp { bytes: found.st_size, written: (found.st_mtime, found.st_mtime_nsec.cast_signed()) }
    }
}

impl Files {
    /// Those of the database at `path`, which is open.
    pub(crate) fn of(path: &Path) -> io::Result<Files> {
        let mut own = Vec::new();
        for part in ["", "-wal", "-shm"] {
            let path = beside(path, part);
            match rustix::fs::lstat(&path) {
                Ok(found) => {
                    own.push((Anchor::at(&path, &found, Means::Database), Stamp::of(&found)));
                }
                // A database in exclusive mode has no index in a file.
                Err(rustix::io::Errno::NOENT) if !part.is_empty() => {}
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(Files { own, around: Vec::new() })
    }

    pub(crate) fn hold(&mut self, around: Vec<Anchor>) {
        self.around = around;
    }

    /// Whether all is where it was, and as it was. Costs a call of stat(2) for each.
    pub(crate) fn check(&self) -> Result<Seen, Loss> {
        self.around.iter().try_for_each(|anchor| anchor.check().map(drop))?;
        let mut seen = Seen::Same;
        for (anchor, stamp) in &self.own {
            let now = Stamp::of(&anchor.check()?);
            if now.bytes < stamp.bytes {
                seen = Seen::Shorter;
            // The time of the index says nothing: it is mapped into memory.
            } else if now != *stamp && !has_suffix(&anchor.path, b"-shm") && seen == Seen::Same {
                seen = Seen::Changed;
            }
        }
        Ok(seen)
    }

    /// As the files are now they are this connection's own, after a commit. What happened to them during
    /// the commit is noticed too: it makes none shorter and leaves no hole in the log. It writes to the
    /// database itself only with a checkpoint.
    pub(crate) fn stamp(&mut self) -> Result<Seen, Loss> {
        self.around.iter().try_for_each(|anchor| anchor.check().map(drop))?;
        let mut seen = Seen::Same;
        for (anchor, stamp) in &mut self.own {
            let now = Stamp::of(&anchor.check()?);
            let before = std::mem::replace(stamp, now);
            if now.bytes < before.bytes {
                seen = Seen::Shorter;
            } else if has_suffix(&anchor.path, b"-wal") {
                if now.bytes > before.bytes && !ends_with_a_frame(&anchor.path, before.bytes) {
                    seen = Seen::Shorter;
                }
            } else if now != before && !has_suffix(&anchor.path, b"-shm") && seen == Seen::Same {
                seen = Seen::Changed;
            }
        }
        Ok(seen)
    }
}

/// Whether the last frame of a log that was so long is still in it. A log that is cut off while it is
/// written to grows again behind a hole, and no page has the number 0 (<https://sqlite.org/walformat.html>).
/// A log that can't be read is no shorter than it was.
fn ends_with_a_frame(log: &Path, bytes: i64) -> bool {
    const HEADER: u64 = 32;
    const FRAME_HEADER: u64 = 24;
    let number_at = |file: &File, at| -> io::Result<u32> {
        let mut number = [0; 4];
        file.read_exact_at(&mut number, at)?;
        Ok(u32::from_be_bytes(number))
    };
    let read = || -> io::Result<bool> {
        let file = File::open(log)?;
        let page_bytes = number_at(&file, 8)?;
        let bytes = bytes.cast_unsigned();
        let Some(frame) = bytes.checked_sub(u64::from(page_bytes) + FRAME_HEADER) else {
            return Ok(page_bytes != 0 || bytes == 0);
        };
        Ok(page_bytes != 0 && (frame < HEADER || number_at(&file, frame)? != 0))
    };
    read().unwrap_or(true)
}

fn has_suffix(path: &Path, suffix: &[u8]) -> bool {
    path.as_os_str().as_encoded_bytes().ends_with(suffix)
}

/// Opens a database file, making it (with mode 0600) where there is none.
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?))
}

/// Takes a database for this process alone: a second daemon is refused even where the lock of the state
/// directory was removed.
pub(crate) fn take(file: &File, path: &Path) -> Result<(), StoreError> {
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(std::fs::TryLockError::WouldBlock) if begin.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(StoreError::InUse { path: path.to_owned() });
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(StoreError::File { operation: "lock", path: path.to_owned(), source });
            }
        }
    }
}

/// The path of a database without links, since SQLite can be told to follow none.
pub(crate) fn without_links(path: &Path) -> io::Result<PathBuf> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(dir.canonicalize()?.join(path.file_name().unwrap_or_default()))
}

/// Where the copy of a lost database lies.
#[must_use]
pub fn saved(database: &Path) -> PathBuf {
    beside(database, SAVED)
}

/// Puts a copy, which `make` makes of nothing and checks, at the place where the next daemon looks for it.
pub(crate) fn save(
    database: &Path,
    make: impl FnOnce(&Path) -> Result<(), StoreError>,
) -> Result<PathBuf, StoreError> {
    let (saved, new) = (saved(database), beside(database, ".saved.new"));
    let failed = |operation, path: &Path| {
        let path = path.to_owned();
        move |source| StoreError::File { operation, path, source }
    };
    for part in ["", "-wal", "-shm"] {
        let left = beside(&new, part);
        remove(&left).map_err(failed("remove", &left))?;
    }
    make(&new)?;
    std::fs::rename(&new, &saved).map_err(failed("replace", &saved))?;
    sync(&saved)?;
    Ok(saved)
}

/// Removes the copy: the database is where it was.
pub(crate) fn forget_saved(database: &Path) -> Result<(), StoreError> {
    let path = saved(database);
    remove(&path).map_err(|source| StoreError::File { operation: "remove", path, source })
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

pub(crate) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// The file and its name are on disk.
pub(crate) fn sync(path: &Path) -> Result<(), StoreError> {
    let failed = |source| StoreError::File { operation: "sync", path: path.to_owned(), source };
    File::open(path).and_then(|file| file.sync_all()).map_err(failed)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)
}
