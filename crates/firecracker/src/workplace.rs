//! Where a process works, also where it is confined: its jail hides the path of its directory, and the
//! kernel still says which directory is the root of what it sees.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Ends the path of a working directory that is gone (proc_pid_cwd(5)).
const GONE: &[u8] = b" (deleted)";
/// The same of the root of a mount (fs/proc_namespace.c of Linux).
const ROOT_GONE: &[u8] = b"//deleted";

/// The working directory of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workplace {
    /// Its path. That of a confined process begins at the root of its file system, which may be mounted
    /// somewhere.
    path: PathBuf,
    is_confined: bool,
    is_gone: bool,
}

impl Workplace {
    /// That of a process; `None` where it can't be seen, as of one that has ended.
    #[must_use]
    pub fn of(pid: i32) -> Option<Workplace> {
        let path = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        if path != Path::new("/") {
            let (path, is_gone) = without(path.as_os_str().as_bytes(), GONE);
            return Some(Workplace { path, is_confined: false, is_gone });
        }
        Workplace::of_root(&fs::read_to_string(format!("/proc/{pid}/mountinfo")).ok()?)
    }

    /// The directory that is the root of all that these mounts show (proc_pid_mountinfo(5)).
    fn of_root(mounts: &str) -> Option<Workplace> {
        let mut fields = mounts.lines().map(|line| line.split(' ').skip(3));
        let root = fields.find_map(|mut fields| {
            let root = fields.next()?;
            (fields.next()? == "/").then_some(root)
        })?;
        let (path, is_gone) = without(&unescaped(root), ROOT_GONE);
        Some(Workplace { path, is_confined: true, is_gone })
    }

    /// The name of the directory, if it is one directly within `above`, whose path is absolute.
    #[must_use]
    pub fn name_in(&self, above: &Path) -> Option<String> {
        let parent = self.path.parent()?;
        let within = match self.is_confined {
            false => parent == above,
            true => above.ends_with(parent.strip_prefix("/").ok()?) && parent != Path::new("/"),
        };
        within.then(|| self.path.file_name().unwrap_or_default().to_string_lossy().into_owned())
    }

    /// Whether the directory was removed beneath the process.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.is_gone
    }
}

fn without(path: &[u8], ending: &[u8]) -> (PathBuf, bool) {
    let stripped = path.strip_suffix(ending);
    let path = OsString::from_vec(stripped.unwrap_or(path).to_vec());
    (PathBuf::from(path), stripped.is_some())
}

/// Spaces and the like stand there as a backslash and three octal digits.
fn unescaped(field: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let digits = behind.get(..3).and_then(|digits| str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) if byte == b'\\' => {
                bytes.push(escaped);
                rest = &behind[3..];
            }
            _ => {
                bytes.push(byte);
                rest = behind;
            }
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_workplace_is_the_present_directory() {
        let own = Workplace::of(std::process::id().cast_signed()).unwrap();
        let here = std::env::current_dir().unwrap();
        assert!(!own.is_gone());
        let name = here.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(own.name_in(here.parent().unwrap()), Some(name));
        assert_eq!(own.name_in(Path::new("/nowhere")), None);
    }

    #[test]
    fn confined_process_works_in_the_root_of_its_mounts() {
        let of = |root: &str| {
            let mounts = format!(
                "70 68 0:41 / /dev ro - tmpfs dev ro\n68 43 254:0 {root} / rw - ext4 /dev/vda rw\n"
            );
            Workplace::of_root(&mounts).unwrap()
        };
        let instances = Path::new("/var/lib/my hearth/instances");
        let whole = of(r"/var/lib/my\040hearth/instances/abc");
        assert_eq!((whole.name_in(instances), whole.is_gone()), (Some("abc".to_owned()), false));
        // As where /var is a file system of its own.
        let gone = of(r"/lib/my\040hearth/instances/abc//deleted");
        assert_eq!((gone.name_in(instances), gone.is_gone()), (Some("abc".to_owned()), true));
        for other in ["/lib/other/instances/abc", "/", "/abc", r"/lib/my\040hearth/instances"] {
            assert_eq!(of(other).name_in(instances), None, "{other}");
        }
    }
}
