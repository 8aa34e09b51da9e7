//! The 201 path: one client posts jobs for which a warm microVM is there. Beside each POST, in turn,
//! the rows that such a POST writes are written to another database on the same disk.

use crate::Run;
use crate::http::{Connection, declaration};
use crate::server::Server;
use crate::statistics::{Figure, Limit, Samples, tell};
use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode};
use rusqlite::types::Value;
use rusqlite::{Connection as Database, params_from_iter};
use serde_json::json;
use std::path::Path;
use std::time::{Duration, Instant};

/// Enough that no POST finds the pool empty while it is filled behind it.
const WARM: usize = 50;

pub(crate) async fn measure(run: &Run) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&run.dir)?;
    let arguments = ["--host", "sim", "--sim-boot-ms", "1", "--vcpus-per-cpu", "10000"];
    let server = Server::start(&run.hearth, dir.path(), &arguments).await?;
    let mut connection = server.connect().await?;
    let pool = json!({"min": WARM, "max": WARM});
    let first = body("first", Some(pool));
    connection.send(Method::POST, "/vms", Some(&first)).await?;
    warm(&mut connection).await?;
    claim(&mut connection, "warm-up").await?;
    let mut bare = Bare::open(dir.path())?;
    let (mut posts, mut commits) = (Samples::default(), Samples::default());
    for number in 0..run.samples {
        posts.add(claim(&mut connection, &format!("job-{number}")).await?);
        commits.add(bare.commit(number)?);
        // What is filled behind the claim is not part of the answer.
        if number % 25 == 24 {
            warm(&mut connection).await?;
        }
    }
    tell(format_args!("      POST, 201, one client: {posts}"));
    tell(format_args!("      bare commit of its rows: {commits}"));
    let ratio = |percent| posts.percentile(percent) / commits.percentile(percent);
    let figure =
        |name, percent, limit| Figure { name, value: ratio(percent), unit: "times", limit };
    Ok(vec![
        figure("201 against a bare commit, p50", 50, Limit::AtMost(5.0)),
        figure("201 against a bare commit, p99", 99, Limit::AtMost(10.0)),
    ])
}

fn body(job: &str, pool: Option<serde_json::Value>) -> serde_json::Value {
    let mut body = declaration(job);
    if let Some(pool) = pool {
        body["spec"]["warm_pool"] = pool;
    }
    body
}

async fn claim(connection: &mut Connection, job: &str) -> Result<Duration> {
    let body = body(job, None);
    let begun = Instant::now();
    connection.expect(Method::POST, "/vms", Some(&body), StatusCode::CREATED).await?;
    Ok(begun.elapsed())
}

async fn warm(connection: &mut Connection) -> Result<()> {
    let begun = Instant::now();
    loop {
        let stats = connection.get("/stats").await?;
        if stats["summary"]["total_warm"].as_u64() >= u64::try_from(WARM).ok() {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(60), "the pool is not filled");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The rows that the daemon writes for a claim, committed as it commits.
struct Bare {
    database: Database,
    rows: Vec<Row>,
}

/// A row of the daemon's, to be written again under other keys.
struct Row {
    insert: String,
    values: Vec<Value>,
    /// Which column is the key.
    key: usize,
}

/// What a claim writes: each table with its key, and which of its rows are of `warm-up`.
const WRITTEN: [(&str, &str, &str); 4] = [
    ("jobs", "job_id", "job_id = 'warm-up'"),
    ("progress", "job_id", "job_id = 'warm-up'"),
    ("instances", "id", "body LIKE '%\"job\":\"warm-up\"%'"),
    ("events", "id", "job_id = 'warm-up' ORDER BY id LIMIT 3"),
];

impl Bare {
    /// With the rows of `warm-up`, as they are in the database of the daemon in `dir`.
    fn open(dir: &Path) -> Result<Bare> {
        let theirs = Database::open(dir.join("state/hearth.db"))?;
        let mut rows = Vec::new();
        for (table, key, condition) in WRITTEN {
            // A baseline may be older than the table.
            if !theirs.table_exists(None, table)? {
                continue;
            }
            let before = rows.len();
            let mut query = theirs.prepare(&format!("SELECT * FROM {table} WHERE {condition}"))?;
            let columns: Vec<String> =
                query.column_names().into_iter().map(str::to_owned).collect();
            let key = columns.iter().position(|column| column == key).context("no key")?;
            let places = vec!["?"; columns.len()].join(", ");
            let insert = format!("INSERT OR REPLACE INTO {table} VALUES ({places})");
            let values =
                |row: &rusqlite::Row<'_>| (0..columns.len()).map(|at| row.get(at)).collect();
            for values in query.query_map([], values)? {
                rows.push(Row { insert: insert.clone(), values: values?, key });
            }
            ensure!(rows.len() > before, "a claim wrote nothing into {table}");
        }
        let schema: Vec<String> = theirs
            .prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let database = Database::open(dir.join("bare.db"))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.execute_batch(&schema.join(";\n"))?;
        Ok(Bare { database, rows })
    }

    /// A job, its instance, and the events of a claim.
    fn commit(&mut self, number: usize) -> Result<Duration> {
        let begun = Instant::now();
        let transaction = self.database.transaction()?;
        for (at, row) in self.rows.iter_mut().enumerate() {
            let key = &mut row.values[row.key];
            *key = match key {
                Value::Integer(_) => Value::Integer((number * 10 + at).try_into()?),
                _ => Value::Text(format!("job-{number}")),
            };
            transaction.prepare_cached(&row.insert)?.execute(params_from_iter(&row.values))?;
        }
        transaction.commit()?;
        Ok(begun.elapsed())
    }
}
