//! A cold start: from the POST to the moment when Firecracker accepts InstanceStart, with a raw guest
//! on this machine's KVM. In turn with it a program that does only what is needed for that: a folder,
//! a link to the kernel, the spawn, and the same calls.

use crate::Run;
use crate::http::Connection;
use crate::server::Server;
use crate::statistics::{Figure, Limit, Samples, tell};
use anyhow::{Context, Result, ensure};
use hearth_firecracker::{
    Action, BootSource, Directory, Launched, MachineConfig, Spawn, Vsock, names,
};
use hyper::{Method, StatusCode};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the daemon logs at that moment, at the level debug.
const ACCEPTED: &str = "Firecracker accepted the start";
const MEM_MIB: u32 = 128;

pub(crate) async fn measure(run: &Run, firecracker: &Path, kernel: &Path) -> Result<Vec<Figure>> {
    let dir = tempfile::tempdir_in(&run.dir)?;
    let images = dir.path().join("images");
    fs::create_dir(&images)?;
    fs::copy(kernel, images.join("guest")).context("cannot copy the kernel")?;
    let (images_text, binary) = (images.display().to_string(), firecracker.display().to_string());
    let arguments = [
        "--host",
        "linux",
        "--images",
        &images_text,
        "--firecracker",
        &binary,
        "--log",
        "info,hearth_host=debug",
    ];
    let server = Server::start(&run.hearth, dir.path(), &arguments).await?;
    let mut connection = server.connect().await?;
    let mut floors = Samples::default();
    let mut posted: BTreeMap<String, Timestamp> = BTreeMap::new();
    for number in 0..run.samples {
        let folder = dir.path().join(format!("floor-{number}"));
        let begun = Instant::now();
        let launched = bare(firecracker, &images.join("guest"), &folder).await?;
        floors.add(begun.elapsed());
        launched.process.kill()?;
        launched.process.exited().await?;
        let job = format!("start-{number}");
        let at = Timestamp::now();
        let body = json!({"job_id": job, "spec": {"boot": "raw", "kernel": "guest",
            "resources": {"vcpu": 1, "mem_mb": MEM_MIB}, "lifecycle": "service"}});
        connection.expect(Method::POST, "/vms", Some(&body), StatusCode::ACCEPTED).await?;
        running(&mut connection, &job).await?;
        posted.insert(job.clone(), at);
        remove(&mut connection, &job).await?;
    }
    let log = server.log()?;
    server.kill()?;
    let starts = starts(&log, &posted)?;
    tell(format_args!("      POST to InstanceStart accepted: {starts}"));
    tell(format_args!("      spawn and calls alone: {floors}"));
    let (p50, mean) = (starts.median() / floors.median(), starts.mean() / floors.mean());
    let figure = |name, value| Figure { name, value, unit: "times", limit: Limit::AtMost(1.25) };
    Ok(vec![
        figure("start against spawn and calls, p50", p50),
        figure("start against spawn and calls, mean", mean),
    ])
}

/// Only the spawn and the calls, as the daemon makes them.
async fn bare(firecracker: &Path, kernel: &Path, folder: &Path) -> Result<Launched> {
    fs::create_dir(folder)?;
    fs::hard_link(kernel, folder.join("kernel"))?;
    let spawn = Spawn {
        binary: firecracker.to_owned(),
        directory: Arc::new(Directory::open(folder)?),
        id: "floor".to_owned(),
        cgroup: None,
        confinement: None,
        factor: 1.0,
    };
    let launched = spawn.launch().await?;
    let client = &launched.client;
    client.machine_config(&MachineConfig { vcpu_count: 1, mem_size_mib: MEM_MIB }).await?;
    let kernel_image_path = "kernel".to_owned();
    client
        .boot_source(&BootSource { kernel_image_path, initrd_path: None, boot_args: None })
        .await?;
    let uds_path = names::VSOCK_SOCKET.to_owned();
    client.vsock(&Vsock { guest_cid: 3, uds_path }).await?;
    client.entropy().await?;
    client.action(Action::InstanceStart).await?;
    Ok(launched)
}

async fn running(connection: &mut Connection, job: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        // Not so often that the question itself takes the time.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let shown = connection.get(&format!("/vms/{job}")).await?;
        if shown["status"] == "running" {
            return Ok(());
        }
        ensure!(begun.elapsed() < Duration::from_secs(30), "{job} does not run: {shown}");
    }
}

async fn remove(connection: &mut Connection, job: &str) -> Result<()> {
    let path = format!("/vms/{job}");
    connection.send(Method::DELETE, &path, None).await?;
    let begun = Instant::now();
    while connection.send(Method::GET, &path, None).await?.0 != StatusCode::NOT_FOUND {
        ensure!(begun.elapsed() < Duration::from_secs(30), "{job} does not go");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// From each POST to its line in the log.
fn starts(log: &[Value], posted: &BTreeMap<String, Timestamp>) -> Result<Samples> {
    let accepted: BTreeMap<&str, Timestamp> = log
        .iter()
        .filter(|line| line["message"] == ACCEPTED)
        .filter_map(|line| {
            Some((line["instance"].as_str()?, line["timestamp"].as_str()?.parse().ok()?))
        })
        .collect();
    let mut samples = Samples::default();
    for (job, at) in posted {
        let creating = log.iter().find(|line| line["kind"] == "creating" && line["job"] == *job);
        let instance = creating.and_then(|line| line["instance"].as_str());
        let instance = instance.with_context(|| format!("the log has no instance of {job}"))?;
        let accepted = accepted.get(instance).with_context(|| format!("{job} was not started"))?;
        samples.add(accepted.duration_since(*at).unsigned_abs());
    }
    Ok(samples)
}
