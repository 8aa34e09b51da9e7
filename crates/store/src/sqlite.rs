//! The database: one SQLite file. `synchronous=FULL`, so that a commit that returned survives a loss
//! of power.

mod connection;
pub(crate) mod copy;
mod read;
mod schema;
mod write;

use crate::changes::{Changes, Loaded, Used};
use crate::error::StoreError;
use crate::files::{self, Anchor, Files, Seen};
use crate::loss::Loss;
use crate::query::{EventPage, Events};
use crate::sqlite::connection::{BUSY, PROBE_BUSY, connect, settle, unusable, verified};
use crate::sqlite::copy::{copy_of, inspect};
use crate::sqlite::read::newest_event;
use crate::sqlite::schema::migrations;
use crate::store::Store;
use rusqlite::{Connection, OpenFlags};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How many pages of 4 KiB the write-ahead log grows to before it goes into the database file: a
/// page that changes with every commit is then written there once for many.
const CHECKPOINT_PAGES: i64 = 4000;

/// How long a checkpoint is trusted before all of the database is read again.
const WHOLE_EVERY: Duration = Duration::from_secs(60);
/// And at least so many times as long as reading it takes: a hundredth of the time.
const WHOLE_PAUSE_FACTOR: u32 = 100;

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
    whole: Whole,
    /// Open as long as the connection.
    file: File,
}

/// When all of the database was read last, and how long that took: it grows with the database, and nothing is
/// committed meanwhile.
#[derive(Debug)]
struct Whole {
    read_at: Instant,
    took: Duration,
    /// Whether a checkpoint has written to the database since.
    is_owed: bool,
}

impl Whole {
    fn is_due(&self) -> bool {
        let pause = WHOLE_EVERY.max(self.took * WHOLE_PAUSE_FACTOR);
        self.is_owed && self.read_at.elapsed() >= pause
    }
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
        let read_at = Instant::now();
        let verdict: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| unusable(path, error))?;
        let whole = Whole { read_at, took: read_at.elapsed(), is_owed: false };
        if verdict != "ok" {
            return Err(StoreError::Damaged { path: path.to_owned(), detail: verdict });
        }
        let mut sqlite = Sqlite::prepare(connection, path)?;
        let files = Files::of(path).map_err(file("look at", path))?;
        sqlite.place = Some(Place { path: path.clone(), files, lost: false, whole, file: opened });
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
        // A checkpoint is the store's own, so that it is known when the database file is written to.
        connection.pragma_update(None, "wal_autocheckpoint", 0).map_err(open)?;
        migrations()
            .to_latest(&mut connection)
            .map_err(|source| StoreError::Migrate { path: path.to_owned(), source })?;
        Ok(Sqlite { connection, place: None, last_event: 0 })
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
            Ok(seen) => {
                let read_at = Instant::now();
                let verified = verified(&self.connection, &place.path, self.last_event, seen);
                place.whole = Whole { read_at, took: read_at.elapsed(), is_owed: false };
                verified
            }
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

    /// A commit has returned: whether it is where it will be found. What a checkpoint has changed in the
    /// database file is read later.
    fn committed(&mut self) -> Result<(), StoreError> {
        let is_checkpoint = self.checkpoint();
        let Some(place) = &mut self.place else { return Ok(()) };
        let found = place.files.stamp();
        if is_checkpoint && matches!(found, Ok(Seen::Changed)) && !place.lost {
            place.whole.is_owed = true;
            return Ok(());
        }
        self.judge(found)
    }

    /// Brings the write-ahead log into the database file if it is long. Returns whether that was tried: where
    /// it fails, as on a full disk, the log has it all, and the next commit tries again.
    fn checkpoint(&self) -> bool {
        let pages = self.connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)");
        let pages = pages.and_then(|mut pages| pages.query_row([], |row| row.get::<_, i64>(1)));
        let is_due = pages.is_ok_and(|pages| pages >= CHECKPOINT_PAGES);
        if is_due {
            let _ = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        }
        is_due
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
}

impl From<Sqlite> for Box<dyn Store> {
    fn from(store: Sqlite) -> Box<dyn Store> {
        Box::new(store)
    }
}

impl Store for Sqlite {
    fn load(&self) -> Result<Loaded, StoreError> {
        read::load(&self.connection)
    }

    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        let transaction = self.connection.transaction().map_err(StoreError::Write)?;
        write::write(&transaction, changes).map_err(StoreError::Write)?;
        transaction.commit().map_err(StoreError::Write)?;
        self.last_event = changes.events.last().map_or(self.last_event, |event| event.id);
        self.committed()
    }

    fn used(&self, key: &str) -> Result<Option<Used>, StoreError> {
        read::used(&self.connection, key)
    }

    fn events(&self, query: &Events) -> Result<EventPage, StoreError> {
        read::events(&self.connection, query)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        let Some(place) = &self.place else { return Ok(()) };
        let found = match place.files.check() {
            Ok(Seen::Same) if place.whole.is_due() => Ok(Seen::Changed),
            found => found,
        };
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

#[cfg(test)]
mod tests {
    use super::schema::{EVENT_DETAILS, IDEMPOTENCY, RETENTION, SCHEMA};
    use super::*;
    use crate::changes::{KEY_LIVES, KEYS_MAX, Tombstone};
    use crate::event::{Event, EventKind};
    use crate::query::Accepted;
    use hearth_model::{Generation, InstanceId, JobId, Mono};

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
    fn database_is_read_a_while_after_a_checkpoint() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("hearth.db");
        let mut store = Sqlite::open(&path).unwrap();
        let large = "x".repeat(4096 * usize::try_from(CHECKPOINT_PAGES).unwrap());
        let facts = "INSERT INTO facts VALUES ('large', ?1)";
        store.connection.execute(facts, [large]).unwrap();
        commit(&mut store, "a", 1);
        // As if another program had written into the same commit.
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, &[0xff; 4096], 4096).unwrap();
        store.place.as_mut().unwrap().files.stamp().unwrap();
        store.check().unwrap();
        let whole = &mut store.place.as_mut().unwrap().whole;
        assert!(whole.is_owed);
        whole.read_at = Instant::now().checked_sub(WHOLE_EVERY).unwrap();
        assert!(store.check().unwrap_err().is_lost());
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
        let read = read::load(&Connection::open(&path).unwrap()).unwrap();
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
