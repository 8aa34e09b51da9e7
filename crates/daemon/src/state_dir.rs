//! The state directory, and the lock that makes its daemon the only one.

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the lock of a daemon that has just been killed may be held by what it had forked.
const LOCK_PATIENCE: Duration = Duration::from_millis(500);
const LOCK_POLL: Duration = Duration::from_millis(10);
/// As many digits as a process id of 32 bits has.
const PID_BYTES: usize = 10;

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
}

/// A state directory that is this daemon's for as long as the value lives.
#[derive(Debug)]
pub(crate) struct StateDir {
    path: PathBuf,
    /// Held by flock, which ends with the process however it ends, and with what it has forked and
    /// was not yet another program: a Firecracker that a killed daemon was about to become is past its
    /// pid file when the next daemon has the lock.
    _lock: File,
}

/// The process id of the daemon that uses a state directory, if one does; 0 where it can't be told
/// which process that is.
///
/// # Errors
/// [`StateDirError::Io`] where that can't be found out.
pub fn in_use(path: &Path) -> Result<Option<u32>, StateDirError> {
    let lock_path = path.join("hearth.lock");
    let lock = match File::open(&lock_path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        lock => lock.map_err(failed("open the lock", &lock_path))?,
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(None),
        Err(Errno::WOULDBLOCK) => {
            let text = fs::read_to_string(&lock_path).unwrap_or_default();
            Ok(Some(text.trim().parse().unwrap_or(0)))
        }
        Err(errno) => Err(failed("lock", &lock_path)(errno.into())),
    }
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
    /// Makes the directory where it is absent, closes it to others, and takes its lock.
    pub(crate) fn open(path: &Path) -> Result<StateDir, StateDirError> {
        let path = std::path::absolute(path).map_err(failed("find the directory", path))?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)
            .map_err(failed("make the directory", &path))?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o700))
            .map_err(failed("close to others the directory", &path))?;
        sync_names(&path)?;
        let lock_path = path.join("hearth.lock");
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(failed("open the lock", &lock_path))?;
        let begin = Instant::now();
        loop {
            match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if begin.elapsed() < LOCK_PATIENCE => {
                    std::thread::sleep(LOCK_POLL);
                }
                Err(Errno::WOULDBLOCK) => {
                    return Err(StateDirError::Taken { holder: holder(&lock_path), path });
                }
                Err(errno) => return Err(failed("lock", &lock_path)(errno.into())),
            }
        }
        // Over what is there, and as long as that: on a full disk there is room for no other block.
        lock.write_all_at(format!("{:<PID_BYTES$}\n", std::process::id()).as_bytes(), 0)
            .map_err(failed("write the lock", &lock_path))?;
        Ok(StateDir { path, _lock: lock })
    }

    /// Where it is; absolute.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the address where clients find it: all of it, whenever they look. On a full disk it is left
    /// nowhere unless it was there before.
    pub(crate) fn publish(&self, address: &str) -> Result<(), StateDirError> {
        let (path, new) = (self.path.join("listen"), self.path.join("listen.new"));
        let text = format!("{address}\n");
        if fs::read_to_string(&path).is_ok_and(|before| before == text) {
            return Ok(());
        }
        match fs::write(&new, text) {
            Err(error) if is_full(&error) => {
                tracing::warn!(%error, "cannot write {}; clients need HEARTH_URL", path.display());
                remove(&new)?;
                // Nobody listens there any more.
                remove(&path)
            }
            written => {
                written.map_err(failed("write", &new))?;
                fs::rename(&new, &path).map_err(failed("replace", &path))
            }
        }
    }
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

fn holder(lock: &Path) -> String {
    let text = fs::read_to_string(lock).unwrap_or_default();
    match text.trim().parse::<u32>() {
        Ok(pid) => format!(" (process {pid})"),
        Err(_) => String::new(),
    }
}

pub(crate) fn failed(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(io::Error) -> StateDirError {
    let path = path.to_owned();
    move |source| StateDirError::Io { operation, path, source }
}
