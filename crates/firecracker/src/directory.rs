//! The working directory of one Firecracker, held open, so that names in it stay reachable
//! however long its path is. It never removes anything.

use rustix::fs::{Mode, OFlags};
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
}

impl Directory {
    /// Opens an existing directory. A link to one is refused.
    ///
    /// # Errors
    /// If it is absent or not a directory.
    pub fn open(path: &Path) -> io::Result<Directory> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Directory { path: path.to_owned(), fd })
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

    /// A path by which this process can bind or connect to the socket `name`: the plain path
    /// where it is short enough, else one through the descriptor. Valid as long as `self` lives.
    #[must_use]
    pub fn socket(&self, name: &str) -> PathBuf {
        let plain = self.path.join(name);
        if plain.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
            return plain;
        }
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()))
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
