//! Many jobs in the simulated host: what the daemon holds and spends, and how soon it acts.

use crate::Run;
use crate::http::{Connection, declaration};
use crate::server::Server;
use crate::statistics::{Figure, Limit, Samples, tell};
use anyhow::{Context, Result, ensure};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};

const ARGUMENTS: [&str; 8] =
    ["--host", "sim", "--sim-boot-ms", "1", "--vcpus-per-cpu", "10000", "--memory-reserve-mb", "0"];
/// How long the daemon is left alone to see what it spends.
const IDLE: Duration = Duration::from_secs(30);
/// How often the cheaper ones are measured.
const SAMPLES: usize = 50;

pub(crate) async fn measure(run: &Run, jobs: usize) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&run.dir)?;
    let server = Server::start(&run.hearth, dir.path(), &ARGUMENTS).await?;
    let mut connection = server.connect().await?;
    let begun = Instant::now();
    for number in 0..jobs {
        let body = body(number, "1");
        connection.expect(Method::POST, "/vms", Some(&body), StatusCode::ACCEPTED).await?;
    }
    let posted = begun.elapsed();
    all_running(&mut connection, jobs).await?;
    let running = begun.elapsed();
    tell(format_args!(
        "{jobs} jobs posted in {posted:.1?} by one client, all running after {running:.1?}"
    ));

    let before = server.processor_time()?;
    tokio::time::sleep(IDLE).await;
    let spent = server.processor_time()?.saturating_sub(before);
    let percent = spent.as_secs_f64() / IDLE.as_secs_f64() * 100.0;
    let note = |name, value, unit| Figure { name, value, unit, limit: Limit::Note };
    let mut figures = vec![note("idle", percent, "% of a core")];
    // The daemon has closed what was idle for so long.
    let mut connection = server.connect().await?;

    let mut stats = Samples::default();
    for _ in 0..SAMPLES {
        let begun = Instant::now();
        connection.expect(Method::GET, "/stats", None, StatusCode::OK).await?;
        stats.add(begun.elapsed());
    }
    tell(format_args!("      GET /stats: {stats}"));
    figures.push(note("GET /stats, p50", stats.median(), "ms"));

    let changes = changes(&server, &mut connection, run.samples.min(jobs)).await?;
    tell(format_args!("      from POST to the creation that it leads to: {changes}"));
    figures.push(note("one change acted on, p50", changes.median(), "ms"));
    figures.push(note("resident", server.resident_mib()?, "MiB"));
    server.kill()?;
    let answered = restarts(run, dir.path()).await?;
    tell(format_args!("      from start to the first answer: {answered}"));
    figures.push(note("from start to the first answer, p50", answered.median(), "ms"));
    Ok(figures)
}

fn body(number: usize, value: &str) -> Value {
    let mut body = declaration(&format!("job-{number:05}"));
    body["spec"]["env"]["V"] = value.into();
    body
}

async fn all_running(connection: &mut Connection, jobs: usize) -> Result<()> {
    let begun = Instant::now();
    loop {
        let stats = connection.get("/stats").await?;
        let listed = stats["jobs"].as_array().context("no jobs")?;
        if listed.iter().filter(|job| job["status"] == "running").count() == jobs {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(300), "not all of them run");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// One job after the other gets a new generation; the daemon's log says when it acts on it.
async fn changes(server: &Server, connection: &mut Connection, count: usize) -> Result<Samples> {
    let mut posted = Vec::new();
    for number in 0..count {
        let body = body(number, "2");
        let at = Timestamp::now();
        connection.expect(Method::POST, "/vms", Some(&body), StatusCode::ACCEPTED).await?;
        posted.push((format!("job-{number:05}"), at));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let lines = server.log()?;
    let mut samples = Samples::default();
    for (job, at) in posted {
        let creating = lines.iter().find(|line| {
            line["kind"] == "creating" && line["job"] == job && line["generation"] == 2
        });
        let acted: Timestamp = creating
            .and_then(|line| line["timestamp"].as_str())
            .with_context(|| format!("the log has no creation for {job}"))?
            .parse()?;
        samples.add(acted.duration_since(at).unsigned_abs());
    }
    Ok(samples)
}

async fn restarts(run: &Run, dir: &Path) -> Result<Samples> {
    let mut answered = Samples::default();
    for _ in 0..5 {
        let server = Server::start(&run.hearth, dir, &ARGUMENTS).await?;
        answered.add(server.answered_after);
        server.kill()?;
    }
    Ok(answered)
}
