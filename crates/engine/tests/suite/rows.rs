//! Which rows a step writes: what is wanted of a job and its progress have writers of their own.

use crate::world::{World, spec};
use hearth_engine::{EventPage, Events, Stop};
use hearth_host::sim::{Presence, SimConfig};
use hearth_model::{End, JobId};
use hearth_planner::Status;
use hearth_store::{Changes, Loaded, Sqlite, Store, StoreError, Used};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);

/// Rows that were written, by their tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Rows {
    jobs: usize,
    progress: usize,
    instances: usize,
}

/// A store that counts what it is given.
#[derive(Debug)]
struct Counting {
    store: Sqlite,
    rows: Arc<Mutex<Rows>>,
}

impl Store for Counting {
    fn load(&self) -> Result<Loaded, StoreError> {
        self.store.load()
    }

    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError> {
        let mut rows = self.rows.lock().unwrap();
        rows.jobs += changes.jobs.len();
        rows.progress += changes.progress.len();
        rows.instances += changes.instances.len();
        self.store.commit(changes)
    }

    fn used(&self, key: &str) -> Result<Option<Used>, StoreError> {
        self.store.used(key)
    }

    fn events(&self, query: &Events) -> Result<EventPage, StoreError> {
        self.store.events(query)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.store.check()
    }

    fn probe(&mut self) -> Result<(), StoreError> {
        self.store.probe()
    }

    fn save(&self, rows: &Changes<'_>) -> Result<Option<PathBuf>, StoreError> {
        self.store.save(rows)
    }
}

/// A world, and what was written in it since that was last asked.
fn counted() -> (World, impl Fn() -> Rows) {
    let rows = Arc::<Mutex<Rows>>::default();
    let store = Counting { store: Sqlite::in_memory().unwrap(), rows: rows.clone() };
    let store: Box<dyn Store> = Box::new(store);
    let world = World::with(SimConfig::default(), store);
    (world, move || std::mem::take(&mut *rows.lock().unwrap()))
}

#[tokio::test(start_paused = true)]
async fn exit_and_retry_of_an_instance_write_no_spec() {
    let (mut world, written) = counted();
    let (_, view) = world.post("web", None, &spec("service", &[])).await.unwrap();
    assert_eq!(written().jobs, 1);
    world.run_for(A_WHILE).await;
    assert_eq!(written().jobs, 0, "a boot is progress");
    let instance = world.get("web").await.instance.or(view.instance).unwrap();
    world.host.end(&instance, End::Code(1));
    world.run_for(A_WHILE).await;
    let rows = written();
    assert_eq!((rows.jobs, rows.progress > 0, rows.instances > 0), (0, true, true), "{rows:?}");
    assert_eq!(world.status("web").await.0, Status::Running);
    world.engine.audit().unwrap();
}

#[tokio::test(start_paused = true)]
async fn images_that_are_looked_up_again_write_progress_alone() {
    let (mut world, written) = counted();
    let web = spec("service", &[]);
    world.host.set_missing(web.rootfs.as_ref().unwrap(), Presence::Missing);
    world.post("web", None, &web).await.unwrap();
    written();
    world.run_for(A_WHILE).await;
    let rows = written();
    assert_eq!((rows.jobs, rows.progress > 0, rows.instances), (0, true, 0), "{rows:?}");
    world.engine.audit().unwrap();
}

#[tokio::test(start_paused = true)]
async fn stop_writes_the_job_and_what_follows_its_progress() {
    let (mut world, written) = counted();
    world.post("web", None, &spec("service", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    written();
    world.ask(Stop { job: JobId::parse("web").unwrap() }).await.unwrap();
    assert_eq!(written().jobs, 1);
    world.run_for(A_WHILE).await;
    let rows = written();
    assert_eq!((rows.jobs, rows.progress > 0), (0, true), "{rows:?}");
    assert_eq!(world.status("web").await.0, Status::Stopped);
    world.engine.audit().unwrap();
}
