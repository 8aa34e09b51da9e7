//! The start of a daemon: what is in the state directory is looked at, and each instance taken
//! over or read for how it ended. What can't be identified is left alone and reported, and looked at
//! again: what it lacked may have been descriptors or memory.

use super::instance::{Instance, Live};
use super::instance_record::InstanceRecord;
use super::output::{Origin, Output};
use super::supervise::{self, Fifos};
use super::{Shared, create, errors, layout, lock};
use crate::HostError;
use hearth_firecracker::{
    AdoptError, Client, Directory, MicroVmState, Process, ProcessExit, names,
};
use hearth_model::{Boot, End, Exit, InstanceId};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;

/// How often what was left alone is looked at again.
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(5);

/// What there is of an instance's process.
enum ProcessState {
    Alive(Process),
    Gone,
}

/// Looks at every instance there is.
///
/// # Errors
/// Where the directory of instances can't be read.
pub(super) async fn adopt_all(shared: &Arc<Shared>) -> Result<(), HostError> {
    let dir = shared.layout.instances();
    let entries = std::fs::read_dir(&dir).map_err(errors::file("read", &dir))?;
    // Side by side, since each waits for its own process: one that is stuck holds up no other.
    let mut adoptions = JoinSet::new();
    let mut remains = Vec::new();
    for entry in entries {
        let path = entry.map_err(errors::file("read", &dir))?.path();
        if layout::is_gone(&path) {
            remains.push(path);
            continue;
        }
        adoptions.spawn(adopt_or_leave(Arc::clone(shared), path));
    }
    while let Some(adopted) = adoptions.join_next().await {
        remains.extend(adopted.map_err(errors::task)?);
    }
    shared.spawn(clear_away(Arc::clone(shared), remains));
    shared.spawn(look_again(Arc::clone(shared)));
    Ok(())
}

/// Adopts an instance, or notes why it is left alone. Returns what is to be cleared away instead.
async fn adopt_or_leave(shared: Arc<Shared>, path: PathBuf) -> Option<PathBuf> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let reason = match adopt(&shared, &path).await {
        Ok(remains) => {
            // It is already among the instances: a look that comes between the two finds it twice rather
            // than not at all.
            lock(&shared.unidentified).remove(&name);
            return remains;
        }
        Err(reason) => reason,
    };
    let sentence = format!("{} is left alone: {reason}", path.display());
    let before = lock(&shared.unidentified).insert(name, sentence.clone());
    if before.as_ref() != Some(&sentence) {
        tracing::warn!(sentence, "unidentified");
    }
    None
}

/// Looks at what was left alone until nothing is: it could be identified, or somebody removed it.
async fn look_again(shared: Arc<Shared>) {
    loop {
        let left: Vec<String> = lock(&shared.unidentified).keys().cloned().collect();
        if left.is_empty() {
            return;
        }
        tokio::time::sleep(LOOK_AGAIN_EVERY).await;
        for name in left {
            let path = shared.layout.instances().join(&name);
            if path.try_exists().unwrap_or(true) {
                if let Some(remains) = adopt_or_leave(Arc::clone(&shared), path).await {
                    clear_away(Arc::clone(&shared), vec![remains]).await;
                }
            } else {
                lock(&shared.unidentified).remove(&name);
            }
        }
    }
}

/// Removes directories in which nothing runs and whose names are never used again. In the background.
async fn clear_away(shared: Arc<Shared>, remains: Vec<PathBuf>) {
    if !remains.is_empty() {
        tracing::info!(directories = remains.len(), "clearing away what is left of instances");
    }
    let cleared = tokio::task::spawn_blocking(move || {
        for path in remains {
            warn(layout::remove_gone(&path));
        }
        // An instance that comes meanwhile has its directory before its cgroup.
        let instances = shared.layout.instances();
        if let Some(cgroups) = &shared.cgroups {
            warn(cgroups.sweep(|name| instances.join(name).exists()));
        }
    });
    // Cancelled at the end of the daemon: the next one continues.
    let _ = cleared.await;
}

fn warn(cleared: Result<(), HostError>) {
    if let Err(error) = cleared {
        tracing::warn!(error = error.sentence(), "cannot clear away");
    }
}

/// Adopts one instance, or says why it is left alone. Returns what is to be cleared away instead.
async fn adopt(shared: &Arc<Shared>, path: &Path) -> Result<Option<PathBuf>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let id = InstanceId::parse(&name).map_err(|error| error.to_string())?;
    match InstanceRecord::remove_unwritten(path) {
        Ok(false) => {}
        Ok(true) => return Ok(None),
        Err(error) => return Err(format!("cannot remove what was begun of it: {error}")),
    }
    if InstanceRecord::is_lost(path) {
        tracing::info!(instance = %id, "removing what a loss of power left of it");
        return shared.layout.set_aside(&id).map(Some).map_err(|error| error.sentence());
    }
    let directory = Directory::open(path).map_err(|error| format!("cannot open it: {error}"))?;
    let directory = Arc::new(directory);
    let record = InstanceRecord::read(path, &id);
    let mut record = record.map_err(|error| format!("cannot read its instance record: {error}"))?;
    let found = if record.is_of_boot(&shared.boot_id) {
        find(&record, &directory, &id)?
    } else {
        // The start may have been written and lost, and what may have run is never run twice.
        record.started = true;
        ProcessState::Gone
    };
    let instance = Arc::new(Instance::new(id.clone(), &record, Arc::clone(&directory)));
    match found {
        ProcessState::Alive(process) => {
            let client = Client::new(directory, names::API_SOCKET, create::factor(shared));
            adopt_live(shared, &instance, &record, Live { process, client }).await?;
        }
        ProcessState::Gone => learn_end(shared, &instance, &record).await,
    }
    shared.instances().insert(id, Arc::clone(&instance));
    shared.bump(&instance);
    Ok(None)
}

fn find(
    record: &InstanceRecord,
    directory: &Directory,
    id: &InstanceId,
) -> Result<ProcessState, String> {
    match &record.process {
        Some(identity) => match Process::adopt(identity, directory) {
            Ok(process) => Ok(ProcessState::Alive(process)),
            Err(AdoptError::Gone { .. }) => Ok(ProcessState::Gone),
            Err(error) => Err(error.to_string()),
        },
        // The daemon ended between the spawn and the record that names the process.
        None => match Process::find(directory, id.as_str()) {
            Ok(Some(process)) => Ok(ProcessState::Alive(process)),
            Ok(None) => Ok(ProcessState::Gone),
            Err(error) => Err(format!("cannot look for its process: {error}")),
        },
    }
}

async fn adopt_live(
    shared: &Arc<Shared>,
    instance: &Arc<Instance>,
    record: &InstanceRecord,
    live: Live,
) -> Result<(), String> {
    let started = record.started
        && match live.client.describe().await {
            Ok(info) => info.state != MicroVmState::NotStarted,
            // An API that is stuck says nothing of its guest: it is left to run.
            Err(error) => {
                tracing::warn!(instance = %instance.id, %error, "cannot ask for the state");
                true
            }
        };
    if !started {
        live.process.kill().map_err(|error| format!("cannot kill its process: {error}"))?;
        let _ = live.process.exited().await;
        instance.set_exited(Exit {
            end: End::NeverStarted,
            stop_requested: instance.is_stop_requested(),
        });
        return Ok(());
    }
    let fifos = Fifos::open(instance).map_err(|error| format!("cannot open its FIFOs: {error}"))?;
    tracing::info!(instance = %instance.id, pid = live.process.identity().pid, "adopted");
    instance.set_live(live);
    supervise::start(shared, Arc::clone(instance), fifos);
    Ok(())
}

async fn learn_end(shared: &Arc<Shared>, instance: &Instance, record: &InstanceRecord) {
    if !record.started {
        let stop_requested = instance.is_stop_requested();
        instance.set_exited(Exit { end: End::NeverStarted, stop_requested });
        return;
    }
    if instance.boot == Boot::Raw {
        let stop_requested = instance.is_stop_requested();
        instance.set_exited(Exit { end: End::Unknown, stop_requested });
        return;
    }
    let output = Output::open(&shared.layout.log(&instance.id), Origin::Pipes);
    let output = output.map(|output| Mutex::new(output.signalling(shared.log_signal(instance))));
    supervise::finish(shared, instance, None, output.as_ref().ok(), ProcessExit::Unknown).await;
}
