//! What every host must do. The same suite runs over the simulated host and the real one.

use hearth_host::{Host, HostError, LogQuery};
use hearth_model::{
    Action, Create, CreatedInstance, Delivery, End, Exit, Generation, Identity, InstanceId,
    InstanceState, JobId, Lookup, Machine, Owner, Phase, PoolTenant, Signal, Slot, Spec, Stage,
    Tenant, Value, hash,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// A host under test, with specs that run on it.
pub struct Subject<'a> {
    pub host: &'a dyn Host,
    /// Runs until it is stopped.
    pub service: Spec,
    /// Exits with 0 by itself, after printing something. `None` where guests have no init.
    pub job: Option<Spec>,
    /// Names an image that was never looked up, and takes a while to be read. `None` where all were.
    pub unread: Option<Spec>,
    /// How long anything may take.
    pub patience: Duration,
}

static NEXT: AtomicU32 = AtomicU32::new(1);

impl Subject<'_> {
    /// All of the contract, one after the other.
    pub async fn check(&self) {
        self.created_instance_is_observed_up_and_creating_is_idempotent().await;
        self.a_stopped_instance_is_seen_to_have_ended_on_request().await;
        self.observation_since_another_shows_only_what_changed_after_it().await;
        self.what_was_never_there_can_be_stopped_and_removed_but_not_told().await;
        self.a_missing_image_is_a_permanent_error_that_names_it().await;
        if let Some(unread) = &self.unread {
            self.unread_image_is_told_with_its_progress_until_known(unread).await;
        }
        self.copies_of_images_stay_while_an_instance_has_them().await;
        if let Some(job) = &self.job {
            self.exit_is_observed_with_its_code_and_output_kept_until_dropped(job).await;
            self.a_held_instance_waits_for_go_and_ignores_older_generations().await;
            self.late_workload_is_taken_once_and_another_is_refused().await;
        }
    }

    async fn create(&self, spec: &Spec, stage: Stage, owner: Owner) -> Create {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let spec = Arc::new(spec.clone());
        let Lookup::Known(images) = self.look_up(&spec).await.expect("the images are there") else {
            panic!("the images are not read in time");
        };
        let create = Create {
            instance: InstanceId::parse(&format!("contract{number}")).unwrap(),
            slot: Slot(number),
            hash: hash::spec_hash(&spec, &images),
            machine: Machine::boot(&spec, &images),
            workload: Delivery::of(spec.boot, stage, &owner),
            spec,
            stage,
            owner,
        };
        self.apply(Action::Create(Box::new(create.clone()))).await;
        create
    }

    async fn look_up(&self, spec: &Spec) -> Result<Lookup, HostError> {
        self.host.resolve(spec, self.patience).await
    }

    async fn apply(&self, action: Action) {
        let name = action.name();
        if let Err(error) = self.host.apply(action).await {
            panic!("cannot {name}: {}", error.sentence());
        }
    }

    async fn state(&self, id: &InstanceId) -> Option<InstanceState> {
        let seen = self.host.observe(None).await.expect("the host can be looked at");
        seen.instances.get(id).map(|observed| observed.state.clone())
    }

    async fn until(
        &self,
        id: &InstanceId,
        what: &str,
        is: impl Fn(&InstanceState) -> bool,
    ) -> InstanceState {
        let deadline = Instant::now() + self.patience;
        let mut changes = self.host.changes();
        loop {
            let state = self.state(id).await;
            if let Some(state) = state.as_ref().filter(|state| is(state)) {
                return state.clone();
            }
            assert!(Instant::now() < deadline, "{id} is not {what} in time but {state:?}");
            // A hint must come with the change; the poll only bounds the wait for other reasons.
            let _ = tokio::time::timeout(Duration::from_millis(500), changes.changed()).await;
        }
    }

    async fn ended(&self, id: &InstanceId) -> Exit {
        let ended = |state: &InstanceState| matches!(state, InstanceState::Exited(_));
        match self.until(id, "ended", ended).await {
            InstanceState::Exited(exit) => exit,
            other => panic!("{other:?}"),
        }
    }

    async fn clean(&self, id: &InstanceId) {
        self.apply(Action::Remove { instance: id.clone() }).await;
        self.apply(Action::Remove { instance: id.clone() }).await;
        assert_eq!(self.state(id).await, None, "nothing is left");
        self.apply(Action::DropLogs { instance: id.clone() }).await;
    }

    async fn created_instance_is_observed_up_and_creating_is_idempotent(&self) {
        let create = self.create(&self.service, Stage::App, Owner::Job(identity(1))).await;
        let id = &create.instance;
        self.apply(Action::Create(Box::new(create.clone()))).await;
        let up = self.until(id, "up", |state| matches!(state, InstanceState::Up { .. })).await;
        assert!(matches!(up, InstanceState::Up { phase: Phase::Running, .. }), "{up:?}");
        assert!(self.host.alive(id));
        let seen = self.host.observe(None).await.unwrap();
        assert_eq!(seen.instances[id].slot, create.slot);
        assert_eq!(seen.instances[id].hash, create.hash);
        let made = seen.instances[id].created.as_deref();
        assert_eq!(
            made,
            Some(&CreatedInstance::of(&create)),
            "what the database would say is remembered"
        );
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        self.clean(id).await;
    }

    async fn a_stopped_instance_is_seen_to_have_ended_on_request(&self) {
        let create = self.create(&self.service, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let id = &create.instance;
        self.until(id, "up", |state| matches!(state, InstanceState::Up { .. })).await;
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        let exit = self.ended(id).await;
        assert!(exit.stop_requested, "{exit:?}");
        assert!(!self.host.alive(id));
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        self.clean(id).await;
    }

    async fn observation_since_another_shows_only_what_changed_after_it(&self) {
        let [first, second] = [
            self.create(&self.service, Stage::App, Owner::Pool(PoolTenant::Shared)).await.instance,
            self.create(&self.service, Stage::App, Owner::Pool(PoolTenant::Shared)).await.instance,
        ];
        for id in [&first, &second] {
            self.until(id, "ready", |state| {
                matches!(state, InstanceState::Up { phase: Phase::Running, ready: true, .. })
            })
            .await;
        }
        let whole = self.host.observe(None).await.unwrap();
        assert!(whole.whole);
        assert!(whole.instances.contains_key(&first) && whole.instances.contains_key(&second));
        let none = self.host.observe(Some(whole.revision)).await.unwrap();
        assert!(!none.whole && none.instances.is_empty(), "nothing has changed: {none:?}");
        self.apply(Action::Stop { instance: first.clone(), signal: Signal::TERM, timeout_s: 1 })
            .await;
        self.ended(&first).await;
        let changed = self.host.observe(Some(whole.revision)).await.unwrap();
        assert_eq!(changed.instances.keys().collect::<Vec<_>>(), [&first]);
        let again = self.host.observe(Some(changed.revision)).await.unwrap();
        assert!(again.instances.is_empty(), "it was seen: {again:?}");
        self.apply(Action::Stop { instance: second.clone(), signal: Signal::TERM, timeout_s: 1 })
            .await;
        self.ended(&second).await;
        self.clean(&first).await;
        self.clean(&second).await;
    }

    async fn what_was_never_there_can_be_stopped_and_removed_but_not_told(&self) {
        let instance = InstanceId::parse("never").unwrap();
        self.apply(Action::Stop { instance: instance.clone(), signal: Signal::TERM, timeout_s: 1 })
            .await;
        self.apply(Action::Remove { instance: instance.clone() }).await;
        self.apply(Action::DropLogs { instance: instance.clone() }).await;
        let page = self.host.logs(&instance, LogQuery::default()).await.unwrap();
        assert!(page.lines.is_empty());
        let spec = Arc::new(self.service.clone());
        let identity = identity(1);
        let tell =
            Action::AssignIdentity { instance: instance.clone(), spec, identity, release: true };
        assert!(self.host.apply(tell).await.is_err());
        assert!(!self.host.alive(&instance));
        assert!(self.host.connect(&instance, 80).await.is_err());
    }

    async fn a_missing_image_is_a_permanent_error_that_names_it(&self) {
        let mut entries = match self.service.write() {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        };
        entries.retain(|(key, _)| key != "kernel");
        entries.push(("kernel".into(), "no-such-kernel".into()));
        let spec = Spec::read(&Value::Map(entries)).unwrap();
        let error = self.look_up(&spec).await.unwrap_err();
        assert!(!error.is_transient());
        assert!(error.sentence().contains("no-such-kernel"), "{}", error.sentence());
    }

    async fn unread_image_is_told_with_its_progress_until_known(&self, unread: &Spec) {
        const EACH: Duration = Duration::from_millis(20);
        let deadline = Instant::now() + self.patience;
        let mut told = 0;
        let images = loop {
            let began = Instant::now();
            let progress = match self.host.resolve(unread, EACH).await.unwrap() {
                Lookup::Known(images) => break images,
                Lookup::Preparing(progress) => progress,
            };
            assert!(began.elapsed() >= EACH, "it waits as long as it may");
            let named = [Some(&unread.kernel), unread.rootfs.as_ref()];
            assert!(named.contains(&Some(&progress.image)), "{progress}");
            assert!(progress.done_bytes <= progress.total_bytes, "{progress:?}");
            assert!(Instant::now() < deadline, "{progress}");
            told += 1;
        };
        assert!(told > 0, "it was known at once");
        // Those that wait are answered as soon as it is known.
        let both = tokio::join!(self.look_up(unread), self.look_up(unread));
        let known = [both.0.unwrap(), both.1.unwrap()];
        assert_eq!(known, [Lookup::Known(images), Lookup::Known(images)]);
    }

    async fn copies_of_images_stay_while_an_instance_has_them(&self) {
        let create = self.create(&self.service, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let kernel = create.machine.images().kernel;
        let stored = async || {
            let stored = self.host.images().await.expect("copies can be looked at");
            stored.into_iter().find(|image| image.digest == Some(kernel))
        };
        let copy = stored().await.expect("a copy of the kernel");
        assert!(copy.linked && copy.bytes > 0, "{copy:?}");
        let name = copy.name;
        let keep = async |used: &[&String], remove: &[&String]| {
            let names = |names: &[&String]| names.iter().map(|name| (*name).clone()).collect();
            self.host.keep_images(names(used), names(remove)).await.expect("it can be done")
        };
        assert_eq!(keep(&[&name], &[&name]).await, Vec::<String>::new());
        assert!(stored().await.is_some());
        let id = &create.instance;
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        self.ended(id).await;
        self.clean(id).await;
        assert_eq!(stored().await.map(|image| image.linked), Some(false));
        assert_eq!(keep(&[], &[&name]).await, std::slice::from_ref(&name));
        assert_eq!(stored().await, None);
        keep(&[&name], &[&name]).await;
        let again = self.create(&self.service, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        assert!(stored().await.is_some(), "it is copied again");
        let id = &again.instance;
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        self.ended(id).await;
        self.clean(id).await;
    }

    async fn exit_is_observed_with_its_code_and_output_kept_until_dropped(&self, job: &Spec) {
        let create = self.create(job, Stage::App, Owner::Job(identity(1))).await;
        let id = &create.instance;
        let exit = self.ended(id).await;
        assert_eq!(exit, Exit { end: End::Code(0), stop_requested: false });
        self.apply(Action::Remove { instance: id.clone() }).await;
        let all = self.host.logs(id, LogQuery::default()).await.unwrap();
        assert!(!all.lines.is_empty(), "the output outlives the instance");
        let rest = LogQuery { after: all.next, tail: None };
        assert!(self.host.logs(id, rest).await.unwrap().lines.is_empty());
        let tail = LogQuery { after: 0, tail: Some(1) };
        assert_eq!(self.host.logs(id, tail).await.unwrap().lines.len(), 1);
        self.apply(Action::DropLogs { instance: id.clone() }).await;
        assert!(self.host.logs(id, LogQuery::default()).await.unwrap().lines.is_empty());
    }

    async fn a_held_instance_waits_for_go_and_ignores_older_generations(&self) {
        let create = self.create(&self.service, Stage::Init, Owner::Pool(PoolTenant::Shared)).await;
        let id = &create.instance;
        let tell = |generation, release| Action::AssignIdentity {
            instance: id.clone(),
            spec: create.spec.clone(),
            identity: identity(generation),
            release,
        };
        self.until(id, "held", |state| is_up(state, Phase::Held, None)).await;
        self.apply(tell(3, false)).await;
        self.until(id, "told", |state| is_up(state, Phase::Held, Some(3))).await;
        let seen = self.host.observe(None).await.unwrap();
        let owner = seen.instances[id].created.as_ref().map(|made| made.owner.clone());
        assert_eq!(owner, Some(Owner::Job(identity(3))), "its owner is recorded");
        self.apply(tell(2, false)).await;
        self.apply(tell(3, true)).await;
        self.until(id, "running", |state| is_up(state, Phase::Running, Some(3))).await;
        self.apply(tell(3, true)).await;
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        self.clean(id).await;
    }

    async fn late_workload_is_taken_once_and_another_is_refused(&self) {
        let create = self.create(&self.service, Stage::Init, Owner::Pool(PoolTenant::Shared)).await;
        assert_eq!(create.workload, Delivery::Late);
        let id = &create.instance;
        let tell = |generation, spec: &Arc<Spec>, release| Action::AssignIdentity {
            instance: id.clone(),
            spec: spec.clone(),
            identity: identity(generation),
            release,
        };
        let mut other = self.service.clone();
        other.env.insert("OTHER".to_owned(), "yes".to_owned());
        let (same, other) = (&create.spec, &Arc::new(other));
        self.until(id, "held", |state| is_up(state, Phase::Held, None)).await;
        self.apply(tell(3, same, false)).await;
        for (generation, spec) in [(3, other), (4, other), (4, same)] {
            let refused = self.host.apply(tell(generation, spec, true)).await;
            let error = refused.expect_err("the guest has its workload");
            let sentence = error.sentence();
            assert!(
                !error.is_transient() && sentence.contains("refuses its workload"),
                "{sentence}"
            );
        }
        self.until(id, "held", |state| is_up(state, Phase::Held, Some(3))).await;
        self.apply(tell(3, same, true)).await;
        self.until(id, "running", |state| is_up(state, Phase::Running, Some(3))).await;
        self.apply(Action::Stop { instance: id.clone(), signal: Signal::TERM, timeout_s: 1 }).await;
        self.clean(id).await;
    }
}

fn is_up(state: &InstanceState, wanted: Phase, generation: Option<u64>) -> bool {
    matches!(state, InstanceState::Up { phase, acknowledged, .. }
        if *phase == wanted && *acknowledged == generation.map(Generation))
}

fn identity(generation: u64) -> Identity {
    Identity {
        job_id: JobId::parse("contract").unwrap(),
        tenant: Tenant::parse("contract").unwrap(),
        generation: Generation(generation),
    }
}
