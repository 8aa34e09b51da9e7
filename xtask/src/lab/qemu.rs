//! The QEMU that emulates the lab: this machine's own if it is new enough, else a newer one from
//! Debian's backports with the libraries it needs, unpacked into the cache and never installed.

use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::terminal::say;
use crate::{packages, program};

/// The first release that is used where it is installed. Before 10.2 the CPU that runs a guest and the
/// threads that interrupt it change one word without a lock, and an interrupt of either can be lost;
/// `docs/adr/0005` has what became of labs and guests with which release.
const VERSION_WANTED: Version = Version { major: 11, minor: 0 };
/// The first release whose emulated CPUs may run beside each other while code changes: it locks a
/// page of code before it translates it. Earlier releases read first and lock later, so that a CPU
/// can keep the translation of an instruction that another CPU was just rewriting. Linux rewrites
/// its own code each time the first microVM comes or the last one goes.
const VERSION_MIN: Version = Version { major: 8, minor: 1 };
const PROGRAM: &str = "qemu-system-x86_64";
/// The package that brings it, and the release of Debian whose backports have a new one.
const PACKAGE: &str = "qemu-system-x86";
const RELEASE: &str = "trixie";
/// Where its packages put the emulator and its firmware.
const EMULATOR: &str = "usr/bin/qemu-system-x86_64";
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];
/// What is kept of the packages: these, and the libraries that the emulator needs.
const KEPT: [&str; 5] = [EMULATOR, FIRMWARE[0], FIRMWARE[1], "usr/lib", "usr/lib64"];
/// What starts a program with the libraries of a directory.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
/// Checks the signature of backports as apt checks that of the release itself.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    major: u32,
    minor: u32,
}

/// One QEMU.
#[derive(Debug)]
pub(super) struct Qemu {
    /// The program, behind its loader if its libraries are not those of the system.
    words: Vec<OsString>,
    /// Where its firmware is; none for its own places.
    firmware: Vec<PathBuf>,
    version: Version,
}

impl Qemu {
    /// The QEMU to use: the installed one, or a newer one when that is too old. Where no newer one
    /// can be had it is the old one, and the developer is told what that means.
    pub(super) fn ensure(places: &Places) -> Result<Self> {
        if let Ok(installed) = Self::installed()
            && installed.version >= VERSION_WANTED
        {
            return Ok(installed);
        }
        let newer = Self::unpacked(&unpacked_dir(places)).or_else(|_| fetch(places));
        newer.or_else(|error| {
            packages::ensure(packages::QEMU)?;
            let installed = Self::installed()?;
            say(format_args!(
                "lab: no newer QEMU than {} can be had, with which the lab{} can lose its kernel or a \
                 guest now and then: {error:#}",
                installed.version,
                if installed.version < VERSION_MIN { " gets one CPU, is slower, and" } else { "" },
            ));
            Ok(installed)
        })
    }

    /// How many CPUs the machine has, given how many are to run guests: one more, since its first runs
    /// none (`main.sh`). Any CPU that restores x87 registers clears a bit of the first one's flags without a
    /// lock, and takes back with it what that one changed meanwhile: whether interrupts reach it, and
    /// whether it may take them between a guest's end and the restored registers of the host.
    pub(super) fn cpus(&self, for_guests: usize) -> usize {
        if self.version >= VERSION_MIN { for_guests + 1 } else { 1 }
    }

    /// The command that becomes QEMU, in a session of its own: it must not end with the terminal.
    /// `setsid` becomes QEMU, so that the child's id is QEMU's.
    pub(super) fn command(&self) -> Command {
        let mut qemu = program::command("setsid");
        qemu.args(&self.words);
        for dir in &self.firmware {
            qemu.arg("-L").arg(dir);
        }
        qemu
    }

    fn installed() -> Result<Self> {
        Self::of(vec![PROGRAM.into()], Vec::new())
    }

    /// The one that [`fetch`] left in `dir`, if it is whole, runs here and is new enough.
    fn unpacked(dir: &Path) -> Result<Self> {
        let at = |place: &str| dir.join(place).into_os_string();
        let words = vec![at(LOADER), "--library-path".into(), at(LIBRARIES), at(EMULATOR)];
        let qemu = Self::of(words, FIRMWARE.map(|place| dir.join(place)).into())?;
        if qemu.version < VERSION_WANTED {
            bail!("the one that backports have is {}", qemu.version);
        }
        Ok(qemu)
    }

    fn of(words: Vec<OsString>, firmware: Vec<PathBuf>) -> Result<Self> {
        let said = program::output(program::command(&words[0]).args(&words[1..]).arg("--version"))?;
        let version = parse_version(&said).context("QEMU prints no version")?;
        Ok(Self { words, firmware, version })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn unpacked_dir(places: &Places) -> PathBuf {
    places.cache.join("tools/qemu-backports-11")
}

/// `QEMU emulator version 7.2.22 (Debian …)`
fn parse_version(said: &str) -> Option<Version> {
    let number = said.lines().next()?.strip_prefix("QEMU emulator version ")?;
    let mut parts = number.split(['.', ' ']);
    let mut next = || parts.next()?.parse().ok();
    Some(Version { major: next()?, minor: next()? })
}

/// Fetches QEMU and its libraries from Debian's backports. Apt's own lists and sources stay as they are,
/// and so does what is installed: to this apt nothing is.
fn fetch(places: &Places) -> Result<Qemu> {
    say(
        "setup: fetching QEMU from Debian's backports (about 42 MB; nothing is installed): with an older \
         one the lab loses its kernel or a guest now and then",
    );
    let mut targets = program::command("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"]);
    let targets = program::output(targets.arg("Created-By: Packages"))?;
    let os = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = codename(&os).context("/etc/os-release has no VERSION_CODENAME")?;
    let repository = repository(&targets, codename)
        .with_context(|| format!("apt knows no source of Debian {codename}"))?;
    let work =
        tempfile::tempdir_in(&places.cache).context("cannot create a temporary directory")?;
    let apt = Apt { dir: work.path() };
    let source = format!("deb [signed-by={KEYRING}] {repository}");
    apt.prepare(&format!("{source} {RELEASE} main\n{source} {RELEASE}-backports main\n"))?;
    program::output(&mut apt.get("update"))?;
    let mut download = apt.get("install");
    download.args(["--download-only", "--no-install-recommends", "-y"]);
    program::output(download.args(["-t", &format!("{RELEASE}-backports"), PACKAGE]))?;
    let (all, kept) = (work.path().join("all"), work.path().join("kept"));
    for package in packages_in(&work.path().join("cache/archives"))? {
        program::output(program::command("dpkg-deb").arg("-x").arg(&package).arg(&all))?;
    }
    for place in KEPT {
        let (from, to) = (all.join(place), kept.join(place));
        fs::create_dir_all(to.parent().context("it has a parent")?)
            .and_then(|()| fs::rename(&from, &to))
            .with_context(|| format!("cannot keep {place}"))?;
    }
    Qemu::unpacked(&kept).context("QEMU from backports does not run here")?;
    let dir = unpacked_dir(places);
    // One that was there did not run.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(places.cache.join("tools")).context("cannot create the tools' directory")?;
    fs::rename(&kept, &dir).with_context(|| format!("cannot fill {}", dir.display()))?;
    Qemu::unpacked(&dir)
}

/// Apt with one source of its own, and with its state in `dir`.
struct Apt<'a> {
    dir: &'a Path,
}

impl Apt<'_> {
    fn prepare(&self, source: &str) -> Result<()> {
        for dir in ["lists/partial", "cache/archives/partial"] {
            let dir = self.dir.join(dir);
            fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        }
        // What is installed: nothing.
        fs::write(self.dir.join("status"), "").context("cannot write apt's status")?;
        fs::write(self.dir.join("sources.list"), source).context("cannot write a source for apt")
    }

    fn get(&self, operation: &str) -> Command {
        let mut apt = program::command("apt-get");
        apt.args([operation, "-q"]);
        for (option, place) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
            ("Dir::State::Status", "status"),
            ("Dir::Cache", "cache"),
        ] {
            apt.arg("-o").arg(format!("{option}={}", self.dir.join(place).display()));
        }
        // The user that apt changes to can't reach a cache in a user's home.
        apt.args(["-o", "APT::Sandbox::User=root"]);
        // Without it an update that fetched nothing succeeds.
        apt.args(["-o", "APT::Update::Error-Mode=any"]);
        apt.args(["-o", "Acquire::Retries=1", "-o", "Acquire::http::Timeout=20"]);
        apt.env("LC_ALL", "C");
        apt
    }
}

/// The codename of this machine's release.
fn codename(release: &str) -> Option<&str> {
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"')).filter(|name| !name.is_empty())
}

/// Where apt has the main part of Debian's release `codename` from: its backports are beside it.
fn repository<'a>(targets: &'a str, codename: &str) -> Option<&'a str> {
    let fields = targets.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    fields.into_iter().find_map(|fields| match fields[..] {
        [uri, name, "main", "Debian"] if name == codename => Some(uri),
        _ => None,
    })
}

fn packages_in(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot read {}", dir.display()))?;
    let paths = entries.flatten().map(|entry| entry.path());
    let packages: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "deb")).collect();
    if packages.is_empty() {
        bail!("apt-get left no packages");
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(major: u32, minor: u32) -> Qemu {
        let version = Version { major, minor };
        Qemu { words: vec![PROGRAM.into()], firmware: Vec::new(), version }
    }

    #[test]
    fn the_version_is_read_from_what_qemu_says() {
        let parsed = |said: &str| parse_version(said).map(|version| version.to_string());
        let debian = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b2)\nCopyright";
        assert_eq!(parsed(debian).as_deref(), Some("7.2"));
        assert_eq!(parsed("QEMU emulator version 10.0.2").as_deref(), Some("10.0"));
        assert_eq!(parsed("QEMU emulator version 8.1 (x)").as_deref(), Some("8.1"));
        assert_eq!(parsed("qemu: no such option"), None);
        assert_eq!(parsed(""), None);
    }

    #[test]
    fn a_qemu_that_races_with_itself_gets_one_cpu() {
        assert_eq!(at(7, 2).cpus(4), 1);
        assert_eq!(at(8, 0).cpus(4), 1);
        assert_eq!(at(8, 1).cpus(4), 5);
        assert_eq!(at(10, 0).cpus(2), 3);
    }

    #[test]
    fn backports_come_from_where_the_release_itself_comes_from() {
        let targets = "http://mirror.example/debian-security/ bookworm-security main Debian\n\
                       http://mirror.example/node/ nodistro main nodistro\n\
                       http://mirror.example/debian/ bookworm-updates main Debian\n\
                       http://mirror.example/debian/ bookworm contrib Debian\n\
                       http://other.example/debian/ bookworm main Debian\n";
        assert_eq!(repository(targets, "bookworm"), Some("http://other.example/debian/"));
        assert_eq!(repository(targets, "trixie"), None);
        assert_eq!(repository("", "bookworm"), None);
    }

    #[test]
    fn the_codename_is_that_of_the_release() {
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=bookworm\n"), Some("bookworm"));
        assert_eq!(codename("VERSION_CODENAME=\"noble\"\n"), Some("noble"));
        assert_eq!(codename("ID=debian\nVERSION_CODENAME=\n"), None);
        assert_eq!(codename("ID=arch\n"), None);
    }
}
