//! Which Firecracker a binary is, and what is known to be wrong with that version.
//! It decides nothing: the caller shows the concerns.

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::fmt;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The oldest version that Hearth works with.
pub const VERSION_MIN: Version = Version { major: 1, minor: 12, patch: 0 };

/// Bytes of `--version`'s answer that are read; the real one has about 120.
const ANSWER_BYTES_MAX: u64 = 4096;

/// A version of Firecracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// Major.
    pub major: u16,
    /// Minor.
    pub minor: u16,
    /// Patch.
    pub patch: u16,
}

/// Something an operator should know about a version that nevertheless works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concern {
    /// Its maintainers no longer fix it.
    OutOfSupport {
        /// Since when, year and month.
        since: &'static str,
    },
    /// It has a known vulnerability.
    Vulnerable {
        /// Its CVE number.
        cve: &'static str,
        /// Which program of the release has it.
        program: &'static str,
    },
}

/// Why a binary is not usable.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It could not be run.
    #[error("cannot run {}", path.display())]
    Run {
        /// The binary.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It did not answer in time.
    #[error("{} did not say its version within {after:?}", path.display())]
    Deadline {
        /// The binary.
        path: PathBuf,
        /// How long it was given.
        after: Duration,
    },
    /// It said something else than Firecracker does.
    #[error("{} is not Firecracker: asked for its version it says {said:?}", path.display())]
    NotFirecracker {
        /// The binary.
        path: PathBuf,
        /// The beginning of what it said.
        said: String,
    },
    /// It is too old.
    #[error("{} is Firecracker {version}; Hearth needs {VERSION_MIN} or newer", path.display())]
    TooOld {
        /// The binary.
        path: PathBuf,
        /// What it is.
        version: Version,
    },
}

impl Version {
    /// Runs `<path> --version` and reads the answer. Blocks for at most `deadline`.
    ///
    /// # Errors
    /// [`ProbeError`], also for a version below [`VERSION_MIN`].
    pub fn probe(path: &Path, deadline: Duration) -> Result<Version, ProbeError> {
        let owned = || path.to_owned();
        let said = answer(path, deadline)
            .map_err(|source| ProbeError::Run { path: owned(), source })?
            .ok_or_else(|| ProbeError::Deadline { path: owned(), after: deadline })?;
        let Some(version) = Version::parse(&said) else {
            let said = said.lines().next().unwrap_or("").chars().take(80).collect();
            return Err(ProbeError::NotFirecracker { path: owned(), said });
        };
        if version < VERSION_MIN {
            return Err(ProbeError::TooOld { path: owned(), version });
        }
        Ok(version)
    }

    /// Reads `Firecracker v1.12.1`, also with a suffix such as `-dev`, anywhere in a text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Version> {
        let rest = text.split_once("Firecracker v")?.1;
        let number = rest.split(|c: char| !c.is_ascii_digit() && c != '.').next()?;
        let mut parts = number.split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(Version { major: next()?, minor: next()?, patch: next()? })
    }

    /// What is known to be wrong with this version.
    #[must_use]
    pub fn concerns(self) -> Vec<Concern> {
        let mut concerns = Vec::new();
        if (self.major, self.minor) <= (1, 12) {
            concerns.push(Concern::OutOfSupport { since: "2025-12" });
        }
        let fixed_in_113 = Version { major: 1, minor: 13, patch: 2 };
        let affected_114 = Version { major: 1, minor: 14, patch: 0 };
        if self < fixed_in_113 || self == affected_114 {
            concerns.push(Concern::Vulnerable { cve: "CVE-2026-1386", program: "jailer" });
        }
        concerns
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl fmt::Display for Concern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Concern::OutOfSupport { since } => write!(f, "out of support since {since}"),
            Concern::Vulnerable { cve, program } => write!(f, "its {program} has {cve}"),
        }
    }
}

/// What the program says, or `None` when it outlives the deadline (it is ended then).
fn answer(path: &Path, deadline: Duration) -> io::Result<Option<String>> {
    let mut child = Command::new(path)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let timeout = Timespec::try_from(deadline).map_err(io::Error::other)?;
    let mut fds = [PollFd::new(&pidfd, PollFlags::IN)];
    let ended = loop {
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other? > 0,
        }
    };
    if !ended {
        child.kill()?;
    }
    child.wait()?;
    let mut said = Vec::new();
    if let Some(stdout) = child.stdout.take().filter(|_| ended) {
        // The writer has ended, but a grandchild may hold the pipe: take only what is there.
        rustix::io::ioctl_fionbio(&stdout, true)?;
        match stdout.take(ANSWER_BYTES_MAX).read_to_end(&mut said) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
    }
    Ok(ended.then(|| String::from_utf8_lossy(&said).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        (dir, path)
    }

    #[test]
    fn versions_are_read_from_what_firecracker_says() {
        let v = |text| Version::parse(text).map(|version| version.to_string());
        assert_eq!(v("Firecracker v1.12.1\n\n2026 exiting").as_deref(), Some("1.12.1"));
        assert_eq!(v("Firecracker v1.17.0-dev").as_deref(), Some("1.17.0"));
        assert_eq!(v("Jailer v1.12.1"), None);
        assert_eq!(v("Firecracker v1.x"), None);
    }

    #[test]
    fn a_version_out_of_support_says_so() {
        let said = |version: Version| {
            version.concerns().iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let v = |major, minor, patch| Version { major, minor, patch };
        assert_eq!(
            said(v(1, 12, 1)),
            ["out of support since 2025-12", "its jailer has CVE-2026-1386"]
        );
        assert_eq!(said(v(1, 14, 0)), ["its jailer has CVE-2026-1386"]);
        assert!(said(v(1, 14, 1)).is_empty());
    }

    #[test]
    fn what_is_not_firecracker_is_named() {
        let (_dir, path) = script("#!/bin/sh\necho hello; echo more\n");
        let error = Version::probe(&path, Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.ends_with("is not Firecracker: asked for its version it says \"hello\""));
    }

    #[test]
    fn old_firecracker_is_refused_with_the_required_version() {
        let (_dir, path) = script("#!/bin/sh\necho Firecracker v1.7.0\n");
        let error = Version::probe(&path, Duration::from_secs(10)).unwrap_err().to_string();
        assert!(error.ends_with("is Firecracker 1.7.0; Hearth needs 1.12.0 or newer"), "{error}");
    }

    #[test]
    fn a_program_that_never_answers_is_ended_at_the_deadline() {
        let (_dir, path) = script("#!/bin/sh\nexec sleep 1000\n");
        let error = Version::probe(&path, Duration::from_millis(50)).unwrap_err();
        assert!(matches!(error, ProbeError::Deadline { .. }), "{error}");
    }
}
