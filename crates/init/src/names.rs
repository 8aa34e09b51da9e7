//! The guest's names in `/etc`: `hosts`, `hostname` and `resolv.conf`, each made where the image has
//! none (or an empty one, as a container's export leaves it), and the host name's line in `hosts`.
//!
//! Nothing outside the root is reached, whatever links the image has, and a link is replaced rather
//! than written through. What the app writes there stays, but for the one line of an old host name.
//! Nothing here fails the boot.

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Largest file that is changed, in bytes: lists of blocked hosts have a few MiB.
const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Where a new file is written before it takes its name.
const NEW: &str = ".hearth-new";
const ETC: &str = "etc";
/// There is no network beyond the loopback, so there is no server to ask.
const RESOLV_CONF: &[u8] = b"# This microVM has no name server.\n";

/// The names of a guest.
#[derive(Debug)]
pub(crate) struct Names {
    root: OwnedFd,
    /// The host name that was set last, and what says it because of this module.
    last: Option<Last>,
}

#[derive(Debug)]
struct Last {
    name: String,
    in_hosts: bool,
    in_hostname: bool,
}

/// Why a file stays as it is.
type Problem = (&'static str, String);

impl Names {
    /// The names beneath a root directory.
    ///
    /// # Errors
    /// Where the directory cannot be opened.
    pub(crate) fn open(root: &Path) -> std::io::Result<Names> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Names { root: rustix::fs::open(root, flags, Mode::empty())?, last: None })
    }

    /// Writes the files for a host name. Returns a sentence for each that could not be written.
    pub(crate) fn set(&mut self, name: &str) -> Vec<String> {
        let etc = match self.etc() {
            Ok(etc) => etc,
            Err(error) => return vec![format!("cannot write the host name to /etc: {error}")],
        };
        let last = self.last.take();
        let mut problems = Vec::new();
        let mut change = |file, new: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>| {
            let changed = self.change(etc.as_fd(), file, new);
            problems.extend(changed.err().map(|why| (file, why)));
        };
        let old = last.as_ref().filter(|last| last.in_hosts).map(|last| last.name.as_str());
        let mut in_hosts = false;
        change("hosts", &mut |content| {
            let new = hosts(content, name, old);
            in_hosts = new.is_own;
            Some(new.content).filter(|new| new != content)
        });
        let old = last.as_ref().filter(|last| last.in_hostname);
        let old = old.map(|last| format!("{}\n", last.name).into_bytes());
        let mut in_hostname = false;
        change("hostname", &mut |content| {
            in_hostname = is_blank(content) || old.as_deref() == Some(content);
            let new = format!("{name}\n").into_bytes();
            Some(new).filter(|new| in_hostname && new != content)
        });
        change("resolv.conf", &mut |content| is_blank(content).then(|| RESOLV_CONF.to_vec()));
        self.last = Some(Last { name: name.to_owned(), in_hosts, in_hostname });
        problems
            .into_iter()
            .map(|(file, why): Problem| format!("cannot write /etc/{file}: {why}"))
            .collect()
    }

    /// Opens `/etc`, and makes it if it is absent.
    fn etc(&self) -> std::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        match self.resolve(ETC, flags) {
            Err(Errno::NOENT) => {
                match rustix::fs::mkdirat(&self.root, ETC, Mode::from_raw_mode(0o755)) {
                    Err(Errno::EXIST) => Err(std::io::Error::other("it is a link to nowhere")),
                    made => Ok(made.and_then(|()| self.resolve(ETC, flags))?),
                }
            }
            opened => Ok(opened?),
        }
    }

    /// Opens a path as if the root were `/`.
    fn resolve(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Errno> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
    }

    /// Replaces a file of `etc` by what `new` makes of its content, if anything.
    fn change(
        &self,
        etc: impl AsFd,
        file: &str,
        new: &mut dyn FnMut(&[u8]) -> Option<Vec<u8>>,
    ) -> Result<(), String> {
        let entry = match rustix::fs::statat(&etc, file, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(entry) => Some(entry),
            Err(Errno::NOENT) => None,
            Err(error) => return Err(error.to_string()),
        };
        let kind = entry.map(|entry| FileType::from_raw_mode(entry.st_mode));
        let content = match kind {
            None => Vec::new(),
            Some(FileType::RegularFile | FileType::Symlink) => {
                self.read(&format!("{ETC}/{file}"))?
            }
            Some(FileType::Directory) => return Err("it is a directory".to_owned()),
            Some(_) => return Err("it is not a file".to_owned()),
        };
        let Some(content) = new(&content) else { return Ok(()) };
        let owned = entry.filter(|_| kind == Some(FileType::RegularFile));
        let replaced = replace(&etc, file, &content, owned.as_ref());
        replaced.map_err(|error| {
            let _ = rustix::fs::unlinkat(&etc, NEW, AtFlags::empty());
            error.to_string()
        })
    }

    /// The content of a file. A link that leads nowhere has none.
    fn read(&self, path: &str) -> Result<Vec<u8>, String> {
        let found = match self.resolve(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::LOOP) => return Ok(Vec::new()),
            found => found.map_err(|error| error.to_string())?,
        };
        // Looked at before it is opened: a device may do something then, and a FIFO may wait.
        let stat = rustix::fs::fstat(&found).map_err(|error| error.to_string())?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err("it leads to what is not a file".to_owned());
        }
        if stat.st_size.unsigned_abs() > FILE_BYTES_MAX {
            return Err(format!("it is larger than {FILE_BYTES_MAX} bytes"));
        }
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let opened = self.resolve(path, flags).map_err(|error| error.to_string())?;
        let mut content = Vec::new();
        let read = File::from(opened).take(FILE_BYTES_MAX).read_to_end(&mut content);
        read.map(|_| content).map_err(|error| error.to_string())
    }
}

/// Replaces a file by another: a reader sees the old or the new one. It keeps the mode and
/// the owner of `old`.
fn replace(
    etc: impl AsFd,
    file: &str,
    content: &[u8],
    old: Option<&rustix::fs::Stat>,
) -> std::io::Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(old.map_or(0o644, |old| old.st_mode & 0o7777));
    let make = || rustix::fs::openat(&etc, NEW, flags, mode);
    let made = match make() {
        Err(Errno::EXIST) => {
            rustix::fs::unlinkat(&etc, NEW, AtFlags::empty())?;
            make()?
        }
        made => made?,
    };
    rustix::fs::fchmod(&made, mode)?;
    if let Some(old) = old {
        use rustix::fs::{Gid, Uid};
        let (uid, gid) = (Uid::from_raw(old.st_uid), Gid::from_raw(old.st_gid));
        rustix::fs::fchown(&made, Some(uid), Some(gid))?;
    }
    File::from(made).write_all(content)?;
    Ok(rustix::fs::renameat(&etc, NEW, &etc, file)?)
}

/// The new content of `/etc/hosts`.
#[derive(Debug, PartialEq, Eq)]
struct Hosts {
    content: Vec<u8>,
    /// Whether the line of the host name is this module's.
    is_own: bool,
}

/// Adds what `/etc/hosts` lacks: the localhost of each family, and the host name, as the address on
/// which the host reaches the guest's ports. `old` is the host name whose line was added before.
fn hosts(content: &[u8], name: &str, old: Option<&str>) -> Hosts {
    let mut lines: Vec<&[u8]> = content.split(|&byte| byte == b'\n').collect();
    lines.pop_if(|last| last.is_empty());
    let own = old.map(own_line);
    let at = own.and_then(|own| lines.iter().position(|line| *line == own.as_bytes()));
    let is_kept = at.is_some() && old == Some(name);
    if let Some(at) = at.filter(|_| !is_kept) {
        lines.remove(at);
    }
    let has = |wanted: &str, is_family: fn(&str) -> bool| {
        lines.iter().any(|line| {
            let line =
                String::from_utf8_lossy(line.split(|&byte| byte == b'#').next().unwrap_or(line));
            let mut words = line.split_ascii_whitespace();
            words.next().is_some_and(is_family)
                && words.any(|word| word.eq_ignore_ascii_case(wanted))
        })
    };
    let has_ipv4 = has("localhost", |address| !address.contains(':'));
    let has_ipv6 = has("localhost", |address| address.contains(':'));
    let is_added = !has(name, |_| true) && name != "localhost";
    let mut new = lines.join(&b'\n');
    if !lines.is_empty() {
        new.push(b'\n');
    }
    let mut add = |line: &str| new.extend_from_slice(format!("{line}\n").as_bytes());
    if !has_ipv4 {
        add("127.0.0.1\tlocalhost");
    }
    if !has_ipv6 {
        add("::1\tlocalhost ip6-localhost ip6-loopback");
    }
    if is_added {
        add(&own_line(name));
    }
    Hosts { content: new, is_own: is_added || is_kept }
}

fn own_line(name: &str) -> String {
    format!("127.0.0.1\t{name}")
}

fn is_blank(content: &[u8]) -> bool {
    content.iter().all(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    const LOCALHOST: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n";

    /// A root with the hosts file of `image`, if any.
    fn root(image: Option<&str>) -> (tempfile::TempDir, Names) {
        let dir = tempfile::tempdir().expect("tempdir");
        fs::create_dir(dir.path().join("etc")).expect("made");
        if let Some(image) = image {
            fs::write(dir.path().join("etc/hosts"), image).expect("written");
        }
        let names = Names::open(dir.path()).expect("opened");
        (dir, names)
    }

    fn read(dir: &tempfile::TempDir, file: &str) -> String {
        fs::read_to_string(dir.path().join("etc").join(file)).expect(file)
    }

    #[test]
    fn image_without_the_files_gets_all_three() {
        let (dir, mut names) = root(None);
        fs::remove_dir(dir.path().join("etc")).expect("removed");
        assert!(names.set("web").is_empty());
        assert_eq!(read(&dir, "hosts"), format!("{LOCALHOST}127.0.0.1\tweb\n"));
        assert_eq!(read(&dir, "hostname"), "web\n");
        assert!(read(&dir, "resolv.conf").starts_with('#'));
        assert_eq!(fs::read_dir(dir.path().join("etc")).expect("read").count(), 3);
    }

    #[test]
    fn host_name_line_is_added_once_and_follows_the_name() {
        let image = "127.0.0.1 localhost\n::1 localhost\n10.0.0.1 db # main";
        let (dir, mut names) = root(Some(image));
        fs::write(dir.path().join("etc/hostname"), "image\n").expect("written");
        for _ in 0..2 {
            assert!(names.set("warm").is_empty());
            assert_eq!(read(&dir, "hosts"), format!("{image}\n127.0.0.1\twarm\n"));
        }
        let mut edited = read(&dir, "hosts");
        edited.push_str("10.0.0.2 added");
        fs::write(dir.path().join("etc/hosts"), edited).expect("the app edits it");
        assert!(names.set("web").is_empty());
        assert_eq!(read(&dir, "hosts"), format!("{image}\n10.0.0.2 added\n127.0.0.1\tweb\n"));
        assert_eq!(read(&dir, "hostname"), "image\n", "the image's own stays");
    }

    #[test]
    fn name_that_the_image_has_is_neither_added_nor_removed() {
        let image = format!("{LOCALHOST}127.0.0.1\tweb\n");
        let (dir, mut names) = root(Some(&image));
        assert!(names.set("web").is_empty());
        assert_eq!(read(&dir, "hosts"), image);
        assert!(names.set("next").is_empty());
        assert_eq!(read(&dir, "hosts"), format!("{image}127.0.0.1\tnext\n"));
    }

    #[test]
    fn name_is_found_only_as_a_whole_word_outside_comments() {
        for (image, is_own) in [
            ("10.0.0.1 web", false),
            ("10.0.0.1 a WEB b", false),
            ("10.0.0.1 a web\r", false),
            ("fe80::1\tweb", false),
            ("10.0.0.1 web-2", true),
            ("10.0.0.1 a # web", true),
            ("# 10.0.0.1 web", true),
            ("web", true),
            ("", true),
        ] {
            let new = hosts(image.as_bytes(), "web", None);
            assert_eq!(new.is_own, is_own, "{image}");
            assert!(new.content.starts_with(image.as_bytes()));
        }
        assert!(!hosts(b"", "localhost", None).is_own);
    }

    #[test]
    fn claimed_guest_gets_its_new_hostname_file() {
        let (dir, mut names) = root(Some(""));
        names.set("warm");
        names.set("web");
        assert_eq!(read(&dir, "hostname"), "web\n");
        fs::write(dir.path().join("etc/hostname"), "mine\n").expect("the app writes it");
        names.set("next");
        assert_eq!(read(&dir, "hostname"), "mine\n");
    }

    #[test]
    fn link_is_replaced_and_nothing_outside_is_reached() {
        let outside = tempfile::tempdir().expect("tempdir");
        let victim = outside.path().join("hosts");
        fs::write(&victim, "secret\n").expect("written");
        let climbing = format!("{}{}", "../".repeat(20), victim.display());
        for target in [victim.display().to_string(), climbing, "/nowhere".to_owned()] {
            let (dir, mut names) = root(None);
            symlink(&target, dir.path().join("etc/hosts")).expect("linked");
            assert!(names.set("web").is_empty(), "{target}");
            assert!(!dir.path().join("etc/hosts").is_symlink());
            assert_eq!(read(&dir, "hosts"), format!("{LOCALHOST}127.0.0.1\tweb\n"), "{target}");
            assert_eq!(fs::read_to_string(&victim).expect("read"), "secret\n");
        }
        // One that leads to a file of the root is replaced by what is there.
        let (dir, mut names) = root(None);
        fs::write(dir.path().join("static"), "10.0.0.1 db\n").expect("written");
        symlink("/static", dir.path().join("etc/hosts")).expect("linked");
        assert!(names.set("web").is_empty());
        assert!(read(&dir, "hosts").starts_with("10.0.0.1 db\n127.0.0.1\tlocalhost\n"));
        assert_eq!(fs::read_to_string(dir.path().join("static")).expect("read"), "10.0.0.1 db\n");
    }

    #[test]
    fn etc_as_a_link_stays_within_the_root() {
        let outside = tempfile::tempdir().expect("tempdir");
        let (dir, mut names) = root(None);
        fs::remove_dir(dir.path().join("etc")).expect("removed");
        fs::create_dir(dir.path().join("config")).expect("made");
        symlink("/config", dir.path().join("etc")).expect("linked");
        assert!(names.set("web").is_empty());
        assert!(fs::read_to_string(dir.path().join("config/hosts")).expect("read").contains("web"));
        fs::remove_file(dir.path().join("etc")).expect("removed");
        symlink(outside.path(), dir.path().join("etc")).expect("linked");
        let problems = names.set("next");
        assert_eq!(problems, ["cannot write the host name to /etc: it is a link to nowhere"]);
        assert_eq!(fs::read_dir(outside.path()).expect("read").count(), 0);
    }

    #[test]
    fn what_is_not_a_file_is_left_alone_and_said() {
        let (dir, mut names) = root(None);
        let etc = dir.path().join("etc");
        fs::create_dir(etc.join("hosts")).expect("made");
        rustix::fs::mkfifoat(rustix::fs::CWD, etc.join("fifo"), Mode::RUSR).expect("made");
        symlink("fifo", etc.join("hostname")).expect("linked");
        symlink("resolv.conf", etc.join("resolv.conf")).expect("linked to itself");
        let expected = [
            "cannot write /etc/hosts: it is a directory",
            "cannot write /etc/hostname: it leads to what is not a file",
        ];
        assert_eq!(names.set("web"), expected);
        assert!(read(&dir, "resolv.conf").starts_with('#'));
    }

    #[test]
    fn file_keeps_its_mode_and_a_half_made_one_is_replaced() {
        let (dir, mut names) = root(Some("10.0.0.1 db\n"));
        let hosts = dir.path().join("etc/hosts");
        fs::set_permissions(&hosts, fs::Permissions::from_mode(0o440)).expect("set");
        fs::write(dir.path().join("etc").join(NEW), "half").expect("written");
        assert!(names.set("web").is_empty());
        assert_eq!(fs::metadata(&hosts).expect("there").permissions().mode() & 0o7777, 0o440);
        assert!(!dir.path().join("etc").join(NEW).exists());
    }
}
