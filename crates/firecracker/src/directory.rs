//! The working directory of one Firecracker, held open, so that names in it stay reachable
//! however long its path is. It never removes anything.

use crate::names;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Longest path of a Unix socket, in bytes, without the closing zero (unix(7)).
pub const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A directory by path and by descriptor.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    /// Whether it has a directory of its own for the sockets.
    has_sockets: bool,
}

impl Directory {
    /// Opens an existing directory. A link to one is refused.
    ///
    /// # Errors
    /// If it is absent or not a directory.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        let found = rustix::fs::statat(&fd, names::SOCKETS, AtFlags::SYMLINK_NOFOLLOW);
        let has_sockets = found.is_ok_and(|found| {
            rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Directory
        });
        Ok(Directory { path: path.to_owned(), fd, has_sockets })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path of a name in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether it was laid out for a process that is confined.
    #[must_use]
    pub fn is_of_jail(&self) -> bool {
        self.has_sockets
    }

    /// The name of a socket, as the process that works here has it.
    #[must_use]
    pub fn socket_name(&self, name: &str) -> String {
        if self.has_sockets { format!("{}/{name}", names::SOCKETS) } else { name.to_owned() }
    }

    /// A path by which this process can bind or connect to the socket `name`: the plain path
    /// where it is short enough, else one through the descriptor. Valid as long as `self` lives.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        let name = self.socket_name(name);
        let plain = self.path.join(&name);
        if plain.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return plain;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
    }

    /// Gives a file in it, which is not a link, to a user and the group of that number.
    ///
    /// # Errors
    /// Those of fchownat(2).
    pub(crate) fn give(&self, name: &str, user: u32) -> io::Result<()> {
        let (owner, group) = (Uid::from_raw(user), Gid::from_raw(user));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        Ok(rustix::fs::chownat(&self.fd, name, Some(owner), Some(group), flags)?)
    }

    /// Takes the directory of the sockets back from a confined process, which can make, rename and remove
    /// nothing from then on. For before its guest runs.
    ///
    /// # Errors
    /// Those of fchownat(2) and fchmodat(2).
    pub fn seal(&self) -> io::Result<()> {
        self.give(names::SOCKETS, 0)?;
        self.let_search(names::SOCKETS)
    }

    /// Lets others open what they know by name in a directory, or in this one if it is ".".
    pub(crate) fn let_search(&self, name: &str) -> io::Result<()> {
        let mode = Mode::RWXU | Mode::XGRP | Mode::XOTH;
        Ok(rustix::fs::chmodat(&self.fd, name, mode, AtFlags::empty())?)
    }

    /// Device and inode, by which a process's working directory is compared with it.
    ///
    /// # Errors
    /// Those of fstat(2).
    pub fn device_inode(&self) -> io::Result<(u64, u64)> {
        let stat = rustix::fs::fstat(&self.fd)?;
        Ok((stat.st_dev, stat.st_ino))
    }
}

impl AsFd for Directory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_in_a_long_path_is_reached_through_the_descriptor() {
        let base = tempfile::tempdir().unwrap();
        let long = base.path().join("d".repeat(90)).join("e".repeat(90));
        std::fs::create_dir_all(&long).unwrap();
        let directory = Directory::open(&long).unwrap();
        let socket = directory.socket("api.sock");
        assert!(socket.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        assert!(long.join("api.sock").exists());
        std::os::unix::net::UnixStream::connect(&socket).unwrap();
    }

    #[test]
    fn a_short_path_is_used_as_it_is() {
        let base = tempfile::tempdir().unwrap();
        let directory = Directory::open(base.path()).unwrap();
        assert_eq!(directory.socket("api.sock"), base.path().join("api.sock"));
    }
}
