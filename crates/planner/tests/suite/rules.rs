//! What is planned for whom, rule by rule; and how it is told.

#![allow(clippy::cloned_ref_to_slice_refs, reason = "lists of one stand beside lists of more")]

use hearth_model::{
    Assignment, Creation, Digest, End, Exit, Generation, ImageName, ImageProgress, Images,
    Instance, InstanceId, InstanceState, Job, JobId, Mono, Outcome, Phase, PoolKey, PoolTenant,
    Progress, Resolution, Slot, Spec, SpecHash, Stage, Tenant, Value, Wanted,
};
use hearth_planner::{
    Capacity, Changed, Fleet, Limits, Plan, PoolHealth, Scope, Status, Step, Subject, Target,
    Verdict, Waiting, World, backoff, check, plan, status, verdict,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

const NOW: Mono = Mono(Duration::from_secs(5000));
/// The generation that every job here runs at.
const RUN: u64 = 2;

fn ago(seconds: u64) -> Mono {
    Mono(NOW.0 - Duration::from_secs(seconds))
}

fn ahead(seconds: u64) -> Mono {
    NOW.after(Duration::from_secs(seconds))
}

fn spec(lifecycle: &str, more: &[(&str, Value)]) -> Arc<Spec> {
    let size = vec![("vcpu".into(), 1.into()), ("mem_mb".into(), 100.into())];
    let mut fields: Vec<(String, Value)> = vec![
        ("rootfs".into(), "r.ext4".into()),
        ("kernel".into(), "vmlinux".into()),
        ("cmd".into(), Value::List(vec!["/app".into()])),
        ("resources".into(), Value::Map(size)),
        ("lifecycle".into(), lifecycle.into()),
    ];
    fields.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Arc::new(Spec::read(&Value::Map(fields)).unwrap())
}

fn pool(min: u32, max: u32) -> (&'static str, Value) {
    ("warm_pool", Value::Map(vec![("min".into(), min.into()), ("max".into(), max.into())]))
}

fn hash() -> SpecHash {
    SpecHash([0; 32])
}

fn key() -> PoolKey {
    PoolKey { tenant: PoolTenant::Shared, hash: hash() }
}

fn images() -> Images {
    Images { kernel: Digest([0; 32]), modules: None, rootfs: None }
}

fn job(name: &str, lifecycle: &str, more: &[(&str, Value)]) -> Job {
    let id = JobId::parse(name).unwrap();
    Job {
        tenant: Tenant::parse(name).unwrap(),
        id,
        tenant_given: false,
        generation: Generation(RUN),
        run: Generation(RUN),
        spec: spec(lifecycle, more),
        wanted: Wanted::Running,
        progress: Progress::begun(Resolution::Known { images: images(), hash: hash() }),
    }
}

/// The job, further on.
fn advanced(job: &Job, change: impl FnOnce(&mut Progress)) -> Job {
    let mut job = job.clone();
    change(&mut job.progress);
    job
}

/// The job, ended for good.
fn ended_with(job: &Job, outcome: Outcome) -> Job {
    advanced(job, |progress| progress.outcome = Some(outcome))
}

/// The job, with images that are missing.
fn without_images(job: &Job) -> Job {
    advanced(job, |progress| progress.resolution = unresolved())
}

fn unresolved() -> Resolution {
    Resolution::Failed("no such rootfs".to_owned())
}

fn instance(id: &str, assignment: Assignment, state: Option<InstanceState>) -> Instance {
    Instance {
        id: InstanceId::parse(id).unwrap(),
        slot: Slot(id.bytes().map(u32::from).sum()),
        assignment,
        hash: hash(),
        images: images(),
        spec: spec("service", &[]),
        stage: Stage::App,
        created_at: ago(1),
        seen_at: None,
        awaiting_first_report: false,
        silence: 0,
        unconfined: false,
        running_since: None,
        ready_since: None,
        oom_kills: 0,
        oom_told_at: None,
        assign_failure: None,
        stopping: None,
        state,
        creation: Creation::Confirmed,
    }
}

fn of(job: &str, run: u64) -> Assignment {
    let job = JobId::parse(job).unwrap();
    Assignment::Job { job, run: Generation(run), claimed_at: None }
}

fn claimed(job: &str, at: Mono) -> Assignment {
    let job = JobId::parse(job).unwrap();
    Assignment::Job { job, run: Generation(RUN), claimed_at: Some(at) }
}

fn spare() -> Assignment {
    Assignment::Pool(key())
}

fn up(phase: Phase, ready: bool, acknowledged: Option<u64>) -> Option<InstanceState> {
    let acknowledged = acknowledged.map(Generation);
    Some(InstanceState::Up { phase, ready, acknowledged, ready_detail: None })
}

fn serving(id: &str, job: &str, run: u64) -> Instance {
    instance(id, of(job, run), up(Phase::Running, true, Some(run)))
}

fn warm(id: &str) -> Instance {
    instance(id, spare(), up(Phase::Running, true, None))
}

/// A spare one whose command waits for the start signal.
fn held(id: &str) -> Instance {
    Instance { stage: Stage::Init, ..instance(id, spare(), up(Phase::Held, false, None)) }
}

fn ended(instance: Instance) -> Instance {
    let exit = Exit { end: End::Code(1), stop_requested: false };
    Instance { state: Some(InstanceState::Exited(exit)), ..instance }
}

fn stopping(instance: Instance) -> Instance {
    Instance { stopping: Some("because".to_owned()), ..instance }
}

/// What a plan is made of.
struct Setting {
    fleet: Fleet,
    pools: BTreeMap<PoolKey, PoolHealth>,
    memory_mib: u64,
    limits: Limits,
    busy: BTreeSet<InstanceId>,
}

fn setting(jobs: &[Job], instances: &[Instance]) -> Setting {
    let mut fleet = Fleet::default();
    jobs.iter().cloned().for_each(|job| fleet.insert_job(job));
    instances.iter().cloned().for_each(|instance| fleet.insert_instance(instance));
    Setting {
        fleet,
        pools: BTreeMap::new(),
        memory_mib: 10_000,
        limits: Limits::default(),
        busy: BTreeSet::new(),
    }
}

impl Setting {
    fn world(&self) -> World<'_> {
        World {
            now: NOW,
            fleet: &self.fleet,
            pools: &self.pools,
            capacity: Capacity {
                vcpus: 64,
                memory_mib: self.memory_mib,
                overhead_mib: 5,
                scratch_mib: None,
            },
            limits: self.limits,
            busy: &self.busy,
        }
    }

    /// With an action in flight on this instance.
    fn busy(mut self, id: &str) -> Setting {
        self.busy.insert(InstanceId::parse(id).unwrap());
        self
    }

    /// With room for so many instances in all.
    fn room_for(mut self, instances: u64) -> Setting {
        self.memory_mib = instances * 105;
        self
    }

    fn plan(&self) -> Plan {
        let world = self.world();
        let made = plan(&world, Scope::All);
        assert_eq!(check(&world, &made), Ok(()));
        made
    }

    /// The steps, in words.
    fn steps(&self) -> Vec<String> {
        let words = |step: &Step| match step {
            Step::Claim { instance, job } => format!("claim {instance} for {job}"),
            Step::Create(Target::Job(job)) => format!("create for {job}"),
            Step::Create(Target::Pool(_)) => "create a spare one".to_owned(),
            Step::AssignIdentity { instance, release: true } => format!("release {instance}"),
            Step::AssignIdentity { instance, release: false } => format!("assign {instance}"),
            Step::Stop { instance, reason, failed: false } => format!("stop {instance}: {reason}"),
            Step::Stop { instance, reason, failed: true } => format!("fail {instance}: {reason}"),
            Step::Remove { instance } => format!("remove {instance}"),
            Step::Resolve { job } => format!("resolve {job}"),
            Step::TimeOut { job, timeout_s } => format!("time {job} out after {timeout_s} s"),
            Step::Forget { job } => format!("forget {job}"),
        };
        self.plan().steps.iter().map(words).collect()
    }

    fn waits(&self, job: &str) -> Option<Waiting> {
        let subject = Subject::Job(JobId::parse(job).unwrap());
        let next_check = self.plan().next_checks.into_iter().find(|(of, _)| *of == subject);
        next_check.expect("it is planned for").1.waiting
    }

    /// When time alone makes a difference next.
    fn wakes(&self) -> Option<Mono> {
        self.plan().next_checks.into_iter().filter_map(|(_, next_check)| next_check.wake_at).min()
    }

    fn stands(&self, job: &str) -> (Status, String, String) {
        let now = self.world().now;
        let job = self.fleet.job(&JobId::parse(job).unwrap()).unwrap();
        let waiting = self.waits(job.id.as_str());
        let stands = status(&self.fleet, job, waiting.as_ref());
        let shown = stands.instance.map(|id| id.to_string()).unwrap_or_default();
        let reason = stands.reason.map(|reason| reason.at(now));
        (stands.status, reason.unwrap_or_default(), shown)
    }
}

fn nothing() -> Vec<String> {
    Vec::new()
}

#[test]
fn job_without_an_instance_claims_a_warm_one_or_creates_one() {
    let web = job("web", "service", &[]);
    assert_eq!(setting(&[web.clone()], &[]).steps(), ["create for web"]);
    let pooled = job("web", "service", &[pool(1, 1)]);
    let claims = |spare: Instance| setting(&[pooled.clone()], &[spare]).steps();
    assert_eq!(claims(warm("a")), ["claim a for web", "create a spare one"]);
    let busy = setting(&[pooled.clone()], &[warm("a")]).busy("a");
    assert_eq!(busy.steps(), ["create for web"]);
    assert_eq!(claims(instance("a", spare(), Some(InstanceState::Booting))), ["create for web"]);
    assert_eq!(claims(stopping(warm("a")))[0], "create for web");
    let named = Job { tenant_given: true, ..pooled.clone() };
    let other = setting(&[named], &[warm("a")]).steps();
    assert!(other.contains(&"create for web".to_owned()), "it is another tenant's: {other:?}");
    let two = [job("a", "service", &[pool(1, 2)]), job("b", "service", &[pool(1, 2)])];
    let steps = setting(&two, &[warm("x")]).steps();
    assert_eq!(steps, ["claim x for a", "create for b", "create a spare one"]);
}

#[test]
fn unwanted_instance_is_stopped_and_deleted_job_forgotten() {
    let setting_of = |wanted, instances: &[Instance]| {
        setting(&[Job { wanted, ..job("web", "service", &[]) }], instances)
    };
    let with = |wanted, instances: &[Instance]| setting_of(wanted, instances).steps();
    let serves = serving("a", "web", RUN);
    assert_eq!(with(Wanted::Stopped, &[serves.clone()]), ["stop a: its job is stopped"]);
    assert_eq!(with(Wanted::Deleted, &[serves.clone()]), ["stop a: its job is deleted"]);
    assert_eq!(with(Wanted::Stopped, &[]), nothing());
    assert_eq!(with(Wanted::Deleted, &[]), ["forget web"]);
    assert_eq!(with(Wanted::Deleted, &[ended(serves.clone())]), ["remove a"]);
    assert_eq!(with(Wanted::Running, &[stopping(serves.clone())])[0], "create for web");
    assert_eq!(with(Wanted::Deleted, &[stopping(serves.clone())]), ["stop a: because"]);
    let busy = setting_of(Wanted::Deleted, &[stopping(serves.clone())]).busy("a");
    assert_eq!(busy.steps(), nothing(), "it is being stopped");
    let over = ended_with(&job("web", "job", &[]), Outcome::Completed);
    assert_eq!(setting(&[over.clone()], &[serves.clone()]).steps(), ["stop a: its job is over"]);
    assert_eq!(setting(&[over], &[]).steps(), nothing());
    assert_eq!(setting(&[], &[serves]).steps(), ["stop a: its job is gone"]);
}

#[test]
fn what_ended_is_removed_unless_something_is_being_done_to_it() {
    let web = job("web", "service", &[]);
    let gone = ended(serving("a", "web", RUN));
    assert_eq!(setting(&[web.clone()], &[gone.clone()]).steps(), ["remove a", "create for web"]);
    assert_eq!(setting(&[web], &[gone]).busy("a").steps(), ["create for web"]);
    assert_eq!(setting(&[], &[ended(warm("a"))]).steps(), ["remove a"]);
}

#[test]
fn a_service_serves_on_until_its_next_generation_does() {
    let web = job("web", "service", &[]);
    let old = serving("old", "web", 1);
    let with = |more: &[Instance]| {
        let instances: Vec<Instance> = [old.clone()].into_iter().chain(more.to_vec()).collect();
        setting(&[web.clone()], &instances)
    };
    assert_eq!(with(&[]).steps(), ["create for web"]);
    let booting = instance("new", of("web", RUN), Some(InstanceState::Booting));
    assert_eq!(with(&[booting]).steps(), nothing());
    let ready = serving("new", "web", RUN);
    assert_eq!(with(&[ready]).steps(), ["stop old: a newer generation is ready"]);
    let older = Instance { created_at: ago(9), ..serving("older", "web", 1) };
    let steps = with(&[older]).steps();
    assert_eq!(steps, ["stop older: it is replaced by a newer generation", "create for web"]);
    let overtaken = instance("never", of("web", 1), Some(InstanceState::Booting));
    let steps = with(&[overtaken]).steps();
    assert_eq!(steps, ["stop never: it is replaced by a newer generation", "create for web"]);
    // One that has not reported to this daemon yet may serve, for as long as a boot may take.
    let adopted = |id: &str, seen| {
        let booting = instance(id, of("web", 1), Some(InstanceState::Booting));
        Instance { seen_at: Some(ago(seen)), awaiting_first_report: true, ..booting }
    };
    let one = |instance: Instance| setting(&[web.clone()], &[instance]);
    assert_eq!(one(adopted("a", 11)).steps(), ["create for web"]);
    assert_eq!(one(adopted("a", 11)).wakes(), Some(ahead(1)));
    let replaced = "stop a: it is replaced by a newer generation";
    assert_eq!(one(adopted("a", 12)).steps(), [replaced, "create for web"]);
    let unobserved = Instance { seen_at: None, state: None, ..adopted("a", 0) };
    assert_eq!(one(unobserved).steps(), ["create for web"]);
    let newer = Instance { created_at: NOW, ..adopted("a", 1) };
    assert_eq!(with(&[newer.clone()]).steps(), [replaced, "create for web"], "another serves");
    let steps = setting(&[web.clone()], &[newer, adopted("b", 1)]).steps();
    assert_eq!(steps, ["create for web"], "either may be the one that serves");
    // One that is on its way out is no reason to end the one that serves.
    let ending = stopping(Instance { created_at: NOW, ..serving("a", "web", 1) });
    assert_eq!(with(&[ending]).steps(), ["create for web", "stop a: because"]);
    // A service gets its start signal while the old one still serves.
    let acknowledged = instance("new", of("web", RUN), up(Phase::Held, false, Some(RUN)));
    assert_eq!(with(&[acknowledged]).steps(), ["release new"]);
}

#[test]
fn silent_vmm_does_not_serve_and_is_replaced() {
    let limit = Limits::default().silence_max;
    let with = |lifecycle: &str, silence| {
        let silent = Instance { silence, ..serving("a", "web", RUN) };
        setting(&[job("web", lifecycle, &[])], &[silent])
    };
    let given_up = format!("fail a: VMM does not answer: it missed {limit} probes");
    let reason = "its VMM does not answer; unless it does soon, it is replaced".to_owned();
    for lifecycle in ["service", "daemon", "job"] {
        assert_eq!(with(lifecycle, 0).stands("web").0, Status::Running);
        let stands = (Status::Starting, reason.clone(), "a".to_owned());
        assert_eq!(with(lifecycle, 2).stands("web"), stands, "{lifecycle}");
        assert_eq!(with(lifecycle, limit - 1).steps(), nothing(), "{lifecycle}");
        assert_eq!(with(lifecycle, limit).steps(), [given_up.as_str()], "{lifecycle}");
    }
    // One of an older generation is no failure of the newest, and stays until then.
    let web = job("web", "service", &[]);
    let old = |silence| {
        let old = Instance { silence, ..serving("a", "web", 1) };
        setting(
            &[web.clone()],
            &[old, instance("new", of("web", RUN), Some(InstanceState::Booting))],
        )
    };
    assert_eq!(old(limit - 1).steps(), nothing());
    assert_eq!(old(limit).steps(), [given_up.replace("fail", "stop").as_str()]);
    // A spare one is not claimed while it is silent.
    let pooled = job("web", "service", &[pool(1, 2)]);
    let spare = |silence| setting(&[pooled.clone()], &[Instance { silence, ..warm("a") }]).steps();
    assert_eq!(spare(0)[0], "claim a for web");
    assert_eq!(spare(2)[0], "create for web");
    assert!(spare(limit).contains(&given_up));
}

#[test]
fn the_others_stop_before_their_next_generation_starts() {
    for lifecycle in ["daemon", "job"] {
        let one = job("web", lifecycle, &[]);
        let old = serving("old", "web", 1);
        let alone = setting(&[one.clone()], &[old.clone()]);
        assert_eq!(alone.steps(), ["stop old: it is replaced by a newer generation"]);
        assert_eq!(alone.waits("web"), Some(Waiting::Predecessor));
        let reason = "waiting for its predecessor to stop";
        let ending = setting(&[one.clone()], &[stopping(old.clone())]);
        let stands = (Status::Pending, reason.to_owned(), String::new());
        assert_eq!(ending.stands("web"), stands);
        // What could not start is no reason to end what runs.
        let missing = without_images(&one);
        assert_eq!(setting(&[missing], &[old.clone()]).steps(), ["resolve web"]);
        let big = setting(&[one.clone()], &[old.clone()]).room_for(0);
        assert_eq!(big.steps(), nothing());
        // Of a pool, only what has not begun may be taken meanwhile, and it waits for the start signal.
        let pooled = job("web", lifecycle, &[pool(1, 2)]);
        let pooled = |spare| setting(&[pooled.clone()], &[stopping(old.clone()), spare]).steps();
        assert!(pooled(held("new")).contains(&"claim new for web".to_owned()));
        assert!(!pooled(warm("new")).contains(&"claim new for web".to_owned()));
        let new = instance("new", claimed("web", NOW), up(Phase::Held, false, None));
        let steps = setting(&[one.clone()], &[stopping(old.clone()), new]).steps();
        assert_eq!(steps, ["assign new", "stop old: because"]);
        let acknowledged = instance("new", of("web", RUN), up(Phase::Held, false, Some(RUN)));
        let steps = setting(&[one.clone()], &[stopping(old), acknowledged.clone()]).steps();
        assert_eq!(steps, ["stop old: because"], "both would run at once");
        assert_eq!(setting(&[one], &[acknowledged]).steps(), ["release new"]);
    }
}

#[test]
fn guest_is_assigned_an_identity_within_its_deadline() {
    let web = job("web", "service", &[]);
    let with = |instance: Instance| setting(&[web.clone()], &[instance]);
    let unacknowledged = |at| instance("a", claimed("web", at), up(Phase::Running, true, None));
    assert_eq!(with(unacknowledged(ago(4))).steps(), ["release a"]);
    assert_eq!(with(unacknowledged(ago(4))).wakes(), Some(ahead(1)));
    assert_eq!(
        with(unacknowledged(ago(5))).steps(),
        ["stop a: the guest did not take its identity in time"]
    );
    let failure = || Some("its guest refuses its workload: too long".to_owned());
    let refused = |at| Instance { assign_failure: failure(), ..unacknowledged(at) };
    assert_eq!(with(refused(ago(4))).steps(), ["release a"], "it may take the next one");
    assert_eq!(
        with(refused(ago(5))).steps(),
        ["stop a: the guest was not assigned in time: its guest refuses its workload: too long"]
    );
    let adopted = |seen| with(Instance { seen_at: Some(ago(seen)), ..unacknowledged(ago(1000)) });
    assert_eq!(
        (adopted(4).steps(), adopted(4).wakes()),
        (vec!["release a".to_owned()], Some(ahead(1)))
    );
    assert_eq!(adopted(5).steps(), ["stop a: the guest did not take its identity in time"]);
    assert_eq!(with(unacknowledged(ago(4))).busy("a").steps(), nothing(), "it is being told");
    let made = instance("a", of("web", RUN), up(Phase::Running, true, None));
    assert_eq!(with(Instance { created_at: ago(100), ..made }).steps(), ["release a"]);
    let ending = instance("a", of("web", RUN), up(Phase::Stopping, false, Some(RUN)));
    assert_eq!(with(ending).steps(), nothing());
    let two = [serving("a", "web", RUN), serving("b", "web", RUN)];
    assert_eq!(setting(&[web], &two).steps(), ["stop b: one instance is enough"]);
}

#[test]
fn guest_that_misses_its_boot_or_ready_deadline_has_failed() {
    let web = job("web", "service", &[]);
    let with = |created_at, instance: Instance| {
        setting(&[web.clone()], &[Instance { created_at, ..instance }])
    };
    let booting = || instance("a", of("web", RUN), Some(InstanceState::Booting));
    assert_eq!(with(ago(11), booting()).steps(), nothing());
    assert_eq!(with(ago(11), booting()).wakes(), Some(ahead(1)));
    assert_eq!(with(ago(12), booting()).steps(), ["fail a: the guest did not report within 12 s"]);
    let adopted = |seen| {
        let seen_at = Some(ago(seen));
        with(ago(1000), Instance { seen_at, ..booting() })
    };
    assert_eq!((adopted(11).steps(), adopted(11).wakes()), (nothing(), Some(ahead(1))));
    assert_eq!(adopted(12).steps(), ["fail a: the guest did not report within 12 s"]);
    let unobserved = || instance("a", of("web", RUN), None);
    assert_eq!(with(ago(100), unobserved()).steps(), nothing(), "it is being created");

    let check = Value::Map(vec![("port".into(), 80.into())]);
    let check = Value::Map(vec![("tcp".into(), check), ("timeout_s".into(), 30.into())]);
    let checked = job("web", "service", &[("ready", check)]);
    let unready = |since, detail: Option<&str>| {
        let ready_detail = detail.map(str::to_owned);
        let acknowledged = Some(Generation(RUN));
        let state =
            InstanceState::Up { phase: Phase::Running, ready: false, acknowledged, ready_detail };
        let known = instance("a", of("web", RUN), Some(state));
        setting(&[checked.clone()], &[Instance { running_since: Some(since), ..known }])
    };
    assert_eq!(unready(ago(29), None).steps(), nothing());
    assert_eq!(unready(ago(29), None).wakes(), Some(ahead(1)));
    let failed = "fail a: not ready within 30 s: its check has not passed";
    assert_eq!(unready(ago(30), None).steps(), [failed]);
    let refused = unready(ago(30), Some("port 80 refuses"));
    assert_eq!(refused.steps(), ["fail a: not ready within 30 s: port 80 refuses"]);
    let mut slow = unready(ago(30), None);
    slow.limits.time_factor = 10;
    assert_eq!(slow.wakes(), Some(ahead(270)), "an emulated CPU has ten times as long");
}

#[test]
fn a_job_that_runs_too_long_is_timed_out() {
    let batch = job("batch", "job", &[("timeout_s", 60.into())]);
    let since = |running_since| {
        let known = serving("a", "batch", RUN);
        setting(&[batch.clone()], &[Instance { running_since: Some(running_since), ..known }])
    };
    assert_eq!((since(ago(59)).steps(), since(ago(59)).wakes()), (nothing(), Some(ahead(1))));
    assert_eq!(since(ago(60)).steps(), ["time batch out after 60 s"]);
}

#[test]
fn what_failed_waits_and_says_for_how_long_and_why() {
    let waiting = |not_before| {
        advanced(&job("web", "service", &[]), |progress| {
            progress.not_before = Some(not_before);
            progress.failures = 3;
            progress.last_failure = Some("exit code 7".to_owned());
        })
    };
    let later = setting(&[waiting(ahead(4))], &[]);
    assert_eq!(later.steps(), nothing());
    assert_eq!(
        (later.waits("web"), later.wakes()),
        (Some(Waiting::BackOff(ahead(4))), Some(ahead(4)))
    );
    let reason = "exit code 7; 3 failures in a row, next start in 4 s";
    assert_eq!(later.stands("web"), (Status::Pending, reason.to_owned(), String::new()));
    assert_eq!(setting(&[waiting(NOW)], &[]).steps(), ["create for web"]);
    let missing = |not_before| without_images(&waiting(not_before));
    let later = setting(&[missing(ahead(4))], &[]);
    assert_eq!((later.steps(), later.wakes()), (nothing(), Some(ahead(4))));
    assert_eq!(setting(&[missing(NOW)], &[]).steps(), ["resolve web"]);
    assert_eq!(setting(&[missing(ago(1))], &[]).steps(), ["resolve web"]);
}

#[test]
fn job_whose_images_are_prepared_looks_them_up_and_ends_nothing() {
    let image = ImageName::parse("r.ext4").unwrap();
    let progress = ImageProgress { image, done_bytes: 12 << 30, total_bytes: 40 << 30 };
    for lifecycle in ["service", "daemon", "job"] {
        let preparing = |images| {
            let job = job("web", lifecycle, &[pool(1, 1)]);
            advanced(&job, |progress| progress.resolution = Resolution::Preparing(images))
        };
        let alone = setting(&[preparing(Some(progress.clone()))], &[]);
        assert_eq!(alone.steps(), ["resolve web"]);
        let reason = "preparing image r.ext4 (12 of 40 GiB)";
        assert_eq!(alone.stands("web"), (Status::Pending, reason.to_owned(), String::new()));
        // A daemon that has just started knows of no progress.
        let reason = "preparing its images".to_owned();
        let new = setting(&[preparing(None)], &[]);
        assert_eq!(new.stands("web"), (Status::Pending, reason, String::new()));
        let old = serving("old", "web", 1);
        let beside = setting(&[preparing(Some(progress.clone()))], &[old]);
        assert_eq!(beside.steps(), ["resolve web"], "the serving one is kept");
        let reason = "replacing it with generation 2: preparing image r.ext4 (12 of 40 GiB)";
        assert_eq!(beside.stands("web"), (Status::Running, reason.to_owned(), "old".to_owned()));
        // An earlier failure is no reason to wait: the copy would lapse.
        let failed = advanced(&preparing(None), |progress| {
            (progress.not_before, progress.failures) = (Some(ahead(60)), 5);
        });
        assert_eq!(setting(&[failed], &[]).steps(), ["resolve web"]);
        for wanted in [Wanted::Stopped, Wanted::Deleted] {
            let unwanted = setting(&[Job { wanted, ..preparing(None) }], &[]);
            assert!(!unwanted.steps().contains(&"resolve web".to_owned()), "{wanted:?}");
        }
    }
}

#[test]
fn room_is_given_to_jobs_first_and_never_twice() {
    let two = [job("a", "service", &[]), job("b", "service", &[])];
    let tight = setting(&two, &[]).room_for(1);
    assert_eq!(tight.steps(), ["create for a"]);
    let reason = "waiting for capacity: it needs 1 vCPU and 105 MiB";
    assert_eq!(tight.stands("b"), (Status::Pending, reason.to_owned(), String::new()));
    let none = setting(&two, &[]).room_for(0);
    let reason = "waiting for capacity: it needs 1 vCPU and 105 MiB and the host has \
                  0 vCPU and 0 MiB in all; lower its resources";
    assert_eq!(none.stands("a").1.replace("64 vCPU", "0 vCPU"), reason);
    // Spare ones go for a job that waits, and none is made.
    let pooled = [job("a", "service", &[]), job("z", "daemon", &[pool(2, 2)])];
    let others = Resolution::Known { images: images(), hash: SpecHash([9; 32]) };
    let other = advanced(&pooled[0], |progress| progress.resolution = others);
    let running = serving("r", "z", RUN);
    let full =
        setting(&[other.clone(), pooled[1].clone()], &[running.clone(), held("x"), held("y")]);
    assert_eq!(full.room_for(3).steps(), ["stop x: evicted to free capacity"]);
    let leaving = [running.clone(), stopping(held("x")), held("y")];
    let leaving = setting(&[other.clone(), pooled[1].clone()], &leaving).room_for(3);
    assert_eq!(leaving.steps(), ["stop x: because"], "what leaves makes the room already");
    let three = [running.clone(), held("x"), held("y")];
    let busy = setting(&[other.clone(), pooled[1].clone()], &three).busy("x");
    assert_eq!(busy.room_for(3).steps(), ["stop y: evicted to free capacity"]);
    let gone = setting(&[other, pooled[1].clone()], &[running, ended(held("x")), held("y")]);
    assert_eq!(gone.room_for(3).steps(), ["create for a", "remove x"], "what has ended takes none");
}

#[test]
fn only_so_many_boot_at_once() {
    let jobs: Vec<Job> = ["a", "b", "c"].map(|name| job(name, "service", &[])).to_vec();
    let booting =
        |id: &str, of_job: &str| instance(id, of(of_job, RUN), Some(InstanceState::Booting));
    let mut few = setting(&jobs, &[booting("x", "a")]);
    few.limits.boots_max = 2;
    assert_eq!(few.steps(), ["create for b"]);
    assert_eq!(few.stands("c").1, "waiting for others to boot");
    let mut pooled = setting(&[job("p", "service", &[pool(4, 4)])], &[serving("x", "p", RUN)]);
    pooled.limits.boots_max = 3;
    assert_eq!(pooled.steps(), ["create a spare one"; 3]);
    let unfilled = |setting: &Setting| {
        setting.plan().next_checks.iter().any(|(_, next_check)| next_check.unfilled)
    };
    assert!(unfilled(&pooled));
    pooled.limits.boots_max = 4;
    assert_eq!(pooled.steps(), ["create a spare one"; 4]);
    assert!(!unfilled(&pooled));
    let small =
        setting(&[job("p", "service", &[pool(4, 4)])], &[serving("x", "p", RUN)]).room_for(3);
    assert_eq!(small.steps(), ["create a spare one"; 2]);
    assert!(unfilled(&small));
}

#[test]
fn pool_has_the_largest_bounds_that_its_jobs_request() {
    let pooled = |min, max| job("web", "service", &[pool(min, max)]);
    let serves = serving("r", "web", RUN);
    let with = |job: Job, spares: &[Instance]| {
        let instances: Vec<Instance> =
            [serves.clone()].into_iter().chain(spares.to_vec()).collect();
        setting(&[job], &instances)
    };
    let older = |id: &str, age| Instance { created_at: ago(age), ..warm(id) };
    assert_eq!(with(pooled(2, 3), &[warm("a")]).steps(), ["create a spare one"]);
    assert_eq!(with(pooled(1, 2), &[warm("a"), warm("b")]).steps(), nothing());
    let three = [older("a", 1), older("b", 3), older("c", 2)];
    let above = "its pool is above its maximum";
    assert_eq!(with(pooled(1, 2), &three).steps(), [format!("stop a: {above}")], "the youngest");
    let cold = instance("b", spare(), Some(InstanceState::Booting));
    let warm_first = [older("a", 1), Instance { created_at: ago(3), ..cold }, older("c", 2)];
    assert_eq!(with(pooled(1, 2), &warm_first).steps(), [format!("stop b: {above}")]);
    let going = [stopping(warm("a")), warm("b")];
    assert_eq!(with(pooled(2, 2), &going).steps(), ["create a spare one", "stop a: because"]);
    let two = [pooled(1, 1), job("api", "service", &[pool(2, 4)])];
    let served = [serves.clone(), serving("s", "api", RUN)];
    assert_eq!(setting(&two, &served).steps(), ["create a spare one"; 2]);

    let unwanted = "stop a: no job wants its pool";
    for gone in [
        pooled(0, 0),
        Job { wanted: Wanted::Stopped, ..pooled(1, 1) },
        without_images(&pooled(1, 1)),
    ] {
        assert_eq!(with(gone, &[warm("a")]).steps().last().unwrap(), unwanted);
    }
    let batch = |outcome| {
        let batch = ended_with(&job("batch", "job", &[pool(1, 1)]), outcome);
        setting(&[batch], &[]).steps()
    };
    assert_eq!(batch(Outcome::Completed), ["create a spare one"]);
    assert_eq!(batch(Outcome::Failed("exit code 1".to_owned())), nothing());
    let service = Outcome::Failed("timed out".to_owned());
    let service = ended_with(&pooled(1, 1), service);
    assert_eq!(setting(&[service], &[]).steps(), ["create a spare one"]);
}

#[test]
fn failing_pool_backs_off_and_a_late_instance_is_stopped() {
    let web = job("web", "service", &[pool(1, 2)]);
    let serves = serving("r", "web", RUN);
    let mut failing = setting(&[web.clone()], &[serves.clone()]);
    let health = |not_before| PoolHealth { failures: 2, not_before, reason: "it died".to_owned() };
    failing.pools.insert(key(), health(ahead(3)));
    assert_eq!((failing.steps(), failing.wakes()), (nothing(), Some(ahead(3))));
    failing.pools.insert(key(), health(NOW));
    assert_eq!(failing.steps(), ["create a spare one"]);

    let with = |instance: Instance| setting(&[web.clone()], &[serves.clone(), instance]);
    let booting = |age| {
        let booting = instance("a", spare(), Some(InstanceState::Booting));
        with(Instance { created_at: ago(age), ..booting })
    };
    assert_eq!((booting(11).steps(), booting(11).wakes()), (nothing(), Some(ahead(1))));
    let late = "fail a: the guest did not report within 12 s";
    assert_eq!(booting(12).steps(), [late, "create a spare one"]);
    let adopted = |seen| {
        let booting = instance("a", spare(), Some(InstanceState::Booting));
        with(Instance { created_at: ago(1000), seen_at: Some(ago(seen)), ..booting })
    };
    assert_eq!((adopted(11).steps(), adopted(11).wakes()), (nothing(), Some(ahead(1))));
    assert_eq!(adopted(12).steps(), [late, "create a spare one"]);
    let unready = |age| {
        let unready = instance("a", spare(), up(Phase::Running, false, None));
        with(Instance { running_since: Some(ago(age)), created_at: ago(100), ..unready })
    };
    assert_eq!((unready(59).steps(), unready(59).wakes()), (nothing(), Some(ahead(1))));
    let late = "fail a: not ready: its check has not passed within 60 s";
    assert_eq!(unready(60).steps(), [late, "create a spare one"]);
    let mut slow = unready(60);
    slow.limits.time_factor = 10;
    assert_eq!(slow.wakes(), Some(ahead(540)));
    let waits = Instance { running_since: Some(ago(1000)), created_at: ago(1000), ..held("a") };
    assert_eq!(with(waits).steps(), nothing(), "one that waits for its start signal is not late");
    let long = Instance { running_since: Some(ago(1000)), created_at: ago(1000), ..warm("a") };
    assert_eq!(with(long).steps(), nothing());
}

#[test]
fn how_a_job_stands_is_a_word_a_sentence_and_an_instance() {
    let web = job("web", "service", &[]);
    let one = |state| instance("a", of("web", RUN), state);
    let with = |job: &Job, instances: &[Instance]| setting(&[job.clone()], instances).stands("web");
    let told = |status: Status, reason: &str, instance: &str| {
        (status, reason.to_owned(), instance.to_owned())
    };
    let starting = |state, reason: &str| {
        assert_eq!(with(&web, &[one(state)]), told(Status::Starting, reason, "a"));
    };
    starting(None, "being created");
    starting(Some(InstanceState::Booting), "booting");
    let adopted = Instance { awaiting_first_report: true, ..one(Some(InstanceState::Booting)) };
    let reason = "it has not reported since the daemon started";
    assert_eq!(with(&web, &[adopted]), told(Status::Starting, reason, "a"));
    starting(up(Phase::Held, false, Some(RUN)), "waiting for the start signal");
    starting(up(Phase::Running, false, Some(RUN)), "waiting to be ready");
    starting(up(Phase::Running, true, None), "waiting for the guest to take its identity");
    starting(up(Phase::Stopping, true, Some(RUN)), "stopping");
    let detail = Some("port 80 refuses".to_owned());
    let (phase, acknowledged) = (Phase::Running, Some(Generation(RUN)));
    let state = InstanceState::Up { phase, ready: false, acknowledged, ready_detail: detail };
    starting(Some(state), "not ready: port 80 refuses");

    let serves = serving("a", "web", RUN);
    assert_eq!(with(&web, &[serves.clone()]), told(Status::Running, "", "a"));
    assert_eq!(with(&web, &[]), told(Status::Pending, "about to start", ""));
    let gone = ended(serves.clone());
    assert_eq!(with(&web, &[gone]), told(Status::Pending, "about to start", ""));
    let going = stopping(serves.clone());
    assert_eq!(with(&web, &[going.clone()]), told(Status::Pending, "about to start", ""));

    let wanted = |wanted| Job { wanted, ..web.clone() };
    let deleted = told(Status::Stopping, "being deleted", "a");
    assert_eq!(with(&wanted(Wanted::Deleted), &[going.clone()]), deleted);
    assert_eq!(with(&wanted(Wanted::Stopped), &[going]), told(Status::Stopping, "", "a"));
    assert_eq!(with(&wanted(Wanted::Stopped), &[]), told(Status::Stopped, "", ""));
    let outcome = |outcome| ended_with(&web, outcome);
    assert_eq!(with(&outcome(Outcome::Completed), &[]), told(Status::Completed, "", ""));
    let failed = outcome(Outcome::Failed("exit code 7".to_owned()));
    assert_eq!(with(&failed, &[]), told(Status::Failed, "exit code 7", ""));
    let missing = without_images(&web);
    assert_eq!(with(&missing, &[]), told(Status::Failed, "no such rootfs", ""));
    for (status, word) in Status::ALL.iter().zip([
        "pending",
        "starting",
        "running",
        "stopping",
        "stopped",
        "completed",
        "failed",
    ]) {
        assert_eq!((status.as_str(), status.to_string().as_str()), (word, word));
    }
}

#[test]
fn a_rollout_is_told_beside_what_serves_meanwhile() {
    let web = job("web", "service", &[]);
    let old = serving("old", "web", 1);
    let with = |job: &Job, new: Option<Instance>| {
        let instances: Vec<Instance> = [old.clone()].into_iter().chain(new).collect();
        let (status, reason, shown) = setting(&[job.clone()], &instances).stands("web");
        assert_eq!((status, shown.as_str()), (Status::Running, "old"));
        reason
    };
    let booting = || Some(instance("new", of("web", RUN), Some(InstanceState::Booting)));
    assert_eq!(with(&web, booting()), "replacing it with generation 2: booting");
    assert_eq!(with(&web, None), "replacing it with generation 2: about to start");
    let missing = without_images(&web);
    assert_eq!(
        with(&missing, None),
        "generation 2 can't start, the previous one keeps serving: no such rootfs"
    );
    let failing = |failures| {
        advanced(&web, |progress| {
            progress.failures = failures;
            progress.last_failure = Some("exit code 7".to_owned());
        })
    };
    assert_eq!(
        with(&failing(1), booting()),
        "generation 2 failed (exit code 7), the previous one keeps serving; booting"
    );
    assert_eq!(with(&failing(0), booting()), "replacing it with generation 2: booting");
}

#[test]
fn stored_changes_have_a_row_and_observed_ones_have_none() {
    let mut fleet = Fleet::default();
    let (web, a) = (JobId::parse("web").unwrap(), InstanceId::parse("a").unwrap());
    let rows = |fleet: &mut Fleet| {
        let Changed { jobs, progress, instances } = fleet.take_changed();
        (jobs.contains(&web), progress.contains(&web), instances.contains(&a))
    };
    fleet.insert_job(job("web", "service", &[]));
    assert_eq!(rows(&mut fleet), (true, true, false));
    fleet.insert_instance(serving("a", "web", RUN));
    assert_eq!(rows(&mut fleet), (false, false, true));
    fleet.take_due();
    fleet.observe_progress(&web, |progress| progress.resolution = Resolution::Preparing(None));
    fleet.observe_instance(&a, |instance| instance.silence = 1);
    assert_eq!(rows(&mut fleet), (false, false, false));
    assert!(fleet.take_due().jobs.contains(&web), "the next plan may be another");
    fleet.change_progress(&web, |progress| progress.failures = 1);
    assert_eq!(rows(&mut fleet), (false, true, false));
    fleet.change_job(&web, |job| job.wanted = Wanted::Stopped);
    assert_eq!(rows(&mut fleet), (true, false, false));
    fleet.change_job(&web, |job| job.progress.failures = 0);
    assert_eq!(rows(&mut fleet), (true, true, false));
    fleet.change_instance(&a, |instance| instance.stopping = Some("because".to_owned()));
    assert_eq!(rows(&mut fleet), (false, false, true));
    fleet.remove_instance(&a);
    fleet.remove_job(&web);
    assert_eq!(rows(&mut fleet), (true, true, true));
}

#[test]
fn fleet_tracks_slots_load_and_jobs_to_plan_again() {
    let mut fleet = Fleet::default();
    assert!(fleet.due().is_empty());
    fleet.insert_job(job("web", "service", &[]));
    assert!(!fleet.due().is_empty());
    assert_eq!(fleet.take_due().jobs.len(), 1);
    fleet.replan(Subject::Pool(key()));
    assert!(!fleet.due().is_empty());
    assert_eq!(fleet.take_due().pools.len(), 1);
    let slot = |id: &str, slot| Instance { slot: Slot(slot), ..serving(id, "web", RUN) };
    fleet.insert_instance(slot("a", 0));
    fleet.insert_instance(slot("c", 2));
    let has = |fleet: &Fleet| [0, 1, 2, 3].map(|number| fleet.has(Slot(number)));
    assert_eq!((has(&fleet), fleet.free_slot()), ([true, false, true, false], Slot(1)));
    fleet.hold_slots([Slot(1), Slot(3)].into());
    assert_eq!(fleet.free_slot(), Slot(4));
    fleet.remove_instance(&InstanceId::parse("a").unwrap());
    assert_eq!((has(&fleet), fleet.free_slot()), ([false, false, true, false], Slot(0)));
    let capacity = Capacity { vcpus: 9, memory_mib: 1000, overhead_mib: 5, scratch_mib: None };
    let used = fleet.used(&capacity);
    assert_eq!(
        (used.vcpus, used.memory_mib, used.to_string()),
        (1, 105, "1 vCPU and 105 MiB".to_owned())
    );
    fleet.insert_instance(slot("b", 1));
    assert_eq!(fleet.used(&capacity).memory_mib, 210);
    let id = JobId::parse("web").unwrap();
    let failures =
        fleet.change_progress(&id, |progress| std::mem::replace(&mut progress.failures, 4));
    assert_eq!(failures, Some(0));
    assert_eq!(fleet.change_job(&JobId::parse("no").unwrap(), |_| ()), None);
    assert_eq!(fleet.job(&id).unwrap().progress.failures, 4);
    assert_eq!(fleet.of_job(&id).count(), 2);
}

#[test]
fn load_drains_the_pools_that_no_job_requests_after_it() {
    let (web, api) = (job("web", "service", &[pool(1, 1)]), job("api", "service", &[pool(1, 1)]));
    let with = |jobs: &[Job], instances: &[Instance]| setting(jobs, instances).fleet;
    let drained = |fleet: &Fleet, after: &[(&Job, Option<&Job>)]| {
        let after = after.iter().map(|(before, after)| (&before.id, *after)).collect();
        fleet.drained_by(&after)
    };
    let fleet =
        with(&[web.clone()], &[warm("a"), warm("b"), stopping(warm("c")), ended(warm("d"))]);
    assert_eq!(drained(&fleet, &[(&web, None)]), [(key(), 2)]);
    assert_eq!(fleet.job_of_pool(&key()).unwrap().id, web.id);
    let none = job("web", "service", &[]);
    assert_eq!(drained(&fleet, &[(&web, Some(&none))]), [(key(), 2)]);
    assert!(drained(&fleet, &[(&web, Some(&web))]).is_empty(), "it is still requested");
    assert!(drained(&fleet, &[(&web, None), (&api, Some(&api))]).is_empty(), "by another now");
    assert!(drained(&fleet, &[(&api, None)]).is_empty());
    let shared = with(&[web.clone(), api.clone()], &[warm("a")]);
    assert!(drained(&shared, &[(&web, None)]).is_empty(), "another requests it");
    assert_eq!(drained(&shared, &[(&web, None), (&api, None)]), [(key(), 1)]);
    assert!(drained(&with(&[web.clone()], &[]), &[(&web, None)]).is_empty(), "it is empty");
    assert!(fleet.of_pool(&key()).count() == 4 && Fleet::default().job_of_pool(&key()).is_none());
}

#[test]
fn check_refuses_unfit_claims_and_duplicate_actions() {
    let pooled = job("web", "service", &[pool(1, 1)]);
    let refused = |setting: Setting, steps: Vec<Step>| {
        let plan = Plan { steps, ..Plan::default() };
        check(&setting.world(), &plan).err().map(|violation| violation.0).unwrap_or_default()
    };
    let refuses = |instances: &[Instance], steps: Vec<Step>| {
        refused(setting(&[pooled.clone()], instances), steps)
    };
    let id = |name: &str| InstanceId::parse(name).unwrap();
    let claim = || Step::Claim { instance: id("a"), job: pooled.id.clone() };
    assert_eq!(refuses(&[warm("a")], vec![claim()]), "");
    let cold = instance("a", spare(), Some(InstanceState::Booting));
    assert!(refuses(&[cold], vec![claim()]).contains("unfit"));
    let other = Assignment::Pool(PoolKey { tenant: PoolTenant::Shared, hash: SpecHash([9; 32]) });
    assert!(
        refuses(&[Instance { assignment: other, ..warm("a") }], vec![claim()]).contains("unfit")
    );
    let busy = setting(&[pooled.clone()], &[warm("a")]).busy("a");
    assert!(refused(busy, vec![claim()]).contains("while it is busy"));
    let remove = || Step::Remove { instance: id("a") };
    assert!(refuses(&[warm("a")], vec![claim(), remove()]).contains("second step"));
    let create = Step::Create(Target::Job(pooled.id.clone()));
    let beside = refuses(&[serving("a", "web", RUN)], vec![create]);
    assert!(beside.contains("beside a current instance"), "{beside}");
    let unknown = PoolKey { tenant: PoolTenant::Shared, hash: SpecHash([8; 32]) };
    assert!(refuses(&[], vec![Step::Create(Target::Pool(unknown))]).contains("without a job"));
}

#[test]
fn exit_counts_only_for_the_generation_that_it_served() {
    let service = advanced(&job("web", "service", &[]), |progress| progress.failures = 2);
    let exit = |end| Exit { end, stop_requested: false };
    let again = |failures, reason: &str| Verdict::Again {
        failures,
        not_before: NOW.after(backoff(failures)),
        reason: reason.to_owned(),
    };
    let serves = serving("a", "web", RUN);
    let killed = || exit(End::Signal(9));
    assert_eq!(verdict(&service, &serves, &killed(), NOW), again(3, "killed by signal 9"));
    let old = serving("a", "web", 1);
    assert_eq!(verdict(&service, &old, &killed(), NOW), Verdict::Nothing);
    assert_eq!(verdict(&service, &warm("a"), &killed(), NOW), Verdict::Nothing);
    assert_eq!(verdict(&service, &stopping(serves.clone()), &killed(), NOW), Verdict::Nothing);
    let over = ended_with(&service, Outcome::Completed);
    assert_eq!(verdict(&over, &serves, &killed(), NOW), Verdict::Nothing);
    let steady = |age| Instance { ready_since: Some(ago(age)), ..serves.clone() };
    let streak = hearth_planner::STREAK_ENDS_AFTER.as_secs();
    assert_eq!(verdict(&service, &steady(streak), &killed(), NOW), again(1, "killed by signal 9"));
    let short = verdict(&service, &steady(streak - 1), &killed(), NOW);
    assert_eq!(short, again(3, "killed by signal 9"));
    let never = Verdict::Again {
        failures: 2,
        not_before: NOW,
        reason: "the microVM was never started".to_owned(),
    };
    assert_eq!(verdict(&service, &serves, &exit(End::NeverStarted), NOW), never);
    let refused = exit(End::NotCreated("no memory".to_owned()));
    assert_eq!(verdict(&service, &serves, &refused, NOW), again(3, "no memory"));

    let batch = |failures| {
        let batch = job("web", "job", &[("retries", 1.into())]);
        advanced(&batch, |progress| progress.failures = failures)
    };
    let code = || exit(End::Code(7));
    assert_eq!(verdict(&batch(0), &serves, &code(), NOW), again(1, "exit code 7"));
    let failed = Verdict::Over(Outcome::Failed("exit code 7".to_owned()));
    assert_eq!(verdict(&batch(1), &serves, &code(), NOW), failed);
    assert_eq!(verdict(&batch(1), &serves, &refused, NOW), again(2, "no memory"), "nothing ran");
    // It had ended by itself before the stop reached it, or it was stopped.
    let done = Verdict::Over(Outcome::Completed);
    let going = stopping(serves);
    assert_eq!(verdict(&batch(0), &going, &exit(End::Code(0)), NOW), done);
    let asked = Exit { end: End::Code(0), stop_requested: true };
    assert_eq!(verdict(&batch(0), &going, &asked, NOW), Verdict::Nothing);
    let unwanted = Job { wanted: Wanted::Stopped, ..batch(0) };
    assert_eq!(verdict(&unwanted, &going, &exit(End::Code(0)), NOW), Verdict::Nothing);
}
