//! A real daemon over real Firecracker, as a process that a test can kill.

use crate::support::{cgroups, native};

use hearth_api::{Client, CreateVm, Endpoint, Job, JobFilter, JobStatus, LogQuery, Stats};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Longer than two boots on an emulated CPU of a busy machine: where a guest hangs in its boot, as
/// some do there, another takes its place after 120 s.
pub const PATIENCE: Duration = Duration::from_secs(240);

pub struct Daemon {
    child: Option<Child>,
    pub client: Client,
    state: tempfile::TempDir,
    desired: PathBuf,
}

fn variable(name: &str) -> PathBuf {
    let value = std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: run this by `cargo xtask ci native lab`, which sets it")
    });
    PathBuf::from(value)
}

impl Daemon {
    pub async fn start(desired: &Path) -> Daemon {
        let parent = variable("HEARTH_TEST_STATE");
        fs::create_dir_all(&parent).unwrap();
        let state = tempfile::tempdir_in(parent).unwrap();
        let client = Client::new("http://127.0.0.1:1".parse().unwrap());
        let mut daemon = Daemon { child: None, client, state, desired: desired.to_owned() };
        daemon.launch().await;
        daemon
    }

    pub async fn launch(&mut self) {
        let address = self.state.path().join("listen");
        let _ = fs::remove_file(&address);
        let child = Command::new(env!("CARGO_BIN_EXE_hearth"))
            .args(["serve", "--host", "linux", "--listen", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(self.state.path())
            .arg("--images")
            .arg(variable("HEARTH_TEST_IMAGES"))
            .arg("--firecracker")
            .arg(variable("HEARTH_TEST_FIRECRACKER"))
            .arg("--desired")
            .arg(&self.desired)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        let deadline = Instant::now() + PATIENCE;
        while !address.exists() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the daemon ended: {ended:?}");
            assert!(Instant::now() < deadline, "the daemon does not listen");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let endpoint: Endpoint = fs::read_to_string(&address).unwrap().trim().parse().unwrap();
        self.client = Client::new(endpoint);
    }

    /// SIGKILL, and nothing else: the microVMs are not ours to end here.
    pub fn kill(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub async fn post(&self, job: &str, tenant: Option<&str>, spec: &Value) -> (u16, Job) {
        let body = CreateVm {
            job_id: Some(job.to_owned()),
            tenant: tenant.map(str::to_owned),
            spec: spec.clone(),
        };
        self.client.create(&body).await.unwrap_or_else(|error| panic!("POST {job}: {error:?}"))
    }

    pub async fn until(&self, job: &str, what: &str, is: impl Fn(&Job) -> bool) -> Job {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let seen = match self.client.job(job).await {
                Ok(seen) if is(&seen) => return seen,
                Ok(seen) => Some(seen),
                // A file is loaded behind the first answers of its daemon.
                Err(error) if error.problem().is_some_and(|problem| problem.status == 404) => None,
                Err(error) => panic!("{job}: {error:?}"),
            };
            assert!(Instant::now() < deadline, "{job} is not {what} in time: {seen:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn until_status(&self, job: &str, status: JobStatus) -> Job {
        self.until(job, status.as_str(), |seen| seen.status == status).await
    }

    pub async fn until_warm(&self, count: usize) -> Stats {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let stats = self.client.stats().await.unwrap();
            if stats.summary.total_warm == count {
                return stats;
            }
            assert!(Instant::now() < deadline, "not {count} warm in time: {:?}", stats.warm_pool);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// What a guest's HTTP server on port 4000 answers, once it listens.
    pub async fn fetch(&self, job: &str, path: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut tunnel = loop {
            match self.client.connect_port(job, 4000).await {
                Ok(tunnel) => break tunnel,
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let request = format!("GET {path} HTTP/1.0\r\nHost: guest\r\n\r\n");
        tunnel.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tunnel.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub async fn output(&self, job: &str) -> String {
        let mut stream = self.client.logs(job, &LogQuery::default()).await.unwrap();
        let mut text = String::new();
        while let Some(line) = stream.next().await.unwrap() {
            text.push_str(&line.text);
            text.push_str(if line.partial { "" } else { "\n" });
        }
        text
    }

    /// The cgroups of its instances and the processes in them, where there can be any.
    pub fn cgroups(&self) -> Option<Vec<(String, Vec<u32>)>> {
        cgroups::members(self.state.path())
    }

    /// The Firecrackers whose working directory is an instance of this daemon, by instance.
    pub fn processes(&self) -> Vec<(String, u32)> {
        let found = native::processes(&self.state.path().join("instances"));
        found.into_iter().map(|(instance, pid)| (instance, pid.unsigned_abs())).collect()
    }

    pub fn process_of(&self, vm_id: &str) -> u32 {
        let suffix = vm_id.split_once('-').unwrap().1;
        let processes = self.processes();
        let found = processes.iter().find(|(instance, _)| instance == suffix);
        found.unwrap_or_else(|| panic!("no process of {vm_id} in {processes:?}")).1
    }

    /// Deletes all jobs and sees that nothing is left of them.
    pub async fn clean(&self) {
        for job in self.client.jobs(&JobFilter::default()).await.unwrap() {
            self.client.delete(&job.job_id).await.unwrap();
        }
        let deadline = Instant::now() + PATIENCE;
        let instances = self.state.path().join("instances");
        loop {
            let left: Vec<_> = fs::read_dir(&instances).unwrap().flatten().collect();
            let cgroups = self.cgroups().unwrap_or_default();
            if left.is_empty() && self.processes().is_empty() && cgroups.is_empty() {
                return;
            }
            if Instant::now() >= deadline {
                let files = |dir: &fs::DirEntry| fs::read_dir(dir.path()).unwrap().flatten();
                let files: Vec<_> = left.iter().map(|dir| files(dir).collect::<Vec<_>>()).collect();
                let stats = self.client.stats().await;
                panic!("left: {left:?} {files:?} {cgroups:?} {:?}; {stats:?}", self.processes());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Daemon {
    /// A test that fails leaves no microVM behind.
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        for (_, pid) in self.processes() {
            let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
        }
        cgroups::clear(self.state.path());
    }
}

/// A spec of the test root filesystem that runs a shell line.
pub fn shell(lifecycle: &str, line: &str) -> Value {
    json!({
        "rootfs": "rootfs-test.ext4", "kernel": "vmlinux", "cmd": ["/bin/sh", "-c", line],
        "resources": {"vcpu": 1, "mem_mb": 128}, "lifecycle": lifecycle,
    })
}
