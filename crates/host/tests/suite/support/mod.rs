//! What the tests with real microVMs share: a host in a directory of its own, specs, waiting.

#[path = "../../../../hearth/tests/suite/support/cgroups.rs"]
#[allow(dead_code, reason = "it is only cleared away here")]
mod cgroups;

use hearth_host::linux::{LinuxConfig, LinuxHost};
use hearth_host::{Host, LogQuery};
use hearth_model::{
    Action, Boot, Create, Delivery, Exit, Generation, Identity, ImageName, InstanceId,
    InstanceState, JobId, Lifecycle, Lookup, Machine, Owner, Resources, Signal, Slot, Spec, Stage,
    Tenant, hash,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take; stretched where the CPU is emulated.
const PATIENCE: Duration = Duration::from_secs(30);

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
    pub(crate) host: LinuxHost,
}

impl Drop for Lab {
    fn drop(&mut self) {
        cgroups::clear(&self.state.path().join("state"));
    }
}

impl Lab {
    /// With real Firecracker.
    pub(crate) async fn new(images: PathBuf) -> Lab {
        Lab::with(images, variable("HEARTH_TEST_FIRECRACKER")).await
    }

    pub(crate) async fn with(images: PathBuf, firecracker: PathBuf) -> Lab {
        let state = match std::env::var_os("HEARTH_TEST_STATE") {
            Some(dir) => tempfile::tempdir_in(dir),
            None => tempfile::tempdir(),
        };
        let state = state.expect("a state directory");
        let host = open(state.path(), &images, &firecracker).await;
        Lab { state, images, firecracker, host }
    }

    /// As a daemon that is killed and started again.
    pub(crate) async fn restart(&mut self) {
        self.host.close().await;
        self.host = open(self.state.path(), &self.images, &self.firecracker).await;
    }

    pub(crate) fn instance_dir(&self, id: &InstanceId) -> PathBuf {
        self.state.path().join("state/instances").join(id.as_str())
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
            slot: Slot(1),
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
            let waited = tokio::time::timeout(left, changes.changed()).await;
            assert!(waited.is_ok(), "still {state:?}; it says {:?}", self.texts(id).await);
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
            assert!(Instant::now() < end, "the log says {texts:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn open(state: &Path, images: &Path, firecracker: &Path) -> LinuxHost {
    let config = LinuxConfig {
        state_dir: state.join("state"),
        images_dir: images.to_owned(),
        // Of its own: the usual one is shared, and these tests name their instances alike.
        runtime_dir: Some(state.join("run")),
        firecracker: firecracker.to_owned(),
        image_bytes_max: 1 << 40,
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
