//! Which user is at the other end of a local connection, as the kernel knows it. Nothing that the
//! other end sends takes part in the answer.
//!
//! On a Unix socket these are the credentials of the process at its `connect`. For TCP over the
//! loopback the kernel's socket diagnostics name the user of the client's socket: the effective user
//! of the process that created it, also if the socket was handed to another process since.

mod sock_diag;

use rustix::net::{getpeername, getsockname};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;
use tokio::net::UnixStream;

/// A local user at the other end of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user's number.
    pub uid: u32,
    /// What is known of its groups.
    pub groups: PeerGroups,
}

/// The groups of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerGroups {
    /// Those of its process, the primary one included.
    OfProcess(Vec<u32>),
    /// The kernel does not tell them: those that the user database gives to the user.
    OfUser,
}

/// Why the user at the other end is not known.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The client was gone, or going. An orphaned socket has no user, which the kernel shows as
    /// user 0.
    #[error("the client had closed the connection, or its sending half, before it was accepted")]
    Closed,
    /// The user is outside of this process's user namespace, where all such users share one number.
    #[error("its user is not mapped into the user namespace of the daemon")]
    Unmapped,
    /// The kernel does not answer.
    #[error("cannot ask the kernel for the user of a connection")]
    Kernel(#[from] io::Error),
}

impl PeerError {
    /// Whether the kernel only lacked something just now, so that the next connection may be known.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        let PeerError::Kernel(error) = self else { return false };
        let lacks =
            [libc::EAGAIN, libc::EINTR, libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
        error.raw_os_error().is_some_and(|code| lacks.contains(&code))
    }
}

/// The peer of an accepted connection over a Unix socket.
///
/// # Errors
/// Every [`PeerError`] but [`PeerError::Closed`].
pub fn of_unix(stream: &UnixStream) -> Result<Peer, PeerError> {
    let credentials = stream.peer_cred()?;
    let namespace = Namespace::own();
    let mut groups = process_groups(stream.as_fd())?;
    groups.push(credentials.gid());
    groups.retain(|gid| !namespace.gids.is_ambiguous(*gid));
    namespace.peer(credentials.uid(), PeerGroups::OfProcess(groups))
}

/// The peer of a TCP connection that was accepted from this address of this machine. Ask right after the
/// accept: a client that has gone by then is not known. Never waits.
///
/// # Errors
/// Every [`PeerError`]. There is no client to be found for a connection from another machine or network
/// namespace, which is [`PeerError::Closed`].
pub fn of_tcp(stream: impl AsFd, from: SocketAddr) -> Result<Peer, PeerError> {
    let here = address(getsockname(&stream))?;
    let client = sock_diag::find(from, here)?.ok_or(PeerError::Closed)?;
    if !client.established || client.inode == 0 {
        return Err(PeerError::Closed);
    }
    // While this end of the connection exists no other client can have its addresses and ports. If it is
    // gone (a reset frees the port), what was found may be the next client with the same port.
    match getpeername(&stream) {
        Ok(Some(_)) => Namespace::own().peer(client.uid, PeerGroups::OfUser),
        Ok(None) | Err(_) => Err(PeerError::Closed),
    }
}

/// Whether the kernel answers for TCP: it is asked for a socket that listens.
///
/// # Errors
/// [`PeerError::Kernel`] if it does not.
pub fn probe_tcp(listener: impl AsFd) -> Result<(), PeerError> {
    let listener = listener.as_fd();
    let here = address(getsockname(listener))?;
    let nowhere = match here {
        SocketAddr::V4(_) => SocketAddr::from(([0; 4], 0)),
        SocketAddr::V6(_) => SocketAddr::from(([0; 16], 0)),
    };
    let inode = rustix::fs::fstat(listener).map_err(io::Error::from)?.st_ino;
    match sock_diag::find(here, nowhere)? {
        Some(found) if u64::from(found.inode) == inode => Ok(()),
        // Without the module for TCP it finds nothing at all.
        _ => Err(io::Error::new(io::ErrorKind::Unsupported, "tcp_diag finds no sockets").into()),
    }
}

fn address(name: rustix::io::Result<rustix::net::SocketAddrAny>) -> io::Result<SocketAddr> {
    Ok(SocketAddr::try_from(name?)?)
}

/// The supplementary groups of the process at the other end.
fn process_groups(socket: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(size_of_val(&*groups)).unwrap_or(0);
        // SAFETY: the pointers are to a buffer of `bytes` bytes and to that number, and both outlive
        // the call. Every bit pattern is a u32.
        #[allow(unsafe_code)]
        let refused = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let error = io::Error::last_os_error();
        let count = bytes as usize / size_of::<u32>();
        if refused == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        // The kernel says how many there are, at most NGROUPS_MAX (65,536).
        if error.raw_os_error() != Some(libc::ERANGE) || count <= groups.len() {
            return Err(error);
        }
        groups.resize(count, 0);
    }
}

/// The numbers of users and groups in the user namespace of this process.
#[derive(Debug)]
struct Namespace {
    uids: Numbers,
    gids: Numbers,
}

/// One kind of number.
#[derive(Debug)]
struct Numbers {
    /// What the kernel shows in place of every number that is not mapped.
    overflow: u32,
    /// Whether every number is mapped, so that the overflow number means only itself.
    whole: bool,
}

impl Namespace {
    fn own() -> &'static Namespace {
        static OWN: OnceLock<Namespace> = OnceLock::new();
        OWN.get_or_init(|| Namespace { uids: Numbers::read("uid"), gids: Numbers::read("gid") })
    }

    fn peer(&self, uid: u32, groups: PeerGroups) -> Result<Peer, PeerError> {
        if self.uids.is_ambiguous(uid) {
            return Err(PeerError::Unmapped);
        }
        Ok(Peer { uid, groups })
    }
}

impl Numbers {
    fn read(kind: &str) -> Numbers {
        let overflow = fs::read_to_string(format!("/proc/sys/kernel/overflow{kind}"));
        let map = fs::read_to_string(format!("/proc/self/{kind}_map"));
        Numbers {
            overflow: overflow.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(65_534),
            whole: map.is_ok_and(|map| is_whole(&map)),
        }
    }

    fn is_ambiguous(&self, number: u32) -> bool {
        number == self.overflow && !self.whole
    }
}

/// Whether a map of user_namespaces(7) maps every number, as the first namespace does.
fn is_whole(map: &str) -> bool {
    let count = |line: &str| line.split_whitespace().nth(2)?.parse::<u64>().ok();
    map.lines().filter_map(count).sum::<u64>() == u64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{Shutdown, TcpListener, TcpStream};

    fn pair(address: &str) -> (TcpStream, (TcpStream, SocketAddr)) {
        let listener = TcpListener::bind(address).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap())
    }

    fn own_uid() -> u32 {
        rustix::process::geteuid().as_raw()
    }

    #[test]
    fn a_tcp_client_is_known_over_both_families() {
        for address in ["127.0.0.1:0", "127.1.2.3:0", "[::1]:0"] {
            let (_client, (server, from)) = pair(address);
            let peer = of_tcp(server, from).unwrap();
            assert_eq!(peer, Peer { uid: own_uid(), groups: PeerGroups::OfUser }, "{address}");
        }
    }

    #[test]
    fn an_ipv6_socket_to_an_ipv4_address_is_known() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mapped = format!("[::ffff:127.0.0.1]:{}", listener.local_addr().unwrap().port());
        let _client = TcpStream::connect(mapped).unwrap();
        let (server, from) = listener.accept().unwrap();
        assert_eq!(of_tcp(server, from).unwrap().uid, own_uid());
    }

    #[test]
    fn client_that_closed_has_no_user_and_is_never_user_0() {
        let (mut client, (server, from)) = pair("127.0.0.1:0");
        client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(of_tcp(&server, from), Err(PeerError::Closed)));
        drop(client);
        assert!(matches!(of_tcp(&server, from), Err(PeerError::Closed)));
    }

    #[test]
    fn the_next_client_with_the_same_port_is_not_taken_for_the_last() {
        // An address of its own, where no other test takes the port that becomes free.
        let listener = TcpListener::bind("127.83.7.19:0").unwrap();
        let address = listener.local_addr().unwrap();
        let first = TcpStream::connect(address).unwrap();
        let port = first.local_addr().unwrap();
        // Closed with a reset, which frees the port at once.
        rustix::net::sockopt::set_socket_linger(&first, Some(std::time::Duration::ZERO)).unwrap();
        drop(first);
        let second = rustix::net::socket(
            rustix::net::AddressFamily::INET,
            rustix::net::SocketType::STREAM,
            None,
        )
        .unwrap();
        rustix::net::bind(&second, &port).unwrap();
        rustix::net::connect(&second, &address).unwrap();
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(from, port, "the first is still in the queue");
        assert!(matches!(of_tcp(accepted, from), Err(PeerError::Closed)));
        let (accepted, from) = listener.accept().unwrap();
        assert_eq!(from, port);
        assert_eq!(of_tcp(accepted, from).unwrap().uid, own_uid());
    }

    #[test]
    fn the_kernel_is_known_to_answer_before_there_is_a_client() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            probe_tcp(TcpListener::bind(address).unwrap()).unwrap();
        }
        // What does not listen is not found.
        let (client, _server) = pair("127.0.0.1:0");
        assert!(matches!(probe_tcp(client), Err(PeerError::Kernel(_))));
    }

    #[tokio::test]
    async fn a_unix_client_is_known_with_the_groups_of_its_process() {
        let (near, _far) = UnixStream::pair().unwrap();
        let peer = of_unix(&near).unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups()
            .unwrap()
            .into_iter()
            .chain([rustix::process::getegid()])
            .map(rustix::process::Gid::as_raw)
            .collect();
        let PeerGroups::OfProcess(mut groups) = peer.groups else { panic!("no groups") };
        own.sort_unstable();
        groups.sort_unstable();
        assert_eq!((peer.uid, groups), (own_uid(), own));
    }

    #[test]
    fn overflow_uid_is_a_user_only_if_all_are_mapped() {
        assert!(is_whole("         0          0 4294967295\n"));
        assert!(is_whole("0 0 65536\n65536 65536 4294901759\n"));
        assert!(!is_whole("0 1000 1\n"));
        assert!(!is_whole("0 100000 65536\n"));
        assert!(!is_whole(""));
        let namespace = |whole| Namespace {
            uids: Numbers { overflow: 65_534, whole },
            gids: Numbers { overflow: 65_534, whole },
        };
        let overflow = |whole| namespace(whole).peer(65_534, PeerGroups::OfUser);
        assert_eq!(overflow(true).unwrap().uid, 65_534);
        assert!(matches!(overflow(false), Err(PeerError::Unmapped)));
        assert_eq!(namespace(false).peer(0, PeerGroups::OfUser).unwrap().uid, 0);
    }
}
