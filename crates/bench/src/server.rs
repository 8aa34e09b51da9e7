//! The daemon under measurement: a process of its own, with its log in a file.

use crate::http::Connection;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// How long it may take to listen before the measurement is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The ticks in which Linux counts processor time for users: 100 a second on every architecture
/// that Firecracker runs on.
const USER_HZ: f64 = 100.0;

#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    /// From the spawn to its first answer.
    pub(crate) answered_after: Duration,
    log: PathBuf,
}

impl Server {
    /// Starts `hearth serve` on a free port, with its state in `dir`.
    pub(crate) async fn start(hearth: &Path, dir: &Path, arguments: &[&str]) -> Result<Server> {
        fs::create_dir_all(dir)?;
        let nothing = dir.join("nothing.exs");
        fs::write(&nothing, "[]\n")?;
        let state = dir.join("state");
        let log = dir.join("log");
        // A port that is free now: the daemon's own choice would have to be read from its output.
        let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut command = Command::new(hearth);
        command.args(["serve", "--log-format", "json", "--listen", &address.to_string()]);
        command.arg("--state-dir").arg(&state).arg("--desired").arg(&nothing).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log)?);
        let begun = Instant::now();
        let mut child = command.spawn().context("cannot start the daemon")?;
        while !answers(address).await {
            ensure!(begun.elapsed() < PATIENCE, "the daemon does not listen");
            ensure!(child.try_wait()?.is_none(), "the daemon ended: see {}", log.display());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(Server { child, address, answered_after: begun.elapsed(), log })
    }

    pub(crate) async fn connect(&self) -> Result<Connection> {
        Connection::open(self.address).await
    }

    /// What it has logged, line by line.
    pub(crate) fn log(&self) -> Result<Vec<Value>> {
        let text = fs::read_to_string(&self.log).context("cannot read the daemon's log")?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// What it holds of memory, in MiB: the resident set.
    pub(crate) fn resident_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
        Ok(kib.and_then(|kib| kib.parse::<f64>().ok()).context("no VmRSS")? / 1024.0)
    }

    /// The processor time that it has used.
    pub(crate) fn processor_time(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        let (_, fields) = stat.rsplit_once(')').context("no end of the name in stat")?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_secs_f64(ticks as f64 / USER_HZ))
    }

    /// Kills it as a crash would.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a request is answered: a connection alone is taken before the daemon has read its database.
async fn answers(address: SocketAddr) -> bool {
    match Connection::open(address).await {
        Ok(mut connection) => connection.get("/healthz").await.is_ok(),
        Err(_) => false,
    }
}
