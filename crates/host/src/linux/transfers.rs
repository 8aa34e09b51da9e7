//! Images on their way into the store. A large one takes minutes, so that nothing waits for it: each
//! is copied and digested in slices of some milliseconds, which take turns, and only for as long as
//! it is requested.
//!
//! ```text
//!              request                     whole: digest remembered
//!   unknown ─────────▶ under way ──┬───────────────────────────────▶ known
//!      ▲                  slices   ├── failed: told for 1 s, then a request begins again
//!      └───────────────────────────┴── no request for 10 s: what was copied is removed
//! ```
//!
//! All who request a file share its transfer. It never decides whether an image is fit.

use super::sparse::{CHUNK_BYTES, copy_range, next_data};
use super::store::{ImageStore, Original, Stamp, TempImage};
use super::{Shared, layout, lock};
use crate::HostError;
use hearth_model::{Digest, ImageName, ImageProgress};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, timeout_at};

/// Slices at once: two keep a disk busy, and each takes a processor for its digest.
const SLICES_MAX: usize = 2;
/// How long a slice is. With as many transfers as there may be, each gets its turn within a second.
const SLICE: Duration = Duration::from_millis(20);
/// Transfers at once; each has two files open. The next one has to be requested again.
const TRANSFERS_MAX: usize = 64;
/// How long a transfer continues after the last request. Longer than the daemon takes from one look-up of
/// a job to the next, on a busy machine too: what was copied would be lost.
const REQUESTED_FOR: Duration = Duration::from_secs(10);
/// How long a failure is told to those who look again.
const FAILURE_TOLD_FOR: Duration = Duration::from_secs(1);
/// Bytes that are written before they are synced, so that the end of a large copy is no long wait.
const UNSYNCED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The transfers that are under way, by the file that is copied.
#[derive(Debug)]
pub(super) struct Transfers {
    /// Fair: a transfer that has had a slice goes to the end.
    slices: Arc<Semaphore>,
    under_way: Mutex<HashMap<Stamp, Arc<Transfer>>>,
}

/// What all who request a file share.
#[derive(Debug)]
struct Transfer {
    total_bytes: u64,
    done_bytes: AtomicU64,
    requested_until: Mutex<Instant>,
    outcome: watch::Sender<Option<Result<Digest, Failure>>>,
}

/// Why there is no copy.
#[derive(Clone, Debug)]
enum Failure {
    Changed,
    NoRoom { takes: u64, free: u64 },
    Io(Arc<io::Error>),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        Failure::Io(Arc::new(error))
    }
}

/// Somebody's request for an image.
#[derive(Debug)]
pub(super) struct ImageRequest {
    image: ImageName,
    noun: &'static str,
    /// `None` where there are too many transfers.
    transfer: Option<Arc<Transfer>>,
}

/// A copy in the making.
#[derive(Debug)]
struct Work {
    source: File,
    stamp: Stamp,
    making: TempImage,
    target: File,
    hasher: blake3::Hasher,
    /// Everything before is copied.
    at: u64,
    /// The data that is being copied, or comes next.
    data: Option<(u64, u64)>,
    unsynced: u64,
}

/// What a slice comes to.
enum Slice {
    More(Box<Work>),
    Whole(Digest),
}

impl Transfers {
    pub(super) fn new() -> Transfers {
        let slices = Arc::new(Semaphore::new(SLICES_MAX));
        Transfers { slices, under_way: Mutex::default() }
    }

    /// Requests an image until some time after `until`. Begins to copy it unless a transfer is under way.
    pub(super) fn request(
        &self,
        shared: &Arc<Shared>,
        original: Original,
        until: Instant,
    ) -> ImageRequest {
        let Original { kind, name, file, stamp } = original;
        let requested_until = until + REQUESTED_FOR;
        let mut under_way = lock(&self.under_way);
        let has_room = under_way.len() < TRANSFERS_MAX;
        let transfer = match under_way.get(&stamp) {
            Some(transfer) => {
                let mut known = lock(&transfer.requested_until);
                *known = requested_until.max(*known);
                drop(known);
                Some(Arc::clone(transfer))
            }
            None => has_room.then(|| {
                let transfer = Arc::new(Transfer {
                    total_bytes: stamp.bytes,
                    done_bytes: AtomicU64::new(0),
                    requested_until: Mutex::new(requested_until),
                    outcome: watch::Sender::new(None),
                });
                under_way.insert(stamp, Arc::clone(&transfer));
                shared.spawn(run(Arc::clone(shared), Arc::clone(&transfer), file, stamp));
                transfer
            }),
        };
        ImageRequest { image: name, noun: kind.noun(), transfer }
    }

    /// Forgets a transfer that is no longer requested. A request at the same time comes before or after.
    fn give_up(&self, stamp: &Stamp) -> bool {
        let mut under_way = lock(&self.under_way);
        let unrequested = under_way.get(stamp).is_none_or(|transfer| !transfer.is_requested());
        if unrequested {
            under_way.remove(stamp);
        }
        unrequested
    }
}

impl Transfer {
    fn is_requested(&self) -> bool {
        Instant::now() < *lock(&self.requested_until)
    }
}

impl ImageRequest {
    /// The digest, once the copy is whole; how far it is, at `until`.
    pub(super) async fn outcome(
        self,
        store: &ImageStore,
        until: Instant,
    ) -> Result<Result<Digest, ImageProgress>, HostError> {
        let Some(transfer) = &self.transfer else {
            tokio::time::sleep_until(until).await;
            return Ok(Err(self.progress()));
        };
        let mut outcome = transfer.outcome.subscribe();
        let Ok(known) = timeout_at(until, outcome.wait_for(Option::is_some)).await else {
            return Ok(Err(self.progress()));
        };
        let known = known.map_err(super::errors::task)?.clone();
        match known {
            Some(Ok(digest)) => Ok(Ok(digest)),
            Some(Err(failure)) => Err(self.failed(store, failure)),
            None => Ok(Err(self.progress())),
        }
    }

    /// What is said where somebody writes to the image.
    pub(super) fn changing(&self) -> HostError {
        HostError::transient(format!("{} {} is being changed just now", self.noun, self.image))
    }

    fn progress(&self) -> ImageProgress {
        let transfer = self.transfer.as_ref();
        ImageProgress {
            image: self.image.clone(),
            done_bytes: transfer.map_or(0, |it| it.done_bytes.load(Ordering::Relaxed)),
            total_bytes: transfer.map_or(0, |it| it.total_bytes),
        }
    }

    fn failed(&self, store: &ImageStore, failure: Failure) -> HostError {
        let ImageRequest { image, noun, .. } = self;
        let message = format!("cannot copy {noun} {image} into the store");
        match failure {
            Failure::Changed => self.changing(),
            Failure::NoRoom { takes, free } => {
                let mib = |bytes: u64| bytes.div_ceil(1024 * 1024);
                HostError::transient(format!(
                    "{message}: it takes {} MiB and {} MiB are free in {}; free some",
                    mib(takes),
                    mib(free),
                    store.dir().display()
                ))
            }
            Failure::Io(error) => HostError::transient(message).because(error),
        }
    }
}

/// Copies a file for as long as it is requested.
async fn run(shared: Arc<Shared>, transfer: Arc<Transfer>, source: File, stamp: Stamp) {
    let outcome = match slices(&shared, &transfer, source, stamp).await {
        Ok(None) => {
            tracing::info!(bytes = stamp.bytes, "an image is no longer requested; its copy ends");
            return;
        }
        Ok(Some(digest)) => Ok(digest),
        Err(failure) => Err(failure),
    };
    let failed = matches!(outcome, Err(Failure::Io(_) | Failure::NoRoom { .. }));
    transfer.outcome.send_replace(Some(outcome));
    if failed {
        tokio::time::sleep(FAILURE_TOLD_FOR).await;
    }
    lock(&shared.transfers.under_way).remove(&stamp);
}

/// `None` if it is no longer requested.
async fn slices(
    shared: &Arc<Shared>,
    transfer: &Arc<Transfer>,
    source: File,
    stamp: Stamp,
) -> Result<Option<Digest>, Failure> {
    let ended = |_| Failure::from(io::Error::other("its task ended early"));
    let begin = shared.slice(move |shared| Work::begin(&shared.images, source, stamp));
    let mut work = begin.await.map_err(ended)??;
    loop {
        if shared.transfers.give_up(&stamp) {
            // What was copied is removed, which takes its time too.
            let _ = tokio::task::spawn_blocking(move || drop(work)).await;
            return Ok(None);
        }
        let transfer = Arc::clone(transfer);
        let slice = shared.slice(move |shared| work.advance(&shared.images, &transfer));
        match slice.await.map_err(ended)?? {
            Slice::Whole(digest) => return Ok(Some(digest)),
            Slice::More(more) => work = more,
        }
    }
}

impl Shared {
    /// Does a slice of work once it is its turn, on a thread for files.
    async fn slice<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Shared) -> T + Send + 'static,
    ) -> Result<T, Box<dyn std::error::Error + Send + Sync>> {
        let turn = Arc::clone(&self.transfers.slices).acquire_owned().await?;
        let shared = Arc::clone(self);
        let done = tokio::task::spawn_blocking(move || {
            // As long as the thread, which may outlive its caller.
            let _turn = turn;
            work(&shared)
        });
        Ok(done.await?)
    }
}

impl Work {
    fn begin(store: &ImageStore, source: File, stamp: Stamp) -> Result<Box<Work>, Failure> {
        // 512 bytes each, whatever the file system's blocks are (stat(2)).
        let takes = source.metadata()?.blocks().saturating_mul(512).min(stamp.bytes);
        let free = store.free_bytes()?;
        if takes > free {
            return Err(Failure::NoRoom { takes, free });
        }
        let making = store.making();
        let target = layout::create_file(&making.path)?;
        target.set_len(stamp.bytes)?;
        let hasher = blake3::Hasher::new();
        let (at, data, unsynced) = (0, None, 0);
        Ok(Box::new(Work { source, stamp, making, target, hasher, at, data, unsynced }))
    }

    /// Copies for a while.
    fn advance(
        mut self: Box<Self>,
        store: &ImageStore,
        transfer: &Transfer,
    ) -> Result<Slice, Failure> {
        if self.is_changed()? {
            return Err(Failure::Changed);
        }
        let begin = std::time::Instant::now();
        let mut chunk = vec![0; CHUNK_BYTES];
        while self.at < self.stamp.bytes {
            self.copy_some(&mut chunk)?;
            transfer.done_bytes.store(self.at, Ordering::Relaxed);
            if begin.elapsed() >= SLICE || !transfer.is_requested() {
                return Ok(Slice::More(self));
            }
        }
        self.finish(store).map(Slice::Whole)
    }

    /// Copies some of the next data, or takes note of some of the hole before it.
    fn copy_some(&mut self, chunk: &mut [u8]) -> io::Result<()> {
        let len = self.stamp.bytes;
        let (start, end) = match self.data {
            Some(data) if self.at < data.1 => data,
            _ => next_data(&self.source, self.at, len).unwrap_or((len, len)),
        };
        self.data = Some((start, end));
        let part = |from: u64, to: u64| (to - from).min(chunk.len() as u64);
        if self.at < start {
            let part = part(self.at, start);
            let zeroes = &mut chunk[..usize::try_from(part).unwrap_or(CHUNK_BYTES)];
            zeroes.fill(0);
            self.hasher.update(zeroes);
            self.at += part;
            return Ok(());
        }
        let part = part(self.at, end);
        let Work { source, target, hasher, at, .. } = self;
        copy_range(source, target, *at, *at + part, chunk, |bytes| {
            hasher.update(bytes);
        })?;
        self.at += part;
        self.unsynced += part;
        if self.unsynced >= UNSYNCED_BYTES_MAX {
            self.target.sync_data()?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Whether somebody has written to the image, or removed it.
    fn is_changed(&self) -> io::Result<bool> {
        Ok(Stamp::of(&self.source.metadata()?) != self.stamp)
    }

    fn finish(self, store: &ImageStore) -> Result<Digest, Failure> {
        if self.is_changed()? {
            return Err(Failure::Changed);
        }
        let digest = Digest(*self.hasher.finalize().as_bytes());
        self.making.persist(&store.path(&digest))?;
        if self.stamp.is_settled() {
            store.remember(self.stamp, digest);
        }
        Ok(digest)
    }
}

/// Copies an image at once, if nothing else runs.
#[cfg(any(test, fuzzing))]
pub(super) fn copy_now(store: &ImageStore, original: Original) -> Result<Digest, HostError> {
    let Original { kind, name, file, stamp } = original;
    let transfer = Transfer {
        total_bytes: stamp.bytes,
        done_bytes: AtomicU64::new(0),
        requested_until: Mutex::new(Instant::now() + REQUESTED_FOR),
        outcome: watch::Sender::new(None),
    };
    let copied = Work::begin(store, file, stamp).and_then(|mut work| {
        loop {
            match work.advance(store, &transfer)? {
                Slice::Whole(digest) => return Ok(digest),
                Slice::More(more) => work = more,
            }
        }
    });
    let request =
        ImageRequest { image: name, noun: kind.noun(), transfer: Some(Arc::new(transfer)) };
    copied.map_err(|failure| request.failed(store, failure))
}
