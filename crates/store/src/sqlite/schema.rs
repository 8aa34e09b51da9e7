//! The tables, and what each version of them added.

use rusqlite_migration::{M, Migrations};

/// The first version.
pub(super) const SCHEMA: &str = "
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
pub(super) const IDEMPOTENCY: &str = "
CREATE TABLE idempotency_keys (
    id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, digest TEXT NOT NULL, job_id TEXT NOT NULL,
    accepted TEXT NOT NULL, since_ms INTEGER NOT NULL) STRICT;
CREATE INDEX idempotency_keys_by_age ON idempotency_keys (since_ms);
";

/// What came with the third version: the order of tombstones, by the event of the deletion, and logs
/// that are to be removed.
pub(super) const RETENTION: &str = "
ALTER TABLE tombstones ADD COLUMN event INTEGER NOT NULL DEFAULT 0;
CREATE TABLE log_drops (instance TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
";

/// What came with the fourth version: the fields of events, as JSON.
pub(super) const EVENT_DETAILS: &str = "ALTER TABLE events ADD COLUMN details TEXT;";

/// What came with the fifth version: the progress of a job has a row of its own, beside what is wanted of
/// it.
pub(super) const PROGRESS: &str = "
CREATE TABLE progress (job_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO progress
    SELECT job_id, json_remove(body,
        '$.tenant', '$.tenant_given', '$.generation', '$.run', '$.spec', '$.wanted')
    FROM jobs;
UPDATE jobs SET body = json_remove(body,
    '$.resolution', '$.outcome', '$.failures', '$.not_before_ms', '$.last_failure', '$.notes');
";

/// What came with the sixth version: who asked for what an event is of.
pub(super) const EVENT_CALLER: &str = "ALTER TABLE events ADD COLUMN caller TEXT;";

/// Those that bring a database of any version to this one's form.
pub(super) fn migrations() -> Migrations<'static> {
    Migrations::new(vec![
        M::up(SCHEMA),
        M::up(IDEMPOTENCY),
        M::up(RETENTION),
        M::up(EVENT_DETAILS),
        M::up(PROGRESS),
        M::up(EVENT_CALLER),
    ])
}
