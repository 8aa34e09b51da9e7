//! Backups of a state directory's database, and putting one back.

use crate::state_dir::{StateDir, StateDirError};
use hearth_engine::{Contents, StoreError};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The database in a state directory.
pub(crate) const DATABASE: &str = "hearth.db";
/// What SQLite keeps beside a database.
const BESIDE: [&str; 2] = ["-wal", "-shm"];

/// Why a backup could not be taken or put back.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// A database can't be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state directory can't be used, for instance since a daemon does.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// A file can't be moved.
    #[error("cannot {operation} {path}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// To what.
        path: PathBuf,
        /// Why.
        source: io::Error,
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

/// Copies the database of a state directory to a file that is not there yet, while a daemon uses it
/// or not. The copy was checked and is on disk when this returns. It holds the environments of the
/// jobs, and so their secrets; its mode is 0600.
///
/// # Errors
/// [`BackupError::Store`]; nothing is left then.
pub fn backup(state_dir: &Path, to: &Path) -> Result<Contents, BackupError> {
    Ok(hearth_engine::backup(&state_dir.join(DATABASE), to)?)
}

/// Puts a backup in the place of a state directory's database, which is kept beside it. No daemon may
/// run meanwhile; microVMs go on, and the next daemon makes of them what the backup wants.
///
/// A restore that is cut off leaves the one database or the other.
///
/// # Errors
/// [`BackupError`]; the database is then as it was.
pub fn restore(state_dir: &Path, backup: &Path) -> Result<Restored, BackupError> {
    let lock = StateDir::open(state_dir)?;
    let dir = lock.path();
    let (database, new) = (dir.join(DATABASE), dir.join("hearth.db.new"));
    for left in [new.clone(), beside(&new, BESIDE[0]), beside(&new, BESIDE[1])] {
        remove(&left)?;
    }
    let contents = hearth_engine::restore(backup, &new)?;
    let replaced = keep(&database)?;
    fs::rename(&new, &database).map_err(failed("replace", &database))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed("sync", dir))?;
    Ok(Restored { contents, replaced })
}

/// Gives a database a second name, and leaves nothing beside it that SQLite would take for what
/// belongs to the next one of its first name.
fn keep(database: &Path) -> Result<Option<PathBuf>, BackupError> {
    if !database.exists() {
        return Ok(None);
    }
    let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    let kept = beside(database, &format!(".replaced-{now}"));
    // Of what is not healthy, all parts are kept.
    let _ = hearth_engine::gather(database);
    for part in BESIDE {
        let from = beside(database, part);
        if from.exists() {
            fs::rename(&from, beside(&kept, part)).map_err(failed("move", &from))?;
        }
    }
    fs::hard_link(database, &kept).map_err(failed("keep", database))?;
    Ok(Some(kept))
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

fn remove(path: &Path) -> Result<(), BackupError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(failed("remove", path)),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BackupError {
    let path = path.to_owned();
    move |source| BackupError::Io { operation, path, source }
}
