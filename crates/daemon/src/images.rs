//! Unused copies of images: removed once in a while, and on request. The engine decides
//! which, on what is committed; the host removes them after that.

use crate::core::{AskError, EngineHandle};
use crate::limits;
use crate::stop::Stop;
use hearth_engine::{ImagePlan, PlanImages, Preconditions};
use hearth_host::{Host, HostError};
use hearth_model::{Caller, KeepImages, StoredImage};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::{sleep, timeout};

/// Whether a collection removes what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Collect {
    /// It does.
    Remove,
    /// It only says what would be removed.
    DryRun,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum CollectError {
    #[error("{}", .0.sentence())]
    Host(#[from] HostError),
    #[error(transparent)]
    Ask(#[from] AskError),
    #[error("requests that look images up take too long")]
    Busy,
}

/// Collects once in a while until `stop` turns true.
pub(crate) async fn run(
    host: Arc<dyn Host>,
    engine: EngineHandle,
    keep: KeepImages,
    mut stop: Stop,
) {
    let mut wait = limits::IMAGES_FIRST;
    loop {
        tokio::select! {
            // Both arms are cancel safe.
            biased;
            () = stop.asked() => return,
            () = sleep(wait) => {}
        }
        wait = limits::IMAGES_EVERY;
        let collected = tokio::select! {
            // Cut off in the middle, the next one does the rest.
            biased;
            () = stop.asked() => return,
            collected = collect(&*host, &engine, Caller::Hearth, keep, Collect::Remove) => collected,
        };
        if let Err(error) = collected {
            tracing::warn!(cause = %error, "cannot remove unused copies of images");
        }
    }
}

/// The copies that the host has, and which of them are in use.
pub(crate) async fn list(
    host: &dyn Host,
    engine: &EngineHandle,
    caller: Caller,
) -> Result<(Vec<StoredImage>, BTreeSet<String>), CollectError> {
    let (stored, plan) = plan(host, engine, caller, KeepImages::NONE).await?;
    Ok((stored, plan.used.into_iter().collect()))
}

/// Removes the unused copies beyond what is kept of them. Returns those that are gone, or would be.
pub(crate) async fn collect(
    host: &dyn Host,
    engine: &EngineHandle,
    caller: Caller,
    keep: KeepImages,
    how: Collect,
) -> Result<Vec<StoredImage>, CollectError> {
    // What a request has looked up is named before this begins, and nothing is looked up meanwhile.
    let quiet = timeout(limits::IMAGES_QUIET_WAIT, engine.without_lookups());
    let _quiet = quiet.await.map_err(|_| CollectError::Busy)?;
    let planned = timeout(limits::IMAGES_PLAN_WAIT, plan(host, engine, caller, keep)).await;
    let (stored, ImagePlan { used, remove }) = planned.map_err(|_| CollectError::Busy)??;
    let removed = match how {
        Collect::DryRun => remove,
        Collect::Remove => host.keep_images(used, remove).await?,
    };
    let gone = |image: &StoredImage| removed.contains(&image.name);
    let gone: Vec<StoredImage> = stored.into_iter().filter(gone).collect();
    if how == Collect::Remove && !gone.is_empty() {
        let bytes: u64 = gone.iter().map(|image| image.bytes).sum();
        tracing::info!(copies = gone.len(), bytes, "unused copies of images are removed");
    }
    Ok(gone)
}

async fn plan(
    host: &dyn Host,
    engine: &EngineHandle,
    caller: Caller,
    keep: KeepImages,
) -> Result<(Vec<StoredImage>, ImagePlan), CollectError> {
    let stored = host.images().await?;
    let plan = PlanImages { stored: stored.clone(), keep };
    let plan = engine.request(caller, Preconditions::NONE, plan).await?;
    Ok((stored, plan))
}
