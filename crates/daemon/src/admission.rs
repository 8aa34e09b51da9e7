//! Who may use this daemon: root, the daemon's own user and the members of one group. The kernel says
//! who calls; the user database says who is a member, unless the kernel knows that too.

mod directory;

pub(crate) use directory::gid_of;

use crate::http::Refused;
use crate::{Callers, Listen};
use directory::Directory;
use hearth_host::linux::peer::{Peer, PeerError, PeerGroups};
use std::error::Error;

/// What becomes of a connection.
#[derive(Debug)]
pub(crate) enum Admission {
    /// It is served.
    Admitted,
    /// It is told why not.
    Refused(Refused),
    /// The user database has to be read first, which may take a while: [`Policy::look_up`].
    Undecided,
}

/// The rule, with what the user database said lately.
#[derive(Debug)]
pub(crate) struct Policy {
    own_uid: u32,
    group: String,
    /// Whether everybody is admitted.
    open: bool,
    directory: Directory,
}

impl Policy {
    pub(crate) fn new(callers: Callers, listen: &Listen) -> Policy {
        Policy {
            own_uid: rustix::process::geteuid().as_raw(),
            open: callers.open_loopback && matches!(listen, Listen::Tcp(_)),
            directory: Directory::new(callers.group.clone()),
            group: callers.group,
        }
    }

    /// The number of the group, if it exists and the user database says so in time.
    pub(crate) async fn gid(&self) -> Option<u32> {
        self.directory.gid().await.flatten()
    }

    /// What is to be said at a start, given whether the kernel tells who connects.
    pub(crate) fn warning(&self, probe: Result<(), PeerError>) -> Option<String> {
        let own = self.own_uid;
        match probe {
            _ if self.open => Some(format!(
                "open_loopback: every local user commands this daemon, and reads what jobs are \
                 given, with the rights of user {own}"
            )),
            Err(error) => Some(format!("{}; {UNIX_SOCKET}", closed(&error))),
            Ok(()) => None,
        }
    }

    /// What becomes of a connection from this peer, as far as that is known at once.
    pub(crate) fn decide(&self, peer: &Result<Peer, PeerError>) -> Admission {
        match peer {
            _ if self.open => Admission::Admitted,
            Ok(Peer { uid, .. }) if *uid == 0 || *uid == self.own_uid => Admission::Admitted,
            Ok(peer) => match self.directory.remembers(peer) {
                Some(member) => self.admit_if(member, peer),
                None => Admission::Undecided,
            },
            Err(error) => Admission::Refused(self.unknown(error)),
        }
    }

    /// What becomes of a connection from this peer.
    pub(crate) async fn look_up(&self, peer: &Peer) -> Admission {
        match self.directory.is_member(peer).await {
            Some(member) => self.admit_if(member, peer),
            None => {
                let (uid, group) = (peer.uid, &self.group);
                let detail = format!(
                    "cannot find out whether user {uid} is a member of the group {group}: the user \
                     database does not answer"
                );
                Admission::Refused(for_now(detail).help("try again, or call as root"))
            }
        }
    }

    fn admit_if(&self, member: bool, peer: &Peer) -> Admission {
        if member { Admission::Admitted } else { Admission::Refused(self.stranger(peer)) }
    }

    fn stranger(&self, peer: &Peer) -> Refused {
        let (uid, own, group) = (peer.uid, self.own_uid, &self.group);
        let rest = match own {
            0 => String::new(),
            own => format!(", user {own} (the daemon's own)"),
        };
        if group.is_empty() {
            let detail = format!("user {uid} may not use this daemon: it admits root{rest}");
            return refused(detail).help("call as root, for instance with sudo");
        }
        let detail = format!(
            "user {uid} may not use this daemon: it admits root{rest} and the members of the group \
             {group}"
        );
        let then = match peer.groups {
            PeerGroups::OfProcess(_) => ", log in again",
            PeerGroups::OfUser => "",
        };
        refused(detail).help(format!(
            "call as root, for instance with sudo, or become a member of the group: sudo groupadd \
             --force --system {group} && sudo usermod --append --groups {group} USER{then}"
        ))
    }

    fn unknown(&self, error: &PeerError) -> Refused {
        let detail = format!("the caller is not known: {}", sentence(error));
        if error.is_transient() {
            return for_now(detail);
        }
        refused(detail).help(match error {
            PeerError::Closed => "leave the connection open in both directions until the answer",
            PeerError::Unmapped => "call from a user that the daemon's user namespace has",
            PeerError::Kernel(_) => UNIX_SOCKET,
        })
    }
}

/// That no caller is admitted over TCP, and why.
pub(crate) fn closed(error: &PeerError) -> String {
    format!("requests over TCP are refused, since their users are not known: {}", sentence(error))
}

/// What to do if the kernel does not tell the users of TCP connections.
pub(crate) const UNIX_SOCKET: &str = "listen on a Unix socket (hearth serve --listen unix:///run/hearth.sock), or let the daemon use \
     netlink sockets: modprobe tcp_diag, AF_NETLINK in the unit's RestrictAddressFamilies";

/// Not a verdict on the caller, whose next connection may be admitted.
fn for_now(detail: String) -> Refused {
    Refused::for_now("unavailable", "Unavailable", detail)
}

fn refused(detail: String) -> Refused {
    Refused::new(403, "not-admitted", "Not admitted", detail)
}

/// An error with its causes.
pub(crate) fn sentence(error: &dyn Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence = format!("{sentence}: {error}");
        cause = error.source();
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::{Admission, Policy};
    use crate::{Callers, Listen};
    use expect_test::{Expect, expect};
    use hearth_host::linux::peer::{Peer, PeerError, PeerGroups};
    use std::io;

    fn policy(group: &str, open_loopback: bool, listen: &str) -> Policy {
        let listen: Listen = listen.parse().expect("an address");
        Policy::new(Callers { group: group.to_owned(), open_loopback }, &listen)
    }

    fn no_netlink() -> PeerError {
        io::Error::from(io::ErrorKind::PermissionDenied).into()
    }

    fn check(policy: &Policy, peer: Result<Peer, PeerError>, expected: Expect) {
        expected.assert_eq(&match policy.decide(&peer) {
            Admission::Admitted => "admitted".to_owned(),
            Admission::Undecided => "undecided".to_owned(),
            Admission::Refused(refused) => {
                let problem = String::from_utf8(refused.body()).expect("text");
                let problem: serde_json::Value = serde_json::from_str(&problem).expect("JSON");
                format!("{}\n{}", problem["detail"], problem["help"])
            }
        });
    }

    #[test]
    fn who_is_not_known_is_refused_with_the_remedy() {
        let policy = policy("hearth", false, "127.0.0.1:8088");
        let user = |uid| Ok(Peer { uid, groups: PeerGroups::OfUser });
        check(&policy, user(0), expect!["admitted"]);
        check(&policy, user(54_321), expect!["undecided"]);
        check(
            &policy,
            Err(PeerError::Closed),
            expect![[r#"
            "the caller is not known: the client had closed the connection, or its sending half, before it was accepted"
            "leave the connection open in both directions until the answer""#]],
        );
        check(
            &policy,
            Err(PeerError::Unmapped),
            expect![[r#"
            "the caller is not known: its user is not mapped into the user namespace of the daemon"
            "call from a user that the daemon's user namespace has""#]],
        );
        check(
            &policy,
            Err(no_netlink()),
            expect![[r#"
            "the caller is not known: cannot ask the kernel for the user of a connection: permission denied"
            "listen on a Unix socket (hearth serve --listen unix:///run/hearth.sock), or let the daemon use netlink sockets: modprobe tcp_diag, AF_NETLINK in the unit's RestrictAddressFamilies""#]],
        );
    }

    #[test]
    fn kernel_short_of_memory_refuses_no_caller_for_good() {
        use rustix::io::Errno;
        let policy = policy("hearth", false, "127.0.0.1:8088");
        let status = |errno: Errno| {
            let error = io::Error::from_raw_os_error(errno.raw_os_error());
            let Admission::Refused(refused) = policy.decide(&Err(error.into())) else {
                panic!("{errno} admits a caller")
            };
            let problem: serde_json::Value = serde_json::from_slice(&refused.body()).expect("JSON");
            problem["status"].as_u64()
        };
        for errno in [Errno::NOBUFS, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::INTR] {
            assert_eq!(status(errno), Some(503), "{errno}");
        }
        for errno in [Errno::ACCESS, Errno::PERM, Errno::AFNOSUPPORT, Errno::NOENT] {
            assert_eq!(status(errno), Some(403), "{errno}");
        }
    }

    #[test]
    fn no_group_leaves_root_and_the_daemons_own_user() {
        let policy = policy("", false, "unix:///run/h.sock");
        let peer = |uid| Ok(Peer { uid, groups: PeerGroups::OfProcess(vec![0]) });
        check(&policy, peer(rustix::process::geteuid().as_raw()), expect!["admitted"]);
        check(
            &policy,
            peer(54_321),
            expect![[r#"
            "user 54321 may not use this daemon: it admits root"
            "call as root, for instance with sudo""#]],
        );
    }

    #[test]
    fn an_open_loopback_is_warned_of_and_opens_no_unix_socket() {
        let unix = policy("hearth", true, "unix:///run/h.sock");
        let peer = || Ok(Peer { uid: 54_321, groups: PeerGroups::OfUser });
        check(&unix, peer(), expect!["undecided"]);
        assert_eq!(unix.warning(Ok(())), None);
        let tcp = policy("hearth", true, "127.0.0.1:8088");
        check(&tcp, peer(), expect!["admitted"]);
        check(&tcp, Err(PeerError::Closed), expect!["admitted"]);
        assert!(tcp.warning(Ok(())).is_some_and(|text| text.contains("every local user")));
    }

    #[test]
    fn a_kernel_that_tells_nothing_is_warned_of() {
        let policy = policy("hearth", false, "127.0.0.1:8088");
        assert_eq!(policy.warning(Ok(())), None);
        expect!["requests over TCP are refused, since their users are not known: cannot ask the kernel for the user of a connection: permission denied; listen on a Unix socket (hearth serve --listen unix:///run/hearth.sock), or let the daemon use netlink sockets: modprobe tcp_diag, AF_NETLINK in the unit's RestrictAddressFamilies"].assert_eq(&policy.warning(Err(no_netlink())).unwrap_or_default());
    }
}
