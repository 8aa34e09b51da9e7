//! What the tests with real microVMs share: a host in a directory of its own, specs, waiting.

#[path = "../../../../hearth/tests/suite/support/cgroups.rs"]
#[allow(dead_code, reason = "members are counted elsewhere")]
mod cgroups;

use hearth_host::linux::{FIRST_USER, LinuxConfig, LinuxHost};
use hearth_host::{Host, LogQuery};
use hearth_model::{
    Action, Boot, Create, Delivery, Exit, Generation, Identity, ImageName, InstanceId,
    InstanceState, JobId, Lifecycle, Lookup, Machine, Owner, Resources, Signal, Slot, Spec, Stage,
    Tenant, hash,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How long anything may take; stretched where the CPU is emulated.
const PATIENCE: Duration = Duration::from_secs(30);

/// One that no other test has at the time: to each belongs a user.
fn slot() -> Slot {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    Slot((std::process::id() * 100 + count) % Slot::COUNT)
}

pub(crate) fn variable(name: &str) -> PathBuf {
    PathBuf::from(std::env::var_os(name).unwrap_or_else(|| {
        panic!("{name} is not set: `cargo xtask ci` sets it and runs this test")
    }))
}

/// A real host with its directories.
pub(crate) struct Lab {
    pub(crate) state: tempfile::TempDir,
    pub(crate) images: PathBuf,
    pub(crate) firecracker: PathBuf,
    /// Whether its instances are confined.
    pub(crate) jailed: bool,
    pub(crate) host: LinuxHost,
}

impl Drop for Lab {
    fn drop(&mut self) {
        cgroups::clear(&self.state.path().join("state"));
    }
}

impl Lab {
    /// With real Firecracker, confined where this user can.
    pub(crate) async fn new(images: PathBuf) -> Lab {
        let jailed = rustix::process::geteuid().is_root();
        Lab::with(images, variable("HEARTH_TEST_FIRECRACKER"), jailed).await
    }

    pub(crate) async fn with(images: PathBuf, firecracker: PathBuf, jailed: bool) -> Lab {
        let state = match std::env::var_os("HEARTH_TEST_STATE") {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let state = state.expect("a state directory");
        let host = open(state.path(), &images, &firecracker, jailed).await;
        Lab { state, images, firecracker, jailed, host }
    }

    /// As a daemon that is killed and started again.
    pub(crate) async fn restart(&mut self) {
        self.host.close().await;
        self.host = open(self.state.path(), &self.images, &self.firecracker, self.jailed).await;
    }

    pub(crate) fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.state.path().join("state/instances").join(id.as_str())
    }

    pub(crate) fn cgroup(&self, id: &InstanceId) -> PathBuf {
        let parent = cgroups::parent(&self.state.path().join("state"));
        parent.expect("version 2 of cgroups").join(id.as_str())
    }

    /// What a file of an instance's cgroup says.
    pub(crate) fn limit(&self, id: &InstanceId, name: &str) -> String {
        let file = self.cgroup(id).join(name);
        let text = std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{name}: {error}"));
        text.trim().to_owned()
    }

    pub(crate) async fn create(
        &self,
        id: &str,
        spec: Spec,
        stage: Stage,
        owner: Owner,
    ) -> InstanceId {
        let create = self.creation(id, spec, stage, owner).await;
        let id = create.instance.clone();
        self.host.apply(Action::Create(Box::new(create))).await.expect("created");
        id
    }

    pub(crate) async fn creation(
        &self,
        id: &str,
        spec: Spec,
        stage: Stage,
        owner: Owner,
    ) -> Create {
        let images = match self.host.resolve(&spec, PATIENCE).await.expect("resolved") {
            Lookup::Known(images) => images,
            Lookup::Preparing(progress) => panic!("{progress}"),
        };
        Create {
            instance: InstanceId::parse(id).expect("an id"),
            slot: slot(),
            hash: hash::spec_hash(&spec, &images),
            machine: Machine::boot(&spec, &images),
            workload: Delivery::of(spec.boot, stage, &owner),
            spec: Arc::new(spec),
            stage,
            owner,
        }
    }

    pub(crate) async fn state_of(&self, id: &InstanceId) -> Option<InstanceState> {
        let seen = self.host.observe(None).await.expect("a look");
        seen.instances.get(id).map(|seen| seen.state.clone())
    }

    pub(crate) async fn wait(
        &self,
        id: &InstanceId,
        until: impl Fn(&InstanceState) -> bool,
    ) -> InstanceState {
        let mut changes = self.host.changes();
        let end = Instant::now() + PATIENCE * self.host.facts().time_factor;
        loop {
            changes.borrow_and_update();
            let state = self.state_of(id).await;
            if let Some(state) = state.as_ref().filter(|state| until(state)) {
                return state.clone();
            }
            let ended = matches!(state, Some(InstanceState::Exited(_)));
            assert!(!ended, "ended: {state:?}; it says {:?}", self.texts(id).await);
            let left = end.saturating_duration_since(Instant::now());
            if tokio::time::timeout(left, changes.changed()).await.is_err() {
                panic!("still {}", self.what_it_does(id).await);
            }
        }
    }

    pub(crate) async fn exit(&self, id: &InstanceId) -> Exit {
        match self.wait(id, |state| matches!(state, InstanceState::Exited(_))).await {
            InstanceState::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn stop(&self, id: &InstanceId, timeout_s: u32) {
        let stop = Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s };
        self.host.apply(stop).await.expect("stopped");
    }

    pub(crate) async fn remove(&self, id: &InstanceId) {
        self.host.apply(Action::Remove { instance: id.clone() }).await.expect("removed");
    }

    pub(crate) async fn texts(&self, id: &InstanceId) -> Vec<String> {
        let page = self.host.logs(id, LogQuery::default()).await.expect("logs");
        page.lines.into_iter().map(|line| line.text).collect()
    }

    /// Waits for a line of the log.
    pub(crate) async fn says(&self, id: &InstanceId, text: &str) {
        let end = Instant::now() + PATIENCE * self.host.facts().time_factor;
        loop {
            let texts = self.texts(id).await;
            if texts.iter().any(|line| line.contains(text)) {
                return;
            }
            if Instant::now() >= end {
                panic!("{text:?} is not in the log; it is {}", self.what_it_does(id).await);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// For the message of a test that waits without success. A guest that said nothing within [`PATIENCE`], in its boot
    /// or with a vCPU that spins, is named in words that `cargo xtask ci` looks for: on an emulated CPU that happens.
    async fn what_it_does(&self, id: &InstanceId) -> String {
        let (state, texts) = (self.state_of(id).await, self.texts(id).await);
        let threads = threads_of(&self.instance_dir(id)).await;
        let is_booting = matches!(state, Some(InstanceState::Booting));
        let hangs = texts.is_empty() && (is_booting || threads.contains("(fc_vcpu 0) R"));
        let hangs = if hangs { "; a guest hangs" } else { "" };
        format!("{state:?}; it says {texts:?}; its threads: {threads}{hangs}")
    }
}

/// The threads of an instance's process: name, state, and ticks of CPU time twice, 1 s apart. A vCPU that
/// waits for an interrupt uses none, one that runs in circles 100.
async fn threads_of(instance_dir: &Path) -> String {
    let pid = std::fs::read_to_string(instance_dir.join("pid")).unwrap_or_default();
    let tasks = PathBuf::from(format!("/proc/{}/task", pid.trim()));
    let look = || {
        let tasks = std::fs::read_dir(&tasks).into_iter().flatten().flatten();
        let stats = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        stats.map(|stat| {
            let (name, rest) = stat.rsplit_once(')').unwrap_or((&stat, ""));
            let fields: Vec<&str> = rest.split_whitespace().collect();
            let field = |at: usize| fields.get(at).copied().unwrap_or("?").to_owned();
            // proc_pid_stat(5): state, and user and system time; the second field is the name.
            format!("{}) {} {}+{}", name, field(0), field(11), field(12))
        })
    };
    let before: Vec<String> = look().collect();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let after: Vec<String> = look().collect();
    format!("{} then {}", before.join(", "), after.join(", "))
}

async fn open(state: &Path, images: &Path, firecracker: &Path, jailed: bool) -> LinuxHost {
    let config = LinuxConfig {
        state_dir: state.join("state"),
        images_dir: images.to_owned(),
        // Of its own: the usual one is shared, and these tests name their instances alike.
        runtime_dir: Some(state.join("run")),
        firecracker: firecracker.to_owned(),
        image_bytes_max: 1 << 40,
        jail_users: jailed.then_some(FIRST_USER),
        time_factor: None,
    };
    LinuxHost::open(config).await.expect("a host")
}

pub(crate) fn image(name: &str) -> ImageName {
    ImageName::parse(name).expect("an image name")
}

/// A bare guest.
pub(crate) fn raw(kernel: &str) -> Spec {
    Spec {
        boot: Boot::Raw,
        rootfs: None,
        kernel: image(kernel),
        cmd: Vec::new(),
        env: BTreeMap::new(),
        resources: Resources { vcpu: 1, mem_mib: 128 },
        lifecycle: Lifecycle::Service,
        warm_pool: None,
        ready: None,
        retries: 0,
        timeout_s: None,
        auto_remove: false,
        labels: Default::default(),
        stop_signal: Signal::TERM,
        stop_timeout_s: 10,
        disk_mib: 64,
    }
}

pub(crate) fn job(name: &str, generation: u64) -> Identity {
    Identity {
        job_id: JobId::parse(name).expect("a job id"),
        tenant: Tenant::parse("test").expect("a tenant"),
        generation: Generation(generation),
    }
}
