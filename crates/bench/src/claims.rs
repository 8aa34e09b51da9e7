//! The 201 path: one client posts jobs for which a warm microVM is there. Beside each POST, in turn,
//! the rows that such a POST writes are written to another database on the same disk.

use crate::server::Server;
use crate::statistics::{Limit, Samples, report, tell};
use crate::{Run, http::Connection};
use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode};
use rusqlite::{Connection as Database, params};
use serde_json::{Value, json};
use std::path::Path;
use std::time::{Duration, Instant};

/// Enough that no POST finds the pool empty while it is filled behind it.
const WARM: usize = 50;

pub(crate) async fn measure(run: &Run) -> Result<()> {
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
    tell(format_args!("POST, 201, one client: {posts}"));
    tell(format_args!("bare commit of its rows: {commits}"));
    let ratio = |percent| posts.percentile(percent) / commits.percentile(percent);
    report("201 against a bare commit, p50", ratio(50), "times", Limit::AtMost(5.0));
    report("201 against a bare commit, p99", ratio(99), "times", Limit::AtMost(10.0));
    Ok(())
}

fn body(job: &str, pool: Option<Value>) -> Value {
    let mut body = json!({"job_id": job, "tenant": "bench", "spec": {
        "rootfs": "rootfs-web.ext4", "kernel": "vmlinux", "cmd": ["/app/bin/server"],
        "env": {"MIX_ENV": "prod", "DATABASE_URL": "postgresql://localhost/myapp"},
        "resources": {"vcpu": 1, "mem_mb": 1}, "lifecycle": "service"}});
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

/// Rows of the size that the daemon writes for a claim, committed as it commits.
struct Bare {
    database: Database,
    job: String,
    instance: String,
}

impl Bare {
    /// With the rows of `warm-up`, as they are in the database of the daemon in `dir`.
    fn open(dir: &Path) -> Result<Bare> {
        let theirs = Database::open(dir.join("state/hearth.db"))?;
        let query = "SELECT body FROM jobs WHERE job_id = 'warm-up'";
        let job = theirs.query_row(query, [], |row| row.get(0)).context("no job")?;
        let query = "SELECT body FROM instances WHERE body LIKE '%\"job\":\"warm-up\"%'";
        let instance = theirs.query_row(query, [], |row| row.get(0)).context("no instance")?;
        let schema: Vec<String> = theirs
            .prepare("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        let database = Database::open(dir.join("bare.db"))?;
        database.pragma_update(None, "journal_mode", "WAL")?;
        database.pragma_update(None, "synchronous", "FULL")?;
        database.execute_batch(&schema.join(";\n"))?;
        Ok(Bare { database, job, instance })
    }

    /// A job, its instance, and the three events of a claim.
    fn commit(&mut self, number: usize) -> Result<Duration> {
        let begun = Instant::now();
        let transaction = self.database.transaction()?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO jobs VALUES (?1, ?2)")?
            .execute(params![format!("job-{number}"), self.job])?;
        transaction
            .prepare_cached("INSERT OR REPLACE INTO instances VALUES (?1, ?2)")?
            .execute(params![format!("instance{number}"), self.instance])?;
        for event in 0..3 {
            transaction
                .prepare_cached("INSERT INTO events VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
                .execute(params![
                number * 3 + event,
                "2026-01-01T00:00:00.000Z",
                format!("job-{number}"),
                format!("instance{number}"),
                1,
                "accepted",
                "generation 1 accepted",
            ])?;
        }
        transaction.commit()?;
        Ok(begun.elapsed())
    }
}
