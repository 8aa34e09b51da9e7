//! Archives in the `newc` form of cpio, the one that a kernel unpacks as its initramfs.
//!
//! The bytes depend on what is added and in which order, and on nothing else: no clock, no owner,
//! no inode of this machine. Archives can be laid one after the other, and the kernel unpacks them
//! all, later files over earlier ones.

/// What ends an archive.
const TRAILER: &str = "TRAILER!!!";
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHAR_DEVICE: u32 = 0o020_000;

/// Builds one archive in memory.
///
/// Directories must be added before what they hold; [`Writer::dir_all`] does so, once for each.
#[derive(Debug, Default)]
pub struct Writer {
    bytes: Vec<u8>,
    entries: u32,
    dirs: std::collections::BTreeSet<String>,
}

impl Writer {
    /// An archive with nothing in it yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file with the permissions `mode` (such as `0o755`).
    ///
    /// # Panics
    /// When `contents` is 4 GiB or more, which the form can't say.
    pub fn file(&mut self, path: &str, mode: u32, contents: &[u8]) {
        self.entry(path, REGULAR | (mode & 0o7777), (0, 0), contents);
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.entry(path, SYMLINK | 0o777, (0, 0), target.as_bytes());
    }

    /// Adds a directory with the permissions `mode`; one that was added already stays as it was.
    pub fn dir(&mut self, path: &str, mode: u32) {
        if self.dirs.insert(relative(path).to_owned()) {
            self.entry(path, DIRECTORY | (mode & 0o7777), (0, 0), b"");
        }
    }

    /// Adds a directory and those above it, as 0755.
    pub fn dir_all(&mut self, path: &str) {
        let path = relative(path);
        for (end, _) in path.match_indices('/') {
            self.dir(&path[..end], 0o755);
        }
        self.dir(path, 0o755);
    }

    /// Adds a character device, such as the `/dev/console` that PID 1 gets its streams from.
    pub fn char_device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.entry(path, CHAR_DEVICE | (mode & 0o7777), (major, minor), b"");
    }

    /// Ends the archive. Its length is a multiple of 512, as GNU cpio makes it.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.entries = u32::MAX;
        self.entry(TRAILER, 0, (0, 0), b"");
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let path = relative(path);
        let size = u32::try_from(contents.len()).expect("a file in an archive is under 4 GiB");
        self.entries = self.entries.wrapping_add(1);
        let links = if mode & 0o170_000 == DIRECTORY { 2 } else { 1 };
        let name_size = path.len() as u32 + 1;
        let (major, minor) = device;
        let fields = [self.entries, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

fn relative(path: &str) -> &str {
    path.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::*;

    fn sample() -> Vec<u8> {
        let mut archive = Writer::new();
        archive.dir_all("/lib/hearth/modules");
        archive.dir_all("lib/hearth");
        archive.file("/lib/hearth/modules/order", 0o644, b"one\ntwo\n");
        archive.file("/init", 0o755, &[0xab; 4099]);
        archive.symlink("bin", "usr/bin");
        archive.finish()
    }

    fn cpio(arguments: &[&str], archive: &[u8]) -> String {
        let mut child = Command::new("cpio")
            .args(arguments)
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        child.stdin.take().unwrap().write_all(archive).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    }

    #[test]
    fn the_real_cpio_reads_back_what_was_written() {
        let names = cpio(&["--quiet", "-it"], &sample());
        assert_eq!(
            names,
            "lib\nlib/hearth\nlib/hearth/modules\nlib/hearth/modules/order\ninit\nbin\n"
        );
        let order = cpio(&["--quiet", "-i", "--to-stdout", "lib/hearth/modules/order"], &sample());
        assert_eq!(order, "one\ntwo\n");
    }

    #[test]
    fn modes_owners_and_times_are_those_of_no_machine() {
        let listing = cpio(&["--quiet", "-itvn"], &sample());
        let init = listing.lines().find(|line| line.ends_with("init")).unwrap();
        let fields: Vec<_> = init.split_whitespace().collect();
        assert_eq!(fields[..5], ["-rwxr-xr-x", "1", "0", "0", "4099"]);
        assert!(init.contains("1970"), "{init}");
        assert!(listing.contains("bin -> usr/bin"), "{listing}");
    }

    #[test]
    fn the_same_entries_give_the_same_bytes() {
        assert!(sample() == sample());
    }
}
