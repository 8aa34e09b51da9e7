//! Real Firecracker on Linux: the state directory, images, processes, streams and exits of
//! instances. It decides nothing about jobs and keeps nothing that it could not find again: after
//! a restart [`LinuxHost::open`] adopts what runs and learns how the rest ended.
//!
//! ```text
//!   create ──> Booting ──report──> Up ──process gone──> Exited ──remove──> nothing
//!                 └──────────────process gone─────────────^
//! ```
//!
//! One task supervises each instance for as long as its process lives (`supervise`): it waits on
//! the pidfd, reads the guest's reports and output, and drains Firecracker's FIFOs.

mod adopt;
mod cgroup;
mod channel;
mod clock;
mod collect;
mod configure;
mod control;
mod create;
mod drives;
mod errors;
mod exit;
#[cfg(fuzzing)]
pub mod fuzzing;
mod images;
mod initramfs;
mod instance;
mod instance_record;
mod jail;
mod layout;
mod logs;
mod output;
pub mod peer;
mod probe;
mod room;
mod scratch;
mod silence;
mod sparse;
mod stop;
mod store;
mod supervise;
mod survey;
mod transfers;
mod workload;

pub use jail::FIRST_USER;
pub use room::{Scratch, scratch};
pub use survey::{StateItem, What, survey};

use crate::log_changes::{LogChanges, LogSignal};
use crate::{BoxFuture, Duplex, Host, HostError, HostFacts, LogPage, LogQuery};
use cgroup::Cgroups;
use hearth_guest::Channel;
use hearth_model::{
    Action, Digest, ImageProgress, Images, InstanceId, InstanceState, Lookup, Observation, Spec,
    StoredImage,
};
use images::Kind;
use instance::Instance;
use jail::Jails;
use layout::Layout;
use std::collections::BTreeMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::{ImageStore, Look, Looks};
use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use transfers::{ImageRequest, Transfers};

/// Where things are.
#[derive(Clone, Debug)]
pub struct LinuxConfig {
    /// Everything durable; made if it is absent, mode 0700.
    pub state_dir: PathBuf,
    /// Where specs find their kernels and root file systems.
    pub images_dir: PathBuf,
    /// What is secret and need not outlive the machine's boot; a tmpfs. `None`: `/run/hearth`,
    /// else `$XDG_RUNTIME_DIR/hearth`, else within the state directory.
    pub runtime_dir: Option<PathBuf>,
    /// The Firecracker binary, a path or a name to be found in `PATH`.
    pub firecracker: PathBuf,
    /// Largest image that may be used, in bytes.
    pub image_bytes_max: u64,
    /// The first of the users that instances are confined to, one for each slot; `None`: they run
    /// unconfined, as this process's user.
    pub jail_users: Option<u32>,
    /// What deadlines are multiplied with; `None`: 10 where the CPU is emulated by QEMU, else 1.
    pub time_factor: Option<u32>,
}

/// Look-ups of images at once.
const LOOKUPS_MAX: usize = 4;

/// A host with real Firecracker. Cheap to clone; the microVMs outlive the last clone.
#[derive(Clone, Debug)]
pub struct LinuxHost {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    layout: Layout,
    images: ImageStore,
    /// Permits for look-ups of images.
    lookups: Arc<Semaphore>,
    transfers: Transfers,
    firecracker: PathBuf,
    facts: HostFacts,
    /// Names this boot of the machine.
    boot_id: String,
    /// The instances' cgroups, where there can be any.
    cgroups: Option<Cgroups>,
    /// The instances' users; without them they are unconfined.
    jails: Option<Jails>,
    changes: watch::Sender<u64>,
    log_changes: LogChanges,
    /// Marked whenever the wall clock of this machine was set, or the machine was suspended.
    clock_jumps: watch::Sender<()>,
    instances: Mutex<BTreeMap<InstanceId, Arc<Instance>>>,
    /// What there is for scratch disks, as it was measured last.
    scratch_mib: Mutex<Option<u64>>,
    /// What was left alone, by the name of its directory, and why.
    unidentified: Mutex<BTreeMap<String, String>>,
    tasks: Mutex<JoinSet<()>>,
}

impl LinuxHost {
    /// Probes the machine, makes the state directory and adopts every instance in it. Live ones
    /// continue under supervision; for those that have ended it learns how.
    ///
    /// # Errors
    /// A [`HostError`] where Firecracker is unusable or the state directory can't be read. A
    /// single instance that can't be read is reported by [`Host::observe`] instead.
    pub async fn open(config: LinuxConfig) -> Result<LinuxHost, HostError> {
        raise_file_limit();
        let probed = tokio::task::spawn_blocking({
            let config = config.clone();
            move || probe::probe(&config)
        });
        let (firecracker, mut facts) = probed.await.map_err(errors::task)??;
        let layout = Layout::open(&config.state_dir, config.runtime_dir.as_deref())?;
        let images = ImageStore::open(&layout, config.images_dir, config.image_bytes_max)?;
        let boot_id = hearth_firecracker::boot_id().map_err(|error| {
            HostError::permanent("cannot learn which boot of this machine it is").because(error)
        })?;
        let cgroups = Cgroups::open(&config.state_dir);
        facts.warnings.extend(match &cgroups {
            Ok(cgroups) => cgroups.unlimited(),
            Err(why) => Some(why.clone()),
        });
        let jails = config.jail_users.map(|first| Jails::open(&layout, first)).transpose()?;
        let (changes, _) = watch::channel(0);
        let shared = Arc::new(Shared {
            images,
            lookups: Arc::new(Semaphore::new(LOOKUPS_MAX)),
            transfers: Transfers::new(),
            layout,
            firecracker,
            facts,
            boot_id,
            cgroups: cgroups.ok(),
            jails,
            changes,
            log_changes: LogChanges::default(),
            clock_jumps: watch::channel(()).0,
            instances: Mutex::default(),
            scratch_mib: Mutex::default(),
            unidentified: Mutex::default(),
            tasks: Mutex::default(),
        });
        shared.spawn(clock::watch_host(shared.clock_jumps.clone()));
        adopt::adopt_all(&shared).await?;
        room::measure(&shared).await;
        shared.spawn(room::keep_measuring(Arc::downgrade(&shared)));
        Ok(LinuxHost { shared })
    }

    /// Lets go of everything: nothing is supervised any more, no microVM is touched. What was
    /// under way is found by the next [`LinuxHost::open`].
    pub async fn close(&self) {
        let mut tasks = std::mem::take(&mut *lock(&self.shared.tasks));
        tasks.shutdown().await;
    }
}

/// What this machine is, as [`Host::facts`] says it. Changes nothing. Blocks.
///
/// # Errors
/// Where Firecracker is unusable.
pub fn facts(config: &LinuxConfig) -> Result<HostFacts, HostError> {
    let (_, mut facts) = probe::probe(config)?;
    facts.warnings.extend(cgroup::unlimited_here());
    Ok(facts)
}

impl Shared {
    fn factor(&self) -> u32 {
        self.facts.time_factor
    }

    /// A change of an instance is done: it has a new revision, and so has the host.
    fn bump(&self, instance: &Instance) {
        self.changes.send_modify(|revision| {
            *revision += 1;
            instance.set_revision(*revision);
        });
    }

    /// Wakes those who follow the log of an instance.
    fn log_signal(&self, instance: &Instance) -> LogSignal {
        LogSignal::of(&self.log_changes, &instance.id)
    }

    fn instances(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Arc<Instance>>> {
        lock(&self.instances)
    }

    fn instance(&self, id: &InstanceId) -> Option<Arc<Instance>> {
        self.instances().get(id).cloned()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = lock(&self.tasks);
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Runs `work` to its end, even if its caller is dropped.
    async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, HostError>> + Send + 'static,
    ) -> Result<T, HostError> {
        let (sender, receiver) = oneshot::channel();
        self.spawn(async move {
            // The caller may be gone; what was done shows in the next look.
            let _ = sender.send(work.await);
        });
        receiver.await.unwrap_or_else(|gone| Err(errors::task(gone)))
    }

    async fn remove(self: Arc<Self>, id: InstanceId) -> Result<(), HostError> {
        let Some(instance) = self.instance(&id) else { return Ok(()) };
        if !matches!(instance.state(), InstanceState::Exited(_)) {
            return Err(HostError::transient(format!("cannot remove instance {id}: it runs")));
        }
        let shared = Arc::clone(&self);
        let removed = tokio::task::spawn_blocking(move || {
            shared.layout.remove_instance(&id)?;
            shared.cgroups.as_ref().map_or(Ok(()), |cgroups| cgroups.remove(&id))?;
            shared.instances().remove(&id);
            Ok(())
        });
        let removed = removed.await.map_err(errors::task)?;
        self.bump(&instance);
        removed
    }
}

impl Host for LinuxHost {
    fn resolve<'a>(
        &'a self,
        spec: &'a Spec,
        patience: Duration,
    ) -> BoxFuture<'a, Result<Lookup, HostError>> {
        Box::pin(resolve(&self.shared, spec, Instant::now() + patience))
    }

    fn observe(&self, since: Option<u64>) -> BoxFuture<'_, Result<Observation, HostError>> {
        let revision = *self.shared.changes.borrow();
        // Before the instances: what is identified meanwhile is found twice, and never not at all.
        let unidentified = lock(&self.shared.unidentified).clone();
        let instances = self.shared.instances();
        let changed = instances.iter().filter(|(_, i)| since.is_none_or(|at| i.revision() > at));
        let instances = changed.map(|(id, i)| (id.clone(), i.observed())).collect();
        let whole = since.is_none();
        let scratch_mib = *lock(&self.shared.scratch_mib);
        Box::pin(std::future::ready(Ok(Observation {
            whole,
            revision,
            instances,
            scratch_mib,
            unidentified,
        })))
    }

    fn apply(&self, action: Action) -> BoxFuture<'_, Result<(), HostError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            if let Some(sentence) = lock(&shared.unidentified).get(action.instance().as_str()) {
                return Err(HostError::transient(sentence.clone()));
            }
            match action {
                Action::Create(create) => {
                    let work = create::create(Arc::clone(&shared), *create);
                    shared.to_the_end(work).await
                }
                Action::AssignIdentity { instance, spec, identity, release } => {
                    control::assign_identity(&shared, &instance, spec, identity, release).await
                }
                Action::Stop { instance, signal, timeout_s } => {
                    let work = stop::stop(Arc::clone(&shared), instance, signal, timeout_s);
                    shared.to_the_end(work).await
                }
                Action::Remove { instance } => {
                    let work = Arc::clone(&shared).remove(instance);
                    shared.to_the_end(work).await
                }
                Action::DropLogs { instance } => {
                    logs::remove(&shared.layout, &instance)?;
                    shared.log_changes.appended(&instance);
                    Ok(())
                }
            }
        })
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    fn alive(&self, instance: &InstanceId) -> bool {
        self.shared.instances().get(instance).is_some_and(|instance| instance.is_alive())
    }

    fn logs<'a>(
        &'a self,
        instance: &'a InstanceId,
        query: LogQuery,
    ) -> BoxFuture<'a, Result<LogPage, HostError>> {
        let path = self.shared.layout.log(instance);
        Box::pin(async move {
            let read = tokio::task::spawn_blocking(move || logs::read(&path, query));
            read.await.map_err(errors::task)?
        })
    }

    fn log_changes(&self, instance: &InstanceId) -> watch::Receiver<()> {
        self.shared.log_changes.subscribe(instance)
    }

    fn connect<'a>(
        &'a self,
        instance: &'a InstanceId,
        port: u16,
    ) -> BoxFuture<'a, Result<Box<dyn Duplex>, HostError>> {
        Box::pin(channel::open(&self.shared, instance, Channel::Port(port)))
    }

    fn images(&self) -> BoxFuture<'_, Result<Vec<StoredImage>, HostError>> {
        let dir = self.shared.layout.images();
        Box::pin(async move {
            let looked = tokio::task::spawn_blocking(move || collect::stored(&dir));
            looked.await.map_err(errors::task)?
        })
    }

    fn keep_images(
        &self,
        used: Vec<String>,
        remove: Vec<String>,
    ) -> BoxFuture<'_, Result<Vec<String>, HostError>> {
        let dir = self.shared.layout.images();
        Box::pin(async move {
            let kept = tokio::task::spawn_blocking(move || collect::keep(&dir, &used, &remove));
            kept.await.map_err(errors::task)?
        })
    }

    fn facts(&self) -> HostFacts {
        self.shared.facts.clone()
    }
}

/// Looks a spec's images up, and requests those that are not in the store.
async fn resolve(shared: &Arc<Shared>, spec: &Spec, until: Instant) -> Result<Lookup, HostError> {
    let Ok(looks) = timeout_at(until, look_up(shared, spec)).await else {
        let image = spec.rootfs.as_ref().unwrap_or(&spec.kernel).clone();
        return Ok(Lookup::Preparing(ImageProgress { image, done_bytes: 0, total_bytes: 0 }));
    };
    let Looks { kernel, modules, rootfs } = looks?;
    // All of them before the first is waited for.
    let request = |look| match look {
        Look::Known(digest) => Requested::Known(digest),
        Look::Unknown(original) => {
            Requested::Copied(original.kind, shared.transfers.request(shared, original, until))
        }
    };
    let (kernel, modules, rootfs) = (request(kernel), modules.map(request), rootfs.map(request));
    let mut pending = None;
    let kernel = digest(shared, Some(kernel), until, &mut pending).await?;
    let modules = digest(shared, modules, until, &mut pending).await?;
    let rootfs = digest(shared, rootfs, until, &mut pending).await?;
    Ok(match (pending, kernel) {
        (None, Some(kernel)) => Lookup::Known(Images { kernel, modules, rootfs }),
        (Some(progress), _) => Lookup::Preparing(progress),
        (None, None) => return Err(HostError::transient("cannot look a kernel up")),
    })
}

/// An image that is in the store or on its way there.
enum Requested {
    Known(Digest),
    Copied(Kind, ImageRequest),
}

/// The digest of an image. Where it is not known in time, `pending` is how far the first such one is.
async fn digest(
    shared: &Arc<Shared>,
    requested: Option<Requested>,
    until: Instant,
    pending: &mut Option<ImageProgress>,
) -> Result<Option<Digest>, HostError> {
    let (kind, request) = match requested {
        None => return Ok(None),
        Some(Requested::Known(digest)) => return Ok(Some(digest)),
        Some(Requested::Copied(kind, request)) => (kind, request),
    };
    let changing = request.changing();
    match request.outcome(&shared.images, until).await? {
        Err(progress) => {
            pending.get_or_insert(progress);
            Ok(None)
        }
        Ok(digest) => {
            // What was checked before the copy may have been something else.
            let shared = Arc::clone(shared);
            let fit = tokio::task::spawn_blocking(move || shared.images.is_fit(kind, &digest));
            if fit.await.map_err(errors::task)? { Ok(Some(digest)) } else { Err(changing) }
        }
    }
}

/// Looks at a spec's images. However slow the disk with the images is, and if it hangs: few threads
/// wait for it, since every instance needs some of them.
async fn look_up(shared: &Arc<Shared>, spec: &Spec) -> Result<Looks, HostError> {
    let turn = Arc::clone(&shared.lookups).acquire_owned().await.map_err(errors::task)?;
    let (shared, spec) = (Arc::clone(shared), spec.clone());
    let looked = tokio::task::spawn_blocking(move || {
        // As long as the thread, which may outlive its caller.
        let _turn = turn;
        shared.images.look(&spec)
    });
    looked.await.map_err(errors::task)?
}

/// An instance takes some six descriptors, and the usual soft limit is 1,024: it goes to the hard
/// limit, which is there for those who ask.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "cannot raise the limit of open files");
    }
}

/// What these locks guard is replaced whole, so a panic of a holder leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
