//! `GET /vms/{id}` at a fixed rate, alone and beside many POSTs at a fixed rate. A request that could
//! not be sent at its time because the previous one was not answered counts from that time.

use crate::Run;
use crate::http::{Connection, declaration};
use crate::server::Server;
use crate::statistics::{Figure, Limit, Samples, median, tell};
use anyhow::{Result, ensure};
use hyper::{Method, StatusCode};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

const READS_A_SECOND: u32 = 2_000;
const POSTS_A_SECOND: u32 = 5_000;
const DURATION: Duration = Duration::from_secs(5);
const ROUNDS: usize = 5;

/// What each connection sends.
#[derive(Debug, Clone, Copy)]
enum Load {
    Reads,
    Posts,
}

impl Load {
    fn a_second(self) -> u32 {
        match self {
            Load::Reads => READS_A_SECOND,
            Load::Posts => POSTS_A_SECOND,
        }
    }

    /// Enough that none of them is busy for long. A POST waits for the commit that it shares with others.
    fn connections(self) -> u32 {
        match self {
            Load::Reads => 16,
            Load::Posts => 64,
        }
    }
}

pub(crate) async fn measure(run: &Run) -> Result<Vec<Figure>> {
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let dir = tempfile::tempdir_in(&run.dir)?;
        // No boot ends while this is measured.
        let arguments = ["--host", "sim", "--sim-boot-ms", "600000", "--vcpus-per-cpu", "1000000"];
        let server = Server::start(&run.hearth, dir.path(), &arguments).await?;
        let body = declaration("read");
        let mut connection = server.connect().await?;
        connection.expect(Method::POST, "/vms", Some(&body), StatusCode::ACCEPTED).await?;
        let quiet = paced(server.address, Load::Reads).await?;
        let posts = tokio::spawn(paced(server.address, Load::Posts));
        let busy = paced(server.address, Load::Reads).await?;
        let posts = posts.await??;
        tell(format_args!("      round {}: GET alone: {quiet}", round + 1));
        tell(format_args!("      GET beside {POSTS_A_SECOND} POSTs/s: {busy}"));
        tell(format_args!("      these POSTs: {posts}"));
        ratios.push(busy.percentile(99) / quiet.percentile(99));
        alone.push(quiet.percentile(99));
        beside.push(busy.percentile(99));
    }
    let note =
        |name, values| Figure { name, value: median(values), unit: "ms", limit: Limit::Note };
    Ok(vec![
        Figure {
            name: "GET beside 5,000 POSTs/s against GET alone, p99",
            value: median(ratios),
            unit: "times",
            limit: Limit::AtMost(3.0),
        },
        note("GET alone, p99", alone),
        note("GET beside 5,000 POSTs/s, p99", beside),
    ])
}

/// Requests at so many a second over all connections. An error if they could not be sent that fast.
async fn paced(address: SocketAddr, load: Load) -> Result<Samples> {
    let (a_second, count) = (load.a_second(), load.connections());
    let interval = Duration::from_secs(1) * count / a_second;
    let start = Instant::now();
    let mut connections = JoinSet::new();
    for number in 0..count {
        let first = start + interval * number / count;
        connections.spawn(requests(address, load, number, first, interval));
    }
    let mut samples = Samples::default();
    while let Some(connection) = connections.join_next().await {
        samples.append(connection??);
    }
    // The last ones are answered a moment after the end.
    let late = start.elapsed().saturating_sub(DURATION);
    ensure!(late < DURATION / 10, "{a_second} requests/s of {load:?} took {late:?} longer");
    Ok(samples)
}

async fn requests(
    address: SocketAddr,
    load: Load,
    connection_number: u32,
    first: Instant,
    interval: Duration,
) -> Result<Samples> {
    let mut connection = Connection::open(address).await?;
    let mut samples = Samples::default();
    let count = DURATION.as_nanos() / interval.as_nanos();
    let mut due = first;
    for number in 0..count {
        let in_time = Instant::now() <= due;
        tokio::time::sleep_until(due).await;
        // A timer's own lateness is not the daemon's.
        let begun = if in_time { Instant::now() } else { due };
        match load {
            Load::Reads => {
                connection.expect(Method::GET, "/vms/read", None, StatusCode::OK).await?;
            }
            Load::Posts => {
                let body = declaration(&format!("job-{connection_number}-{number}"));
                connection.expect(Method::POST, "/vms", Some(&body), StatusCode::ACCEPTED).await?;
            }
        }
        samples.add(begun.elapsed());
        due += interval;
    }
    Ok(samples)
}
