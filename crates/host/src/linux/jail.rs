//! To whom instances are confined: each slot has a user and a group of its own, of a range that
//! nothing else uses. How a process is confined is `hearth-firecracker`'s.

use super::layout::Layout;
use crate::HostError;
use hearth_firecracker::try_jail;
use hearth_model::Slot;
use std::fs::Permissions;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// The first user of the default range: systemd keeps those up to 1879048191 for containers and the like
/// (systemd.io/UIDS-GIDS), and above 2147483647 some programs take them for negative.
pub const FIRST_USER: u32 = 1_879_048_192;

/// How long the name service may take to say whom it knows.
const NAMES_DEADLINE: Duration = Duration::from_secs(5);

/// The users of instances.
#[derive(Debug)]
pub(super) struct Jails {
    first_user: u32,
}

impl Jails {
    /// Checks that the range is free, and that a process can be confined here.
    ///
    /// # Errors
    /// What is in the way, with the remedy: nothing runs less confined than it was asked for.
    pub(super) fn open(layout: &Layout, first_user: u32) -> Result<Jails, HostError> {
        if first_user.checked_add(Slot::COUNT).is_none_or(|end| end > i32::MAX.cast_unsigned()) {
            let message =
                format!("cannot confine microVMs: user {first_user} is no first user of a range");
            return Err(HostError::permanent(message));
        }
        if let Some(holder) = holder(first_user) {
            let message = format!(
                "cannot confine microVMs: of the users {first_user} to {} some are those of {holder}; \
                 --jail-users names the first of a range that is free",
                first_user + Slot::COUNT - 1
            );
            return Err(HostError::permanent(message));
        }
        let trial = layout.trial();
        let tried = try_jail(&trial, first_user);
        // What is in it is made again by the next trial.
        let _ = std::fs::remove_dir_all(&trial);
        tried.map_err(|error| {
            let message = "cannot confine microVMs; --jail off runs them unconfined";
            HostError::permanent(message).because(error)
        })?;
        Ok(Jails { first_user })
    }

    /// The user and the group of a slot.
    pub(super) fn user(&self, slot: Slot) -> u32 {
        self.first_user + slot.0
    }

    /// Gives a file to the user of a slot.
    pub(super) fn give(&self, path: &Path, slot: Slot) -> io::Result<()> {
        let user = self.user(slot);
        chown(path, Some(user), Some(user))
    }

    /// Lets the user of a slot read a file, and no other user.
    pub(super) fn show(&self, path: &Path, slot: Slot) -> io::Result<()> {
        chown(path, None, Some(self.user(slot)))?;
        std::fs::set_permissions(path, Permissions::from_mode(0o440))
    }
}

/// Who has some of the users or groups of the range, if any: they are asked of all that the system's
/// name service knows, and of the ranges that are set aside for containers (subuid(5)).
fn holder(first_user: u32) -> Option<String> {
    let range = first_user..first_user + Slot::COUNT;
    let names = ["passwd", "group"].into_iter().find_map(|database| {
        let entries = name_service(database);
        let mut ids = entries.lines().filter_map(|line| {
            let mut fields = line.split(':');
            Some((fields.next()?, fields.nth(1)?.parse::<u32>().ok()?))
        });
        ids.find(|(_, id)| range.contains(id)).map(|(name, id)| format!("{name} ({id})"))
    });
    names.or_else(|| {
        ["/etc/subuid", "/etc/subgid"].into_iter().find_map(|path| {
            let text = std::fs::read_to_string(path).unwrap_or_default();
            let held = set_aside(&text).find(|held| overlap(held, &range))?;
            Some(format!("{path} ({} to {})", held.start, held.end - 1))
        })
    })
}

/// All entries of a database of the name service; of the files alone where it can't be asked, or does not
/// answer.
fn name_service(database: &str) -> String {
    asked(database).unwrap_or_else(|| {
        std::fs::read_to_string(Path::new("/etc").join(database)).unwrap_or_default()
    })
}

fn asked(database: &str) -> Option<String> {
    let mut getent = Command::new("getent");
    getent.arg(database).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = getent.spawn().ok()?;
    let mut stdout = child.stdout.take()?;
    let (sender, answer) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        // The receiver is gone where it took too long.
        let _ = stdout.read_to_end(&mut text).map(|_| sender.send(text));
    });
    let answer = answer.recv_timeout(NAMES_DEADLINE);
    if answer.is_err() {
        let _ = child.kill();
    }
    let is_whole = child.wait().is_ok_and(|status| status.success());
    answer.ok().filter(|_| is_whole).map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// The ranges of subuid(5): `name:first:count`.
fn set_aside(text: &str) -> impl Iterator<Item = Range<u32>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':').skip(1).map(|field| field.trim().parse::<u32>());
        let (first, count) = (fields.next()?.ok()?, fields.next()?.ok()?);
        Some(first..first.saturating_add(count))
    })
}

fn overlap(one: &Range<u32>, other: &Range<u32>) -> bool {
    one.start < other.end && other.start < one.end
}

/// Lets a file be read by all who come to it, and written by none: those above it are closed to others.
pub(super) fn let_read(path: &Path) -> io::Result<()> {
    const READ: u32 = 0o444;
    if path.metadata()?.mode() & 0o777 == READ {
        return Ok(());
    }
    std::fs::set_permissions(path, Permissions::from_mode(READ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_that_are_set_aside_are_read() {
        let text = "user:100000:65536\n# none\nbroken:1\n1000:4294967295:9\n";
        let ranges: Vec<Range<u32>> = set_aside(text).collect();
        assert_eq!(ranges, [100_000..165_536, u32::MAX..u32::MAX]);
    }

    #[test]
    fn range_is_taken_where_it_meets_another() {
        let range = 10..20;
        let taken = |other: Range<u32>| overlap(&other, &range);
        assert!(taken(19..30) && taken(0..11) && taken(12..13) && taken(0..99));
        assert!(!taken(20..30) && !taken(0..10));
    }

    #[test]
    fn users_of_the_system_are_not_in_the_default_range() {
        assert_eq!(holder(FIRST_USER), None);
        let holder = holder(0).expect("root is a user");
        assert!(holder.starts_with("root (0)"), "{holder}");
    }
}
