//! Who calls: the user at the other end of a connection, established once when it is accepted, before
//! a byte of it is read.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use hearth_host::linux::peer::{Peer, PeerGroups};
use hearth_model::{Caller, KnownBy};
use std::convert::Infallible;

/// The caller of every request of a connection.
pub(crate) fn of(peer: &Peer) -> Caller {
    let known_by = match peer.groups {
        PeerGroups::OfProcess(_) => KnownBy::PeerCredentials,
        PeerGroups::OfUser => KnownBy::SocketOwner,
    };
    Caller::User { uid: peer.uid, known_by }
}

/// The caller of a request, for its handler.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CalledBy(pub(crate) Caller);

impl<S: Send + Sync> FromRequestParts<S> for CalledBy {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<CalledBy, Infallible> {
        Ok(CalledBy(parts.extensions.get().copied().unwrap_or(Caller::Unknown)))
    }
}
