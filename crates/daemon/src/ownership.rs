//! Who can change what lies in a state directory: owners, modes and links. Only the daemon's user may
//! write there, and no name in it may lead elsewhere, since the daemon, which may be root, writes to these
//! names. The path of the directory itself may be a link.
//!
//! Once the directory is its user's alone nothing can be planted in it any more, so that what is found here
//! stays true; and what the daemon opens in it, it opens without following links.

use hearth_model::Digest;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The directories that Hearth makes in a state directory.
const DIRECTORIES: [&str; 4] = [IMAGES, "instances", "logs", "run"];
/// Users may bring images here, so that only names that Hearth makes are looked at.
const IMAGES: &str = "images";
/// Bits of a mode that let others write, and that let them do anything.
const WRITABLE: u32 = 0o022;
const OPEN: u32 = 0o077;
const STICKY: u32 = 0o1000;

/// Something in a state directory that others can use, or could have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    /// Where.
    pub(crate) path: PathBuf,
    /// What.
    pub(crate) kind: FlawKind,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FlawKind {
    /// It belongs to this user, who is not the one that Hearth runs as.
    Owner(u32),
    /// Others may write to it: its mode.
    Writable(u32),
    /// Others may read it: its mode. Nothing can have been planted by that.
    Readable(u32),
    /// It is a symbolic link to this.
    Link(PathBuf),
    /// It has so many more names outside of the state directory.
    NamedOutside(u64),
    /// It is a directory, a FIFO or a device where a file is expected, or the other way round.
    Kind,
}

impl Flaw {
    /// Whether Hearth must not use the directory before a person has looked at it.
    pub(crate) fn refuses(&self) -> bool {
        !matches!(self.kind, FlawKind::Readable(_))
    }

    /// What is wrong, as a sentence.
    pub(crate) fn problem(&self) -> String {
        let path = self.path.display();
        match &self.kind {
            FlawKind::Owner(uid) => {
                let me = rustix::process::geteuid().as_raw();
                format!("{path} belongs to user {uid}, and Hearth runs as user {me}")
            }
            FlawKind::Writable(mode) => {
                format!("{path} can be written by others (mode {:04o})", mode & 0o7777)
            }
            FlawKind::Readable(mode) => {
                format!("{path} is open to others (mode {:o})", mode & 0o777)
            }
            FlawKind::Link(target) => {
                format!("{path} is a symbolic link to {}", target.display())
            }
            FlawKind::NamedOutside(names) => {
                let s = if *names == 1 { "" } else { "s" };
                format!(
                    "{path} has {names} more name{s} outside of the state directory (hard links)"
                )
            }
            FlawKind::Kind => format!("{path} is not the kind of file that Hearth makes there"),
        }
    }

    /// What a person can do about it.
    pub(crate) fn remedy(&self) -> String {
        let path = self.path.display();
        match &self.kind {
            FlawKind::Owner(uid) => format!(
                "run Hearth as that user (sudo -u '#{uid}'), give it a directory of its own with \
                 --state-dir, or change the owner with chown once you have looked at what is in it"
            ),
            FlawKind::Writable(_) => format!(
                "look at what others may have put there, then chmod go-rwx {path}; or give Hearth a \
                 directory of its own with --state-dir"
            ),
            FlawKind::Readable(_) => format!("chmod go-rwx {path}"),
            FlawKind::Link(_) => format!(
                "remove it (rm {path}); the path of the state directory itself may be a link, and what \
                 is in it can be mounted, but not linked"
            ),
            FlawKind::NamedOutside(_) => format!(
                "give it a file of its own: cp -p {path} {path}.own && mv {path}.own {path}"
            ),
            FlawKind::Kind => format!("move it away: {path}"),
        }
    }
}

/// Opens a directory, which may be named by a link.
pub(crate) fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens a file in a directory without following a link, and without waiting for the other end of a FIFO.
pub(crate) fn open_beneath(dir: impl AsFd, name: &str, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)?;
    Ok(File::from(file))
}

/// Everything that is wrong with a state directory, `path` being its name in sentences. What Hearth makes
/// is looked at, and every link.
pub(crate) fn survey(dir: &OwnedFd, path: &Path) -> io::Result<Vec<Flaw>> {
    let mut flaws = Vec::new();
    let found = rustix::fs::fstat(dir)?;
    flaws.extend(access(path, &found, OPEN));
    let entries = entries(dir)?;
    let mut names: BTreeMap<(u64, u64), u64> = BTreeMap::new();
    for found in entries.values() {
        *names.entry((found.st_dev, found.st_ino)).or_default() += 1;
    }
    for (name, found) in &entries {
        let path = path.join(name);
        let flaw = |kind| Flaw { path: path.clone(), kind };
        let text = name.to_str().unwrap_or_default();
        let is_secret = text.starts_with("hearth.");
        let expected = match text {
            _ if DIRECTORIES.contains(&text) => Some(FileType::Directory),
            "listen" | "listen.new" => Some(FileType::RegularFile),
            _ => is_secret.then_some(FileType::RegularFile),
        };
        let kind = FileType::from_raw_mode(found.st_mode);
        match expected {
            _ if kind == FileType::Symlink => flaws.push(flaw(link(dir, name))),
            None => {}
            Some(expected) if expected != kind => flaws.push(flaw(FlawKind::Kind)),
            Some(FileType::Directory) => flaws.extend(within(dir, name, &path)?),
            Some(_) => {
                flaws.extend(access(&path, found, if is_secret { OPEN } else { WRITABLE }));
                let outside = found.st_nlink.saturating_sub(names[&(found.st_dev, found.st_ino)]);
                if outside > 0 {
                    flaws.push(flaw(FlawKind::NamedOutside(outside)));
                }
            }
        }
    }
    Ok(flaws)
}

/// The users who can replace the state directory by another, as sentences that name the directory above.
pub(crate) fn replaceable(path: &Path) -> Vec<String> {
    let me = rustix::process::geteuid().as_raw();
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mut sentences = Vec::new();
    for above in real.ancestors().skip(1) {
        let Ok(found) = rustix::fs::stat(above) else { continue };
        let who = match found.st_mode & WRITABLE {
            _ if ![0, me].contains(&found.st_uid) => format!("user {}", found.st_uid),
            writable if writable != 0 && found.st_mode & STICKY == 0 => "others".to_owned(),
            _ => continue,
        };
        let (real, above) = (real.display(), above.display());
        sentences.push(format!("{who} can replace {real} by another directory, in {above}"));
    }
    sentences
}

/// What is wrong one level below: a directory of Hearth's own, and what it holds.
fn within(dir: &OwnedFd, name: &OsStr, path: &Path) -> io::Result<Vec<Flaw>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inner = match rustix::fs::openat(dir, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Vec::new()),
        opened => opened?,
    };
    // The state directory is closed to others, so that they read nothing in here.
    let mut flaws = Vec::from_iter(access(path, &rustix::fs::fstat(&inner)?, WRITABLE));
    let is_made = |name: &OsStr| {
        let text = name.to_str().unwrap_or_default();
        path.file_name() != Some(OsStr::new(IMAGES))
            || text.starts_with('.')
            || Digest::parse(text).is_some()
    };
    for (name, found) in entries(&inner)?.iter().filter(|(name, _)| is_made(name)) {
        let path = path.join(name);
        if FileType::from_raw_mode(found.st_mode) == FileType::Symlink {
            flaws.push(Flaw { path, kind: link(&inner, name) });
        } else {
            flaws.extend(access(&path, found, WRITABLE));
        }
    }
    Ok(flaws)
}

/// Whether somebody else has access, of which `bits` of the mode count.
fn access(path: &Path, found: &Stat, bits: u32) -> Option<Flaw> {
    let mode = found.st_mode;
    let kind = match () {
        () if found.st_uid != rustix::process::geteuid().as_raw() => FlawKind::Owner(found.st_uid),
        () if mode & WRITABLE & bits != 0 => FlawKind::Writable(mode),
        () if mode & bits != 0 => FlawKind::Readable(mode),
        () => return None,
    };
    Some(Flaw { path: path.to_owned(), kind })
}

fn link(dir: &OwnedFd, name: &OsStr) -> FlawKind {
    let target = rustix::fs::readlinkat(dir, name, Vec::new()).unwrap_or_default();
    FlawKind::Link(PathBuf::from(OsStr::from_bytes(target.as_bytes())))
}

/// What is in a directory, links not followed. What vanishes meanwhile is left out.
fn entries(dir: &OwnedFd) -> io::Result<BTreeMap<std::ffi::OsString, Stat>> {
    let mut entries = BTreeMap::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => {}
            found => drop(entries.insert(name.to_owned(), found?)),
        }
    }
    Ok(entries)
}
