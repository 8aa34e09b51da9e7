//! Which copies of images are in use.

use crate::world::{World, pool, spec};
use hearth_engine::{Delete, ImagePlan, PlanImages, Stop};
use hearth_host::Host;
use hearth_model::{JobId, KeepImages};
use std::time::Duration;

const A_WHILE: Duration = Duration::from_secs(3);

/// How many copies there are, and how many of them would go at once.
async fn copies(world: &mut World) -> (usize, usize) {
    let stored = world.host.images().await.unwrap();
    let plan = PlanImages { stored: stored.clone(), keep: KeepImages::NONE };
    let ImagePlan { used, remove } = world.ask(plan).await.unwrap();
    assert_eq!(used.len() + remove.len(), stored.len(), "each is one or the other");
    (stored.len(), remove.len())
}

fn job(name: &str) -> JobId {
    JobId::parse(name).unwrap()
}

#[tokio::test(start_paused = true)]
async fn copies_that_can_be_needed_again_are_in_use() {
    let mut world = World::new();
    assert_eq!(copies(&mut world).await, (0, 0));
    world.post("web", None, &spec("service", &[pool(1, 1)])).await.unwrap();
    world.post("once", None, &spec("job", &[])).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(copies(&mut world).await, (2, 0), "they run, or ran and can run again");
    world.ask(Delete { job: job("once") }).await.unwrap();
    world.ask(Stop { job: job("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(copies(&mut world).await, (2, 0), "a stopped job can be started");
    world.ask(Delete { job: job("web") }).await.unwrap();
    world.run_for(A_WHILE).await;
    assert_eq!(copies(&mut world).await, (2, 2));
}
