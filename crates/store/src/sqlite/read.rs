//! What is read of a database. A row that makes no sense is damage.

use crate::caller::caller_of_word;
use crate::changes::{AppliedEntry, Loaded, Tombstone, Used};
use crate::error::StoreError;
use crate::event::{Event, EventKind};
use crate::query::{Accepted, EventPage, Events};
use crate::row::{self, InstanceRow, JobRow, ProgressRow};
use hearth_model::{Generation, InstanceId, JobId, Mono};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::BTreeMap;
use std::path::PathBuf;

pub(crate) fn load(connection: &Connection) -> Result<Loaded, StoreError> {
    let mut loaded = Loaded::default();
    load_jobs(connection, &mut loaded)?;
    for (id, body) in bodies(connection, "SELECT id, body FROM instances")? {
        let bad = |detail: String| StoreError::Row { what: format!("instance {id}"), detail };
        let row: InstanceRow = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
        let instance = row.into_instance(&id).map_err(bad)?;
        loaded.instances.insert(instance.id.clone(), instance);
    }
    load_rest(connection, &mut loaded)?;
    Ok(loaded)
}

pub(super) fn used(connection: &Connection, key: &str) -> Result<Option<Used>, StoreError> {
    let mut statement = connection
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

pub(super) fn events(connection: &Connection, query: &Events) -> Result<EventPage, StoreError> {
    let job = query.job.as_ref().map(JobId::as_str);
    let (oldest, newest) = connection
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
    let mut statement = connection
        .prepare_cached(&format!(
            "SELECT id, at, job_id, instance, generation, kind, message, details, caller
             FROM events
             WHERE (?1 IS NULL OR job_id = ?1) AND id > ?2 ORDER BY id {order} LIMIT ?3"
        ))
        .map_err(StoreError::Read)?;
    let rows = statement
        .query_map(params![job, i64::try_from(after).unwrap_or(i64::MAX), query.limit + 1], event)
        .map_err(StoreError::Read)?;
    let mut events: Vec<Event> = rows.collect::<Result<_, _>>().map_err(StoreError::Read)?;
    let more = query.after.is_some() && events.len() > query.limit;
    events.truncate(query.limit);
    if query.after.is_none() {
        events.reverse();
    }
    Ok(EventPage { events, more, oldest, newest })
}

/// Jobs with their progress. One without the other is damage.
fn load_jobs(connection: &Connection, loaded: &mut Loaded) -> Result<(), StoreError> {
    let mut progress: BTreeMap<String, String> =
        bodies(connection, progress_query(connection)?)?.into_iter().collect();
    for (id, body) in bodies(connection, "SELECT job_id, body FROM jobs")? {
        let bad = |detail: String| StoreError::Row { what: format!("job {id}"), detail };
        let row: JobRow<'_> = serde_json::from_str(&body).map_err(|e| bad(e.to_string()))?;
        let body = progress.remove(&id).ok_or_else(|| bad("its progress is missing".to_owned()))?;
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
fn progress_query(connection: &Connection) -> Result<&'static str, StoreError> {
    let exists = "SELECT count(*) FROM sqlite_schema WHERE name = 'progress'";
    let exists: u32 =
        connection.query_row(exists, [], |row| row.get(0)).map_err(StoreError::Read)?;
    Ok(match exists {
        0 => "SELECT job_id, body FROM jobs",
        _ => "SELECT job_id, body FROM progress",
    })
}

fn load_rest(connection: &Connection, loaded: &mut Loaded) -> Result<(), StoreError> {
    let job_id = |id: &str| {
        JobId::parse(id).map_err(|error| StoreError::Row {
            what: format!("job {id}"),
            detail: error.to_string(),
        })
    };
    let mut statement = connection
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
        row::generation(tombstone.generation.0)
            .map_err(|detail| StoreError::Row { what: format!("the deleted job {id}"), detail })?;
        loaded.tombstones.insert(job_id(&id)?, tombstone);
    }
    let mut statement =
        connection.prepare("SELECT instance FROM log_drops").map_err(StoreError::Read)?;
    let rows = statement.query_map([], |row| row.get::<_, String>(0)).map_err(StoreError::Read)?;
    for row in rows {
        let name = row.map_err(StoreError::Read)?;
        let id = InstanceId::parse(&name).map_err(|error| StoreError::Row {
            what: format!("the logs of instance {name}"),
            detail: error.detail,
        })?;
        loaded.log_drops.insert(id);
    }
    let mut statement = connection
        .prepare("SELECT path, job_id, digest, generation FROM file_entries")
        .map_err(StoreError::Read)?;
    let rows = statement
        .query_map([], |row| {
            let entry = AppliedEntry { digest: row.get(2)?, generation: Generation(row.get(3)?) };
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, entry))
        })
        .map_err(StoreError::Read)?;
    for row in rows {
        let (path, id, entry) = row.map_err(StoreError::Read)?;
        loaded.entries.insert((PathBuf::from(path), job_id(&id)?), entry);
    }
    loaded.last_event = newest_event(connection).map_err(StoreError::Read)?;
    loaded.boot_id = connection
        .query_row("SELECT value FROM facts WHERE name = 'boot_id'", [], |row| row.get(0))
        .optional()
        .map_err(StoreError::Read)?;
    Ok(())
}

fn bodies(connection: &Connection, query: &str) -> Result<Vec<(String, String)>, StoreError> {
    let mut statement = connection.prepare(query).map_err(StoreError::Read)?;
    let rows =
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).map_err(StoreError::Read)?;
    rows.collect::<Result<_, _>>().map_err(StoreError::Read)
}

pub(super) fn newest_event(connection: &Connection) -> rusqlite::Result<u64> {
    connection.query_row("SELECT coalesce(max(id), 0) FROM events", [], |row| row.get(0))
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
