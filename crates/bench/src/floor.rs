//! A server with the daemon's shape and none of its logic: axum, one writer thread that takes all
//! that waits and makes one commit of it, and an answer after that commit. What it reaches is what
//! there is to reach.

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use bytes::Bytes;
use rusqlite::{Connection, params};
use serde_json::Value;
use std::path::Path;
use tokio::sync::{mpsc, oneshot};

/// As many requests share a commit as in the daemon.
const BATCH_MAX: usize = 256;

/// One request: the row to write, and who waits for it.
type Write = (String, oneshot::Sender<()>);

/// Serves on a free port of 127.0.0.1, whose number it prints, until it is killed.
#[expect(clippy::print_stdout, reason = "the process that started it reads the address there")]
pub(crate) async fn serve(db: &Path) -> Result<()> {
    let database = Connection::open(db)?;
    database.pragma_update(None, "journal_mode", "WAL")?;
    database.pragma_update(None, "synchronous", "FULL")?;
    database.pragma_update(None, "wal_autocheckpoint", 4000)?;
    database.execute_batch(
        "CREATE TABLE jobs (job_id TEXT PRIMARY KEY, body TEXT NOT NULL) STRICT, WITHOUT ROWID;
         CREATE TABLE events (id INTEGER PRIMARY KEY, at TEXT NOT NULL, job_id TEXT,
             kind TEXT NOT NULL, message TEXT NOT NULL) STRICT;
         CREATE INDEX events_by_job ON events (job_id, id);",
    )?;
    let (queue, inbox) = mpsc::channel(4096);
    std::thread::spawn(move || write(database, inbox));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let router = Router::new().route("/vms", post(accept)).with_state(queue);
    axum::serve(listener, router).await?;
    Ok(())
}

async fn accept(State(queue): State<mpsc::Sender<Write>>, body: Bytes) -> (StatusCode, String) {
    let Ok(body) = serde_json::from_slice::<Value>(&body) else {
        return (StatusCode::BAD_REQUEST, String::new());
    };
    let (sender, written) = oneshot::channel();
    let row = body.to_string();
    if queue.send((row.clone(), sender)).await.is_err() || written.await.is_err() {
        return (StatusCode::SERVICE_UNAVAILABLE, String::new());
    }
    (StatusCode::ACCEPTED, row)
}

fn write(mut database: Connection, mut inbox: mpsc::Receiver<Write>) {
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let mut number = 0_u64;
    while inbox.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
        let rows = batch.iter().map(|(row, _)| row);
        if commit(&mut database, rows, &mut number).is_err() {
            return;
        }
        for (_, written) in batch.drain(..) {
            let _ = written.send(());
        }
    }
}

/// For each request a job and its two events.
fn commit<'a>(
    database: &mut Connection,
    rows: impl Iterator<Item = &'a String>,
    number: &mut u64,
) -> rusqlite::Result<()> {
    let transaction = database.transaction()?;
    for row in rows {
        *number += 1;
        let job = format!("job-{number:010}");
        transaction
            .prepare_cached("INSERT INTO jobs VALUES (?1, ?2)")?
            .execute(params![job, row])?;
        for event in 0..2 {
            let id = *number * 2 + event;
            transaction.prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5)")?.execute(
                params![id, "2026-01-01T00:00:00.000Z", job, "accepted", "generation 1 accepted"],
            )?;
        }
    }
    transaction.commit()
}
