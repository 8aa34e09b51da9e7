//! The QEMU that emulates the lab: this machine's own if it is new enough, else a newer one from
//! Debian's backports, unpacked into the cache and never installed.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::places::Places;
use crate::program;
use crate::terminal::say;

/// The first release whose emulated CPUs may run beside each other while code changes: it locks a
/// page of code before it translates it. Earlier releases read first and lock later, so that a CPU
/// can keep the translation of an instruction that another CPU was just rewriting. Linux rewrites
/// its own code each time the first microVM comes or the last one goes; `docs/adr/0005` has what
/// that did to the lab.
const VERSION_MIN: Version = Version { major: 8, minor: 1 };
const PROGRAM: &str = "qemu-system-x86_64";
/// The emulator, its accelerators and its firmware. The libraries and the BIOS are those of the
/// installed package: the newer one needs no others.
const PACKAGES: [&str; 3] = ["qemu-system-x86", "qemu-system-common", "qemu-system-data"];
/// Where Debian's packages for it put the BIOS.
const BIOS_DIR: &str = "/usr/share/seabios";
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
    program: PathBuf,
    /// Where its firmware is; none for its own places.
    firmware: Vec<PathBuf>,
    version: Version,
}

impl Qemu {
    /// The QEMU to use: the installed one, or a newer one when that is too old. Where no newer one
    /// can be had it is the old one, and the developer is told what that means.
    pub(super) fn ensure(places: &Places) -> Result<Self> {
        let installed = Self::installed()?;
        if installed.version >= VERSION_MIN {
            return Ok(installed);
        }
        let newer = Self::unpacked(&unpacked_dir(places)).or_else(|_| fetch(places, &installed));
        Ok(newer.unwrap_or_else(|error| {
            say(format_args!(
                "lab: no newer QEMU than {} can be had, so the lab gets one CPU, with which it is \
                 stable and slower: {error:#}",
                installed.version
            ));
            installed
        }))
    }

    /// How many CPUs the machine may have at most, given how many it would get.
    pub(super) fn cpus(&self, wanted: usize) -> usize {
        if self.version >= VERSION_MIN { wanted } else { 1 }
    }

    /// The command that becomes QEMU, in a session of its own: it must not end with the terminal.
    /// `setsid` becomes QEMU, so that the child's id is QEMU's.
    pub(super) fn command(&self) -> Command {
        let mut qemu = program::command("setsid");
        qemu.arg(&self.program);
        for dir in &self.firmware {
            qemu.arg("-L").arg(dir);
        }
        qemu
    }

    fn installed() -> Result<Self> {
        let program = PathBuf::from(PROGRAM);
        Ok(Self { version: version_of(&program)?, program, firmware: Vec::new() })
    }

    /// The one that [`fetch`] left in `dir`, if it is whole, runs here and is new enough.
    fn unpacked(dir: &Path) -> Result<Self> {
        let program = dir.join("usr/bin").join(PROGRAM);
        let version = version_of(&program)?;
        if version < VERSION_MIN {
            bail!("the one that backports have is {version}");
        }
        let firmware = vec![dir.join("usr/share/qemu"), PathBuf::from(BIOS_DIR)];
        Ok(Self { program, firmware, version })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

fn unpacked_dir(places: &Places) -> PathBuf {
    places.cache.join("tools/qemu-backports")
}

fn version_of(program: &Path) -> Result<Version> {
    let said = program::output(program::command(program).arg("--version"))?;
    parse_version(&said).with_context(|| format!("{} prints no version", program.display()))
}

/// `QEMU emulator version 7.2.22 (Debian …)`
fn parse_version(said: &str) -> Option<Version> {
    let number = said.lines().next()?.strip_prefix("QEMU emulator version ")?;
    let mut parts = number.split(['.', ' ']);
    let mut next = || parts.next()?.parse().ok();
    Some(Version { major: next()?, minor: next()? })
}

/// Fetches QEMU from the backports of this machine's Debian. Apt's own lists and sources stay as
/// they are.
fn fetch(places: &Places, installed: &Qemu) -> Result<Qemu> {
    say(format_args!(
        "setup: fetching QEMU from Debian's backports (about 13 MB; nothing is installed): with \
         the installed one, {}, a machine of several CPUs crashes",
        installed.version
    ));
    let mut targets = program::command("apt-get");
    targets.args(["indextargets", "--format", "$(REPO_URI) $(CODENAME) $(COMPONENT) $(ORIGIN)"]);
    let targets = program::output(targets.arg("Created-By: Packages"))?;
    let release = fs::read_to_string("/etc/os-release").context("cannot read /etc/os-release")?;
    let codename = codename(&release).context("/etc/os-release has no VERSION_CODENAME")?;
    let repository = repository(&targets, codename)
        .with_context(|| format!("apt knows no source of Debian {codename}"))?;
    let work =
        tempfile::tempdir_in(&places.cache).context("cannot create a temporary directory")?;
    let apt = Apt { dir: work.path() };
    let suite = format!("{codename}-backports");
    apt.prepare(&format!("deb [signed-by={KEYRING}] {repository} {suite} main\n"))?;
    program::output(&mut apt.get("update"))?;
    let mut download = apt.get("download");
    download.args(PACKAGES.map(|package| format!("{package}/{suite}")));
    program::output(download.current_dir(work.path()))?;
    let tree = work.path().join("tree");
    for package in packages_in(work.path())? {
        program::output(program::command("dpkg-deb").arg("-x").arg(&package).arg(&tree))?;
    }
    Qemu::unpacked(&tree).context("QEMU from backports does not run here")?;
    let dir = unpacked_dir(places);
    // One that was there did not run.
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(places.cache.join("tools")).context("cannot create the tools' directory")?;
    fs::rename(&tree, &dir).with_context(|| format!("cannot fill {}", dir.display()))?;
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
        fs::write(self.dir.join("sources.list"), source).context("cannot write a source for apt")
    }

    fn get(&self, operation: &str) -> Command {
        let mut apt = program::command("apt-get");
        apt.args([operation, "-q"]);
        for (option, place) in [
            ("Dir::Etc::SourceList", "sources.list"),
            ("Dir::Etc::SourceParts", "none"),
            ("Dir::State::Lists", "lists"),
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
    if packages.len() != PACKAGES.len() {
        bail!("apt-get left {} packages of {}", packages.len(), PACKAGES.len());
    }
    Ok(packages)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(major: u32, minor: u32) -> Qemu {
        let version = Version { major, minor };
        Qemu { program: PROGRAM.into(), firmware: Vec::new(), version }
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
        assert_eq!(at(8, 1).cpus(4), 4);
        assert_eq!(at(10, 0).cpus(2), 2);
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
