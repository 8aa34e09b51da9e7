//! `hearth doctor`: compares a state directory with its database and with what runs, says what is
//! wrong, and repairs what can be repaired without ending or losing anything.

use crate::backup::DATABASE;
use crate::ownership::{self, Flaw};
use crate::state_dir::{self, StateDir, in_use};
use crate::{Config, DaemonError, HostChoice, Listen, admission};
use hearth_host::linux::peer::{self, PeerError};
use hearth_host::linux::{self, LinuxConfig, StateItem, What};
use hearth_model::{InstanceId, KeepImages, Owner};
use hearth_planner::images_to_remove;
use hearth_store::Contents;
use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};

/// With less than this on its disk a state directory is full soon.
const FREE_MIB_MIN: u64 = 256;

/// What is the matter with one thing, or that nothing is.
#[derive(Debug)]
pub struct Finding {
    /// What it is about, in a word.
    pub about: &'static str,
    /// How it stands.
    pub verdict: Verdict,
    /// A sentence, with the remedy if it is the user's to apply.
    pub sentence: String,
    repair: Option<Repair>,
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Good,
    /// Something is left over or unusual; nothing is lost by it.
    Warn,
    /// Something does not work.
    Bad,
}

#[derive(Debug)]
enum Repair {
    Remove(StateItem),
    Close(Flaw),
}

impl Finding {
    fn new(about: &'static str, verdict: Verdict, sentence: impl Into<String>) -> Finding {
        Finding { about, verdict, sentence: sentence.into(), repair: None }
    }

    fn with(self, repair: Repair) -> Finding {
        Finding { repair: Some(repair), ..self }
    }

    /// What [`repair`] would do about it.
    #[must_use]
    pub fn repair(&self) -> Option<String> {
        self.repair.as_ref().map(|repair| match repair {
            Repair::Remove(found) => format!("remove {}", found.path.display()),
            Repair::Close(flaw) => format!("close {} to others", flaw.path.display()),
        })
    }
}

/// Looks at everything, and changes nothing. Needs a Tokio runtime.
///
/// # Errors
/// Where the state directory can't be looked at.
pub fn examine(config: &Config) -> Result<Vec<Finding>, DaemonError> {
    let dir = std::path::absolute(&config.state_dir)
        .map_err(|source| DaemonError::System { operation: "find the state directory", source })?;
    let mut findings = vec![machine(config), callers(config)];
    if !dir.is_dir() {
        let sentence = format!("{} does not exist yet; hearth serve creates it", dir.display());
        findings.push(Finding::new("state", Verdict::Warn, sentence));
        return Ok(findings);
    }
    let (flaws, unsafe_to_read) = ownership(&dir)?;
    findings.extend(flaws);
    findings.push(disk(&dir)?);
    if unsafe_to_read {
        // Nothing is opened that somebody may have planted.
        return Ok(findings);
    }
    let daemon = in_use(&dir)?;
    findings.push(Finding::new(
        "daemon",
        Verdict::Good,
        match daemon {
            Some(0) => "it runs".to_owned(),
            Some(pid) => format!("it runs as process {pid}"),
            None => "it does not run; microVMs do without".to_owned(),
        },
    ));
    findings.extend(scratch(&dir)?);
    // An instance is in the database before anything of it is made, so that it is looked at last.
    let found = linux::survey(&dir).map_err(|source| DaemonError::Host { source })?;
    let (contents, finding) = database(&dir.join(DATABASE));
    findings.push(finding);
    if let Some(contents) = contents {
        let known = Known::of(&contents, &found, daemon.is_some());
        let left_over = found.iter().filter(|found| found.path.exists());
        findings.extend(left_over.filter_map(|found| known.left(found)));
    }
    Ok(findings)
}

/// Does what the findings say that can be done. No daemon may use the state directory. Returns a
/// sentence for each that could not be done.
///
/// # Errors
/// Where a daemon runs.
pub fn repair(config: &Config, findings: &[Finding]) -> Result<Vec<String>, DaemonError> {
    let _lock = StateDir::open(&config.state_dir)?;
    let done =
        findings.iter().filter_map(|finding| finding.repair.as_ref()).map(|repair| match repair {
            Repair::Remove(found) => found.remove().map_err(|error| error.sentence()),
            Repair::Close(flaw) => state_dir::close(flaw).map_err(|error| {
                format!("cannot close {} to others: {error}", flaw.path.display())
            }),
        });
    Ok(done.filter_map(Result::err).collect())
}

fn machine(config: &Config) -> Finding {
    let HostChoice::Linux { firecracker, jail_users } = &config.host else {
        return Finding::new("host", Verdict::Warn, "it is simulated: nothing really runs");
    };
    let facts = linux::facts(&LinuxConfig {
        state_dir: config.state_dir.clone(),
        images_dir: PathBuf::new(),
        runtime_dir: None,
        firecracker: firecracker.clone().unwrap_or_else(|| "firecracker".into()),
        image_bytes_max: 0,
        jail_users: *jail_users,
        time_factor: None,
    });
    match facts {
        Err(error) => Finding::new("host", Verdict::Bad, error.sentence()),
        Ok(facts) if facts.warnings.is_empty() => {
            Finding::new("host", Verdict::Good, facts.description)
        }
        Ok(facts) => {
            let sentence = format!("{}: {}", facts.description, facts.warnings.join("; "));
            Finding::new("host", Verdict::Warn, sentence)
        }
    }
}

/// Who may use the daemon, and whether the kernel tells who calls.
fn callers(config: &Config) -> Finding {
    let said = |verdict, sentence| Finding::new("callers", verdict, sentence);
    if let Listen::Tcp(address) = &config.listen {
        if config.callers.open_loopback {
            let sentence = "every local user commands the daemon: open_loopback is set";
            return said(Verdict::Warn, sentence.to_owned());
        }
        // The daemon has its port.
        let probed = TcpListener::bind((address.ip(), 0)).map_err(PeerError::from);
        if let Err(error) = probed.and_then(peer::probe_tcp) {
            let sentence = format!("{}; {}", admission::closed(&error), admission::UNIX_SOCKET);
            return said(Verdict::Bad, sentence);
        }
    }
    let group = &config.callers.group;
    let members = match (group.as_str(), admission::gid_of(group)) {
        ("", _) => String::new(),
        (_, Ok(Some(_))) => format!(" and the members of the group {group}"),
        (_, Ok(None)) => format!("; the group {group} does not exist"),
        (_, Err(errno)) => {
            let sentence = format!("cannot read the user database: {errno}");
            return said(Verdict::Bad, sentence);
        }
    };
    said(Verdict::Good, format!("the daemon admits root, its own user{members}"))
}

/// Who can write in the state directory, and whether Hearth refuses it for that.
fn ownership(dir: &Path) -> Result<(Vec<Finding>, bool), DaemonError> {
    let system = |source| DaemonError::System { operation: "look at the state directory", source };
    let opened = ownership::open_directory(dir).map_err(system)?;
    let flaws = ownership::survey(&opened, dir).map_err(system)?;
    let refused = flaws.iter().any(Flaw::refuses);
    let finding = |flaw: Flaw| match flaw.refuses() {
        true => {
            let sentence = format!("{}; Hearth does not use it: {}", flaw.problem(), flaw.remedy());
            Finding::new("state", Verdict::Bad, sentence)
        }
        false => Finding::new("state", Verdict::Bad, flaw.problem()).with(Repair::Close(flaw)),
    };
    let replaceable = ownership::replaceable(dir).into_iter().map(|sentence| {
        let sentence = format!("{sentence}; keep it where only you and root can write");
        Finding::new("state", Verdict::Warn, sentence)
    });
    Ok((flaws.into_iter().map(finding).chain(replaceable).collect(), refused))
}

fn disk(dir: &Path) -> Result<Finding, DaemonError> {
    let disk = rustix::fs::statvfs(dir).map_err(|errno| DaemonError::System {
        operation: "look at the disk of the state directory",
        source: errno.into(),
    })?;
    let free_mib = disk.f_bavail * disk.f_frsize / (1024 * 1024);
    let verdict = if free_mib < FREE_MIB_MIN { Verdict::Bad } else { Verdict::Good };
    let sentence = format!("{}: {free_mib} MiB of its disk are free", dir.display());
    Ok(Finding::new("state", verdict, sentence))
}

/// Whether the scratch disks may come to take more than there is.
fn scratch(dir: &Path) -> Result<Option<Finding>, DaemonError> {
    let scratch = linux::scratch(dir)
        .map_err(|source| DaemonError::System { operation: "measure the scratch disks", source })?;
    Ok((scratch.promised_mib > scratch.room_mib).then(|| {
        let sentence = format!(
            "the scratch disks may come to take {} MiB, and the disk has {} MiB for them: free some, \
             lower disk_mb, or set disk_overcommit to refuse",
            scratch.promised_mib, scratch.room_mib
        );
        Finding::new("state", Verdict::Warn, sentence)
    }))
}

fn database(path: &Path) -> (Option<Contents>, Finding) {
    let saved = hearth_store::saved(path);
    if saved.exists() {
        let sentence = format!(
            "it was lost beneath the daemon, and {} is what it held: a daemon that is started continues \
             with that",
            saved.display()
        );
        return (None, Finding::new("database", Verdict::Bad, sentence));
    }
    if !path.exists() {
        let sentence = "there is none; what runs is taken over by the jobs that are declared";
        return (None, Finding::new("database", Verdict::Warn, sentence));
    }
    match hearth_store::inspect(path) {
        Ok(contents) => {
            let (jobs, instances) = (contents.jobs, contents.instances.len());
            let sentence = format!("whole, with {jobs} jobs and {instances} instances");
            (Some(contents), Finding::new("database", Verdict::Good, sentence))
        }
        Err(error) => {
            let mut sentence = error.to_string();
            let mut cause = std::error::Error::source(&error);
            while let Some(error) = cause {
                sentence = format!("{sentence}: {error}");
                cause = error.source();
            }
            sentence += "; without a backup move it away, then what runs is taken over by the jobs \
                         that are declared again";
            (None, Finding::new("database", Verdict::Bad, sentence))
        }
    }
}

/// What says whether something is left over.
struct Known<'a> {
    contents: &'a Contents,
    /// Instances of which there is something beside their logs.
    there: BTreeSet<&'a InstanceId>,
    /// While a daemon runs it makes and removes things, and clears away what an earlier one left.
    daemon_runs: bool,
}

impl<'a> Known<'a> {
    fn of(contents: &'a Contents, found: &'a [StateItem], daemon_runs: bool) -> Known<'a> {
        let id = |found: &'a StateItem| match &found.what {
            What::Instance { id, .. } => Some(id),
            _ => None,
        };
        Known { contents, there: found.iter().filter_map(id).collect(), daemon_runs }
    }

    fn names(&self, id: &InstanceId) -> bool {
        self.contents.instances.contains(id)
    }

    /// What there is to say of something that was found, if anything.
    fn left(&self, found: &StateItem) -> Option<Finding> {
        let warn = |sentence| Finding::new("leftover", Verdict::Warn, sentence);
        let bad = |sentence| Finding::new("leftover", Verdict::Bad, sentence);
        let removable = |sentence| warn(sentence).with(Repair::Remove(found.clone()));
        Some(match &found.what {
            What::Instance { id, .. } if self.names(id) => return None,
            What::Instance { id, owner, process: Some(pid) } => warn(format!(
                "instance {id} {}runs as process {pid} and is not in the database: a job that is \
                 declared with its spec takes it over; kill -9 {pid} ends it",
                of(owner.as_ref())
            )),
            What::Instance { id, owner, process: None } => removable(format!(
                "instance {id} {}has ended and is not in the database",
                of(owner.as_ref())
            )),
            What::Remains if self.daemon_runs => return None,
            What::Remains => removable(format!(
                "{} is what a creation or removal left that was cut off",
                found.path.display()
            )),
            What::Unknown(why) => {
                bad(format!("{} is left alone, since it may run: {why}", found.path.display()))
            }
            What::Process(pid) => bad(format!(
                "process {pid} works in a directory that was removed, so that it can't be reached: \
                 kill -9 {pid} ends it"
            )),
            What::Log(id) => {
                if self.names(id) || self.contents.logs.contains(id) || self.there.contains(id) {
                    return None;
                }
                removable(format!("the log of instance {id}, which is not in the database"))
            }
            What::Image(image) => {
                // One may be there before the job is that names it.
                let (images, keep) = (std::slice::from_ref(image), KeepImages::NONE);
                let goes = !images_to_remove(images, &self.contents.images, keep).is_empty();
                let digest = image.digest.filter(|_| goes && !self.daemon_runs)?;
                let (short, mib) = (&digest.to_string()[..16], image.bytes.div_ceil(1024 * 1024));
                removable(format!("image {short} of {mib} MiB, which no job names"))
            }
        })
    }
}

fn of(owner: Option<&Owner>) -> String {
    match owner {
        Some(Owner::Job(identity)) => {
            format!("of job {}, generation {}, ", identity.job_id, identity.generation)
        }
        Some(Owner::Pool(_)) => "of a pool ".to_owned(),
        None => String::new(),
    }
}
