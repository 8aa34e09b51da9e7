//! What a commit writes.

use crate::caller::caller_word;
use crate::changes::{Changes, KEY_LIVES, KEYS_MAX, Tombstone, Used};
use hearth_model::{InstanceId, JobId};
use rusqlite::{Transaction, params};

pub(super) fn write(transaction: &Transaction<'_>, changes: &Changes<'_>) -> rusqlite::Result<()> {
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
