//! The name of what declares jobs.

use std::path::{Component, Path, PathBuf};

/// The name under which what a file declares is remembered: its absolute path without `.` and
/// `..`. Links are not followed, so that a path stays one source while what it leads to is swapped.
#[must_use]
pub fn source_of(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut source = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::ParentDir => {
                source.pop();
            }
            component => source.push(component),
        }
    }
    source
}

#[cfg(test)]
mod tests {
    use super::source_of;
    use std::path::Path;

    #[test]
    fn a_path_is_one_source_however_it_is_written() {
        assert_eq!(
            source_of(Path::new("/etc/./hearth/../hearth/vms.exs")),
            Path::new("/etc/hearth/vms.exs")
        );
        assert_eq!(source_of(Path::new("/../vms.exs")), Path::new("/vms.exs"));
        let here = std::env::current_dir().expect("a directory");
        assert_eq!(source_of(Path::new("vms.exs")), here.join("vms.exs"));
    }
}
