//! Imports a kernel into the images directory.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::package::{KernelTree, download_debian, unpack_deb};
use crate::{GUEST_MODULES, KernelError, Modules, extract_vmlinux};

/// Where a kernel comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Debian package of a kernel (`linux-image-…_amd64.deb`).
    Deb(PathBuf),
    /// A `vmlinuz` and the directory of its modules (`/lib/modules/VERSION`).
    Image {
        /// The bzImage, or an ELF kernel.
        vmlinuz: PathBuf,
        /// The modules; needs a `modules.dep`.
        modules: PathBuf,
    },
    /// A kernel that is installed on this machine: `/boot/vmlinuz-VERSION`. Without a version, the
    /// one whose name sorts last.
    Installed {
        /// The version, as `uname -r` says it.
        version: Option<String>,
    },
    /// Debian's current kernel, downloaded by apt.
    Debian,
}

/// A kernel that is in the images directory now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// The uncompressed kernel.
    pub kernel: PathBuf,
    /// The archive of its modules, named as the kernel with `.modules` behind it.
    pub modules: PathBuf,
    /// The kernel's version.
    pub version: String,
}

/// Imports `source` into `images_dir` as `name` and `name.modules`, each replaced whole and synced
/// to disk, so that a reader sees the old or the new file and never a part. Importing the same
/// kernel again gives the same bytes.
///
/// # Errors
/// Every [`KernelError`]. What was in the directory before stays as it was, except that a failure
/// between the two files leaves the new modules beside the old kernel.
pub fn import(source: &Source, images_dir: &Path, name: &str) -> Result<Imported, KernelError> {
    check_name(name)?;
    let work = tempfile::tempdir()
        .map_err(KernelError::file("create a temporary directory in", std::env::temp_dir()))?;
    let tree = locate(source, work.path())?;
    let image = fs::read(&tree.vmlinuz).map_err(KernelError::file("read kernel", &tree.vmlinuz))?;
    let vmlinux = extract_vmlinux(&image)?;
    let archive = Modules::resolve(&tree.modules, GUEST_MODULES)?.archive()?;
    fs::create_dir_all(images_dir).map_err(KernelError::file("create directory", images_dir))?;
    let imported = Imported {
        kernel: images_dir.join(name),
        modules: images_dir.join(format!("{name}.modules")),
        version: tree.version,
    };
    replace(&imported.modules, &archive)?;
    replace(&imported.kernel, &vmlinux)?;
    Ok(imported)
}

/// The versions of the kernels in `/boot`, sorted by name.
#[must_use]
pub fn installed_versions() -> Vec<String> {
    let names = fs::read_dir("/boot").into_iter().flatten().flatten();
    let mut versions: Vec<_> = names
        .filter_map(|entry| Some(entry.file_name().to_str()?.strip_prefix("vmlinuz-")?.to_owned()))
        .collect();
    versions.sort();
    versions
}

fn locate(source: &Source, work: &Path) -> Result<KernelTree, KernelError> {
    match source {
        Source::Deb(deb) => unpack_deb(deb, work),
        Source::Debian => unpack_deb(&download_debian(work)?, work),
        Source::Image { vmlinuz, modules } => {
            let version = modules.file_name().unwrap_or_default().to_string_lossy().into_owned();
            Ok(KernelTree { version, vmlinuz: vmlinuz.clone(), modules: modules.clone() })
        }
        Source::Installed { version } => {
            let version = version.clone().or_else(|| installed_versions().pop());
            let version = version.ok_or_else(|| KernelError::NoKernel {
                place: "/boot".into(),
                looked_for: "vmlinuz-VERSION",
            })?;
            Ok(KernelTree {
                vmlinuz: format!("/boot/vmlinuz-{version}").into(),
                modules: format!("/lib/modules/{version}").into(),
                version,
            })
        }
    }
}

fn check_name(name: &str) -> Result<(), KernelError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-+".contains(c);
    if name.is_empty() || name.starts_with('.') || !name.chars().all(plain) {
        return Err(KernelError::BadName { name: name.to_owned() });
    }
    Ok(())
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), KernelError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let write = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".import-").tempfile_in(dir)?;
        file.write_all(bytes)?;
        let mut permissions = file.as_file().metadata()?.permissions();
        std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
        file.as_file().set_permissions(permissions)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(KernelError::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf() -> Vec<u8> {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0];
        elf.resize(4096, 7);
        elf
    }

    /// A kernel with everything built in.
    fn source(dir: &Path) -> Source {
        let modules = dir.join("6.1.0-test");
        fs::create_dir_all(&modules).unwrap();
        fs::write(dir.join("vmlinuz"), elf()).unwrap();
        fs::write(modules.join("modules.dep"), "").unwrap();
        let builtin: Vec<_> =
            GUEST_MODULES.iter().map(|name| format!("kernel/{name}.ko\n")).collect();
        fs::write(modules.join("modules.builtin"), builtin.concat()).unwrap();
        Source::Image { vmlinuz: dir.join("vmlinuz"), modules }
    }

    #[test]
    fn an_import_puts_the_kernel_and_its_modules_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        let imported = import(&source(dir.path()), &images, "vmlinux").unwrap();
        assert_eq!(imported.version, "6.1.0-test");
        assert!(fs::read(images.join("vmlinux")).unwrap() == elf());
        assert!(fs::read(images.join("vmlinux.modules")).unwrap().starts_with(b"070701"));
        let left: Vec<_> = fs::read_dir(&images).unwrap().collect();
        assert_eq!(left.len(), 2, "no temporary file is left: {left:?}");
    }

    #[test]
    fn a_failed_import_leaves_the_kernel_that_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let images = dir.path().join("images");
        let source = source(dir.path());
        import(&source, &images, "vmlinux").unwrap();
        fs::write(dir.path().join("vmlinuz"), b"not a kernel").unwrap();
        assert!(import(&source, &images, "vmlinux").is_err());
        assert!(fs::read(images.join("vmlinux")).unwrap() == elf());
    }

    #[test]
    fn a_name_that_leaves_the_images_directory_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["", "..", "../vmlinux", "a/b", ".hidden"] {
            let error = import(&source(dir.path()), dir.path(), name).unwrap_err();
            assert!(matches!(error, KernelError::BadName { .. }), "{name}");
        }
    }

    #[test]
    fn a_package_that_is_none_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let deb = dir.path().join("kernel.deb");
        fs::write(&deb, b"no package").unwrap();
        let error = import(&Source::Deb(deb), dir.path(), "vmlinux").unwrap_err().to_string();
        assert!(error.contains("dpkg-deb -x failed") && error.contains("kernel.deb"), "{error}");
    }
}
