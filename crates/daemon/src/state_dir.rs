//! The state directory, and the lock that makes its daemon the only one.

use crate::ownership::{self, Flaw, open_beneath, open_directory};
use hearth_store::{Anchor, Means};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the lock of a daemon that has just been killed may be held by what it had forked.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// As many digits as a process id of 32 bits has.
const PID_BYTES: usize = 10;
const LOCK: &str = "hearth.lock";
/// Where clients find the address.
const LISTEN: &str = "listen";
const LISTEN_NEW: &str = "listen.new";

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// It cannot be made or opened.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another daemon has it.
    #[error(
        "cannot use {path}: another hearth daemon{holder} uses it; end that one, or give this one \
         its own --state-dir"
    )]
    Taken {
        /// Which directory.
        path: PathBuf,
        /// Its process, as a part of the sentence.
        holder: String,
    },
    /// Others can write in it, or names in it lead elsewhere.
    #[error("cannot use the state directory {path}: {problem}. Nothing was changed: {remedy}")]
    Unsafe {
        /// Which directory.
        path: PathBuf,
        /// What is wrong, as a sentence.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
}

/// A state directory that is this daemon's for as long as the value lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// The directory itself, whatever becomes of its path.
    dir: OwnedFd,
    /// Held by flock, which ends with the process however it ends, and with what it has forked and
    /// was not yet another program: a Firecracker that a killed daemon was about to become is past its
    /// pid file when the next daemon has the lock.
    lock: File,
}

/// The process id of the daemon that uses a state directory, if one does; 0 where it can't be told
/// which process that is.
///
/// # Errors
/// [`StateDirError::Io`] where that can't be found out.
pub fn in_use(path: &Path) -> Result<Option<u32>, StateDirError> {
    let lock_path = path.join(LOCK);
    let opened = open_directory(path).and_then(|dir| open_beneath(dir, LOCK, OFlags::RDONLY));
    let lock = match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(failed("open the lock", &lock_path))?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => Ok(Some(holder(&lock).unwrap_or(0))),
        Err(errno) => Err(failed("lock", &lock_path)(errno.into())),
    }
}

/// Refuses a state directory in which others can write, or of which a name leads elsewhere. One that is
/// absent is fine. For commands that use it without its lock.
pub(crate) fn check(path: &Path) -> Result<(), StateDirError> {
    let dir = match open_directory(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened.map_err(failed("open the directory", path))?,
    };
    let flaws = ownership::survey(&dir, path).map_err(failed("look at the directory", path))?;
    refuse(path, &flaws)
}

fn refuse(path: &Path, flaws: &[Flaw]) -> Result<(), StateDirError> {
    let Some(flaw) = flaws.iter().find(|flaw| flaw.refuses()) else { return Ok(()) };
    let (problem, remedy) = (flaw.problem(), flaw.remedy());
    Err(StateDirError::Unsafe { path: path.to_owned(), problem, remedy })
}

/// `/var/lib/hearth` as root, else `hearth` in `$XDG_STATE_HOME` or in `~/.local/state`.
#[must_use]
pub fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/hearth");
    }
    let from = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    from("XDG_STATE_HOME")
        .or_else(|| from("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("."))
        .join("hearth")
}

impl StateDir {
    /// Makes the directory if it is absent, closes it to others, and takes its lock.
    ///
    /// # Errors
    /// [`StateDirError::Unsafe`] where others could have planted something in it; nothing was opened then.
    pub(crate) fn open(path: &Path) -> Result<StateDir, StateDirError> {
        let path = std::path::absolute(path).map_err(failed("find the directory", path))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed("make the directory", &path))?;
        let dir = open_directory(&path).map_err(failed("open the directory", &path))?;
        let flaws =
            ownership::survey(&dir, &path).map_err(failed("look at the directory", &path))?;
        refuse(&path, &flaws)?;
        for flaw in &flaws {
            close(flaw).map_err(failed("close to others", &flaw.path))?;
            tracing::warn!(path = %flaw.path.display(), "{}; closed to others", flaw.problem());
        }
        for sentence in ownership::replaceable(&path) {
            tracing::warn!(
                "{sentence}: keep the state directory where only you and root can write"
            );
        }
        sync_names(&path)?;
        let lock = lock(&dir, &path)?;
        // Over what is there, and as long as that: on a full disk there is room for no other block.
        lock.write_all_at(format!("{:<PID_BYTES$}\n", std::process::id()).as_bytes(), 0)
            .map_err(failed("write the lock", &path.join(LOCK)))?;
        Ok(StateDir { path, dir, lock })
    }

    /// Where it is; absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What has to stay where it is while a daemon uses it.
    pub(crate) fn anchors(&self) -> Result<Vec<Anchor>, StateDirError> {
        let lock = self.path.join(LOCK);
        Ok(vec![
            Anchor::of(&self.path, &self.dir, Means::Directory)
                .map_err(failed("look at the directory", &self.path))?,
            Anchor::of(&lock, &self.lock, Means::Lock).map_err(failed("look at", &lock))?,
        ])
    }

    /// Leaves the address where clients find it: all of it, whenever they look. On a full disk it is left
    /// nowhere unless it was there before.
    pub(crate) fn publish(&self, address: &str) -> Result<(), StateDirError> {
        let (path, new) = (self.path.join(LISTEN), self.path.join(LISTEN_NEW));
        let text = format!("{address}\n");
        let before = open_beneath(&self.dir, LISTEN, OFlags::RDONLY).and_then(read);
        if before.is_ok_and(|before| before == text) {
            return Ok(());
        }
        self.remove(LISTEN_NEW)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let written = open_beneath(&self.dir, LISTEN_NEW, flags)
            .and_then(|mut file| file.write_all(text.as_bytes()));
        match written {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "cannot write {}; clients need HEARTH_URL", path.display());
                self.remove(LISTEN_NEW)?;
                // No process listens there any more.
                self.remove(LISTEN)
            }
            written => {
                written.map_err(failed("write", &new))?;
                rustix::fs::renameat(&self.dir, LISTEN_NEW, &self.dir, LISTEN)
                    .map_err(|errno| failed("replace", &path)(errno.into()))
            }
        }
    }

    /// Removes a file of it that may be there.
    fn remove(&self, name: &str) -> Result<(), StateDirError> {
        match rustix::fs::unlinkat(&self.dir, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(failed("remove", &self.path.join(name))(errno.into())),
        }
    }
}

/// Takes the lock. What is locked is what its name leads to, and no other file.
fn lock(dir: &OwnedFd, path: &Path) -> Result<File, StateDirError> {
    let lock_path = path.join(LOCK);
    let lock = open_beneath(dir, LOCK, OFlags::RDWR | OFlags::CREATE)
        .map_err(failed("open the lock", &lock_path))?;
    let begin = Instant::now();
    loop {
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(lock),
            Err(Errno::WOULDBLOCK) if begin.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(LOCK_POLL);
            }
            Err(Errno::WOULDBLOCK) => {
                let holder = holder(&lock).map(|pid| format!(" (process {pid})"));
                let (holder, path) = (holder.unwrap_or_default(), path.to_owned());
                return Err(StateDirError::Taken { holder, path });
            }
            Err(errno) => return Err(failed("lock", &lock_path)(errno.into())),
        }
    }
}

/// Takes away what others may do with something of Hearth's own. Links are not followed.
pub(crate) fn close(flaw: &Flaw) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let path = flaw.path.canonicalize()?;
    let file = rustix::fs::open(&path, flags, Mode::empty())?;
    let mode = rustix::fs::fstat(&file)?.st_mode & 0o700;
    Ok(rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))?)
}

fn read(mut file: File) -> io::Result<String> {
    let mut text = String::new();
    file.read_to_string(&mut text)?;
    Ok(text)
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Removes a file that may be there.
pub(crate) fn remove(path: &Path) -> Result<(), StateDirError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

/// Puts the names of the directory and of those above it on disk: what is synced within a directory is
/// lost all the same where a loss of power takes the directory. Each time, since the daemon that made
/// them may not have come so far.
fn sync_names(path: &Path) -> Result<(), StateDirError> {
    for parent in path.ancestors().skip(1) {
        match File::open(parent).and_then(|directory| directory.sync_all()) {
            // What was not written once may be lost, whatever a second try says.
            Err(error) if error.raw_os_error() == Some(Errno::IO.raw_os_error()) => {
                return Err(failed("sync the directory", parent)(error));
            }
            // Some directories are closed to readers, and some file systems can't sync any.
            Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                tracing::warn!(%error, directory = %parent.display(), "cannot sync a directory");
            }
            _ => {}
        }
    }
    Ok(())
}

/// The process whose number is in the lock.
fn holder(lock: &File) -> Option<u32> {
    let mut text = [0; PID_BYTES + 1];
    let count = lock.read_at(&mut text, 0).ok()?;
    str::from_utf8(&text[..count]).ok()?.trim().parse().ok()
}

pub(crate) fn failed(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::Io { operation, path, source }
}
