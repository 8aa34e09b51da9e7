//! Connections to a database on disk: opened, and whether what is behind one is still what it was.

use crate::error::{StoreError, lacks_room};
use crate::files::Seen;
use crate::loss::{Loss, Means};
use crate::sqlite::read::newest_event;
use rusqlite::{Connection, OpenFlags};
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// How long a commit waits for another process that has locked the database, a tool that copies it for
/// instance: everything else waits with it.
pub(super) const BUSY: Duration = Duration::from_secs(1);
/// And how long one that only tries whether a commit would succeed.
pub(super) const PROBE_BUSY: Duration = Duration::from_millis(50);

/// Opens a database that is there. All that use one share the index of its log, in a file; on a disk without
/// room for that it is held in memory, and no other process can use the database meanwhile.
///
/// # Errors
/// Where that can't be done; that it is no database is said only to who asks it something.
pub(crate) fn connect(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let open = |flags| -> rusqlite::Result<Connection> {
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(BUSY)?;
        Ok(connection)
    };
    let shared = open(flags)?;
    match shared.query_row("PRAGMA schema_version", [], |_| Ok(())) {
        Err(error) if lacks_room(&error) => {}
        _ => return Ok(shared),
    }
    drop(shared);
    // To be alone takes the right to write.
    let alone = open(OpenFlags::default() | flags & OpenFlags::SQLITE_OPEN_NOFOLLOW)?;
    alone.query_row("PRAGMA locking_mode = EXCLUSIVE", [], |_| Ok(()))?;
    Ok(alone)
}

/// Why a database can't be opened.
pub(super) fn unusable(path: &Path, error: rusqlite::Error) -> StoreError {
    use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
    let path = path.to_owned();
    match error.sqlite_error_code() {
        Some(DatabaseCorrupt | NotADatabase) => {
            StoreError::Damaged { path, detail: error.to_string() }
        }
        _ => StoreError::Open { path, source: error },
    }
}

/// Puts what can be read of a file on disk, by writing each of its bytes again. After a sync that failed the
/// kernel may hold bytes that it takes for written and that are not: they are read, and what is appended
/// behind them would be lost with them.
pub(super) fn settle(path: &Path) -> io::Result<()> {
    let file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    let mut chunk = vec![0; 1024 * 1024];
    let mut at = 0;
    loop {
        let count = file.read_at(&mut chunk, at)?;
        if count == 0 {
            return file.sync_all();
        }
        file.write_all_at(&chunk[..count], at)?;
        at += count as u64;
    }
}

/// Whether what is on disk is whole, and holds what was committed: read again, by another connection.
pub(super) fn verified(
    own: &Connection,
    path: &Path,
    last_event: u64,
    seen: Seen,
) -> Result<(), Loss> {
    let loss = |problem: String| Loss { problem, means: Means::Database };
    let read = || -> rusqlite::Result<(String, u64)> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let other = Connection::open_with_flags(path, flags)?;
        other.busy_timeout(PROBE_BUSY)?;
        let verdict = other.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        Ok((verdict, newest_event(&other)?))
    };
    let path = path.display();
    match read() {
        Ok((verdict, newest)) if verdict == "ok" && newest == last_event => {}
        Ok((verdict, _)) if verdict == "ok" => {
            return Err(loss(format!("{path} was overwritten with another database")));
        }
        Ok(_) => return Err(loss(format!("{path} was overwritten or cut off"))),
        // A connection that holds the database alone, as on a full disk, lets no other one look.
        Err(error) if is_locked(&error) && seen != Seen::Shorter => return Ok(()),
        Err(error) => {
            return Err(loss(format!("{path} was overwritten or cut off ({error})")));
        }
    }
    if seen != Seen::Shorter {
        return Ok(());
    }
    // A log that was cut off may still be counted on by its index: it begins again.
    let busy = own.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, u32>(0));
    match busy {
        Ok(0) => Ok(()),
        _ => Err(loss(format!("{path}-wal was cut off"))),
    }
}

fn is_locked(error: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked};
    error.sqlite_error_code().is_some_and(|code| [DatabaseBusy, DatabaseLocked].contains(&code))
}
