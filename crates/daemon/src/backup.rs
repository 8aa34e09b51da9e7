//! Backups of a state directory's database, and putting one back: at once where no daemon runs, else by
//! the daemon, which restarts in place for it.
//!
//! ```text
//!   restore: backup ── checked ──> hearth.db.restore ── by the holder of the lock ──> hearth.db
//! ```

use crate::state_dir::{StateDir, StateDirError, check, failed, in_use, remove};
use hearth_store::{Contents, StoreError};
use rustix::fs::{FlockOperation, flock};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The database in a state directory.
pub(crate) const DATABASE: &str = "hearth.db";
/// What SQLite keeps beside a database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];
/// A backup that was checked and is to take the database's place.
const WAITING: &str = "hearth.db.restore";
/// How the name of a database that was replaced continues.
const REPLACED: &str = ".replaced-";

/// How long a daemon may take to end and to restart: it has 10 s for the first.
const RESTART_TIMEOUT: Duration = Duration::from_secs(30);
const RESTART_POLL: Duration = Duration::from_millis(10);

/// Why a backup could not be taken or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A database can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory can't be used, or a file of it not be moved.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// Another restore is under way.
    #[error("cannot restore: another restore of {path} is under way")]
    Busy {
        /// Which state directory.
        path: PathBuf,
    },
    /// The daemon that runs did not put the backup in its place; the database is as it was.
    #[error(
        "cannot restore: the daemon (process {pid}) {problem}. Nothing was changed: end it, then \
         restore again"
    )]
    Daemon {
        /// Its process.
        pid: u32,
        /// What it did, or did not do.
        problem: &'static str,
    },
}

/// What was put back.
#[derive(Debug)]
pub struct Restored {
    /// What the backup holds.
    pub contents: Contents,
    /// Where the database is that was there before.
    pub replaced: Option<PathBuf>,
}

/// Copies the database of a state directory to a file that must not exist, while a daemon uses it
/// or not. The copy was checked and is on disk when this returns. It holds the environments of the
/// jobs, and so their secrets; its mode is 0600.
///
/// # Errors
/// [`BackupError::Store`], and [`BackupError::StateDir`] where others could have planted something in the
/// state directory; nothing is left then.
pub fn backup(state_dir: &Path, to: &Path) -> Result<Contents, BackupError> {
    check(state_dir)?;
    Ok(hearth_store::backup(&state_dir.join(DATABASE), to)?)
}

/// Replaces a state directory's database by a backup, and keeps the replaced one beside it. A running
/// daemon restarts for it in its own process, and does not answer for a moment; microVMs keep running,
/// and the daemon then brings them to what the backup wants.
///
/// A restore that is cut off leaves the one database or the other; once the backup was found to be whole
/// the next daemon continues with it.
///
/// # Errors
/// [`BackupError`]; the database is then as it was.
pub fn restore(state_dir: &Path, backup: &Path) -> Result<Restored, BackupError> {
    match StateDir::open(state_dir) {
        Ok(lock) => {
            let _alone = alone(lock.path())?;
            let contents = prepare(lock.path(), backup)?;
            Ok(Restored { contents, replaced: take(&lock)? })
        }
        Err(taken @ StateDirError::Taken { .. }) => match in_use(state_dir)? {
            Some(pid) if pid > 0 => restore_under(state_dir, backup, pid),
            _ => Err(taken.into()),
        },
        Err(error) => Err(error.into()),
    }
}

/// Has the daemon that runs put a backup in its place.
fn restore_under(state_dir: &Path, backup: &Path, pid: u32) -> Result<Restored, BackupError> {
    let dir = &std::path::absolute(state_dir).map_err(failed("find", state_dir))?;
    let _alone = alone(dir)?;
    let refused = |problem| BackupError::Daemon { pid, problem };
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(refused("can't be told"))?;
    let daemon = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| refused("has just ended"))?;
    // The descriptor is of the daemon if that has the lock still.
    if in_use(state_dir)? != Some(pid) {
        return Err(refused("has just ended"));
    }
    if !restarts_in_place(pid) {
        return Err(refused("is of a version that can't restore while it runs, or is starting"));
    }
    let before = replaced(dir)?;
    let contents = prepare(dir, backup)?;
    let sent = pidfd_send_signal(&daemon, Signal::USR2).is_ok();
    let begin = Instant::now();
    let waiting = dir.join(WAITING);
    while waiting.exists() {
        // 0 is one that has just got the lock.
        let another = in_use(state_dir)?.is_some_and(|other| other != pid && other != 0);
        let problem = match () {
            () if !sent || another => Some("ended meanwhile"),
            () if begin.elapsed() > RESTART_TIMEOUT => Some("did not restart within 30 s"),
            () => None,
        };
        if let Some(problem) = problem {
            match fs::remove_file(&waiting) {
                // It was taken at the last moment.
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                removed => removed.map_err(failed("remove", &waiting))?,
            }
            return Err(refused(problem));
        }
        std::thread::sleep(RESTART_POLL);
    }
    let replaced = replaced(dir)?.difference(&before).last().cloned();
    Ok(Restored { contents, replaced })
}

/// Whether a daemon takes SIGUSR2, which else would end it.
fn restarts_in_place(pid: u32) -> bool {
    const SIGUSR2: u32 = 12;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    caught.is_some_and(|mask| mask & (1 << (SIGUSR2 - 1)) != 0)
}

/// The only restore of a state directory for as long as the value lives.
fn alone(dir: &Path) -> Result<File, BackupError> {
    let lock = File::open(dir).map_err(failed("open", dir))?;
    match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(lock),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(BackupError::Busy { path: dir.to_owned() }),
        Err(errno) => Err(failed("lock", dir)(errno.into()).into()),
    }
}

/// Checks a backup and leaves a copy for the holder of the state directory's lock to take.
fn prepare(dir: &Path, backup: &Path) -> Result<Contents, BackupError> {
    let new = dir.join("hearth.db.new");
    let beside_new = BESIDE.map(|part| beside(&new, part));
    remove(&new)?;
    beside_new.iter().try_for_each(|part| remove(part))?;
    let made = hearth_store::restore(backup, &new);
    // Empty ones, which a reader leaves.
    beside_new.iter().try_for_each(|part| remove(part))?;
    let contents = made?;
    let waiting = dir.join(WAITING);
    fs::rename(&new, &waiting).map_err(failed("replace", &waiting))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
    Ok(contents)
}

/// Replaces the database by the backup that waits, if one does, else by the copy that a daemon made when
/// its database was lost; returns where the replaced database is now.
pub(crate) fn take(lock: &StateDir) -> Result<Option<PathBuf>, BackupError> {
    let dir = lock.path();
    let (database, waiting) = (dir.join(DATABASE), dir.join(WAITING));
    let saved = hearth_store::saved(&database);
    let (new, replaced) = if waiting.exists() {
        if saved.exists() {
            let aside = aside(&database);
            fs::rename(&saved, &aside).map_err(failed("move", &saved))?;
        }
        (waiting, keep(&database)?)
    } else if saved.exists() {
        (saved, set_aside(&database)?)
    } else {
        return Ok(None);
    };
    fs::rename(&new, &database).map_err(failed("replace", &database))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
    let kept = replaced.as_ref().map(|path| path.display().to_string()).unwrap_or_default();
    tracing::warn!(from = %new.display(), kept, "another database has replaced the last one");
    Ok(replaced)
}

/// The databases in a state directory that were replaced.
fn replaced(dir: &Path) -> Result<BTreeSet<PathBuf>, BackupError> {
    let entries = fs::read_dir(dir).map_err(failed("read", dir))?;
    let is_one = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let parts = BESIDE.iter().any(|part| name.ends_with(part));
        name.starts_with(&format!("{DATABASE}{REPLACED}")) && !parts
    };
    Ok(entries.flatten().map(|entry| entry.path()).filter(is_one).collect())
}

/// Gives a database a second name, and leaves nothing beside it that SQLite would take for what
/// belongs to the next one of its first name.
fn keep(database: &Path) -> Result<Option<PathBuf>, BackupError> {
    let kept = aside(database);
    if database.exists() {
        // Of what is not healthy, all parts are kept.
        let _ = hearth_store::gather(database);
    }
    for part in BESIDE {
        let from = beside(database, part);
        if from.exists() {
            fs::rename(&from, beside(&kept, part)).map_err(failed("move", &from))?;
        }
    }
    name_aside(database, kept)
}

/// As [`keep`], where what lies beside is not that of what is there, and in the copy that takes its place.
fn set_aside(database: &Path) -> Result<Option<PathBuf>, BackupError> {
    BESIDE.iter().try_for_each(|part| remove(&beside(database, part)))?;
    name_aside(database, aside(database))
}

fn name_aside(database: &Path, kept: PathBuf) -> Result<Option<PathBuf>, BackupError> {
    if !database.exists() {
        return Ok(None);
    }
    fs::hard_link(database, &kept).map_err(failed("keep", database))?;
    Ok(Some(kept))
}

/// Where what was a database until now is kept.
fn aside(database: &Path) -> PathBuf {
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    beside(database, &format!("{REPLACED}{now}"))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}
