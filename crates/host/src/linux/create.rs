//! Making and starting an instance: its directory, its drives, its process, its configuration.
//! What fails before the start leaves nothing behind.

use super::instance::{Instance, Live};
use super::instance_record::InstanceRecord;
use super::layout::make_dir;
use super::supervise::{self, Fifos};
use super::{Shared, configure, drives, errors};
use crate::HostError;
use hearth_firecracker::{Action, ApiError, Client, Directory, MicroVmState, Spawn, names};
use hearth_model::{Create, End, Exit};
use std::sync::Arc;

/// With less memory than this, Firecracker's words for a kernel that does not fit are explained.
const SMALL_MIB: u32 = 128;

/// Makes an instance, unless there is one by that name.
pub(super) async fn create(shared: Arc<Shared>, create: Create) -> Result<(), HostError> {
    let Some(instance) = claim_name(&shared, &create)? else { return Ok(()) };
    shared.bump(&instance);
    let made = make(&shared, &instance, &create).await;
    let result = match made {
        Ok(()) => Ok(()),
        Err(Failed::Before(error)) => {
            end(&instance, End::NeverStarted).await;
            if let Err(error) = Arc::clone(&shared).remove(instance.id.clone()).await {
                tracing::warn!(instance = %instance.id, error = error.sentence(), "cannot clean up");
            }
            Err(error)
        }
        Err(Failed::MayHaveRun(error)) => {
            // It stays until the daemon has recorded that: one that is killed before finds it. An
            // observation may come before the answer, and says the same.
            end(&instance, End::Vmm(error.sentence())).await;
            Err(error)
        }
    };
    shared.bump(&instance);
    result
}

/// Why an instance was not made.
enum Failed {
    /// Nothing has run in it.
    Before(HostError),
    /// Its command may have run.
    MayHaveRun(HostError),
}

impl From<HostError> for Failed {
    fn from(error: HostError) -> Failed {
        Failed::Before(error)
    }
}

/// Enters the instance among those there are, so that it is seen from now on. `None` where it is
/// there already.
fn claim_name(shared: &Shared, create: &Create) -> Result<Option<Arc<Instance>>, HostError> {
    let dir = shared.layout.instance(&create.instance);
    let mut instances = shared.instances();
    if instances.contains_key(&create.instance) {
        return Ok(None);
    }
    if dir.exists() {
        return Err(HostError::permanent(format!(
            "cannot make instance {}: {} is there and is not known",
            create.instance,
            dir.display()
        )));
    }
    make_dir(&dir).map_err(errors::file("make", &dir))?;
    let sockets = match &shared.jails {
        Some(_) => make_dir(&dir.join(names::SOCKETS)),
        None => Ok(()),
    };
    let directory = sockets.and_then(|()| Directory::open(&dir)).map_err(|error| {
        // Nothing refers to it yet. If this fails the next daemon removes it. It takes no descriptor, of
        // which there may be none.
        for made in [dir.join(names::SOCKETS), dir.clone()] {
            let _ = std::fs::remove_dir(made);
        }
        errors::file("open", &dir)(error)
    });
    let directory = Arc::new(directory?);
    let record = InstanceRecord::new(create, &shared.boot_id);
    let instance = Arc::new(Instance::new(create.instance.clone(), &record, directory));
    instances.insert(create.instance.clone(), Arc::clone(&instance));
    Ok(Some(instance))
}

async fn make(
    shared: &Arc<Shared>,
    instance: &Arc<Instance>,
    create: &Create,
) -> Result<(), Failed> {
    let mut record = InstanceRecord::new(create, &shared.boot_id);
    let laid = {
        let (shared, create, record) = (Arc::clone(shared), create.clone(), record.clone());
        tokio::task::spawn_blocking(move || {
            drives::lay_out(&shared, &create, &record)?;
            let confinement = drives::confinement(&shared, &create)?;
            let cgroups = shared.cgroups.as_ref();
            let cgroup = cgroups.map(|all| all.make(&create.instance, &create.machine));
            Ok::<_, HostError>((confinement, cgroup.transpose()?))
        })
    };
    let (confinement, cgroup) = laid.await.map_err(errors::task)??;
    let spawn = Spawn {
        binary: shared.firecracker.clone(),
        directory: Arc::clone(&instance.directory),
        id: create.instance.as_str().to_owned(),
        cgroup,
        confinement,
        factor: factor(shared),
    };
    let launched = spawn.launch().await.map_err(|error| {
        HostError::transient(format!("cannot start instance {}", create.instance)).because(error)
    })?;
    record.process = Some(launched.process.identity().clone());
    instance.set_live(Live { process: launched.process, client: launched.client });
    let Some(live) = instance.live() else { return Ok(()) };
    configure::configure(&live.client, &create.machine, &instance.directory)
        .await
        .map_err(|error| refused(create, error))?;
    let dir = instance.directory.path();
    if instance.directory.is_of_jail() {
        instance.directory.seal().map_err(errors::file("close to its process", dir))?;
    }
    record.started = true;
    record.write(dir).map_err(errors::file("write the instance record in", dir))?;
    start(&live.client, create).await?;
    tracing::debug!(instance = %create.instance, "Firecracker accepted the start");
    let fifos = Fifos { console: launched.console, log: launched.log };
    supervise::start(shared, Arc::clone(instance), fifos);
    Ok(())
}

/// Starts the guest. Where the answer is lost it is asked whether it runs: what may have run is never
/// said to have been not made, since then it would be run again.
async fn start(client: &Client, create: &Create) -> Result<(), Failed> {
    let error = match client.action(Action::InstanceStart).await {
        Ok(()) => return Ok(()),
        Err(error) if error.is_transient() => error,
        Err(error) => return Err(refused(create, error).into()),
    };
    match client.describe().await {
        Ok(info) if info.state == MicroVmState::NotStarted => Err(refused(create, error).into()),
        Ok(_) => Ok(()),
        Err(silent) => {
            tracing::warn!(instance = %create.instance, %silent, "cannot ask whether it started");
            let message = format!("cannot tell whether instance {} started", create.instance);
            Err(Failed::MayHaveRun(HostError::permanent(message).because(error)))
        }
    }
}

pub(super) fn factor(shared: &Shared) -> f32 {
    u16::try_from(shared.factor()).map_or(f32::from(u16::MAX), f32::from)
}

fn refused(create: &Create, error: ApiError) -> HostError {
    let mut message = format!("cannot start instance {}", create.instance);
    let mem_mib = create.machine.resources.mem_mib;
    if mem_mib < SMALL_MIB && error.to_string().contains("Cannot load kernel") {
        message += &format!(" (is mem_mb {mem_mib} too little for its kernel? raise it)");
    }
    if error.is_transient() {
        HostError::transient(message).because(error)
    } else {
        HostError::permanent(message).because(error)
    }
}

/// Ends the process of a creation that failed, and says how it ended.
async fn end(instance: &Instance, end: End) {
    if let Some(live) = instance.live() {
        let killed = live.process.kill();
        if let Err(error) = &killed {
            tracing::error!(instance = %instance.id, %error, "cannot kill a process");
        }
        if killed.is_ok() {
            // Reaped here, since nothing supervises it.
            let _ = live.process.exited().await;
        }
    }
    instance.set_exited(Exit { end, stop_requested: instance.is_stop_requested() });
}
