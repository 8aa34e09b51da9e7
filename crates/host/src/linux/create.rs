//! Making and starting an instance: its directory, its drives, its process, its configuration.
//! What fails before the start leaves nothing behind.

use super::instance::{Instance, Live};
use super::layout::{create_file, make_dir, names as files, replace};
use super::manifest::Manifest;
use super::sparse::copy_sparse;
use super::store::ImageStore;
use super::supervise::{self, Fifos};
use super::{Shared, blank, control, errors, initramfs};
use crate::HostError;
use hearth_firecracker::{
    Action, ApiError, BootSource, Client, Directory, Drive, MachineConfig, MicroVmState, Spawn,
    Vsock, names,
};
use hearth_guest::{Config, GUEST_CID, STATUS_DRIVE_BYTES, encode_config};
use hearth_model::{Boot, Create, End, Exit, Owner, ReadyCheck, Stage};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

/// For a kernel of a distribution in Firecracker 1.12: the devices that its drivers would look for
/// in vain are named, and Ctrl-Alt-Del arrives (which it doesn't with `i8042.nopnp`).
const BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1 pci=off quiet loglevel=4 \
     8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=on";

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
            // It stays until whoever wanted it has noted that: a daemon that is killed before finds it.
            end(&instance, End::Unknown).await;
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
    let directory = Directory::open(&dir).map_err(|error| {
        // Nobody knows it yet. Where this fails the next daemon removes it.
        let _ = std::fs::remove_dir(&dir);
        errors::file("open", &dir)(error)
    });
    let directory = Arc::new(directory?);
    let manifest = Manifest::new(create, &shared.boot_id);
    let instance = Arc::new(Instance::new(create.instance.clone(), &manifest, directory));
    instances.insert(create.instance.clone(), Arc::clone(&instance));
    Ok(Some(instance))
}

async fn make(
    shared: &Arc<Shared>,
    instance: &Arc<Instance>,
    create: &Create,
) -> Result<(), Failed> {
    let mut manifest = Manifest::new(create, &shared.boot_id);
    let laid = {
        let (shared, create, manifest) = (Arc::clone(shared), create.clone(), manifest.clone());
        tokio::task::spawn_blocking(move || lay_out(&shared, &create, &manifest))
    };
    laid.await.map_err(errors::task)??;
    let spawn = Spawn {
        binary: shared.firecracker.clone(),
        directory: Arc::clone(&instance.directory),
        id: create.instance.as_str().to_owned(),
        cgroup: shared.cgroups.as_ref().and_then(|cgroups| cgroups.make(&create.instance)),
        factor: factor(shared),
    };
    let launched = spawn.launch().await.map_err(|error| {
        HostError::transient(format!("cannot start instance {}", create.instance)).because(error)
    })?;
    manifest.process = Some(launched.process.identity().clone());
    instance.set_live(Live { process: launched.process, client: launched.client });
    let Some(live) = instance.live() else { return Ok(()) };
    configure(&live.client, create).await.map_err(|error| refused(create, error))?;
    manifest.started = true;
    let dir = instance.directory.path();
    manifest.write(dir).map_err(errors::file("write the manifest in", dir))?;
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
    let mem_mib = create.spec.resources.mem_mib;
    if mem_mib < SMALL_MIB && error.to_string().contains("Cannot load kernel") {
        message += &format!(" (is mem_mb {mem_mib} too little for its kernel? raise it)");
    }
    if error.is_transient() {
        HostError::transient(message).because(error)
    } else {
        HostError::permanent(message).because(error)
    }
}

/// Everything on disk, before there is a process. Blocks.
fn lay_out(shared: &Shared, create: &Create, manifest: &Manifest) -> Result<(), HostError> {
    let dir = shared.layout.instance(&create.instance);
    manifest.write(&dir).map_err(errors::file("write the manifest in", &dir))?;
    link(shared, &create.images.kernel, &dir.join(files::KERNEL))?;
    if create.spec.boot == Boot::Raw {
        if let Some(rootfs) = &create.images.rootfs {
            // A raw guest mounts its root as it likes, so it gets a copy of its own.
            let target = dir.join(files::ROOTFS);
            copy_sparse(&shared.images.path(rootfs), &target)
                .map_err(errors::file("copy the rootfs to", &target))?;
        }
        return Ok(());
    }
    let rootfs = create.images.rootfs.as_ref().ok_or_else(|| {
        HostError::permanent(format!("instance {} has no rootfs", create.instance))
    })?;
    link(shared, rootfs, &dir.join(files::ROOTFS))?;
    let initrd = initramfs::for_modules(&shared.images, create.images.modules.as_ref())?;
    ImageStore::link(&initrd, &dir.join(files::INITRD))?;
    blank::make(&shared.images, create.spec.disk_mib, &dir.join(files::SCRATCH))?;
    let status = dir.join(files::STATUS);
    // With blocks of its own: where the disk is full the guest can say how it ended all the same.
    create_file(&status)
        .and_then(|mut file| file.write_all(&[0; STATUS_DRIVE_BYTES]))
        .map_err(errors::file("make", &status))?;
    let drive = shared.layout.config_drive(&create.instance);
    let bytes = encode_config(&config(create)).map_err(|error| {
        let message = format!("cannot make the config drive of instance {}", create.instance);
        HostError::permanent(message).because(error)
    })?;
    replace(&drive, &bytes).map_err(errors::file("write", &drive))?;
    let name = dir.join(files::CONFIG);
    symlink(&drive, &name).map_err(errors::file("make", &name))
}

fn link(shared: &Shared, digest: &hearth_model::Digest, name: &Path) -> Result<(), HostError> {
    let image = shared.images.path(digest);
    if !image.exists() {
        return Err(HostError::permanent(format!("image {digest} is not in the store any more")));
    }
    ImageStore::link(&image, name)
}

fn config(create: &Create) -> Config {
    let spec = &create.spec;
    let check = spec.ready.as_ref().map(|ready| match &ready.check {
        ReadyCheck::Http { port, path } => {
            hearth_guest::ReadyCheck::Http { port: *port, path: path.clone() }
        }
        ReadyCheck::Tcp { port } => hearth_guest::ReadyCheck::Tcp { port: *port },
        ReadyCheck::Exec(cmd) => hearth_guest::ReadyCheck::Exec(cmd.clone()),
        ReadyCheck::Notify => hearth_guest::ReadyCheck::Notify,
    });
    Config {
        instance: create.instance.as_str().to_owned(),
        rootfs: spec.rootfs.as_ref().map_or_else(String::new, ToString::to_string),
        rootfs_digest: create.images.rootfs.map(|digest| digest.to_string()),
        cmd: spec.cmd.clone(),
        env: spec.env.clone(),
        stage: match create.stage {
            Stage::Init => hearth_guest::Stage::Init,
            Stage::App => hearth_guest::Stage::App,
        },
        ready: check.map(|check| hearth_guest::Ready { check }),
        stop_signal: spec.stop_signal.number(),
        stop_timeout_s: spec.stop_timeout_s,
        identity: match &create.owner {
            Owner::Job(identity) => Some(control::to_wire(identity, &create.instance)),
            Owner::Pool(_) => None,
        },
    }
}

/// Every call but the start. The order of the drives is the guest's `vda` to `vdd`.
async fn configure(client: &Client, create: &Create) -> Result<(), ApiError> {
    let spec = &create.spec;
    let machine = MachineConfig {
        // Firecracker refuses what it can't have, in its own words.
        vcpu_count: u8::try_from(spec.resources.vcpu).unwrap_or(u8::MAX),
        mem_size_mib: spec.resources.mem_mib,
    };
    client.machine_config(&machine).await?;
    let init = spec.boot == Boot::Init;
    client
        .boot_source(&BootSource {
            kernel_image_path: files::KERNEL.to_owned(),
            initrd_path: init.then(|| files::INITRD.to_owned()),
            boot_args: Some(BOOT_ARGS.to_owned()),
        })
        .await?;
    let drive = |drive_id: &str, path: &str| Drive {
        drive_id: drive_id.to_owned(),
        path_on_host: path.to_owned(),
        is_root_device: false,
        is_read_only: false,
    };
    if init {
        let read_only = |drive: Drive| Drive { is_read_only: true, ..drive };
        client.drive(&read_only(drive("rootfs", files::ROOTFS))).await?;
        client.drive(&drive("scratch", files::SCRATCH)).await?;
        client.drive(&read_only(drive("config", files::CONFIG))).await?;
        client.drive(&drive("status", files::STATUS)).await?;
    } else if spec.rootfs.is_some() {
        let root = Drive { is_root_device: true, ..drive("rootfs", files::ROOTFS) };
        client.drive(&root).await?;
    }
    let uds_path = names::VSOCK_SOCKET.to_owned();
    client.vsock(&Vsock { guest_cid: GUEST_CID, uds_path }).await?;
    client.entropy().await
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
