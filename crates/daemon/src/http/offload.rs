//! Reading and checking large bodies away from the threads that serve. A bounded number of bytes
//! is held at once, one body is worked on at a time, and a client that has gone is not worked for.
//!
//! ```text
//!   head -> room for the body -> body -> turn -> work on a thread of its own -> engine -> answer
//!           (503 after a while)          (503 after a while)
//! ```

use super::problem::Refused;
use crate::limits;
use std::panic::resume_unwind;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

/// What the permits of [`Offload::room`] count.
const UNIT_BYTES: usize = 1024;

/// Room for large bodies, and turns to work on them.
#[derive(Debug)]
pub(crate) struct Offload {
    bytes: Arc<Semaphore>,
    turns: Arc<Semaphore>,
}

/// The room that a body takes, from before it is read until its request is answered. Small ones take none.
pub(super) type Room = Option<OwnedSemaphorePermit>;

impl Default for Offload {
    fn default() -> Offload {
        Offload {
            bytes: Arc::new(Semaphore::new(limits::DECLARED_BYTES_TOTAL_MAX / UNIT_BYTES)),
            turns: Arc::new(Semaphore::new(limits::DECLARED_TURNS)),
        }
    }
}

impl Offload {
    /// Room for a body of so many bytes; small ones always have it, so that slow senders of large ones do
    /// not hold them up. Cancel safe.
    ///
    /// # Errors
    /// 503 if there is none for a while.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room, Refused> {
        if bytes <= limits::BODY_BYTES_MAX {
            return Ok(None);
        }
        let units = u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
        permit(&self.bytes, units).await.map(Some)
    }

    /// Does work on a thread of its own when its turn comes. `work` can ask whether its client has
    /// gone, and stops then: no client sees its outcome.
    ///
    /// Cancelling it leaves work that has begun, and the turn, to the next question of `work`.
    ///
    /// # Errors
    /// 503 if the turn does not come for a while.
    ///
    /// # Panics
    /// If `work` does.
    pub(super) async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Fn() -> bool) -> T + Send + 'static,
    ) -> Result<T, Refused> {
        let turn = permit(&self.turns, 1).await?;
        let (sender, outcome) = oneshot::channel();
        let task = spawn_blocking(move || {
            let _turn = turn;
            let done = work(&|| sender.is_closed());
            // The client may have gone.
            let _ = sender.send(done);
        });
        match outcome.await {
            Ok(done) => Ok(done),
            Err(_) => match task.await {
                Err(panic) if panic.is_panic() => resume_unwind(panic.into_panic()),
                // The runtime ends.
                _ => Err(busy()),
            },
        }
    }
}

async fn permit(semaphore: &Arc<Semaphore>, count: u32) -> Result<OwnedSemaphorePermit, Refused> {
    match timeout(limits::DECLARED_WAIT, semaphore.clone().acquire_many_owned(count)).await {
        Ok(Ok(permit)) => Ok(permit),
        _ => Err(busy()),
    }
}

fn busy() -> Refused {
    let detail = "too many plans and applies are being read; nothing was changed";
    Refused::for_now("unavailable", "Unavailable", detail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[tokio::test(start_paused = true)]
    async fn room_is_bounded_and_given_back() {
        let offload = Offload::default();
        let all = offload.room(limits::DECLARED_BYTES_TOTAL_MAX).await.unwrap();
        assert!(offload.room(limits::BODY_BYTES_MAX).await.unwrap().is_none());
        let refused = offload.room(limits::BODY_BYTES_MAX + 1).await.unwrap_err();
        assert!(String::from_utf8(refused.body()).unwrap().contains("\"status\":503"));
        drop(all);
        assert!(offload.room(limits::BODY_BYTES_MAX + 1).await.unwrap().is_some());
    }

    #[tokio::test]
    async fn work_whose_client_has_gone_is_told_and_gives_its_turn_back() {
        let offload = Offload::default();
        let (begun, begin) = mpsc::channel();
        let (noticed, notice) = mpsc::channel();
        let work = offload.work(move |gone| {
            begun.send(()).unwrap();
            while !gone() {
                std::thread::yield_now();
            }
            noticed.send(()).unwrap();
        });
        let begin = tokio::task::spawn_blocking(move || begin.recv().unwrap());
        tokio::select! {
            biased;
            _ = work => panic!("it ends only once no client waits"),
            begun = begin => begun.unwrap(),
        }
        tokio::task::spawn_blocking(move || notice.recv().unwrap()).await.unwrap();
        assert_eq!(offload.work(|_| 7).await.unwrap(), 7);
    }

    #[tokio::test]
    #[should_panic = "boom"]
    async fn panic_of_work_reaches_its_request() {
        let _ = Offload::default().work(|_| panic!("boom")).await;
    }
}
