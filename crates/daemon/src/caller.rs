//! Who calls: the user at the other end of a connection, established once when it is accepted, before
//! a byte of it is read.

use hearth_host::linux::peer::{Peer, PeerGroups};
use std::fmt;

/// The caller of every request of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A local user.
    User {
        /// Its number.
        uid: u32,
        /// How the kernel told it.
        known_by: KnownBy,
    },
    /// The kernel could not tell.
    Unknown,
}

/// How a caller is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// `SO_PEERCRED` of a Unix socket.
    PeerCredentials,
    /// The owner of the client's TCP socket, by sock_diag(7).
    SocketOwner,
}

impl From<&Peer> for Caller {
    fn from(peer: &Peer) -> Caller {
        let known_by = match peer.groups {
            PeerGroups::OfProcess(_) => KnownBy::PeerCredentials,
            PeerGroups::OfUser => KnownBy::SocketOwner,
        };
        Caller::User { uid: peer.uid, known_by }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Caller::User { uid, known_by: KnownBy::PeerCredentials } => {
                write!(f, "uid {uid} by peer credentials")
            }
            Caller::User { uid, known_by: KnownBy::SocketOwner } => {
                write!(f, "uid {uid} by socket owner")
            }
            Caller::Unknown => f.write_str("unknown"),
        }
    }
}
