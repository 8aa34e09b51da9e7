//! The database: one SQLite file. `synchronous=FULL`, so that a commit that returned survives a loss
//! of power.

use crate::backup::{copy_of, inspect};
use crate::caller::{caller_of_word, caller_word};
use crate::changes::{AppliedEntry, Changes, KEY_LIVES, KEYS_MAX, Loaded, Tombstone, Used};
use crate::error::{StoreError, lacks_room};
use crate::event::{Event, EventKind};
use crate::files::{self, Anchor, Files, Seen};
use crate::loss::{Loss, Means};
use crate::query::{Accepted, EventPage, Events};
use crate::row::{self, InstanceRow, JobRow, ProgressRow};
use crate::store::Store;
use hearth_model::{Generation, InstanceId, JobId, Mono};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params};
use rusqlite_migration::{M, Migrations};
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const SCHEMA: &str = "
CREATE TABLE jobs (job_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE instances (id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
-- Deleted jobs, so that a generation never falls and a second delete is not a mistake.
CREATE TABLE tombstones (job_id TEXT PRIMARY KEY, generation INTEGER NOT NULL)
    STRICT, WITHOUT ROWID;
-- What was last applied from each file. It outlives the jobs.
CREATE TABLE file_entries (
    path TEXT NOT NULL, job_id TEXT NOT NULL, digest TEXT NOT NULL, generation INTEGER NOT NULL,
    PRIMARY KEY (path, job_id)) STRICT, WITHOUT ROWID;
CREATE TABLE events (
    id INTEGER PRIMARY KEY, at TEXT NOT NULL, job_id TEXT, instance TEXT, generation INTEGER,
    kind TEXT NOT NULL, message TEXT NOT NULL) STRICT;
CREATE INDEX events_by_job ON events (job_id, id);
CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
";

/// What came with the second version of the schema: requests by the key that their callers gave
/// them. `since_ms` is of the host's monotonic clock; `id` gives their order.
const IDEMPOTENCY: &str = "
CREATE TABLE idempotency_keys (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, job_id TEXT NOT NULL,
    accepted TEXT NOT NULL, since_ms INTEGER NOT NULL) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (since_ms);
";

/// What came with the third version: the order of tombstones, by the event of the deletion, and logs
/// that are to be removed.
const RETENTION: &str = "
ALTER TABLE tombstones ADD COLUMN event INTEGER NOT NULL DEFAULT 0;
CREATE TABLE log_drops (instance TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// What came with the fourth version: the fields of events, as JSON.
const EVENT_DETAILS: &str = "ALTER TABLE events ADD COLUMN details TEXT;";

/// What came with the fifth version: the progress of a job has a row of its own, beside what is wanted of
/// it.
const PROGRESS: &str = "
CREATE TABLE progress (job_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO progress
    SELECT job_id, json_remove(body,
        '$.tenant', '$.tenant_given', '$.generation', '$.run', '$.spec', '$.wanted')
    FROM jobs;
UPDATE jobs SET body = json_remove(body,
    '$.resolution', '$.outcome', '$.failures', '$.not_before_ms', '$.last_failure', '$.notes');
";

/// What came with the sixth version: who asked for what an event is of.
const EVENT_CALLER: &str = "ALTER TABLE events ADD COLUMN caller TEXT;";

/// How long a commit waits for another process that has locked the database, a tool that copies it for
/// instance: everything else waits with it.
const BUSY: Duration = Duration::from_secs(1);
/// And how long one that only tries whether a commit would succeed.
const PROBE_BUSY: Duration = Duration::from_millis(50);

/// How many pages of 4 KiB the write-ahead log grows to before it goes into the database file: a
/// page that changes with every commit is then written there once for many.
const CHECKPOINT_PAGES: u32 = 4000;

/// A database of SQLite.
#[derive(Debug)]
pub struct Sqlite {
    // Closed before the file below: closing any other descriptor of a database's file ends the locks that
    // SQLite has on it (sqlite.org/howtocorrupt.html, 2.2).
    connection: Connection,
    /// Where it is on disk, if it is.
    place: Option<Place>,
    /// The newest event that is in it.
    last_event: u64,
}

/// A database on disk.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    files: Files,
    /// Whether they were lost when they were last looked at.
    lost: bool,
    /// Open as long as the connection.
    file: File,
}

impl Sqlite {
    /// Opens the database, making it (with mode 0600) where there is none, and brings it to this
    /// version's form.
    ///
    /// # Errors
    /// [`StoreError::File`], [`StoreError::Open`], [`StoreError::Damaged`] or [`StoreError::Migrate`]; the
    /// file is then as it was.
    pub fn open(path: &Path) -> Result<Sqlite, StoreError> {
        let file = |operation, path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::File { operation, path, source }
        };
        let path = &files::without_links(path).map_err(file("find", path))?;
        let opened = files::open(path).map_err(file("make or open", path))?;
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let log = PathBuf::from(log);
        settle(&log).map_err(file("sync", &log))?;
        let flags = OpenFlags::default() | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let connection = connect(path, flags).map_err(|error| unusable(path, error))?;
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| unusable(path, error))?;
        if verdict != "ok" {
            return Err(StoreError::Damaged { path: path.to_owned(), detail: verdict });
        }
        let mut sqlite = Sqlite::prepare(connection, path)?;
        let files = Files::of(path).map_err(file("look at", path))?;
        sqlite.place = Some(Place { path: path.clone(), files, lost: false, file: opened });
        sqlite.last_event = newest_event(&sqlite.connection).map_err(StoreError::Read)?;
        Ok(sqlite)
    }

    /// A database in memory, for simulations.
    ///
    /// # Errors
    /// As [`Sqlite::open`].
    pub fn in_memory() -> Result<Sqlite, StoreError> {
        let path = Path::new(":memory:");
        let connection = Connection::open_in_memory().map_err(|error| unusable(path, error))?;
        Sqlite::prepare(connection, path)
    }

    fn prepare(mut connection: Connection, path: &Path) -> Result<Sqlite, StoreError> {
        let open = |error| unusable(path, error);
        connection.pragma_update(None, "journal_mode", "WAL").map_err(open)?;
        connection.pragma_update(None, "synchronous", "FULL").map_err(open)?;
        connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(open)?;
        Migrations::new(vec![
            M::up(SCHEMA),
            M::up(IDEMPOTENCY),
            M::up(RETENTION),
            M::up(EVENT_DETAILS),
            M::up(PROGRESS),
            M::up(EVENT_CALLER),
        ])
        .to_latest(&mut connection)
        .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        Ok(Sqlite::over(connection))
    }

    /// Of a connection that is what it should be.
    pub(crate) fn over(connection: Connection) -> Sqlite {
        Sqlite { connection, place: None, last_event: 0 }
    }

    /// Takes the database for a daemon: no other process gets it while it is open, and these have to stay where
    /// they are as well as its files.
    ///
    /// # Errors
    /// [`StoreError::InUse`].
    pub fn hold(&mut self, around: Vec<Anchor>) -> Result<(), StoreError> {
        let Some(place) = &mut self.place else { return Ok(()) };
        place.files.hold(around);
        files::take(&place.file, &place.path)
    }

    /// What follows from a look at the files.
    fn judge(&mut self, found: Result<Seen, Loss>) -> Result<(), StoreError> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let judged = match found {
            Ok(Seen::Same) if !place.lost => return Ok(()),
            Ok(seen) => verified(&self.connection, &place.path, self.last_event, seen),
            Err(loss) => Err(loss),
        };
        let was_lost = std::mem::replace(&mut place.lost, judged.is_err());
        judged?;
        if was_lost {
            // The next daemon must not take it for what is newest.
            files::forget_saved(&place.path).inspect_err(|_| place.lost = true)?;
        }
        place.files.stamp().map(drop)?;
        Ok(())
    }

    /// A commit has returned: whether it is where it will be found.
    fn committed(&mut self) -> Result<(), StoreError> {
        let Some(place) = &mut self.place else { return Ok(()) };
        let found = place.files.stamp();
        self.judge(found)
    }

    /// Names no instance any more.
    ///
    /// # Errors
    /// [`StoreError::Write`].
    pub(crate) fn forget_instances(&mut self) -> Result<(), StoreError> {
        self.connection.execute("DELETE FROM instances", []).map(drop).map_err(StoreError::Write)
    }

    /// Brings everything into the database file, so that nothing is beside it.
    ///
    /// # Errors
    /// [`StoreError::Copy`].
    pub(crate) fn close(self, path: &Path) -> Result<(), StoreError> {
        let failed = |source| StoreError::Copy { path: path.to_owned(), source };
        self.connection.close().map_err(|(_, source)| failed(source))
    }

    #[cfg(fuzzing)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Jobs with their progress. One without the other is damage.
    fn load_jobs(&self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let mut progress: BTreeMap<String, String> =
            self.bodies(self.progress_query()?)?.into_iter().collect();
        for (id, body) in self.bodies("SELECT job_id, body FROM jobs")? {
            let bad = |detail: String| StoreError::Row { what: format!("job {id}"), detail };
            let row: JobRow<'_> = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
            let body =
                progress.remove(&id).ok_or_else(|| bad("its progress is missing".to_owned()))?;
            let (progress, notes) = serde_json::from_str::<ProgressRow<'_>>(&body)
                .map_err(|error| error.to_string())
                .and_then(ProgressRow::into_progress)
                .map_err(|detail| bad(format!("its progress: {detail}")))?;
            let job = row.into_job(&id, progress).map_err(bad)?;
            loaded.notes.insert(job.id.clone(), notes);
            loaded.jobs.insert(job.id.clone(), job);
        }
        match progress.pop_first() {
            Some((id, _)) => {
                let detail = "there is no job for it".to_owned();
                Err(StoreError::Row { what: format!("the progress of job {id}"), detail })
            }
            None => Ok(()),
        }
    }

    /// What reads the progress of all jobs. Until the fifth version it was in the row of the job, and what
    /// only looks at a database does not bring it to this version's form.
    fn progress_query(&self) -> Result<&'static str, StoreError> {
        let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'progress'";
        let exists: u32 =
            self.connection.query_row(exists, [], |row| row.get(0)).map_err(StoreError::Read)?;
        Ok(match exists {
            0 => "SELECT job_id, body FROM jobs",
            _ => "SELECT job_id, body FROM progress",
        })
    }

    fn load_rest(&self, loaded: &mut Loaded) -> Result<(), StoreError> {
        let job_id = |id: &str| {
            JobId::parse(id).map_err(|error| StoreError::Row {
                what: format!("job {id}"),
                detail: error.to_string(),
            })
        };
        let mut statement = self
            .connection
            .prepare("SELECT job_id, generation, event FROM tombstones")
            .map_err(StoreError::Read)?;
        let rows = statement
            .query_map([], |row| {
                let generation = Generation(row.get(1)?);
                Ok((row.get::<_, String>(0)?, Tombstone { generation, event: row.get(2)? }))
            })
            .map_err(StoreError::Read)?;
        for row in rows {
            let (id, tombstone) = row.map_err(StoreError::Read)?;
            row::generation(tombstone.generation.0).map_err(|detail| StoreError::Row {
                what: format!("the deleted job {id}"),
                detail,
            })?;
            loaded.tombstones.insert(job_id(&id)?, tombstone);
        }
        let mut statement =
            self.connection.prepare("SELECT instance FROM log_drops").map_err(StoreError::Read)?;
        let rows =
            statement.query_map([], |row| row.get::<_, String>(0)).map_err(StoreError::Read)?;
        for row in rows {
            let name = row.map_err(StoreError::Read)?;
            let id = InstanceId::parse(&name).map_err(|error| StoreError::Row {
                what: format!("the logs of instance {name}"),
                detail: error.detail,
            })?;
            loaded.log_drops.insert(id);
        }
        let mut statement = self
            .connection
            .prepare("SELECT path, job_id, digest, generation FROM file_entries")
            .map_err(StoreError::Read)?;
        let rows = statement
            .query_map([], |row| {
                let entry =
                    AppliedEntry { digest: row.get(2)?, generation: Generation(row.get(3)?) };
                Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, entry))
            })
            .map_err(StoreError::Read)?;
        for row in rows {
            let (path, id, entry) = row.map_err(StoreError::Read)?;
            loaded.entries.insert((PathBuf::from(path), job_id(&id)?), entry);
        }
        loaded.last_event = newest_event(&self.connection).map_err(StoreError::Read)?;
        loaded.boot_id = self
            .connection
            .query_row("SELECT value FROM facts WHERE name = 'boot_id'", [], |row| row.get(0))
            .optional()
            .map_err(StoreError::Read)?;
        Ok(())
    }

    fn bodies(&self, query: &str) -> Result<Vec<(String, String)>, StoreError> {
        let mut statement = self.connection.prepare(query).map_err(StoreError::Read)?;
        let rows = statement
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .map_err(StoreError::Read)?;
        rows.collect::<Result<_, _>>().map_err(StoreError::Read)
    }
}

impl From<Sqlite> for Box<dyn Store> {
    fn from(store: Sqlite) -> Box<dyn Store> {
        Box::new(store)
    }
}

impl Store for Sqlite {
    fn load(&self) -> Result<Loaded, StoreError> {
        let mut loaded = Loaded::default();
        self.load_jobs(&mut loaded)?;
        for (id, body) in self.bodies("SELECT id, body FROM instances")? {
            let bad = |detail: String| StoreError::Row { what: format!("instance {id}"), detail };
            let row: InstanceRow = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
            let instance = row.into_instance(&id).map_err(bad)?;
            loaded.instances.insert(instance.id.clone(), instance);
        }
        self.load_rest(&mut loaded)?;
        Ok(loaded)
    }

    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction().map_err(StoreError::Write)?;
        write(&transaction, changes).map_err(StoreError::Write)?;
        transaction.commit().map_err(StoreError::Write)?;
        self.last_event = changes.events.last().map_or(self.last_event, |event| event.id);
        self.committed()
    }

    fn used(&self, key: &str) -> Result<Option<Used>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT digest, job_id, accepted, since_ms FROM idempotency_keys WHERE key = ?1",
            )
            .map_err(StoreError::Read)?;
        let row = statement
            .query_row([key], |row| {
                let texts = (row.get::<_, String>(1)?, row.get::<_, String>(2)?);
                Ok((row.get::<_, String>(0)?, texts, row.get::<_, u64>(3)?))
            })
            .optional()
            .map_err(StoreError::Read)?;
        let Some((digest, (job, accepted), since_ms)) = row else { return Ok(None) };
        let bad = |detail: String| StoreError::Row { what: format!("the key {key:?}"), detail };
        let job = JobId::parse(&job).map_err(|error| bad(error.detail))?;
        let accepted = Accepted::parse(&accepted).ok_or_else(|| bad(accepted.clone()))?;
        Ok(Some(Used { digest, job, accepted, at: Mono::from_millis(since_ms) }))
    }

    fn events(&self, query: &Events) -> Result<EventPage, StoreError> {
        let job = query.job.as_ref().map(JobId::as_str);
        let (oldest, newest) = self
            .connection
            .prepare_cached(
                "SELECT coalesce((SELECT min(id) FROM events), 0),
                        coalesce((SELECT max(id) FROM events), 0)",
            )
            .and_then(|mut ends| ends.query_row([], |row| Ok((row.get(0)?, row.get(1)?))))
            .map_err(StoreError::Read)?;
        let (order, after) = match query.after {
            Some(after) => ("ASC", after),
            None => ("DESC", 0),
        };
        let mut statement = self
            .connection
            .prepare_cached(&format!(
                "SELECT id, at, job_id, instance, generation, kind, message, details, caller
                 FROM events
                 WHERE (?1 IS NULL OR job_id = ?1) AND id > ?2 ORDER BY id {order} LIMIT ?3"
            ))
            .map_err(StoreError::Read)?;
        let rows = statement
            .query_map(
                params![job, i64::try_from(after).unwrap_or(i64::MAX), query.limit + 1],
                event,
            )
            .map_err(StoreError::Read)?;
        let mut events: Vec<Event> = rows.collect::<Result<_, _>>().map_err(StoreError::Read)?;
        let more = query.after.is_some() && events.len() > query.limit;
        events.truncate(query.limit);
        if query.after.is_none() {
            events.reverse();
        }
        Ok(EventPage { events, more, oldest, newest })
    }

    fn check(&mut self) -> Result<(), StoreError> {
        let Some(place) = &self.place else { return Ok(()) };
        let found = place.files.check();
        self.judge(found)
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        let written = self.connection.busy_timeout(PROBE_BUSY).and_then(|()| {
            let probe = "INSERT OR REPLACE INTO facts VALUES ('probe', '')";
            let transaction = self.connection.transaction()?;
            transaction.execute(probe, [])?;
            transaction.commit()
        });
        self.connection.busy_timeout(BUSY).map_err(StoreError::Write)?;
        written.map_err(StoreError::Write)?;
        self.committed()
    }

    fn save(&self, rows: &Changes<'_>) -> Result<Option<PathBuf>, StoreError> {
        // Of what can still be read, with all events and keys, else of these rows.
        let Some(Place { path, .. }) = &self.place else { return Ok(None) };
        let read = files::save(path, |new| {
            copy_of(&self.connection, path, new)?;
            let whole = inspect(new).and_then(|_| {
                let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
                let copy = Connection::open_with_flags(new, flags).map_err(StoreError::Read)?;
                let newest = newest_event(&copy).map_err(StoreError::Read)?;
                let detail = "it lacks what was committed last".to_owned();
                let lacks = StoreError::Damaged { path: new.to_owned(), detail };
                if newest == self.last_event { Ok(()) } else { Err(lacks) }
            });
            whole.inspect_err(|_| drop(std::fs::remove_file(new)))
        });
        let saved = read.or_else(|_| {
            files::save(path, |new| {
                let mut copy = Sqlite::open(new)?;
                copy.commit(rows)?;
                copy.close(new)?;
                inspect(new).map(drop)
            })
        });
        saved.map(Some)
    }
}

/// Whether what is on disk is whole, and holds what was committed: read again, by another connection.
fn verified(own: &Connection, path: &Path, last_event: u64, seen: Seen) -> Result<(), Loss> {
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

fn newest_event(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0))
}

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
fn unusable(path: &Path, error: rusqlite::Error) -> StoreError {
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
fn settle(path: &Path) -> io::Result<()> {
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

fn event(row: &Row<'_>) -> rusqlite::Result<Event> {
    Ok(Event {
        id: row.get(0)?,
        at: row.get(1)?,
        job: row.get::<_, Option<String>>(2)?.and_then(|id| JobId::parse(&id).ok()),
        instance: row.get::<_, Option<String>>(3)?.and_then(|id| InstanceId::parse(&id).ok()),
        generation: row.get::<_, Option<u64>>(4)?.map(Generation),
        caller: row.get::<_, Option<String>>(8)?.as_deref().map(caller_of_word),
        kind: EventKind::from_stored(
            &row.get::<_, String>(5)?,
            row.get::<_, Option<String>>(7)?.as_deref(),
        ),
        message: row.get(6)?,
    })
}

fn write(transaction: &Transaction<'_>, changes: &Changes<'_>) -> rusqlite::Result<()> {
    let jobs = changes.jobs.iter().map(|(id, row)| (id.as_str(), row.as_ref()));
    put(transaction, "jobs", "job_id", jobs)?;
    let progress = changes.progress.iter().map(|(id, row)| (id.as_str(), row.as_ref()));
    put(transaction, "progress", "job_id", progress)?;
    let instances = changes.instances.iter().map(|(id, row)| (id.as_str(), row.as_ref()));
    put(transaction, "instances", "id", instances)?;
    for (id, tombstone) in &changes.tombstones {
        match tombstone {
            Some(Tombstone { generation, event }) => transaction
                .prepare_cached("INSERT OR REPLACE INTO tombstones VALUES (?1, ?2, ?3)")?
                .execute(params![id.as_str(), generation.0, event])?,
            None => transaction
                .prepare_cached("DELETE FROM tombstones WHERE job_id = ?1")?
                .execute([id.as_str()])?,
        };
    }
    for (id, wanted) in &changes.log_drops {
        let statement = match wanted {
            true => "INSERT OR REPLACE INTO log_drops VALUES (?1)",
            false => "DELETE FROM log_drops WHERE instance = ?1",
        };
        transaction.prepare_cached(statement)?.execute([id.as_str()])?;
    }
    for ((path, id), entry) in &changes.entries {
        let path = path.to_string_lossy();
        match entry {
            Some(entry) => transaction
                .prepare_cached("INSERT OR REPLACE INTO file_entries VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![path, id.as_str(), entry.digest, entry.generation.0])?,
            None => transaction
                .prepare_cached("DELETE FROM file_entries WHERE path = ?1 AND job_id = ?2")?
                .execute(params![path, id.as_str()])?,
        };
    }
    if let Some(boot_id) = &changes.boot_id {
        transaction.execute("INSERT OR REPLACE INTO facts VALUES ('boot_id', ?1)", [boot_id])?;
        // The clock has started again: a key lives too long rather than too short.
        transaction.execute("UPDATE idempotency_keys SET since_ms = 0", [])?;
    }
    write_keys(transaction, &changes.keys)?;
    let mut insert = transaction
        .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)")?;
    for event in &changes.events {
        insert.execute(params![
            event.id,
            event.at,
            event.job.as_ref().map(JobId::as_str),
            event.instance.as_ref().map(InstanceId::as_str),
            event.generation.map(|generation| generation.0),
            event.kind.as_str(),
            event.message,
            event.kind.details(),
            event.caller.map(caller_word),
        ])?;
    }
    // With others, so that a step that changes nothing writes nothing.
    transaction
        .prepare_cached("DELETE FROM events WHERE id < ?1")?
        .execute([changes.first_event])?;
    Ok(())
}

/// Records keys, and drops those that are too old or too many.
fn write_keys(transaction: &Transaction<'_>, keys: &[(String, Used)]) -> rusqlite::Result<()> {
    let Some((_, newest)) = keys.last() else { return Ok(()) };
    for (key, used) in keys {
        transaction
            .prepare_cached(
                "INSERT OR REPLACE INTO idempotency_keys (key, digest, job_id, accepted, since_ms)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![
                key,
                used.digest,
                used.job.as_str(),
                used.accepted.as_str(),
                used.at.as_millis()
            ])?;
    }
    let first = transaction.last_insert_rowid() - KEYS_MAX;
    let lives = u64::try_from(KEY_LIVES.as_millis()).unwrap_or(u64::MAX);
    if let Some(oldest) = newest.at.as_millis().checked_sub(lives) {
        transaction
            .prepare_cached("DELETE FROM idempotency_keys WHERE since_ms <= ?1")?
            .execute([oldest])?;
    }
    transaction.prepare_cached("DELETE FROM idempotency_keys WHERE id <= ?1")?.execute([first])?;
    Ok(())
}

/// Writes rows by their ids; `None` removes.
fn put<'a, T: serde::Serialize + 'a>(
    transaction: &Transaction<'_>,
    table: &str,
    key: &str,
    rows: impl ExactSizeIterator<Item = (&'a str, Option<&'a T>)>,
) -> rusqlite::Result<()> {
    if rows.len() == 0 {
        return Ok(());
    }
    let put = format!("INSERT OR REPLACE INTO {table} VALUES (?1, ?2)");
    let mut put = transaction.prepare_cached(&put)?;
    let remove = format!("DELETE FROM {table} WHERE {key} = ?1");
    let mut remove = transaction.prepare_cached(&remove)?;
    let mut body = Vec::with_capacity(1024);
    for (id, row) in rows {
        let Some(row) = row else {
            remove.execute([id])?;
            continue;
        };
        body.clear();
        serde_json::to_writer(&mut body, row).expect("rows hold only what JSON can say");
        let body = str::from_utf8(&body)?;
        put.execute(params![id, body])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(at_ms: u64) -> Used {
        Used {
            digest: "d".to_owned(),
            job: JobId::parse("web").unwrap(),
            accepted: Accepted::Pending,
            at: Mono::from_millis(at_ms),
        }
    }

    fn commit(store: &mut Sqlite, key: &str, at_ms: u64) {
        let keys = vec![(key.to_owned(), used(at_ms))];
        store.commit(&Changes { keys, ..Changes::default() }).unwrap();
    }

    #[test]
    fn a_database_of_the_first_version_opens_with_all_that_it_holds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let old = Connection::open(&path).unwrap();
        old.execute_batch(SCHEMA).unwrap();
        old.execute("INSERT INTO tombstones VALUES ('web', 3)", []).unwrap();
        let old_event = "INSERT INTO events VALUES (7, 't', NULL, NULL, NULL, 'exited', 'm')";
        old.execute(old_event, []).unwrap();
        old.pragma_update(None, "user_version", 1).unwrap();
        drop(old);
        let mut store = Sqlite::open(&path).unwrap();
        assert_eq!(store.load().unwrap().tombstones.len(), 1);
        let page = store.events(&Events { job: None, after: None, limit: 9 }).unwrap();
        assert_eq!((&page.events[0].kind, page.events[0].caller), (&EventKind::Exited(None), None));
        commit(&mut store, "k", 5);
        drop(store);
        assert_eq!(Sqlite::open(&path).unwrap().used("k").unwrap(), Some(used(5)));
    }

    #[test]
    fn a_database_of_a_later_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        drop(Sqlite::open(&path).unwrap());
        Connection::open(&path).unwrap().pragma_update(None, "user_version", 1_000).unwrap();
        let error = Sqlite::open(&path).unwrap_err().to_string();
        assert!(error.contains("may be of a newer Hearth"), "{error}");
    }

    /// Every change of a whole database is refused, or does no harm: the store opens and holds what can be
    /// held. Which of both is a matter of what was changed, and none is a panic.
    #[test]
    fn damaged_database_is_refused_with_the_remedy_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let mut store = Sqlite::open(&path).unwrap();
        (0..50).for_each(|number| commit(&mut store, &format!("key-{number}"), number));
        drop(store);
        let whole = std::fs::read(&path).unwrap();
        let check = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            match Sqlite::open(&path).and_then(|store| store.load().map(drop)) {
                Ok(()) => false,
                Err(error) => {
                    let text = error.to_string();
                    assert!(text.contains("hearth restore"), "{text}");
                    assert!(std::fs::read(&path).unwrap() == bytes, "it was changed: {text}");
                    true
                }
            }
        };
        assert!(!check(&whole));
        let mut refused = 0;
        for at in (0..whole.len()).step_by(97) {
            let mut flipped = whole.clone();
            flipped[at] ^= 0xff;
            refused += usize::from(check(&flipped));
            // A database of no bytes is a new one, and of the last page nothing may be in use.
            assert!(at == 0 || at + 4096 > whole.len() || check(&whole[..at]), "cut off at {at}");
        }
        assert!(refused > 10, "{refused}");
        assert!(check(b"not a database, however long it may be"));
    }

    #[test]
    fn a_row_that_holds_what_hearth_never_writes_is_refused() {
        let hash = "0".repeat(64);
        let spec = r#"{"kernel":"k","boot":"raw","resources":{"vcpu":1,"mem_mb":64},"lifecycle":"daemon"}"#;
        let job = format!(
            r#"{{"tenant":"t","tenant_given":true,"generation":2,"run":1,"spec":{spec},"wanted":"Running"}}"#
        );
        let progress = r#"{"resolution":{"Failed":"x"},"notes":{"past":["abc"],"status":"running","since":"x"}}"#;
        let instance = format!(
            r#"{{"slot":0,"assignment":{{"Job":{{"job":"web","run":1,"claimed_at_ms":null}}}},"hash":"{hash}","images":{{"kernel":"{hash}"}},"spec":{spec},"stage":"app","created_at_ms":0,"running_since_ms":null,"ready_since_ms":null,"stopping":null,"exit":null,"started":true}}"#
        );
        let check = |table: &str, body: &str| {
            let store = Sqlite::in_memory().unwrap();
            let rows = [("jobs", "web", job.as_str()), ("progress", "web", progress)];
            let rows = rows.into_iter().chain([("instances", "abc", instance.as_str())]);
            for (into, id, whole) in rows {
                let body = if into == table { body } else { whole };
                let insert = format!("INSERT INTO {into} VALUES (?1, ?2)");
                store.connection.execute(&insert, [id, body]).unwrap();
            }
            store.load().map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(check("jobs", &job), Ok(()));
        assert_eq!(check("instances", &instance), Ok(()));
        let progress = progress.to_owned();
        let refused = [
            ("jobs", &job, ":2,", ":18446744073709551615,", "bad generation 18446744073709551615"),
            ("jobs", &job, r#""run":1"#, r#""run":0"#, "bad generation 0"),
            ("jobs", &job, r#""run":1"#, r#""run":3"#, "it runs at generation 3, and is at 2"),
            ("progress", &progress, "abc", "../abc", "an instance id is"),
            (
                "progress",
                &progress,
                r#"{"Failed":"x"}"#,
                r#""Lost""#,
                "its progress: unknown variant",
            ),
            ("instances", &instance, r#""slot":0"#, r#""slot":4294967295"#, "bad slot 4294967295"),
            ("instances", &instance, r#""app""#, r#""ap""#, "bad stage \"ap\""),
        ];
        for (table, row, from, to, detail) in refused {
            let error = check(table, &row.replacen(from, to, 1)).unwrap_err();
            assert!(error.contains(detail) && error.ends_with("with hearth restore"), "{error}");
        }
        let store = Sqlite::in_memory().unwrap();
        store.connection.execute("INSERT INTO tombstones VALUES ('web', 1 << 60, 0)", []).unwrap();
        assert!(store.load().is_err());
    }

    #[test]
    fn job_without_progress_and_progress_without_job_are_damage() {
        let job = r#"{"tenant":"t","tenant_given":true,"generation":1,"run":1,"spec":{"kernel":"k","boot":"raw","resources":{"vcpu":1,"mem_mb":64},"lifecycle":"daemon"},"wanted":"Running"}"#;
        let progress = r#"{"resolution":"Preparing","notes":{"status":"pending","since":"x"}}"#;
        let check = |table: &str, body: &str| {
            let store = Sqlite::in_memory().unwrap();
            let insert = format!("INSERT INTO {table} VALUES ('web', ?1)");
            store.connection.execute(&insert, [body]).unwrap();
            store.load().unwrap_err().to_string()
        };
        let error = check("jobs", job);
        assert!(error.contains("job web in the database: its progress is missing"), "{error}");
        let error = check("progress", progress);
        assert!(error.contains("progress of job web in the database: there is no job"), "{error}");
    }

    /// Rows of jobs as the fourth version wrote them, one with every field.
    #[test]
    fn database_with_jobs_in_one_row_is_read_and_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let old = Connection::open(&path).unwrap();
        for part in [SCHEMA, IDEMPOTENCY, RETENTION, EVENT_DETAILS] {
            old.execute_batch(part).unwrap();
        }
        old.pragma_update(None, "user_version", 4).unwrap();
        let web = include_str!("../tests/data/job-of-version-4.json").trim_end();
        let plain = r#"{"tenant":"w","tenant_given":false,"generation":1,"run":1,"spec":{"kernel":"k","boot":"raw","resources":{"vcpu":1,"mem_mb":128},"lifecycle":"service"},"resolution":"Preparing","wanted":"Running","notes":{"status":"pending","since":"s"}}"#;
        for (id, body) in [("web", web), ("w", plain)] {
            old.execute("INSERT INTO jobs VALUES (?1, ?2)", [id, body]).unwrap();
        }
        old.execute("INSERT INTO log_drops VALUES ('xyz')", []).unwrap();
        drop(old);
        // Backup and doctor look at it before it is opened.
        let read = Sqlite::over(Connection::open(&path).unwrap()).load().unwrap();
        assert_eq!(inspect(&path).unwrap().logs.len(), 3);
        let store = Sqlite::open(&path).unwrap();
        let migrated = store.load().unwrap();
        assert_eq!(migrated, read, "nothing is lost");
        let web = &migrated.jobs[&JobId::parse("web").unwrap()];
        let notes = &migrated.notes[&web.id];
        assert_eq!((web.generation, web.run), (Generation(5), Generation(4)));
        assert_eq!(web.spec.cmd.last().map(String::as_str), Some("ö é \" 😀"));
        assert_eq!(web.progress.not_before, Some(Mono::from_millis(9_007_199_254_740_993)));
        assert_eq!((web.progress.failures, notes.past().count()), (2, 2));
        assert_eq!((notes.finished_at_ms, notes.exit().unwrap().timed_out), (Some(8), true));
        let keys = |table: &str| -> String {
            let keys = format!(
                "SELECT group_concat(key, ' ') FROM {table}, json_each(body) WHERE job_id = 'web'"
            );
            store.connection.query_row(&keys, [], |row| row.get(0)).unwrap()
        };
        assert_eq!(keys("jobs"), "tenant tenant_given generation run spec wanted");
        let progress = "resolution outcome failures not_before_ms last_failure notes";
        assert_eq!(keys("progress"), progress);
    }

    #[test]
    fn full_disk_and_locked_database_are_distinct_and_write_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let mut store = Sqlite::open(&path).unwrap();
        // The rows before the key are written when that finds no room.
        let keys = |text: &str| Changes {
            tombstones: vec![(
                JobId::parse("gone").unwrap(),
                Some(Tombstone { generation: Generation(2), event: 1 }),
            )],
            log_drops: vec![(InstanceId::parse("abc").unwrap(), true)],
            keys: vec![("k".to_owned(), Used { digest: text.to_owned(), ..used(1) })],
            ..Changes::default()
        };
        let other = Connection::open(&path).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        assert!(!store.commit(&keys("d")).unwrap_err().is_disk_full());
        other.execute_batch("ROLLBACK").unwrap();
        let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |r| r.get(0)).unwrap();
        store
            .connection
            .query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(()))
            .unwrap();
        assert!(store.commit(&keys(&"x".repeat(100_000))).unwrap_err().is_disk_full());
        assert_eq!(store.used("k").unwrap(), None);
        assert_eq!(store.load().unwrap(), Loaded::default());
        store.commit(&keys("d")).unwrap();
        assert_eq!(store.load().unwrap().tombstones.len(), 1);
    }

    #[test]
    fn files_that_are_changed_during_a_commit_are_lost() {
        let event = |id| Event {
            id,
            at: "t".into(),
            job: None,
            instance: None,
            generation: None,
            caller: None,
            kind: EventKind::Creating,
            message: "m".into(),
        };
        let many = |from: u64| Changes {
            events: (from..from + 200).map(event).collect(),
            ..Changes::default()
        };
        type Damage = fn(&Path);
        let damages: [Damage; 7] = [
            |path| drop(std::fs::write(files::beside(path, "-wal"), b"")),
            |path| cut(&files::beside(path, "-wal"), 16),
            |path| cut(&files::beside(path, "-wal"), 32 + 100),
            |path| cut(&files::beside(path, "-wal"), 32 + 2 * 4120),
            |path| cut(path, 100),
            |path| drop(std::fs::remove_file(files::beside(path, "-wal"))),
            |path| drop(std::fs::write(path, vec![0x55; 500_000])),
        ];
        for (number, damage) in damages.into_iter().enumerate() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("hearth.db");
            let mut store = Sqlite::open(&path).unwrap();
            store.commit(&many(1)).unwrap();
            drop(store);
            // Now a part of it is in the database, and a part in its log.
            let mut store = Sqlite::open(&path).unwrap();
            store.commit(&many(201)).unwrap();
            store.check().unwrap();
            // Behind the look at the files that precedes each commit.
            damage(&path);
            let committed = store.commit(&many(401));
            assert!(committed.is_err_and(|error| error.is_lost()), "{number}");
        }
        // A commit that brings the log into the database is not one of them.
        let dir = tempfile::tempdir().unwrap();
        let mut store = Sqlite::open(&dir.path().join("hearth.db")).unwrap();
        for from in (0..200).map(|part| 1 + part * 200) {
            store.commit(&many(from)).unwrap();
            store.check().unwrap();
        }
    }

    fn cut(path: &Path, bytes: u64) {
        std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
    }

    #[test]
    fn keys_go_when_they_are_too_old_or_too_many() {
        let mut store = Sqlite::in_memory().unwrap();
        let day = u64::try_from(KEY_LIVES.as_millis()).unwrap();
        commit(&mut store, "old", 10);
        commit(&mut store, "young", day);
        assert!(store.used("old").unwrap().is_some());
        commit(&mut store, "younger", 10 + day);
        assert_eq!(store.used("old").unwrap(), None);
        assert!(store.used("young").unwrap().is_some());
        let last = format!("UPDATE idempotency_keys SET id = {KEYS_MAX} + 1 WHERE key = 'younger'");
        store.connection.execute(&last, []).unwrap();
        commit(&mut store, "youngest", 11 + day);
        assert_eq!(store.used("young").unwrap(), None, "it is too far behind");
        assert!(store.used("younger").unwrap().is_some());
    }

    #[test]
    fn key_outlives_a_reboot_too_long_rather_than_too_short() {
        let mut store = Sqlite::in_memory().unwrap();
        commit(&mut store, "k", 1_000_000);
        let boot_id = Some("another".to_owned());
        store.commit(&Changes { boot_id, ..Changes::default() }).unwrap();
        assert_eq!(store.used("k").unwrap(), Some(used(0)));
    }
}
