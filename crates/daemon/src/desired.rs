//! The desired-state file: where it is, when it is read, and what becomes of it. A file that
//! cannot be read or has problems changes nothing: the last good state goes on.

use crate::core::Intake;
use crate::stop::Stop;
use crate::{MassDeletion, executor, limits};
use hearth_engine::{Deletions, FileEntry, FileLoad, FileReport, Reply, Request};
use hearth_host::Host;
use hearth_manifest::Diagnostics;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Where the file is looked for when nobody names one.
pub const DEFAULT_DESIRED: &str = "config/desired_vms.exs";

/// Which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredPath {
    /// Somebody named it, so it is an error when it is missing.
    Named(PathBuf),
    /// [`DEFAULT_DESIRED`], which need not be there.
    Default,
}

/// What is known of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DesiredState {
    /// Whether it was looked at.
    pub(crate) read: bool,
    /// What is wrong with it; a sentence.
    pub(crate) trouble: Option<String>,
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
    modified: Option<SystemTime>,
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot read {path}: {source}; the last good state goes on")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has {problems}; nothing of it is applied, the last good state goes on")]
    Problems { path: PathBuf, problems: String },
    #[error("cannot apply {path}: {cause}")]
    Apply { path: PathBuf, cause: String },
}

/// Keeps the desired state as the file has it, until `stop` turns true.
pub(crate) async fn run(
    desired: DesiredPath,
    deletions: MassDeletion,
    host: Arc<dyn Host>,
    intake: Intake,
    state: watch::Sender<DesiredState>,
    mut stop: Stop,
) {
    let (path, named) = match desired {
        DesiredPath::Named(path) => (path, true),
        DesiredPath::Default => (PathBuf::from(DEFAULT_DESIRED), false),
    };
    let path = std::path::absolute(&path).unwrap_or(path);
    let mut watched = Watched { path, named, deletions, host, intake, state, last: None };
    loop {
        watched.look().await;
        tokio::select! {
            // Both arms are cancel safe.
            biased;
            () = stop.asked() => return,
            () = sleep(limits::DESIRED_EVERY) => {}
        }
    }
}

struct Watched {
    path: PathBuf,
    named: bool,
    deletions: MassDeletion,
    host: Arc<dyn Host>,
    intake: Intake,
    state: watch::Sender<DesiredState>,
    last: Option<Look>,
}

/// What the last look at the file came to.
struct Look {
    stamp: Option<Stamp>,
    at: Instant,
    /// Whether deletions, or the whole load, are still to come.
    unfinished: bool,
}

impl Watched {
    async fn look(&mut self) {
        let stamp = match stamp(&self.path).await {
            Ok(stamp) => Some(stamp),
            Err(source) => {
                let absent = source.kind() == io::ErrorKind::NotFound && !self.named;
                if self.last.as_ref().is_none_or(|last| last.stamp.is_some()) {
                    let path = self.path.clone();
                    match absent && self.last.is_none() {
                        true => {
                            tracing::info!(path = %path.display(), "there is no desired-state file")
                        }
                        false => self.report(Some(&LoadError::Read { path, source })),
                    }
                }
                None
            }
        };
        let same = self.last.as_ref().is_some_and(|last| last.stamp == stamp);
        let (at, unfinished) = match &self.last {
            Some(last) if same => (last.at, last.unfinished),
            _ => (Instant::now(), stamp.is_some()),
        };
        self.last = Some(Look { at, unfinished, stamp });
        if let Some(Look { stamp: Some(stamp), at, unfinished: true }) = &self.last {
            let quiet = at.elapsed() >= limits::DESIRED_QUIET || old(stamp);
            if quiet || !same {
                let settled = self.load(quiet).await;
                if let Some(last) = &mut self.last {
                    last.unfinished = !settled;
                }
            }
        }
        self.state.send_if_modified(|state| !std::mem::replace(&mut state.read, true));
    }

    /// Reads and applies the file. Returns whether there is nothing left to do before it changes.
    async fn load(&self, quiet: bool) -> bool {
        let deletions = match (quiet, self.deletions) {
            (false, _) => Deletions::Wait,
            (true, MassDeletion::Held) => Deletions::Few,
            (true, MassDeletion::Allowed) => Deletions::All,
        };
        match self.apply(deletions).await {
            Ok(report) => {
                self.tell(&report, deletions);
                let held = report.held.len();
                let trouble = (quiet && held > 0).then(|| {
                    format!(
                        "{} would delete {held} jobs, more than half of its own; they are kept \
                         until the daemon runs with --allow-delete",
                        self.path.display()
                    )
                });
                self.state.send_modify(|state| state.trouble = trouble);
                quiet || held == 0
            }
            Err(error) => {
                let again = matches!(error, LoadError::Apply { .. });
                self.report(Some(&error));
                !again
            }
        }
    }

    async fn apply(&self, deletions: Deletions) -> Result<FileReport, LoadError> {
        let path = &self.path;
        let bytes = tokio::fs::read(path)
            .await
            .map_err(|source| LoadError::Read { path: path.clone(), source })?;
        let label = path.display().to_string();
        let file = hearth_manifest::parse(&label, &bytes).map_err(|diagnostics| {
            tell_problems(&diagnostics);
            LoadError::Problems { path: path.clone(), problems: summary(&diagnostics) }
        })?;
        let mut entries = Vec::with_capacity(file.jobs.len());
        for declared in file.jobs {
            let resolution = executor::resolve(&*self.host, &declared.spec).await;
            entries.push(FileEntry {
                job: declared.job_id,
                tenant: declared.tenant,
                spec: Arc::new(declared.spec),
                resolution,
            });
        }
        let load = FileLoad { path: path.clone(), entries, deletions };
        let failed = |cause: String| LoadError::Apply { path: path.clone(), cause };
        match self.intake.ask(Request::ApplyFile(load)).await {
            Ok(Reply::Applied(report)) => Ok(report),
            Ok(_) => Err(failed("the engine answered something else".to_owned())),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    fn report(&self, error: Option<&LoadError>) {
        if let Some(error) = error {
            tracing::error!(cause = %error, "cannot load the desired-state file");
        }
        self.state.send_modify(|state| state.trouble = error.map(ToString::to_string));
    }

    fn tell(&self, report: &FileReport, deletions: Deletions) {
        let path = self.path.display();
        let count = |jobs: &[hearth_model::JobId]| jobs.len();
        let FileReport { applied, deleted, held, refused, unchanged } = report;
        let (applied, deleted) = (count(applied), count(deleted));
        tracing::info!(%path, applied, deleted, unchanged, "the desired-state file is loaded");
        for (job, reason) in refused {
            tracing::warn!(%path, %job, reason, "an entry of the desired-state file is refused");
        }
        if !held.is_empty() && deletions == Deletions::Few {
            let jobs: Vec<&str> = held.iter().map(hearth_model::JobId::as_str).collect();
            tracing::warn!(
                %path, jobs = jobs.join(", "),
                "the file would delete more than half of its jobs; they are kept, --allow-delete lets them go"
            );
        }
    }
}

fn tell_problems(diagnostics: &Diagnostics) {
    for problem in diagnostics.iter() {
        let (line, column) = (problem.line, problem.column);
        let help = problem.help.as_deref();
        let path = diagnostics.label();
        tracing::error!(path, line, column, help, "{}", problem.message);
    }
}

fn summary(diagnostics: &Diagnostics) -> String {
    let first = diagnostics.iter().next().map(|problem| {
        format!("line {}, column {}: {}", problem.line, problem.column, problem.message)
    });
    let first = first.unwrap_or_default();
    match diagnostics.count() {
        1 => format!("a problem ({first})"),
        count => format!("{count} problems (the first: {first})"),
    }
}

fn old(stamp: &Stamp) -> bool {
    let age = stamp.modified.and_then(|modified| modified.elapsed().ok());
    age.is_some_and(|age| age >= limits::DESIRED_QUIET)
}

async fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = tokio::fs::metadata(path).await?;
    if metadata.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(Stamp {
        inode: metadata.ino(),
        bytes: metadata.len(),
        changed: (metadata.mtime(), metadata.mtime_nsec()),
        modified: metadata.modified().ok(),
    })
}
