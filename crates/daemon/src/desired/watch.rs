//! Hints that a file may have changed. What is watched are the folders on the way to it, since a
//! watch on the file itself is lost when another is renamed over it: the folder of each link, and
//! the folder that all of them lead to. A hint is never more than a hint: its receiver looks.
//!
//! It misses changes where the kernel sees none, such as those that other machines make on a
//! network's file system; a poll has to find these.

use crate::limits;
use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

/// Most links on the way to a file, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Watches the way to one file.
pub(super) struct FileWatch {
    path: PathBuf,
    shared: Arc<Shared>,
    watcher: Option<RecommendedWatcher>,
    /// Watched folders, with what tells one of that name from the next.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    /// What was told of why a folder can't be watched.
    told: Option<String>,
}

#[derive(Default)]
struct Shared {
    hint: Notify,
    /// What happens beside the way is no hint.
    way: Mutex<Way>,
    /// Something happened to a watched folder itself: its watch may be gone, whatever its inode is.
    lost: AtomicBool,
}

impl FileWatch {
    /// Watches nothing yet: see [`FileWatch::follow`].
    pub(super) fn new(path: &Path) -> FileWatch {
        let shared = Arc::new(Shared::default());
        let hinted = shared.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if hinted.concerns(&event) {
                hinted.hint.notify_one();
            }
        });
        let mut watch = FileWatch {
            path: path.to_owned(),
            shared,
            watcher: None,
            folders: BTreeMap::new(),
            told: None,
        };
        match watcher {
            Ok(watcher) => watch.watcher = Some(watcher),
            Err(error) => watch.tell(&error.to_string()),
        }
        watch
    }

    /// Follows the path to the file again, and watches the folders that are on it now. A change between
    /// two calls is hinted at if the folder that it was in was watched. Blocks for a few system
    /// calls.
    pub(super) fn follow(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let way = Way::to(&self.path);
        *self.shared.way.lock().unwrap_or_else(PoisonError::into_inner) = way.clone();
        let lost = self.shared.lost.swap(false, Ordering::Relaxed);
        let mut fault = None;
        self.folders.retain(|folder, identity| {
            let stays = !lost && way.folders.get(folder) == Some(identity);
            if !stays {
                // It fails where the folder is gone, and its watch with it.
                let _ = watcher.unwatch(folder);
            }
            stays
        });
        for (folder, identity) in way.folders {
            if self.folders.contains_key(&folder) {
                continue;
            }
            match watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => drop(self.folders.insert(folder, identity)),
                Err(error) => fault = Some(format!("{}: {error}", folder.display())),
            }
        }
        match fault {
            Some(fault) => self.tell(&fault),
            None => self.told = None,
        }
    }

    /// Waits for a hint, and until nothing more happens for a moment: who writes a file in place
    /// does so in steps. Cancel safe: a hint is lost only with the watch.
    pub(super) async fn changed(&self) {
        self.shared.hint.notified().await;
        let latest = Instant::now() + limits::DESIRED_SETTLE_MAX;
        loop {
            let calm = (Instant::now() + limits::DESIRED_SETTLE).min(latest);
            if timeout_at(calm, self.shared.hint.notified()).await.is_err() {
                return;
            }
            if Instant::now() >= latest {
                return;
            }
        }
    }

    fn tell(&mut self, cause: &str) {
        if self.told.as_deref() != Some(cause) {
            let every_s = limits::DESIRED_EVERY.as_secs();
            tracing::warn!(cause, every_s, "cannot watch the desired-state file; it is polled");
            self.told = Some(cause.to_owned());
        }
    }
}

impl Shared {
    fn concerns(&self, event: &notify::Result<Event>) -> bool {
        let Ok(event) = event else { return true };
        // Reading is no change; the end of writing is.
        if let EventKind::Access(access) = event.kind
            && access != AccessKind::Close(AccessMode::Write)
        {
            return false;
        }
        let way = self.way.lock().unwrap_or_else(PoisonError::into_inner);
        if event.paths.iter().any(|path| way.folders.contains_key(path)) {
            self.lost.store(true, Ordering::Relaxed);
            return true;
        }
        event.need_rescan() || event.paths.iter().any(|path| way.places.contains(path))
    }
}

/// The way to a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Way {
    /// The folders in which a change may lead elsewhere, with device and inode.
    folders: BTreeMap<PathBuf, (u64, u64)>,
    /// The file, and each link and folder on the way to it.
    places: BTreeSet<PathBuf>,
}

impl Way {
    /// As far as there is one: it ends at what is missing, whose folder is watched for it.
    fn to(path: &Path) -> Way {
        let mut way = Way::default();
        let mut links = 0;
        // What is still to be gone, the next component last.
        let mut ahead: Vec<PathBuf> = parts(path);
        let mut here = PathBuf::new();
        while let Some(part) = ahead.pop() {
            match part.components().next() {
                Some(Component::RootDir) => {
                    here = PathBuf::from("/");
                    continue;
                }
                Some(Component::ParentDir) => {
                    here.pop();
                    continue;
                }
                Some(Component::Normal(_)) => {}
                _ => continue,
            }
            let next = here.join(&part);
            way.places.insert(next.clone());
            match std::fs::symlink_metadata(&next) {
                Ok(found) if found.is_symlink() => {
                    way.watch(&here);
                    links += 1;
                    let Ok(target) = std::fs::read_link(&next) else { return way };
                    if links > LINKS_MAX {
                        return way;
                    }
                    ahead.extend(parts(&target));
                }
                Ok(found) if found.is_dir() && !ahead.is_empty() => here = next,
                // The end of the way, be it the file or what hinders.
                _ => {
                    way.watch(&here);
                    return way;
                }
            }
        }
        way
    }

    fn watch(&mut self, folder: &Path) {
        if let Ok(metadata) = std::fs::metadata(folder) {
            self.folders.insert(folder.to_owned(), (metadata.dev(), metadata.ino()));
        }
    }
}

/// The components of a path, the first last.
fn parts(path: &Path) -> Vec<PathBuf> {
    path.components().rev().map(|part| PathBuf::from(part.as_os_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::Way;
    use std::os::unix::fs::symlink;
    use std::path::{Path, PathBuf};

    fn check(root: &Path, path: &str, folders: &[&str]) {
        let way = Way::to(&root.join(path));
        let expected: Vec<PathBuf> = folders.iter().map(|folder| root.join(folder)).collect();
        assert_eq!(way.folders.into_keys().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn folders_of_the_file_and_of_each_link_to_it_are_watched() {
        let home = tempfile::tempdir().expect("a directory");
        let root = home.path().canonicalize().expect("a path");
        for folder in ["config/..one", "releases/1"] {
            std::fs::create_dir_all(root.join(folder)).expect("a directory");
            std::fs::write(root.join(folder).join("vms.exs"), "[]").expect("a file");
        }
        symlink("..one", root.join("config/..data")).expect("a link");
        symlink("..data/vms.exs", root.join("config/vms.exs")).expect("a link");
        symlink(root.join("releases/1"), root.join("current")).expect("a link");
        symlink("../current/vms.exs", root.join("config/other.exs")).expect("a link");
        symlink("loop", root.join("loop")).expect("a link");
        check(&root, "releases/1/vms.exs", &["releases/1"]);
        check(&root, "config/vms.exs", &["config", "config/..one"]);
        check(&root, "config/other.exs", &["", "config", "releases/1"]);
        check(&root, "releases/1/missing.exs", &["releases/1"]);
        check(&root, "missing/vms.exs", &[""]);
        check(&root, "releases/1", &["releases"]);
        check(&root, "loop", &[""]);
    }
}
