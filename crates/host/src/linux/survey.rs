//! What lies in a state directory, looked at without touching it, to be compared with the
//! database while no daemon does. A running daemon may make and remove things meanwhile.

use super::collect;
use super::instance_record::InstanceRecord;
use super::layout::{self, names};
use crate::HostError;
use hearth_firecracker::{AdoptError, Directory, Process, Workplace, boot_id};
use hearth_model::{InstanceId, Owner, StoredImage};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Something in a state directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateItem {
    /// Where it is.
    pub path: PathBuf,
    /// What it is.
    pub what: What,
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The directory of an instance.
    Instance {
        /// Which.
        id: InstanceId,
        /// Its job or pool, if that was recorded.
        owner: Option<Owner>,
        /// Its process, where one runs.
        process: Option<i32>,
    },
    /// What is left of an instance whose removal or creation was cut off; nothing runs in it.
    Remains,
    /// What is in it can't be told, and so not whether something runs; a sentence.
    Unknown(String),
    /// A process that works in a directory which is gone, so that it can't be reached any more.
    Process(i32),
    /// The log of an instance.
    Log(InstanceId),
    /// A copy of an image, or what was made of some.
    Image(StoredImage),
}

impl StateItem {
    /// Removes it, which must be of an instance that does not run, or of none. Succeeds where it is
    /// gone.
    ///
    /// # Errors
    /// Where it can't be removed.
    pub fn remove(&self) -> Result<(), HostError> {
        let removed = match self.what {
            What::Instance { .. } => return layout::remove_whole(&self.path),
            What::Remains => std::fs::remove_dir_all(&self.path),
            What::Log(_) => std::fs::remove_file(&self.path),
            What::Image(ref image) => {
                let dir = self.path.parent().unwrap_or(Path::new("."));
                return collect::keep(dir, &[], std::slice::from_ref(&image.name)).map(|_| ());
            }
            What::Unknown(_) | What::Process(_) => {
                let message = format!("cannot remove {}: it may run", self.path.display());
                return Err(HostError::permanent(message));
            }
        };
        layout::absent_is_fine(removed).map_err(super::errors::file("remove", &self.path))
    }
}

/// Looks at all of a state directory. Needs a Tokio runtime.
///
/// # Errors
/// Where a directory of it, or `/proc`, can't be read. One that does not exist has nothing in it.
pub fn survey(state_dir: &Path) -> Result<Vec<StateItem>, HostError> {
    let boot = boot_id().map_err(super::errors::file("read", Path::new("/proc")))?;
    let instances = state_dir.join("instances");
    let mut found = each(&instances, |path| Some(instance(path, &boot)))?;
    found.extend(each(&state_dir.join("logs"), |path| {
        let name = path.file_name()?.to_str()?;
        let (name, "log" | "log.1" | "log.new") = name.split_once('.')? else { return None };
        InstanceId::parse(name).ok().map(What::Log)
    })?);
    let images = state_dir.join("images");
    let image =
        |image: StoredImage| StateItem { path: images.join(&image.name), what: What::Image(image) };
    found.extend(collect::stored(&images)?.into_iter().map(image));
    found.extend(each(Path::new("/proc"), |path| lost_process(path, &instances))?);
    Ok(found)
}

fn each(dir: &Path, what: impl Fn(&Path) -> Option<What>) -> Result<Vec<StateItem>, HostError> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(super::errors::file("read", dir))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry.map_err(super::errors::file("read", dir))?.path();
        if let Some(what) = what(&path) {
            found.push(StateItem { path, what });
        }
    }
    found.sort_by(|left, right| left.path.cmp(&right.path));
    Ok(found)
}

fn instance(path: &Path, boot: &str) -> What {
    if layout::is_gone(path) {
        return What::Remains;
    }
    let unknown = |why: &dyn fmt::Display| What::Unknown(why.to_string());
    let id = match InstanceId::parse(&path.file_name().unwrap_or_default().to_string_lossy()) {
        Ok(id) => id,
        Err(error) => return unknown(&error),
    };
    if InstanceRecord::is_lost(path) || is_unwritten(path) {
        return What::Remains;
    }
    let record = match InstanceRecord::read(path, &id) {
        Ok(record) => record,
        Err(error) => return unknown(&format!("cannot read its instance record: {error}")),
    };
    let owner = record.created().map(|made| made.owner);
    if !record.is_of_boot(boot) {
        return What::Instance { id, owner, process: None };
    }
    match process(path, &record, &id) {
        Ok(process) => What::Instance { id, owner, process },
        Err(error) => unknown(&error),
    }
}

/// Whether nothing was started in it: the record comes first.
fn is_unwritten(path: &Path) -> bool {
    let only_the_new_one = |entries: std::fs::ReadDir| {
        let begun = [names::MANIFEST_NEW, hearth_firecracker::names::SOCKETS];
        entries.flatten().all(|entry| begun.iter().any(|name| entry.file_name() == *name))
    };
    std::fs::read_dir(path).is_ok_and(only_the_new_one)
}

/// The process of an instance, where it runs.
fn process(path: &Path, record: &InstanceRecord, id: &InstanceId) -> Result<Option<i32>, String> {
    let directory = Directory::open(path).map_err(|error| format!("cannot open it: {error}"))?;
    let process = match &record.process {
        Some(identity) => match Process::adopt(identity, &directory) {
            Ok(process) => Some(process),
            Err(AdoptError::Gone { .. }) => None,
            Err(error) => return Err(error.to_string()),
        },
        None => Process::find(&directory, id.as_str())
            .map_err(|error| format!("cannot look for its process: {error}"))?,
    };
    Ok(process.map(|process| process.identity().pid))
}

/// A process that works in a directory of an instance which was removed beneath it.
fn lost_process(path: &Path, instances: &Path) -> Option<What> {
    let pid = path.file_name()?.to_str()?.parse().ok()?;
    let works_in = Workplace::of(pid)?;
    (works_in.is_gone() && works_in.name_in(instances).is_some()).then_some(What::Process(pid))
}
