//! The word that ends the daemon.

use tokio::sync::watch;

/// Turns true once, for every task.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<bool>);

impl Stop {
    /// The sending and the listening end.
    pub(crate) fn channel() -> (watch::Sender<bool>, Stop) {
        let (sender, receiver) = watch::channel(false);
        (sender, Stop(receiver))
    }

    /// Waits until the daemon is to end. Cancel safe.
    pub(crate) async fn asked(&mut self) {
        // Without a sender there is no daemon any more.
        let _ = self.0.wait_for(|stop| *stop).await;
    }
}
