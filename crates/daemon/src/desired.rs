//! The desired-state file: where it is, when it is read, and what becomes of it. A file that
//! cannot be read or has problems changes nothing: the last good state stays in effect.
//!
//! ```text
//!   watch (a hint) --.                      .-- same content: nothing
//!   poll, each 1 s --+--> look at the stamp +-- problems: failed, the last good state stays
//!                                           '-- parsed: apply; deletions after 2 s of quiet
//! ```

mod watch;

use crate::convert::declared::{self, DeclaredJob};
use crate::core::EngineHandle;
use crate::source::source_of;
use crate::stop::Stop;
use crate::{MassDeletion, clock, limits};
use hearth_api::{DesiredFile, DesiredFileStatus, RefusedEntry};
use hearth_desired_file::{Declared, Diagnostics};
use hearth_engine::{
    ApplyFile, Deletions, DiffBase, EntryDigest, FileLoad, Incident, LoadPlan, Preconditions,
};
use hearth_host::Host;
use hearth_model::{Caller, JobId};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::sync::watch::Sender;
use tokio::task::{block_in_place, spawn_blocking};
use tokio::time::{Instant, sleep, timeout};

use watch::FileWatch;

/// Where the file is looked for if none is named.
pub const DEFAULT_DESIRED: &str = "config/desired_vms.exs";

/// Which file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DesiredPath {
    /// Somebody named it, so it is an error when it is missing.
    Named(PathBuf),
    /// [`DEFAULT_DESIRED`], which need not be there.
    Default,
}

impl DesiredPath {
    fn path(&self) -> &Path {
        match self {
            DesiredPath::Named(path) => path,
            DesiredPath::Default => Path::new(DEFAULT_DESIRED),
        }
    }
}

/// Brings the news that somebody applied the watched file: what was held may be settled by it.
#[derive(Debug)]
pub(crate) struct WatchedSource {
    source: PathBuf,
    applied: Notify,
}

impl WatchedSource {
    pub(crate) fn new(desired: &DesiredPath) -> WatchedSource {
        WatchedSource { source: source_of(desired.path()), applied: Notify::new() }
    }

    /// What a source declares was applied.
    pub(crate) fn applied(&self, source: &Path) {
        if self.source == source {
            self.applied.notify_one();
        }
    }
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("cannot read {path}: {source}; the last good state stays in effect")]
    Read { path: PathBuf, source: io::Error },
    #[error("{path} has {problems}; none of it is applied, the last good state stays in effect")]
    Problems { path: PathBuf, problems: String },
    #[error("cannot apply {path}: {cause}")]
    Apply { path: PathBuf, cause: String },
}

impl LoadError {
    fn help(&self) -> Option<String> {
        match self {
            LoadError::Read { path, .. } => {
                Some(format!("put a file that can be read at {}", path.display()))
            }
            LoadError::Problems { path, .. } => {
                Some(format!("hearth validate {} shows every problem", path.display()))
            }
            LoadError::Apply { .. } => None,
        }
    }
}

/// Keeps the desired state as the file has it, until `stop` turns true.
pub(crate) async fn run(
    desired: DesiredPath,
    deletions: MassDeletion,
    host: Arc<dyn Host>,
    engine: EngineHandle,
    state: Sender<Option<DesiredFile>>,
    source: Arc<WatchedSource>,
    mut stop: Stop,
) {
    let named = matches!(desired, DesiredPath::Named(_));
    let path = std::path::absolute(desired.path()).unwrap_or_else(|_| desired.path().to_owned());
    let mut hints = FileWatch::new(&path);
    let mut watched = Watched { path, named, deletions, host, engine, state, last: None };
    loop {
        // Before the look, so that no change falls between the two.
        block_in_place(|| hints.follow());
        tokio::select! {
            biased;
            // Given up half way it leaves what a killed daemon leaves.
            () = stop.asked() => return,
            () = watched.look() => {}
        }
        tokio::select! {
            // Every arm is cancel safe.
            biased;
            () = stop.asked() => return,
            () = hints.changed() => {}
            () = source.applied.notified() => watched.unsettle(),
            () = sleep(watched.next_look()) => {}
        }
    }
}

struct Watched {
    path: PathBuf,
    named: bool,
    deletions: MassDeletion,
    host: Arc<dyn Host>,
    engine: EngineHandle,
    state: Sender<Option<DesiredFile>>,
    last: Option<Look>,
}

/// What the last look at the file came to.
struct Look {
    /// `None` where it could not be seen.
    stamp: Option<Stamp>,
    /// When this stamp was first seen.
    at: Instant,
    /// Whether the file may delete already: it has not changed for a while.
    quiet: bool,
    /// What was read under this stamp, and whether there is nothing left to do with it.
    content: Option<(blake3::Hash, bool)>,
}

impl Watched {
    async fn look(&mut self) {
        let first = self.last.is_none();
        let stamp = match stamp(&self.path).await {
            Ok(stamp) => stamp,
            Err(source) => return self.unreadable(source).await,
        };
        let mut look = match self.last.take() {
            Some(last) if last.stamp.as_ref() == Some(&stamp) => last,
            before => Look {
                at: Instant::now(),
                // A file that was last written well before the start is whole.
                quiet: first && stamp.is_old(),
                content: before.and_then(|before| before.content),
                stamp: Some(stamp.clone()),
            },
        };
        let was_quiet = look.quiet;
        look.quiet |= look.at.elapsed() >= limits::DESIRED_QUIET;
        // While it is young its stamp may miss a change within one tick of the file system's clock,
        // so it is read again, once more after its quiet began.
        if !was_quiet || look.content.is_none_or(|(_, settled)| !settled) {
            self.read(&stamp, &mut look).await;
        }
        self.last = Some(look);
    }

    /// The content may have something left to do, or nothing any more.
    fn unsettle(&mut self) {
        if let Some(Look { content: Some((_, settled)), .. }) = &mut self.last {
            *settled = false;
        }
    }

    /// Until when nothing is to be done unless something changes.
    fn next_look(&self) -> std::time::Duration {
        match &self.last {
            Some(look) if look.stamp.is_some() && !look.quiet => limits::DESIRED_QUIET
                .saturating_sub(look.at.elapsed())
                .clamp(limits::DESIRED_GAP_MIN, limits::DESIRED_EVERY),
            _ => limits::DESIRED_EVERY,
        }
    }

    /// The file does not exist, or can't be read.
    async fn unreadable(&mut self, source: io::Error) {
        self.last = Some(Look { stamp: None, at: Instant::now(), quiet: false, content: None });
        let loaded = self.state.borrow().as_ref().is_some_and(|file| file.loaded_at.is_some());
        if source.kind() == io::ErrorKind::NotFound && !self.named && !loaded {
            return self.show(|file| {
                file.problem = None;
                file.help = None;
                DesiredFileStatus::Absent
            });
        }
        let path = self.path.clone();
        self.failed(&LoadError::Read { path, source }).await;
    }

    /// Reads the file, and applies it where it says something new or has something left to do.
    async fn read(&self, stamp: &Stamp, look: &mut Look) {
        let bytes = match contents(&self.path).await {
            Ok(bytes) => bytes,
            Err(source) => {
                look.content = None;
                let path = self.path.clone();
                return self.failed(&LoadError::Read { path, source }).await;
            }
        };
        if self::stamp(&self.path).await.ok().as_ref() != Some(stamp) {
            // It changed while it was read: what was read may be half of each.
            look.stamp = None;
            return;
        }
        let hash = blake3::hash(&bytes);
        let same = look.content.is_some_and(|(known, _)| known == hash);
        if same && look.content.is_some_and(|(_, settled)| settled) {
            return;
        }
        let settled = self.load(bytes, look.quiet, same).await;
        look.content = Some((hash, settled));
    }

    /// Applies what was read. Returns whether there is nothing left to do before it changes.
    async fn load(&self, bytes: Vec<u8>, quiet: bool, again: bool) -> bool {
        let deletions = match (quiet, self.deletions) {
            (false, _) => Deletions::Wait,
            (true, MassDeletion::Held) => Deletions::Few,
            (true, MassDeletion::Allowed) => Deletions::All,
        };
        match self.apply(bytes, deletions).await {
            Ok((entries, report)) => {
                self.loaded(entries, &report, deletions, again).await;
                quiet || report.held.is_empty()
            }
            Err(error) => {
                self.failed(&error).await;
                !matches!(error, LoadError::Apply { .. })
            }
        }
    }

    async fn apply(
        &self,
        bytes: Vec<u8>,
        deletions: Deletions,
    ) -> Result<(usize, LoadPlan), LoadError> {
        let path = &self.path;
        let (label, failed) = (path.display().to_string(), |cause: String| LoadError::Apply {
            path: path.clone(),
            cause,
        });
        // A file of 8 MiB takes longer than a thread that serves may be held up.
        let parsed = spawn_blocking(move || parsed(&label, &bytes)).await;
        let jobs = parsed
            .map_err(|_| failed("its reader met a bug, which is in the log".to_owned()))?
            .map_err(|problems| LoadError::Problems { path: path.clone(), problems })?;
        let _lookup = self.engine.lookup().await;
        let entries = declared::resolved(&*self.host, jobs).await;
        let count = entries.len();
        let path_of_source = Some(source_of(path));
        let against = DiffBase::LastApplied;
        let load = FileLoad { path: path_of_source, entries, deletions, against };
        let load = ApplyFile(load);
        match self.engine.request(Caller::DesiredFile, Preconditions::NONE, load).await {
            Ok(report) => Ok((count, report)),
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Shows a load that was applied, and tells once what of it could not be.
    async fn loaded(&self, entries: usize, report: &LoadPlan, deletions: Deletions, again: bool) {
        let path = self.path.display();
        let (applied, deleted) = (report.applied(), report.deleted.len());
        let unchanged = report.unchanged;
        tracing::info!(%path, applied, deleted, unchanged, "the desired-state file is loaded");
        let before = self.state.borrow().clone();
        let mut refused = declared::refused(report);
        let refused_omitted = refused.len().saturating_sub(limits::PROBLEMS_MAX);
        refused.truncate(limits::PROBLEMS_MAX);
        self.record_refused(before.as_ref(), &refused, refused_omitted).await;
        // What waits for the file's quiet is not held yet.
        let held: Vec<String> = match deletions {
            Deletions::Wait => Vec::new(),
            _ => report.held.iter().map(ToString::to_string).collect(),
        };
        let problem = (!held.is_empty()).then(|| {
            format!("{path} would delete more than half of its jobs; kept are {}", some(&held))
        });
        if let Some(problem) = &problem
            && before.as_ref().is_none_or(|file| file.problem.as_ref() != Some(problem))
        {
            self.record(None, problem.clone()).await;
        }
        let at = clock::now().wall;
        self.show(move |file| {
            file.loaded_at = Some(at);
            file.entries = entries;
            // A second load of one content, for its deletions, belongs to the first.
            file.applied = applied + if again { file.applied } else { 0 };
            file.deleted = deleted + if again { file.deleted } else { 0 };
            file.help = problem
                .as_ref()
                .map(|_| format!("hearth apply -f {} --allow-delete deletes them", file.path));
            let status = match problem {
                Some(_) => DesiredFileStatus::Held,
                None => DesiredFileStatus::Loaded,
            };
            (file.held, file.problem) = (held, problem);
            (file.refused, file.refused_omitted) = (refused, refused_omitted);
            status
        });
    }

    /// Records each refused entry once, and once how many more there are.
    async fn record_refused(
        &self,
        before: Option<&DesiredFile>,
        refused: &[RefusedEntry],
        omitted: usize,
    ) {
        let path = self.path.display();
        for entry in refused {
            if before.is_none_or(|file| !file.refused.contains(entry)) {
                let message = format!("an entry of {path} is refused: {}", entry.reason);
                self.record(JobId::parse(&entry.job_id).ok(), message).await;
            }
        }
        if omitted > 0 && before.is_none_or(|file| file.refused_omitted != omitted) {
            self.record(None, format!("{omitted} more entries of {path} are refused")).await;
        }
    }

    /// Shows why the file is not in force, and tells it once.
    async fn failed(&self, error: &LoadError) {
        let problem = error.to_string();
        let told = self.state.borrow().as_ref().and_then(|file| file.problem.clone());
        if told.as_ref() != Some(&problem) {
            self.record(None, problem.clone()).await;
        }
        let help = error.help();
        self.show(move |file| {
            (file.problem, file.help) = (Some(problem), help);
            DesiredFileStatus::Failed
        });
    }

    /// Into the events and the log; into the log alone where the engine does not answer.
    async fn record(&self, job: Option<JobId>, message: String) {
        let incident = Incident { job, message: message.clone() };
        let recorded = self.engine.request(Caller::DesiredFile, Preconditions::NONE, incident);
        if let Err(error) = recorded.await {
            tracing::warn!(cause = %error, "{message}");
        }
    }

    /// Changes what is shown of the file. `change` says how it stands from now on.
    fn show(&self, change: impl FnOnce(&mut DesiredFile) -> DesiredFileStatus) {
        let now = clock::now().wall;
        self.state.send_modify(|state| {
            let mut file = state.take().unwrap_or_else(|| DesiredFile {
                path: self.path.display().to_string(),
                status: DesiredFileStatus::Absent,
                since: now.clone(),
                loaded_at: None,
                entries: 0,
                applied: 0,
                deleted: 0,
                held: Vec::new(),
                refused: Vec::new(),
                refused_omitted: 0,
                problem: None,
                help: None,
            });
            let before = file.status;
            file.status = change(&mut file);
            if file.status != before {
                file.since = now;
            }
            *state = Some(file);
        });
    }
}

/// The first of many names, and how many more there are.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 10;
    match names.len().saturating_sub(SHOWN) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..SHOWN].join(", ")),
    }
}

/// What a file declares; or what is wrong with it, in a sentence.
fn parsed(label: &str, bytes: &[u8]) -> Result<Vec<DeclaredJob>, String> {
    let file = hearth_desired_file::parse(label, bytes).map_err(|problems| summary(&problems))?;
    let job = |declared: Declared| {
        let Declared { job_id: job, tenant, spec, .. } = declared;
        let spec = Arc::new(spec);
        let digest = EntryDigest::of(tenant.as_ref(), &spec);
        DeclaredJob { job, tenant, spec, digest }
    };
    Ok(file.jobs.into_iter().map(job).collect())
}

/// How many problems a file has, with the first of them at its place.
fn summary(diagnostics: &Diagnostics) -> String {
    let first = diagnostics.iter().next().map(|problem| {
        let help = problem.help.as_ref().map(|help| format!("; {help}")).unwrap_or_default();
        format!("line {}, column {}: {}{help}", problem.line, problem.column, problem.message)
    });
    let first = first.unwrap_or_default();
    match diagnostics.count() {
        1 => format!("a problem ({first})"),
        count => format!("{count} problems (the first: {first})"),
    }
}

/// The whole file, or a little more than is allowed of one that is too large.
async fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let read = async {
        let mut bytes = Vec::new();
        let limit = hearth_desired_file::FILE_BYTES_MAX as u64 + 1;
        tokio::fs::File::open(path).await?.take(limit).read_to_end(&mut bytes).await?;
        Ok(bytes)
    };
    timeout(limits::DESIRED_DEADLINE, read).await.unwrap_or_else(|_| Err(too_slow()))
}

async fn stamp(path: &Path) -> io::Result<Stamp> {
    let metadata = timeout(limits::DESIRED_DEADLINE, tokio::fs::metadata(path))
        .await
        .unwrap_or_else(|_| Err(too_slow()))?;
    if !metadata.is_file() {
        let found = if metadata.is_dir() { "a directory" } else { "not a regular file" };
        return Err(io::Error::other(format!("it is {found}")));
    }
    Ok(Stamp {
        device: metadata.dev(),
        inode: metadata.ino(),
        bytes: metadata.len(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    })
}

fn too_slow() -> io::Error {
    let seconds = limits::DESIRED_DEADLINE.as_secs();
    io::Error::new(io::ErrorKind::TimedOut, format!("it did not come within {seconds} s"))
}

impl Stamp {
    /// Whether it was not written for the time that counts as quiet.
    fn is_old(&self) -> bool {
        let age = jiff::Timestamp::now().as_second().saturating_sub(self.changed.0);
        age > limits::DESIRED_QUIET.as_secs().cast_signed()
    }
}
