//! The store of images: `images/<digest>`, each a copy that never changes, made the first time
//! that a spec names it (`transfers`). Instances hold hard links to it, so a user may replace an image at any
//! time. It never follows a link out of the images directory.
//!
//! The directory may be the one that users bring their images to. What is made here has a name that is a
//! digest, or begins with a dot, as no image's does.

use super::images::Kind;
use super::layout::{Layout, absent_is_fine, rename_durably, replace};
use super::{errors, lock};
use crate::HostError;
use hearth_model::{Digest, ImageName, Spec};
use rustix::fs::{Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// A file that changed less than this long ago may change again within the same time stamp.
const SETTLED_S: i64 = 2;
const GIB: u64 = 1024 * 1024 * 1024;
/// Files whose digests are remembered.
const REMEMBERED_MAX: usize = 1024;

/// The store, and the directory that it copies from.
#[derive(Debug)]
pub(super) struct ImageStore {
    dir: PathBuf,
    source: PathBuf,
    /// Largest image that may be used.
    bytes_max: u64,
    digests: Mutex<HashMap<Stamp, Digest>>,
}

/// What says that a file is still the one that was digested. The time of its last change of status is
/// among it, which a new hard link changes as well: a copy may set that of the content as it likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

/// What a look at an image comes to.
#[derive(Debug)]
pub(super) enum Look {
    /// The store has it.
    Known(Digest),
    /// It has to be copied there.
    Unknown(Original),
}

/// What a look at a spec's images comes to.
#[derive(Debug)]
pub(super) struct Looks {
    pub(super) kernel: Look,
    pub(super) modules: Option<Look>,
    pub(super) rootfs: Option<Look>,
}

/// An image that is not in the store. It is open, and its headers are those of its kind.
#[derive(Debug)]
pub(super) struct Original {
    pub(super) kind: Kind,
    pub(super) name: ImageName,
    pub(super) file: File,
    pub(super) stamp: Stamp,
}

#[derive(Serialize, Deserialize)]
struct Remembered {
    stamp: Stamp,
    digest: String,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    pub(super) fn is_settled(&self) -> bool {
        let now = jiff::Timestamp::now().as_second();
        now.saturating_sub(self.modified.0.max(self.changed.0)) > SETTLED_S
    }
}

/// Begins the name of a file in the making.
const MAKING: &str = ".new-";
/// Which digest which file has.
const DIGESTS: &str = ".digests.json";
/// How often a link is tried: as often as others may give the same file its name meanwhile.
const LINKS_MAX: usize = 100;

/// A file in the making; what is not kept is gone.
#[derive(Debug)]
pub(super) struct TempImage {
    pub(super) path: PathBuf,
}

impl TempImage {
    /// It is whole: gives it its name, durably. What was called so before is the same, or was damaged.
    pub(super) fn persist(self, path: &Path) -> io::Result<()> {
        File::open(&self.path)?.sync_all()?;
        rename_durably(&self.path, path)
    }
}

impl Drop for TempImage {
    fn drop(&mut self) {
        // Nothing is called so any more where it was kept.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl ImageStore {
    /// Images of more than `bytes_max` are refused.
    pub(super) fn open(
        layout: &Layout,
        source: PathBuf,
        bytes_max: u64,
    ) -> Result<ImageStore, HostError> {
        let dir = layout.images();
        let source = std::path::absolute(&source).map_err(errors::file("find", &source))?;
        for entry in std::fs::read_dir(&dir).map_err(errors::file("read", &dir))?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(MAKING) {
                absent_is_fine(std::fs::remove_file(entry.path()))
                    .map_err(errors::file("remove", &entry.path()))?;
            }
        }
        let digests = remembered(&dir.join(DIGESTS));
        Ok(ImageStore { dir, source, bytes_max, digests: Mutex::new(digests) })
    }

    /// Where an image of the store lies.
    pub(super) fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.to_string())
    }

    /// Where something that is made here, and not by a user, lies.
    pub(super) fn made(&self, name: &str) -> PathBuf {
        self.dir.join(format!(".{name}"))
    }

    /// Where a file is made before it gets its name in the store.
    pub(super) fn making(&self) -> TempImage {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        TempImage { path: self.dir.join(format!("{MAKING}{count}")) }
    }

    /// Gives a file of the store, which stays as it is, a name elsewhere.
    pub(super) fn link(from: &Path, name: &Path) -> Result<(), HostError> {
        let mut again = 0..LINKS_MAX;
        loop {
            match std::fs::hard_link(from, name) {
                // link(2) says so too of a file that another one, just as good, takes the place of.
                Err(error) if error.kind() == io::ErrorKind::NotFound && again.next().is_some() => {
                }
                linked => return linked.map_err(errors::file("make", name)),
            }
        }
    }

    /// Looks at what a spec names. It copies nothing, and reads headers only.
    pub(super) fn look(&self, spec: &Spec) -> Result<Looks, HostError> {
        let modules = ImageName::parse(&format!("{}.modules", spec.kernel));
        let modules = modules.ok().filter(|name| self.exists(name));
        let rootfs = spec.rootfs.as_ref();
        Ok(Looks {
            kernel: self.look_at(Kind::Kernel, &spec.kernel)?,
            modules: modules.map(|name| self.look_at(Kind::Modules, &name)).transpose()?,
            rootfs: rootfs.map(|name| self.look_at(Kind::rootfs(spec.boot), name)).transpose()?,
        })
    }

    fn exists(&self, name: &ImageName) -> bool {
        self.source.join(name.as_str()).symlink_metadata().is_ok()
    }

    fn look_at(&self, kind: Kind, name: &ImageName) -> Result<Look, HostError> {
        let file = self.open_image(kind, name)?;
        let metadata = file.metadata().map_err(|error| unreadable(kind, name, error))?;
        if !metadata.is_file() {
            let found = if metadata.is_dir() { "a directory" } else { "not a regular file" };
            return Err(unfit(kind, name, &format!("it is {found}; put an image in its place")));
        }
        let stamp = Stamp::of(&metadata);
        if stamp.bytes > self.bytes_max {
            let (has, max) = (stamp.bytes.div_ceil(GIB), self.bytes_max / GIB);
            let fault = format!(
                "it has {has} GiB, and image_max_gb allows {max}; make it smaller (resize2fs), or \
                 raise image_max_gb"
            );
            return Err(unfit(kind, name, &fault));
        }
        let known = lock(&self.digests).get(&stamp).copied();
        if let Some(digest) = known.filter(|digest| self.is_fit(kind, digest)) {
            return Ok(Look::Known(digest));
        }
        let fault = kind.fault(&file, stamp.bytes);
        match fault.map_err(|error| unreadable(kind, name, error))? {
            Some(fault) => Err(unfit(kind, name, &fault)),
            None => Ok(Look::Unknown(Original { kind, name: name.clone(), file, stamp })),
        }
    }

    /// Whether the store has a copy that is fit for this kind. The digest says nothing of that: it may have
    /// been taken for another kind, by rules of another version. It reads headers only.
    pub(super) fn is_fit(&self, kind: Kind, digest: &Digest) -> bool {
        let fault = File::open(self.path(digest))
            .and_then(|copy| kind.fault(&copy, copy.metadata()?.len()));
        matches!(fault, Ok(None))
    }

    fn open_image(&self, kind: Kind, name: &ImageName) -> Result<File, HostError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let source = rustix::fs::open(&self.source, flags, Mode::empty()).map_err(|errno| {
            let message = format!("cannot open the images directory {}", self.source.display());
            HostError::permanent(message).because(io::Error::from(errno))
        })?;
        // A name is one component, so that NOFOLLOW keeps it beneath; openat2 would say no more, and seccomp
        // filters refuse it, as those of systemd's RestrictSUIDSGID= do. A FIFO would wait for its writer
        // without NONBLOCK.
        let flags =
            OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let opened = rustix::fs::openat(&source, name.as_str(), flags, Mode::empty());
        opened.map(File::from).map_err(|errno| match errno {
            rustix::io::Errno::NOENT => {
                let dir = self.source.display();
                unfit(kind, name, &format!("there is no such file in {dir}; put it there"))
            }
            rustix::io::Errno::LOOP => {
                let fault = "it is a symbolic link; put the file itself in its place";
                unfit(kind, name, fault)
            }
            // A socket, or a device that does not exist.
            rustix::io::Errno::NXIO => {
                unfit(kind, name, "it is not a regular file; put an image in its place")
            }
            errno => HostError::permanent(format!("cannot open {} {name}", kind.noun()))
                .because(io::Error::from(errno)),
        })
    }

    /// Bytes that may be written into the store.
    pub(super) fn free_bytes(&self) -> io::Result<u64> {
        let disk = rustix::fs::statvfs(&self.dir)?;
        Ok(disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Where the copies lie.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// A file is known from now on, over restarts too.
    pub(super) fn remember(&self, stamp: Stamp, digest: Digest) {
        let mut digests = lock(&self.digests);
        if digests.len() >= REMEMBERED_MAX {
            digests.clear();
        }
        digests.insert(stamp, digest);
        let all: Vec<_> = digests
            .iter()
            .map(|(stamp, digest)| Remembered { stamp: *stamp, digest: digest.to_string() })
            .collect();
        let written = serde_json::to_vec(&all)
            .map_err(io::Error::from)
            .and_then(|bytes| replace(&self.dir.join(DIGESTS), &bytes));
        if let Err(error) = written {
            // It costs a later start some time, and nothing else.
            tracing::warn!(%error, "cannot write the digests of images");
        }
    }
}

fn unreadable(kind: Kind, name: &ImageName, error: io::Error) -> HostError {
    HostError::transient(format!("cannot read {} {name}", kind.noun())).because(error)
}

fn unfit(kind: Kind, name: &ImageName, fault: &str) -> HostError {
    HostError::permanent(format!("cannot use {} {name}: {fault}", kind.noun()))
}

fn remembered(path: &Path) -> HashMap<Stamp, Digest> {
    let bytes = std::fs::read(path).unwrap_or_default();
    let all: Vec<Remembered> = serde_json::from_slice(&bytes).unwrap_or_default();
    let pair = |one: Remembered| Some((one.stamp, Digest::parse(&one.digest)?));
    all.into_iter().filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::super::sparse::copy_sparse;
    use super::super::transfers::copy_now;
    use super::*;
    use std::os::unix::fs::FileExt;

    const BYTES_MAX: u64 = 2 * GIB;

    impl ImageStore {
        fn known(&self, kind: Kind, name: &ImageName) -> Option<Digest> {
            match self.look_at(kind, name).ok()? {
                Look::Known(digest) => Some(digest),
                Look::Unknown(_) => None,
            }
        }

        fn image(&self, kind: Kind, name: &ImageName) -> Result<Digest, HostError> {
            match self.look_at(kind, name)? {
                Look::Known(digest) => Ok(digest),
                Look::Unknown(original) => copy_now(self, original),
            }
        }
    }

    fn store() -> (tempfile::TempDir, ImageStore) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = dir.path().join("run");
        let layout = Layout::open(&dir.path().join("state"), Some(&runtime)).unwrap();
        let source = dir.path().join("images");
        std::fs::create_dir(&source).unwrap();
        let store = ImageStore::open(&layout, source, BYTES_MAX).unwrap();
        (dir, store)
    }

    fn name(text: &str) -> ImageName {
        ImageName::parse(text).unwrap()
    }

    #[test]
    fn an_image_is_copied_by_its_digest_with_its_holes() {
        let (_dir, store) = store();
        let path = store.source.join("disk");
        let file = File::create(&path).unwrap();
        file.set_len(64 * 1024 * 1024).unwrap();
        file.write_all_at(b"middle", 3_000_001).unwrap();
        let digest = store.image(Kind::Disk, &name("disk")).unwrap();
        let original = std::fs::read(&path).unwrap();
        assert_eq!(digest.0, *blake3::hash(&original).as_bytes());
        let copy = store.path(&digest);
        assert!(std::fs::read(&copy).unwrap() == original);
        assert!(copy.metadata().unwrap().blocks() * 512 < 4 * 1024 * 1024);
        let again = store.made("again");
        copy_sparse(&copy, &again).unwrap();
        assert!(std::fs::read(&again).unwrap() == original);
        assert!(again.metadata().unwrap().blocks() * 512 < 4 * 1024 * 1024);
    }

    #[test]
    fn what_users_bring_into_the_stores_directory_stays_as_it_is() {
        let (dir, store) = store();
        let layout =
            Layout::open(&dir.path().join("state"), Some(&dir.path().join("run"))).unwrap();
        let names = ["new-0", "new-kernel", "scratch-64", "digests.json", "again"];
        names.iter().for_each(|name| std::fs::write(store.dir.join(name), name).unwrap());
        std::fs::write(store.dir.join(".new-7"), "begun").unwrap();
        let store = ImageStore::open(&layout, store.dir.clone(), BYTES_MAX).unwrap();
        assert!(!store.dir.join(".new-7").exists());
        for _ in 0..3 {
            let making = store.making();
            std::fs::write(&making.path, "made").unwrap();
            making.persist(&store.made("again")).unwrap();
        }
        for image in names {
            let digest = store.image(Kind::Disk, &name(image)).unwrap();
            assert_eq!(std::fs::read(store.path(&digest)).unwrap(), image.as_bytes());
            assert_eq!(std::fs::read(store.dir.join(image)).unwrap(), image.as_bytes());
        }
    }

    #[test]
    fn a_look_copies_nothing() {
        let (_dir, store) = store();
        let disk = store.source.join("disk");
        std::fs::write(&disk, "one").unwrap();
        let look = || store.known(Kind::Disk, &name("disk"));
        let copies = || std::fs::read_dir(&store.dir).unwrap().count();
        assert_eq!((look(), copies()), (None, 0));
        let digest = store.image(Kind::Disk, &name("disk")).unwrap();
        assert_eq!(look(), None, "it may change again within the same time stamp");
        store.remember(Stamp::of(&disk.metadata().unwrap()), digest);
        assert_eq!(look(), Some(digest));
        std::fs::remove_file(store.path(&digest)).unwrap();
        assert_eq!(look(), None);
    }

    #[test]
    fn overwritten_file_is_another_whatever_its_times() {
        let (_dir, store) = store();
        let disk = store.source.join("disk");
        let write = |text: &str| {
            std::fs::write(&disk, text).unwrap();
            let times = std::fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH);
            File::options().write(true).open(&disk).unwrap().set_times(times).unwrap();
        };
        write("one");
        let digest = store.image(Kind::Disk, &name("disk")).unwrap();
        store.remember(Stamp::of(&disk.metadata().unwrap()), digest);
        // The clock that file systems use may stand still for some milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(50));
        write("two");
        assert_ne!(store.image(Kind::Disk, &name("disk")).unwrap(), digest);
    }

    #[test]
    fn digest_taken_for_one_kind_does_not_admit_another() {
        let (dir, store) = store();
        let layout = Layout::open(&dir.path().join("state"), Some(dir.path())).unwrap();
        let mut ext4 = vec![0; 8192];
        ext4[1024 + 4] = 8;
        ext4[1024 + 0x38..][..2].copy_from_slice(&[0x53, 0xef]);
        let images = [
            ("random", vec![0xa5; 20_000]),
            ("ext4", ext4),
            ("modules", b"070701 and so on".to_vec()),
            ("text", b"#!/bin/sh\n".to_vec()),
        ];
        let kinds = [Kind::Kernel, Kind::Modules, Kind::Ext4, Kind::Disk];
        for (image, bytes) in images {
            let path = store.source.join(image);
            std::fs::write(&path, bytes).unwrap();
            let file = File::open(&path).unwrap();
            let stamp = Stamp::of(&file.metadata().unwrap());
            let fresh = kinds.map(|kind| kind.fault(&file, stamp.bytes).unwrap().is_none());
            // A raw guest's disk may hold anything: its digest is known from now on.
            store.remember(stamp, store.image(Kind::Disk, &name(image)).unwrap());
            let restarted = ImageStore::open(&layout, store.source.clone(), BYTES_MAX).unwrap();
            for store in [&store, &restarted] {
                let known = kinds.map(|kind| store.image(kind, &name(image)).is_ok());
                assert_eq!(known, fresh, "{image}");
                let looked = kinds.map(|kind| store.known(kind, &name(image)).is_some());
                assert_eq!(looked, fresh, "{image}");
            }
        }
    }

    #[test]
    fn image_above_the_maximum_is_refused_with_the_remedy() {
        let (_dir, store) = store();
        let refusal = |bytes| {
            let path = store.source.join("disk");
            File::create(&path).unwrap().set_len(bytes).unwrap();
            store.look_at(Kind::Disk, &name("disk")).err().map(|error| {
                assert!(!error.is_transient());
                error.sentence()
            })
        };
        assert_eq!(refusal(BYTES_MAX), None);
        let expected = "cannot use rootfs disk: it has 3 GiB, and image_max_gb allows 2; make it \
                        smaller (resize2fs), or raise image_max_gb";
        assert_eq!(refusal(BYTES_MAX + 1).as_deref(), Some(expected));
        assert!(refusal(1 << 40).unwrap().contains("it has 1024 GiB"));
    }

    #[test]
    fn damaged_copy_is_made_again() {
        let (_dir, store) = store();
        let path = store.source.join("modules");
        std::fs::write(&path, "070701 and so on").unwrap();
        let digest = store.image(Kind::Modules, &name("modules")).unwrap();
        store.remember(Stamp::of(&path.metadata().unwrap()), digest);
        std::fs::write(store.path(&digest), "").unwrap();
        assert_eq!(store.image(Kind::Modules, &name("modules")).unwrap(), digest);
        assert_eq!(std::fs::read(store.path(&digest)).unwrap(), b"070701 and so on");
    }

    #[test]
    fn replaced_image_gets_another_digest_and_the_old_copy_stays() {
        let (_dir, store) = store();
        let path = store.source.join("disk");
        std::fs::write(&path, "one").unwrap();
        let first = store.image(Kind::Disk, &name("disk")).unwrap();
        std::fs::write(&path, "two").unwrap();
        let second = store.image(Kind::Disk, &name("disk")).unwrap();
        assert_ne!(first, second);
        assert_eq!(std::fs::read(store.path(&first)).unwrap(), b"one");
    }

    #[test]
    fn a_digest_is_remembered_over_a_restart() {
        let (dir, store) = store();
        let path = store.source.join("disk");
        std::fs::write(&path, "one").unwrap();
        let digest = store.image(Kind::Disk, &name("disk")).unwrap();
        let stamp = Stamp::of(&path.metadata().unwrap());
        store.remember(stamp, digest);
        let layout = Layout::open(&dir.path().join("state"), Some(dir.path())).unwrap();
        let again = ImageStore::open(&layout, store.source.clone(), BYTES_MAX).unwrap();
        assert_eq!(lock(&again.digests).get(&stamp), Some(&digest));
    }

    #[test]
    fn path_that_is_not_a_file_beneath_the_directory_is_refused() {
        let (dir, store) = store();
        std::fs::write(dir.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("../secret", store.source.join("link")).unwrap();
        std::fs::create_dir(store.source.join("dir")).unwrap();
        std::fs::write(store.source.join("empty"), "").unwrap();
        let fifo = store.source.join("fifo");
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
        std::os::unix::net::UnixListener::bind(store.source.join("socket")).unwrap();
        let (zero, mode) = (store.source.join("zero"), Mode::RUSR | Mode::WUSR);
        let device = rustix::fs::makedev(1, 5);
        let kind = rustix::fs::FileType::CharacterDevice;
        let has_device = match rustix::fs::mknodat(rustix::fs::CWD, &zero, kind, mode, device) {
            // Only root makes devices.
            Err(rustix::io::Errno::PERM) => false,
            made => made.is_ok(),
        };
        let refused = |image| {
            let error = store.image(Kind::Disk, &name(image)).unwrap_err();
            assert!(!error.is_transient());
            error.sentence().replace(&store.source.display().to_string(), "IMAGES")
        };
        assert_eq!(
            refused("absent"),
            "cannot use rootfs absent: there is no such file in IMAGES; put it there"
        );
        assert!(refused("link").contains("symbolic link"));
        assert!(refused("dir").contains("it is a directory"));
        assert!(refused("fifo").contains("not a regular file"));
        assert!(refused("socket").contains("not a regular file"), "{}", refused("socket"));
        assert!(
            !has_device || refused("zero").contains("not a regular file"),
            "{}",
            refused("zero")
        );
        assert!(refused("empty").contains("empty"));
        assert_eq!(std::fs::read_dir(&store.dir).unwrap().count(), 0);
    }
}
