//! An engine over a simulated host, with time that a test moves.

use hearth_engine::{
    Accepted, ActionId, ApplyFile, Ask, Call, Changed, Config, Deletions, DiffBase, Effect, Engine,
    EntryDigest, FileEntry, FileLoad, Input, JobView, LoadPlan, Now, PlanFile, PoolView,
    Preconditions, Refusal, ReplyTo, Upsert, WarmView,
};
use hearth_host::sim::{SimConfig, SimHost};
use hearth_host::{Host, HostError, HostFacts};
use hearth_model::{Action, Caller, InstanceId, JobId, Mono, Resolution, Spec, Tenant, Value};
use hearth_planner::{Capacity, Limits, Status};
use hearth_store::{Sqlite, Store};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tokio::time::Instant;

/// Everything that is published.
#[derive(Debug, PartialEq)]
pub struct Stats {
    pub jobs: Vec<JobView>,
    pub pools: Vec<PoolView>,
    pub warm_pool: Vec<WarmView>,
    pub unidentified: Vec<String>,
}

/// An engine, its host, and what is under way between them.
pub struct World {
    pub engine: Engine,
    pub host: SimHost,
    began: Instant,
    /// What the next step takes in.
    pub pending: Vec<Input>,
    /// Words to guests wait from now on.
    pub tells_wait: bool,
    waiting: Vec<(ActionId, Action)>,
    /// Why guests refuse their workloads from now on.
    pub workloads_refused: Option<&'static str>,
    /// What the host cannot identify from now on, and why.
    pub unidentified: BTreeMap<InstanceId, String>,
    /// Who sends the requests from now on.
    pub caller: Caller,
}

pub fn capacity(facts: &HostFacts) -> Capacity {
    Capacity {
        vcpus: u64::from(facts.cpus) * 8,
        memory_mib: facts.memory_mib,
        overhead_mib: facts.overhead_mib,
        scratch_mib: None,
    }
}

fn config(host: &SimHost, boot_id: &str) -> Config {
    Config {
        capacity: capacity(&host.facts()),
        limits: Limits::default(),
        disk_overcommit: hearth_engine::DiskOvercommit::Warn,
        retention: hearth_engine::Retention::default(),
        boot_id: boot_id.to_owned(),
        seed: 1,
    }
}

/// What a request was answered, once its step is over.
pub struct Answer<R>(Receiver<Result<R, Refusal>>);

impl<R> Answer<R> {
    pub fn get(self) -> Result<R, Refusal> {
        self.0.try_recv().expect("each request is answered by its step")
    }
}

impl World {
    pub fn new() -> World {
        World::with(SimConfig::default(), Sqlite::in_memory().unwrap())
    }

    pub fn with(sim: SimConfig, store: impl Into<Box<dyn Store>>) -> World {
        let host = SimHost::new(sim);
        let config = config(&host, "boot-1");
        World::of(host, store, config)
    }

    /// A host that was booted since: there is nothing on it of what was.
    pub fn booted(store: impl Into<Box<dyn Store>>) -> World {
        let host = SimHost::new(SimConfig::default());
        let config = config(&host, "boot-2");
        World::of(host, store, config)
    }

    /// A world that forgets sooner or later than others.
    pub fn keeping(retention: hearth_engine::Retention) -> World {
        let host = SimHost::new(SimConfig::default());
        let config = Config { retention, ..config(&host, "boot-1") };
        World::of(host, Sqlite::in_memory().unwrap(), config)
    }

    /// A host with so many MiB for scratch disks, all in all.
    pub fn with_disk(mib: u64, disk_overcommit: hearth_engine::DiskOvercommit) -> World {
        let host = SimHost::new(SimConfig { scratch_mib: Some(mib), ..SimConfig::default() });
        let config = Config { disk_overcommit, ..config(&host, "boot-1") };
        World::of(host, Sqlite::in_memory().unwrap(), config)
    }

    fn of(host: SimHost, store: impl Into<Box<dyn Store>>, config: Config) -> World {
        World {
            engine: Engine::open(store, config).unwrap(),
            host,
            began: Instant::now(),
            pending: Vec::new(),
            tells_wait: false,
            waiting: Vec::new(),
            workloads_refused: None,
            unidentified: BTreeMap::new(),
            caller: Caller::Unknown,
        }
    }

    /// The output of these jobs is followed from now on, and of no others.
    pub fn follow(&mut self, jobs: &[&str]) {
        let jobs = jobs.iter().map(|job| JobId::parse(job).unwrap()).collect();
        self.pending.push(Input::Followed(jobs));
    }

    /// The same host under a new engine on the same database, as after a kill -9.
    pub fn restart(self, store: impl Into<Box<dyn Store>>) -> World {
        let mut config = config(&self.host, "boot-1");
        config.seed = 2;
        let engine = Engine::open(store, config).unwrap();
        World { engine, pending: Vec::new(), ..self }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: Mono(Duration::from_secs(1000) + self.began.elapsed()),
            wall: format!("t+{}ms", self.began.elapsed().as_millis()),
        }
    }

    /// One step with what is pending; carries out its effects.
    pub async fn step(&mut self) {
        let now = self.now();
        let inputs = std::mem::take(&mut self.pending);
        let host = self.host.clone();
        let effects = self.engine.step(&now, inputs, &|id: &InstanceId| host.alive(id));
        assert_eq!(self.engine.audit_view(), Ok(()));
        for effect in effects {
            match effect {
                Effect::Reply(reply) => reply.deliver(),
                Effect::Apply(id, action @ Action::AssignIdentity { .. }) if self.tells_wait => {
                    self.waiting.push((id, action));
                }
                Effect::Apply(id, Action::AssignIdentity { instance, .. })
                    if let Some(why) = self.workloads_refused =>
                {
                    let message = format!("instance {instance} refuses its workload: {why}");
                    self.pending.push(Input::Done(id, Err(HostError::permanent(message))));
                }
                Effect::Apply(id, action) => {
                    let done = self.host.apply(action).await;
                    self.pending.push(Input::Done(id, done));
                }
                Effect::Resolve(job, run, spec) => {
                    let resolution = self.resolution(&spec).await;
                    self.pending.push(Input::Resolved(job, run, resolution));
                }
                Effect::WakeIn(_) | Effect::Log(_) => {}
            }
        }
    }

    /// Looks at the host and steps, every 10 ms for so long.
    pub async fn run_for(&mut self, duration: Duration) {
        let until = Instant::now() + duration;
        while Instant::now() < until {
            self.look().await;
            self.step().await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The words that waited reach their guests.
    pub async fn tell(&mut self) {
        for (id, action) in std::mem::take(&mut self.waiting) {
            let done = self.host.apply(action).await;
            self.pending.push(Input::Done(id, done));
        }
    }

    pub async fn look(&mut self) {
        let began = self.now().mono;
        if let Ok(mut observation) = self.host.observe(None).await {
            observation.instances.retain(|id, _| !self.unidentified.contains_key(id));
            let unidentified = self.unidentified.iter();
            observation.unidentified =
                unidentified.map(|(id, why)| (id.to_string(), why.clone())).collect();
            self.pending.push(Input::Observed { began, observation });
        }
    }

    pub async fn ask<A: Ask>(&mut self, ask: A) -> Result<A::Reply, Refusal> {
        self.ask_if(Preconditions::NONE, ask).await
    }

    /// Asks, if the preconditions hold.
    pub async fn ask_if<A: Ask>(
        &mut self,
        preconditions: Preconditions,
        ask: A,
    ) -> Result<A::Reply, Refusal> {
        let answer = self.ask_later(preconditions, ask);
        self.step().await;
        answer.get()
    }

    /// Asks within the next step.
    pub fn ask_later<A: Ask>(&mut self, preconditions: Preconditions, ask: A) -> Answer<A::Reply> {
        let (sender, receiver) = channel();
        let to = ReplyTo::new(move |reply| drop(sender.send(reply)));
        let request = ask.reply_to(to);
        self.pending.push(Input::Request(Call { caller: self.caller, preconditions, request }));
        Answer(receiver)
    }

    pub async fn resolution(&self, spec: &Spec) -> Resolution {
        match self.host.resolve(spec, Duration::from_secs(1)).await {
            Ok(lookup) => Resolution::of(spec, lookup),
            Err(error) => Resolution::Failed(error.sentence()),
        }
    }

    /// POST: the word for how it was accepted, and the job.
    pub async fn post(
        &mut self,
        job: &str,
        tenant: Option<&str>,
        spec: &Spec,
    ) -> Result<(Accepted, JobView), Refusal> {
        let upsert = self.upsert(job, tenant, spec).await;
        let Changed { accepted, job, .. } = self.ask(upsert).await?;
        Ok((accepted, job))
    }

    pub async fn upsert(&self, job: &str, tenant: Option<&str>, spec: &Spec) -> Upsert {
        Upsert {
            job: Some(JobId::parse(job).unwrap()),
            tenant: tenant.map(|tenant| Tenant::parse(tenant).unwrap()),
            spec: Arc::new(spec.clone()),
            resolution: self.resolution(spec).await,
        }
    }

    /// The job as it is published, with what is pending.
    pub async fn get(&mut self, job: &str) -> JobView {
        self.find(job).await.expect("the job is there")
    }

    pub async fn find(&mut self, job: &str) -> Option<JobView> {
        self.step().await;
        self.engine.view().job(&JobId::parse(job).unwrap()).map(|view| (**view).clone())
    }

    pub async fn status(&mut self, job: &str) -> (Status, Option<String>) {
        let view = self.get(job).await;
        (view.status, view.reason_at(self.now().mono))
    }

    /// All that is published, with what is pending.
    pub async fn stats(&mut self) -> Stats {
        self.step().await;
        let view = self.engine.view();
        Stats {
            jobs: view.jobs().cloned().collect(),
            pools: view.pools().cloned().collect(),
            warm_pool: view.warm_pool().cloned().collect(),
            unidentified: view.unidentified().to_vec(),
        }
    }

    pub async fn warm(&mut self) -> usize {
        self.stats().await.warm_pool.iter().filter(|vm| vm.status == "warm").count()
    }

    /// A load of the watched file.
    pub async fn load(&mut self, jobs: &[(&str, &Spec)], deletions: Deletions) -> LoadPlan {
        let load = self.watched(jobs, deletions).await;
        self.apply(load).await
    }

    pub async fn watched(&self, jobs: &[(&str, &Spec)], deletions: Deletions) -> FileLoad {
        let path = Some(Path::new("vms.exs").to_owned());
        let mut entries = Vec::new();
        for (job, spec) in jobs {
            let arc = Arc::new((*spec).clone());
            entries.push(FileEntry {
                job: JobId::parse(job).unwrap(),
                tenant: None,
                digest: EntryDigest::of(None, &arc),
                spec: arc,
                resolution: self.resolution(spec).await,
            });
        }
        FileLoad { path, entries, deletions, against: DiffBase::LastApplied }
    }

    /// Plans a load, then applies it: the one says what the other does.
    pub async fn apply(&mut self, load: FileLoad) -> LoadPlan {
        let planned = self.ask(PlanFile(load.clone())).await.unwrap();
        let done = self.ask(ApplyFile(load)).await.unwrap();
        assert_eq!(planned, done, "what was planned is done");
        planned
    }
}

/// A spec with the given lifecycle, and more fields on top.
pub fn spec(lifecycle: &str, more: &[(&str, Value)]) -> Spec {
    let mut fields: Vec<(String, Value)> = vec![
        ("rootfs".into(), "rootfs-web.ext4".into()),
        ("kernel".into(), "vmlinux".into()),
        ("cmd".into(), Value::List(vec!["/app/bin/server".into()])),
        (
            "resources".into(),
            Value::Map(vec![("vcpu".into(), Value::Int(1)), ("mem_mb".into(), Value::Int(128))]),
        ),
        ("lifecycle".into(), lifecycle.into()),
    ];
    for (key, value) in more {
        fields.retain(|(known, _)| known != key);
        fields.push(((*key).to_owned(), value.clone()));
    }
    Spec::read(&Value::Map(fields)).unwrap()
}

pub fn pool(min: i64, max: i64) -> (&'static str, Value) {
    let bounds = vec![("min".into(), Value::Int(min)), ("max".into(), Value::Int(max))];
    ("warm_pool", Value::Map(bounds))
}

pub fn env(value: &str) -> (&'static str, Value) {
    ("env", Value::Map(vec![("V".into(), value.into())]))
}
