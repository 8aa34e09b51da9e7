//! Debian packages: those that are missing get installed, with a word on what for.

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::program;
use crate::terminal::say;

/// A program that is needed, the package that brings it, and what for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Need {
    present: Present,
    package: &'static str,
    purpose: &'static str,
}

#[derive(Debug, Clone, Copy)]
enum Present {
    /// The program is on the search path.
    Program(&'static str),
    /// The package itself is installed: another one brings a program of the same name.
    Package,
}

const fn program(program: &'static str, package: &'static str, purpose: &'static str) -> Need {
    Need { present: Present::Program(program), package, purpose }
}

/// What building the guests' files takes.
pub(crate) const IMAGES: &[Need] = &[
    program("gcc", "gcc", "links the bare guest and Rust's programs"),
    Need { present: Present::Package, package: "libc6-dev", purpose: "static programs for guests" },
    Need { present: Present::Package, package: "busybox-static", purpose: "a shell in guests" },
    program("mke2fs", "e2fsprogs", "builds root filesystems without root"),
    program("depmod", "kmod", "orders the kernel's modules"),
    program("dpkg-deb", "dpkg", "unpacks the kernel's package"),
    program("cpio", "cpio", "checks the archives that Hearth writes"),
    program("curl", "curl", "talks to the daemon"),
];

/// What the lab takes beyond that.
pub(crate) const LAB: &[Need] = &[
    program("dropbear", "dropbear-bin", "takes commands in the lab (no service is started)"),
    program("ssh", "openssh-client", "sends commands to the lab"),
    program("setsid", "util-linux", "lets the lab outlive its terminal"),
    program("ip", "iproute2", "sets the lab's network up"),
];

/// What emulates the lab's machine where a newer QEMU can't be had.
pub(crate) const QEMU: &[Need] =
    &[program("qemu-system-x86_64", "qemu-system-x86", "emulates the lab's machine")];

/// What measuring takes.
pub(crate) const BENCH: &[Need] = &[program("wrk", "wrk", "sends many requests at once")];

/// What tests take that let system calls fail or kill at them.
pub(crate) const SYSTEM: &[Need] = &[
    program("strace", "strace", "records, fails and kills at system calls, in tests"),
    program("unshare", "util-linux", "gives tests namespaces of their own"),
    program("prlimit", "util-linux", "gives tests bounds of their own"),
    program("systemctl", "systemd", "runs the unit, in a test"),
    program("ip", "iproute2", "sets the network of tests up"),
];

/// What comparing our reading of `.exs` files with Elixir's takes.
pub(crate) const ELIXIR: &[Need] =
    &[program("elixir", "elixir", "says what it makes of desired-state files, in tests")];

/// What building the fuzz targets takes.
pub(crate) const FUZZ: &[Need] = &[program("g++", "g++", "compiles the fuzzer's engine")];

/// What downloading wheels takes.
pub(crate) const PIP: &[Need] = &[
    program("python3", "python3", "unpacks wheels"),
    Need { present: Present::Package, package: "python3-pip", purpose: "downloads wheels" },
];

/// Installs what is missing of `needs`; asks nothing, and does nothing when all is there.
pub(crate) fn ensure(needs: &[Need]) -> Result<()> {
    let missing: Vec<_> = needs.iter().filter(|need| !need.is_present()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    for need in &missing {
        say(format_args!("setup: installing {} ({})", need.package, need.purpose));
    }
    let packages: Vec<_> = missing.iter().map(|need| need.package).collect();
    let known = packages.iter().all(|package| has_candidate(package));
    if !known {
        update()?;
    }
    if install(&packages).is_err() {
        // Lists that are older than the mirror name files that are gone.
        update()?;
        install(&packages).with_context(|| format!("cannot install {}", packages.join(" ")))?;
    }
    let still: Vec<_> = missing.iter().filter(|need| !need.is_present()).collect();
    if let Some(need) = still.first() {
        bail!("{} is installed and still missing ({})", need.package, need.purpose);
    }
    Ok(())
}

/// Whether apt knows a version of `package` that it could fetch.
pub(crate) fn has_candidate(package: &str) -> bool {
    let policy = program::output(program::command("apt-cache").args(["policy", package]));
    policy
        .is_ok_and(|policy| policy.contains("Candidate: ") && !policy.contains("Candidate: (none)"))
}

/// Fetches apt's lists again.
pub(crate) fn update() -> Result<()> {
    say("setup: fetching apt's lists");
    program::output(as_root("apt-get")?.args(["update", "-q"])).map(drop)
}

fn install(packages: &[&str]) -> Result<()> {
    let mut apt = as_root("apt-get")?;
    apt.args(["install", "-y", "-q", "--no-install-recommends"]).args(packages);
    program::output(apt.env("DEBIAN_FRONTEND", "noninteractive").env("LC_ALL", "C")).map(drop)
}

/// `program` with root's rights: as it is for root, by sudo for others.
fn as_root(program: &str) -> Result<Command> {
    if rustix::process::getuid().is_root() {
        return Ok(program::command(program));
    }
    if program::find("sudo").is_none() {
        bail!("{program} needs root, and there is no sudo: run it as root, then try again");
    }
    let mut command = program::command("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND,LC_ALL", program]);
    Ok(command)
}

impl Need {
    fn is_present(&self) -> bool {
        match self.present {
            Present::Program(program) => program::find(program).is_some(),
            Present::Package => {
                let query = ["-W", "-f=${db:Status-Status}", self.package];
                program::output(program::command("dpkg-query").args(query))
                    .is_ok_and(|status| status == "installed")
            }
        }
    }
}
