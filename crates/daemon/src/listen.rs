//! Where the daemon listens: the loopback or a Unix socket, and nothing else, since there are no
//! tokens and no TLS.

use hearth_host::Duplex;
use hearth_host::linux::peer::{self, Peer, PeerError};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::fs::{FileTypeExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use tokio::net::{TcpListener, UnixListener};

/// Longest path of a Unix socket, in bytes: `sun_path` holds 108 with its NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Where the daemon listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address; port 0 picks a free port.
    Tcp(SocketAddr),
    /// A Unix socket, mode 0660.
    Unix(PathBuf),
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// It is reachable from elsewhere.
    #[error(
        "cannot listen on {0}: it is not the loopback, and Hearth has no tokens and no TLS yet; \
         use 127.0.0.1:8088 or unix:///run/hearth.sock, and ssh -L from elsewhere"
    )]
    NotLoopback(String),
    /// It is no address.
    #[error("{0:?} is not an address; write 127.0.0.1:8088, [::1]:8088 or unix:///PATH")]
    Malformed(String),
    /// The path does not fit.
    #[error("cannot listen on {path}: the path has {bytes} bytes; a socket's has at most 107")]
    LongPath {
        /// Which path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// The system refused.
    #[error("cannot listen on {listen}")]
    Bind {
        /// Which address.
        listen: Listen,
        /// Why.
        source: io::Error,
    },
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Listen, ListenError> {
        if let Some(path) = text.strip_prefix("unix://") {
            if !path.starts_with('/') {
                return Err(ListenError::Malformed(text.to_owned()));
            }
            if path.len() > SOCKET_PATH_BYTES_MAX {
                return Err(ListenError::LongPath { bytes: path.len(), path: path.into() });
            }
            return Ok(Listen::Unix(PathBuf::from(path)));
        }
        let address = text.strip_prefix("http://").unwrap_or(text);
        if let Some(port) = address.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Listen::Tcp(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        match address.parse::<SocketAddr>() {
            Ok(socket) if socket.ip().is_loopback() => Ok(Listen::Tcp(socket)),
            Ok(_) => Err(ListenError::NotLoopback(text.to_owned())),
            Err(_) => match address.rsplit_once(':') {
                Some((host, port)) if port.parse::<u16>().is_ok() && !host.contains(['/', ':']) => {
                    Err(ListenError::NotLoopback(text.to_owned()))
                }
                _ => Err(ListenError::Malformed(text.to_owned())),
            },
        }
    }
}

/// As `HEARTH_URL` takes it.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Tcp(address) => write!(f, "http://{address}"),
            Listen::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// A socket that accepts.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection, and who is at its other end.
pub(crate) struct Accepted {
    pub(crate) stream: Box<dyn Duplex>,
    pub(crate) peer: Result<Peer, PeerError>,
}

impl Listener {
    /// Binds. A socket file on which no process answers is taken over. The group can connect to it; who
    /// is admitted is decided by who connects, not by its mode.
    pub(crate) async fn bind(listen: &Listen, group: Option<u32>) -> Result<Listener, ListenError> {
        let failed = |source| ListenError::Bind { listen: listen.clone(), source };
        match listen {
            Listen::Tcp(address) => {
                TcpListener::bind(address).await.map(Listener::Tcp).map_err(failed)
            }
            Listen::Unix(path) => {
                clear_stale(path).await.map_err(failed)?;
                let listener = UnixListener::bind(path).map_err(failed)?;
                // A daemon that is not root can only give it to groups of its own.
                if let Err(error) = chown(path, None, group) {
                    tracing::warn!(cause = %error, gid = group, "its group can't use the socket");
                }
                let mode = std::fs::Permissions::from_mode(0o660);
                std::fs::set_permissions(path, mode).map_err(failed)?;
                Ok(Listener::Unix(listener))
            }
        }
    }

    /// The address as bound.
    pub(crate) fn address(&self, asked: &Listen) -> Listen {
        match self {
            Listener::Tcp(listener) => listener.local_addr().map_or(asked.clone(), Listen::Tcp),
            Listener::Unix(_) => asked.clone(),
        }
    }

    /// Whether the kernel tells who connects.
    pub(crate) fn probe(&self) -> Result<(), PeerError> {
        match self {
            Listener::Tcp(listener) => peer::probe_tcp(listener),
            Listener::Unix(_) => Ok(()),
        }
    }

    /// The next connection. Its peer is looked up before anything else: one that has gone meanwhile is
    /// not known. Cancel safe.
    pub(crate) async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, from) = listener.accept().await?;
                let peer = peer::of_tcp(&stream, from);
                stream.set_nodelay(true)?;
                Ok(Accepted { stream: Box::new(stream), peer })
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let peer = peer::of_unix(&stream);
                Ok(Accepted { stream: Box::new(stream), peer })
            }
        }
    }
}

async fn clear_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "there is a file that is not a socket",
        )),
        Ok(_) => match tokio::net::UnixStream::connect(path).await {
            Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "something listens there")),
            Err(_) => std::fs::remove_file(path),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::Listen;
    use expect_test::{Expect, expect};
    use std::str::FromStr;

    fn check(text: &str, expected: Expect) {
        let outcome = match Listen::from_str(text) {
            Ok(listen) => listen.to_string(),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&outcome);
    }

    #[test]
    fn the_loopback_and_unix_sockets_can_be_listened_on() {
        check("127.0.0.1:8088", expect!["http://127.0.0.1:8088"]);
        check("localhost:0", expect!["http://127.0.0.1:0"]);
        check("[::1]:8088", expect!["http://[::1]:8088"]);
        check("unix:///run/h.sock", expect!["unix:///run/h.sock"]);
    }

    #[test]
    fn what_others_can_reach_is_refused() {
        check(
            "0.0.0.0:8088",
            expect![[
                r#"cannot listen on 0.0.0.0:8088: it is not the loopback, and Hearth has no tokens and no TLS yet; use 127.0.0.1:8088 or unix:///run/hearth.sock, and ssh -L from elsewhere"#
            ]],
        );
        check(
            "example.org:80",
            expect![[
                r#"cannot listen on example.org:80: it is not the loopback, and Hearth has no tokens and no TLS yet; use 127.0.0.1:8088 or unix:///run/hearth.sock, and ssh -L from elsewhere"#
            ]],
        );
        check(
            "8088",
            expect![[
                r#""8088" is not an address; write 127.0.0.1:8088, [::1]:8088 or unix:///PATH"#
            ]],
        );
    }
}
