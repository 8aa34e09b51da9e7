//! The copies of images that the host has: a list, and the removal of unused ones.

use super::App;
use super::document::Refuses;
use super::problem::Refused;
use super::read::Params;
use crate::caller::CalledBy;
use crate::images::{self, Collect, CollectError};
use axum::Json;
use axum::extract::State;
use hearth_api::{Image, Images, Pruned};
use hearth_model::{KeepImages, StoredImage};
use serde::Deserialize;
use std::sync::Arc;
use utoipa::IntoParams;

/// Which copies go.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PruneParams {
    /// Remove every unused copy, whatever its age.
    #[serde(default)]
    #[param(value_type = bool, required = false)]
    all: bool,
    /// Only say what would be removed.
    #[serde(default)]
    #[param(value_type = bool, required = false)]
    dry_run: bool,
}

/// `GET /images`.
#[utoipa::path(get, path = "/images", operation_id = "listImages", summary = "The copies of images that the host has.",
    responses((status = 200, description = "All copies, by name.", body = Images), Refuses<403>, Refuses<503>))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
) -> Result<Json<Images>, Refused> {
    let (stored, used) = images::list(&*app.host, &app.engine, caller).await.map_err(refused)?;
    let image = |image: &StoredImage| shown(image, used.contains(&image.name));
    Ok(Json(Images { items: stored.iter().map(image).collect() }))
}

/// `POST /images/prune`.
#[utoipa::path(post, path = "/images/prune", operation_id = "pruneImages", summary = "Remove copies of images that no job and no microVM uses: those that `keep_image_hours` and `keep_images_gb` no longer keep, or all.",
    params(PruneParams),
    responses((status = 200, description = "What was removed, or would be.", body = Pruned), Refuses<400>, Refuses<403>, Refuses<503>))]
pub(super) async fn prune(
    State(app): State<Arc<App>>,
    CalledBy(caller): CalledBy,
    Params(params): Params<PruneParams>,
) -> Result<Json<Pruned>, Refused> {
    let keep = if params.all { KeepImages::NONE } else { app.keep_images };
    let how = if params.dry_run { Collect::DryRun } else { Collect::Remove };
    let removed = images::collect(&*app.host, &app.engine, caller, keep, how);
    let removed = removed.await.map_err(refused)?;
    let freed_bytes = removed.iter().map(|image| image.bytes).sum();
    let removed = removed.iter().map(|image| shown(image, false)).collect();
    Ok(Json(Pruned { removed, freed_bytes, dry_run: params.dry_run }))
}

fn shown(image: &StoredImage, in_use: bool) -> Image {
    Image {
        name: image.name.clone(),
        bytes: image.bytes,
        unused_s: if in_use { 0 } else { image.unused_for.as_secs() },
        in_use,
    }
}

fn refused(error: CollectError) -> Refused {
    match error {
        CollectError::Ask(error) => error.into(),
        error => Refused::for_now("images", "Image store unavailable", error.to_string()),
    }
}
