//! One question of sock_diag(7): the TCP socket with exactly these addresses and ports. The kernel
//! answers within the call that asks.

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recvfrom, sendto, socket_with,
};
use std::io;
use std::net::{IpAddr, SocketAddr};

/// A TCP socket, as the kernel shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SocketOwner {
    /// Whether it is in the state ESTABLISHED.
    pub(super) established: bool,
    /// Its user; 0 as well if no process has it.
    pub(super) uid: u32,
    /// 0 if no process has it.
    pub(super) inode: u32,
}

// linux/netlink.h, linux/sock_diag.h, linux/inet_diag.h, net/tcp_states.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const TCP_ESTABLISHED: u8 = 1;
const HEADER_BYTES: usize = 16;
/// `inet_diag_req_v2` with its header.
const REQUEST_BYTES: u32 = 72;
/// The loopback interface has this number in every network namespace. A socket that is bound to it is
/// found as well as one that is bound to none.
const LOOPBACK: u32 = 1;

/// The socket at `near` whose other end is `far`, or without that the one that listens at `near`; in
/// any state. Never waits.
///
/// # Errors
/// If the kernel does not answer.
pub(super) fn find(near: SocketAddr, far: SocketAddr) -> io::Result<Option<SocketOwner>> {
    let (datagrams, closed_on_exec) = (SocketType::DGRAM, SocketFlags::CLOEXEC);
    let socket = socket_with(AddressFamily::NETLINK, datagrams, closed_on_exec, Some(SOCK_DIAG))?;
    sendto(&socket, &request(near, far), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut reply = [0; 1024];
    let (bytes, _, from) = recvfrom(&socket, &mut reply, RecvFlags::DONTWAIT)?;
    let kernel = from.and_then(|from| SocketAddrNetlink::try_from(from).ok());
    if kernel.is_none_or(|from| from.pid() != 0) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "another process answered"));
    }
    match read(&reply[..bytes], near, far) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn request(near: SocketAddr, far: SocketAddr) -> Vec<u8> {
    let family = match near {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let mut request = Vec::with_capacity(REQUEST_BYTES as usize);
    request.extend(REQUEST_BYTES.to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(NLM_F_REQUEST.to_ne_bytes());
    // The number of the request, and its sender, which the kernel knows.
    request.extend([0; 8]);
    request.extend([family.as_raw() as u8, rustix::net::ipproto::TCP.as_raw().get() as u8, 0, 0]);
    // States: a question for one socket has none.
    request.extend(u32::MAX.to_ne_bytes());
    request.extend(pair(near, far));
    request.extend(LOOPBACK.to_ne_bytes());
    // No cookie.
    request.extend([0xff; 8]);
    request
}

/// Ports and addresses, as the kernel lays them out.
fn pair(near: SocketAddr, far: SocketAddr) -> Vec<u8> {
    let address = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    };
    let mut pair = Vec::with_capacity(36);
    pair.extend(near.port().to_be_bytes());
    pair.extend(far.port().to_be_bytes());
    pair.extend(address(near.ip()));
    pair.extend(address(far.ip()));
    pair
}

/// What a reply says of exactly these addresses and ports.
fn read(reply: &[u8], near: SocketAddr, far: SocketAddr) -> Result<SocketOwner, Errno> {
    let malformed = Errno::BADMSG;
    let word = |at: usize| {
        let bytes = reply.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(malformed)
    };
    let kind = reply.get(4..6).and_then(|bytes| bytes.try_into().ok()).map(u16::from_ne_bytes);
    if kind == Some(NLMSG_ERROR) {
        let negative = word(HEADER_BYTES)?.cast_signed();
        return Err(Errno::from_raw_os_error(negative.saturating_neg()));
    }
    let message = reply.get(HEADER_BYTES..HEADER_BYTES + 72).ok_or(malformed)?;
    if kind != Some(SOCK_DIAG_BY_FAMILY) {
        return Err(malformed);
    }
    let found = SocketOwner {
        established: message[1] == TCP_ESTABLISHED,
        uid: word(HEADER_BYTES + 64)?,
        inode: word(HEADER_BYTES + 68)?,
    };
    // An IPv6 socket with IPv4 addresses is shown with mapped ones.
    let same =
        message[4..40] == pair(near, far) || message[4..40] == pair(mapped(near), mapped(far));
    // A socket that listens has no other end.
    let listens = far.port() == 0;
    if same || listens { Ok(found) } else { Err(Errno::NOENT) }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) => IpAddr::V6(ip.to_ipv6_mapped()),
        ip @ IpAddr::V6(_) => ip,
    };
    SocketAddr::new(ip, address.port())
}
