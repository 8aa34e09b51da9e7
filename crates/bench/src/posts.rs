//! The 202 path: 64 clients post jobs for which there is no warm microVM. The load comes from wrk,
//! which takes little of the processors that it shares with the server; the daemon and the server
//! without logic take turns, each on a new database.

use crate::Run;
use crate::server::Server;
use crate::statistics::{Figure, Limit, median, tell};
use anyhow::{Context, Result, bail};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

const ROUNDS: usize = 5;
const SECONDS: &str = "3s";

/// Each POST makes another job, since the name is left to the server.
const SCRIPT: &str = r#"
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.body = '{"tenant":"bench","spec":{"rootfs":"rootfs-web.ext4","kernel":"vmlinux","cmd":["/app/bin/server"],"env":{"MIX_ENV":"prod","DATABASE_URL":"postgresql://localhost/myapp"},"resources":{"vcpu":1,"mem_mb":1},"lifecycle":"service"}}'
done = function(summary, latency, requests)
  io.write(string.format("RESULT %d %d %d\n", summary.requests, summary.duration, summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout))
end
"#;

pub(crate) async fn measure(run: &Run) -> Result<Vec<Figure>> {
    let (mut ours, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let dir = tempfile::tempdir_in(&run.dir)?;
        let script = dir.path().join("post.lua");
        std::fs::write(&script, SCRIPT)?;
        floors.push(floor(dir.path(), &script)?);
        // A boot takes longer than the measurement, so that no more than the first few boots
        // share the processors with the answers.
        let arguments = ["--host", "sim", "--sim-boot-ms", "600000", "--vcpus-per-cpu", "100000"];
        let server = Server::start(&run.hearth, dir.path(), &arguments).await?;
        ours.push(load(&server.address.to_string(), &script)?);
    }
    let told = |rates: &[f64]| {
        let told: Vec<String> = rates.iter().map(|rate| format!("{rate:.0}")).collect();
        format!("{}/s", told.join(", "))
    };
    tell(format_args!("      server without logic, 64 clients: {}", told(&floors)));
    tell(format_args!("      POST, 202, 64 clients: {}", told(&ours)));
    Ok(vec![Figure {
        name: "202 against a server without logic",
        value: median(ours) / median(floors),
        unit: "times",
        limit: Limit::AtLeast(0.5),
    }])
}

fn floor(dir: &Path, script: &Path) -> Result<f64> {
    let mut floor = Command::new(std::env::current_exe()?)
        .arg("floor")
        .arg(dir.join("floor.db"))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut address = String::new();
    let output = floor.stdout.take().context("the floor has no output")?;
    BufReader::new(output).read_line(&mut address)?;
    let rate = load(address.trim(), script);
    floor.kill()?;
    floor.wait()?;
    rate
}

/// Requests a second, all of which were accepted.
fn load(address: &str, script: &Path) -> Result<f64> {
    let wrk = Command::new("wrk")
        .args(["-t1", "-c64", "-d", SECONDS, "-s"])
        .arg(script)
        .arg(format!("http://{address}/vms"))
        .output()
        .context("cannot run wrk")?;
    let text = String::from_utf8_lossy(&wrk.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("RESULT "));
    let numbers: Vec<f64> = line
        .with_context(|| format!("wrk said {text}"))?
        .split(' ')
        .map(str::parse)
        .collect::<Result<_, _>>()?;
    match numbers[..] {
        [requests, micros, 0.0] => Ok(requests / micros * 1e6),
        _ => bail!("some requests failed: {text}"),
    }
}
