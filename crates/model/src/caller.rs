//! Who sent a request.

use std::fmt;

/// The caller of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A local user.
    User {
        /// Its number.
        uid: u32,
        /// How the daemon knows it.
        known_by: KnownBy,
    },
    /// The watched desired-state file.
    DesiredFile,
    /// Hearth itself.
    Hearth,
    /// The kernel could not say.
    Unknown,
}

/// How a user is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KnownBy {
    /// `SO_PEERCRED` of a Unix socket.
    PeerCredentials,
    /// The owner of the client's TCP socket, by sock_diag(7).
    SocketOwner,
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
            Caller::DesiredFile => f.write_str("the desired-state file"),
            Caller::Hearth => f.write_str("Hearth"),
            Caller::Unknown => f.write_str("unknown"),
        }
    }
}
