//! What the user database says of one group: its number and its members. NSS may ask a server for it,
//! so it is read beside the serving threads, seldom, and for a bounded time.

use crate::limits;
use hearth_host::linux::peer::{Peer, PeerGroups};
use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, getgrouplist};
use std::collections::HashMap;
use std::ffi::CString;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

/// The members of one group.
#[derive(Debug)]
pub(super) struct Directory {
    /// A name, or a number; empty for no group.
    group: String,
    gid: Recent<(), Option<u32>>,
    members: Recent<u32, bool>,
    lookups: Arc<Semaphore>,
}

impl Directory {
    pub(super) fn new(group: String) -> Directory {
        Directory {
            group,
            gid: Recent::default(),
            members: Recent::default(),
            lookups: Arc::new(Semaphore::new(limits::USER_LOOKUPS_MAX)),
        }
    }

    /// Whether a peer is a member, if that was read lately.
    pub(super) fn remembers(&self, peer: &Peer) -> Option<bool> {
        if self.group.is_empty() {
            return Some(false);
        }
        match &peer.groups {
            PeerGroups::OfProcess(groups) => Some(has(groups, self.gid.get(&())?)),
            PeerGroups::OfUser => self.members.get(&peer.uid),
        }
    }

    /// Whether a peer is a member. `None` if the user database does not answer in time.
    pub(super) async fn is_member(&self, peer: &Peer) -> Option<bool> {
        match &peer.groups {
            PeerGroups::OfProcess(groups) => Some(has(groups, self.gid().await?)),
            PeerGroups::OfUser => {
                let (group, uid) = (self.group.clone(), peer.uid);
                let member = || self.members.get(&uid);
                let read = move || match gid_of(&group)? {
                    Some(gid) => is_member(uid, gid),
                    None => Ok(false),
                };
                let member = self.read(member, read).await?;
                self.members.put(uid, member);
                Some(member)
            }
        }
    }

    /// The number of the group, if it exists. `None` if the user database does not answer in time.
    pub(super) async fn gid(&self) -> Option<Option<u32>> {
        if self.group.is_empty() {
            return Some(None);
        }
        let group = self.group.clone();
        let gid = self.read(|| self.gid.get(&()), move || gid_of(&group)).await?;
        self.gid.put((), gid);
        Some(gid)
    }

    /// What `remembered` gives, else what `read` does, in time.
    async fn read<T: Send + 'static>(
        &self,
        remembered: impl Fn() -> Option<T>,
        read: impl FnOnce() -> nix::Result<T> + Send + 'static,
    ) -> Option<T> {
        let outcome = timeout(limits::USER_LOOKUP_DEADLINE, async {
            let permit = self.lookups.clone().acquire_owned().await.ok()?;
            // Another may have read it meanwhile.
            if let Some(value) = remembered() {
                return Some(Ok(value));
            }
            let reading = tokio::task::spawn_blocking(move || {
                // Held until it ends, whether or not somebody waits for it.
                let _permit = permit;
                read()
            });
            reading.await.ok()
        });
        match outcome.await {
            Ok(Some(Ok(value))) => Some(value),
            Ok(Some(Err(errno))) => {
                tracing::warn!(cause = %errno, "cannot read the user database");
                None
            }
            Ok(None) | Err(_) => None,
        }
    }
}

fn has(groups: &[u32], gid: Option<u32>) -> bool {
    gid.is_some_and(|gid| groups.contains(&gid))
}

/// What the user database gives for a name or a number, `None` if it has no entry for it: getpwnam_r(3) lists
/// the errors by which some of its sources say so. Any other one may pass.
fn entry<T>(found: nix::Result<Option<T>>) -> nix::Result<Option<T>> {
    match found {
        Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => Ok(None),
        found => found,
    }
}

/// The number of a group, if it exists. May take as long as the user database.
pub(crate) fn gid_of(group: &str) -> nix::Result<Option<u32>> {
    match entry(Group::from_name(group))? {
        Some(group) => Ok(Some(group.gid.as_raw())),
        None => Ok(group.parse().ok()),
    }
}

/// Whether it is the primary or a supplementary group of a user.
fn is_member(uid: u32, gid: u32) -> nix::Result<bool> {
    let Some(user) = entry(User::from_uid(Uid::from_raw(uid)))? else { return Ok(false) };
    let Ok(name) = CString::new(user.name) else { return Ok(false) };
    Ok(getgrouplist(&name, user.gid)?.contains(&Gid::from_raw(gid)))
}

/// What was read lately, a bounded number of it.
#[derive(Debug)]
struct Recent<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Recent<K, V> {
    fn default() -> Recent<K, V> {
        Recent(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash, V: Copy> Recent<K, V> {
    fn get(&self, key: &K) -> Option<V> {
        let entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (at, value) = entries.get(key)?;
        (at.elapsed() < limits::USER_MAX_AGE).then_some(*value)
    }

    fn put(&self, key: K, value: V) {
        let mut entries = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if entries.len() >= limits::USERS_REMEMBERED_MAX {
            entries.retain(|_, (at, _)| at.elapsed() < limits::USER_MAX_AGE);
        }
        // A flood of users forgets the others, who are looked up again.
        if entries.len() >= limits::USERS_REMEMBERED_MAX {
            entries.clear();
        }
        entries.insert(key, (Instant::now(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Callers;
    use crate::admission::{Admission, Policy};

    fn peer(uid: u32, groups: PeerGroups) -> Peer {
        Peer { uid, groups }
    }

    #[test]
    fn primary_groups_count_and_a_number_is_a_group() {
        assert_eq!(gid_of("root"), Ok(Some(0)));
        assert_eq!(gid_of("4294967294"), Ok(Some(4_294_967_294)));
        assert_eq!(gid_of("hearth-no-such-group"), Ok(None));
        assert_eq!(is_member(0, 0), Ok(true));
        assert_eq!(is_member(65_534, 0), Ok(false));
        assert_eq!(is_member(4_000_000_000, 0), Ok(false), "a user that is not in the database");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_read_is_remembered_for_a_while_and_bounded() {
        let recent = Recent::default();
        for uid in 0..3 * limits::USERS_REMEMBERED_MAX {
            recent.put(uid, true);
            assert!(recent.0.lock().unwrap().len() <= limits::USERS_REMEMBERED_MAX);
        }
        recent.put(1, true);
        assert_eq!(recent.get(&1), Some(true));
        tokio::time::advance(limits::USER_MAX_AGE).await;
        assert_eq!(recent.get(&1), None);
    }

    #[tokio::test]
    async fn no_group_has_no_members() {
        let directory = Directory::new(String::new());
        let root = peer(1000, PeerGroups::OfProcess(vec![0]));
        assert_eq!(directory.remembers(&root), Some(false));
        let directory = Directory::new("root".to_owned());
        assert_eq!(directory.remembers(&root), None);
        assert_eq!(directory.is_member(&root).await, Some(true));
        assert_eq!(directory.remembers(&root), Some(true));
        assert_eq!(directory.is_member(&peer(65_534, PeerGroups::OfUser)).await, Some(false));
        assert_eq!(directory.remembers(&peer(65_534, PeerGroups::OfUser)), Some(false));
    }

    #[test]
    fn missing_entry_is_an_answer_and_a_fault_is_none() {
        for missing in [Errno::ENOENT, Errno::ESRCH, Errno::EBADF, Errno::EPERM] {
            assert_eq!(entry::<u32>(Err(missing)), Ok(None), "{missing}");
        }
        for fault in [Errno::EAGAIN, Errno::EINTR, Errno::EIO, Errno::EMFILE, Errno::ENOMEM] {
            assert_eq!(entry::<u32>(Err(fault)), Err(fault), "{fault}");
        }
        assert_eq!(entry(Ok(Some(7))), Ok(Some(7)));
    }

    #[tokio::test]
    async fn user_database_without_an_answer_refuses_no_caller_for_good() {
        let callers = Callers { group: "hearth".to_owned(), open_loopback: false };
        let policy = Policy::new(callers, &"127.0.0.1:8088".parse().expect("an address"));
        policy.directory.lookups.close();
        for groups in [PeerGroups::OfUser, PeerGroups::OfProcess(vec![54_321])] {
            let Admission::Refused(refused) = policy.look_up(&peer(54_321, groups)).await else {
                panic!("a caller is admitted without an answer")
            };
            assert_eq!((refused.status().as_u16(), refused.retry_after()), (503, Some("1")));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_database_that_hangs_is_given_up() {
        let directory = Arc::new(Directory::new("root".to_owned()));
        let hung = |_| {
            let (ends, waits) = std::sync::mpsc::channel::<()>();
            let directory = directory.clone();
            let read = move || Ok(waits.recv().is_ok());
            (ends, tokio::spawn(async move { directory.read(|| None, read).await }))
        };
        let hung: Vec<_> = (0..limits::USER_LOOKUPS_MAX).map(hung).collect();
        let late = directory.clone();
        let late = tokio::spawn(async move { late.gid().await });
        while directory.lookups.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        tokio::time::advance(limits::USER_LOOKUP_DEADLINE).await;
        let (ends, hung): (Vec<_>, Vec<_>) = hung.into_iter().unzip();
        for read in hung {
            assert_eq!(read.await.unwrap(), None);
        }
        assert_eq!(late.await.unwrap(), None, "no more than that hang at once");
        drop(ends);
        assert_eq!(directory.gid().await, Some(Some(0)), "it answers again");
    }
}
