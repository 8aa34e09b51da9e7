//! Debian's kernel packages: fetched by apt, unpacked by dpkg, never installed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::KernelError;

/// The package that always depends on Debian's newest kernel.
const META_PACKAGE: &str = "linux-image-amd64";

/// A kernel and its modules, as files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KernelTree {
    /// The release, as `uname -r` says it in the guest.
    pub version: String,
    /// The bzImage.
    pub vmlinuz: PathBuf,
    /// The directory of its modules, with a `modules.dep`.
    pub modules: PathBuf,
}

/// Downloads the package of Debian's current kernel into `dir` and returns its file.
///
/// # Errors
/// [`KernelError::ProgramMissing`] without apt, [`KernelError::ProgramFailed`] when apt knows no
/// such package or can't reach its mirror.
pub fn download_debian(dir: &Path) -> Result<PathBuf, KernelError> {
    let depends =
        run(Command::new("apt-cache").args(["depends", META_PACKAGE]), ("apt-cache", "apt"))?;
    let package = depends
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .ok_or_else(|| KernelError::ProgramFailed {
            program: "apt-cache depends".to_owned(),
            message: format!("{META_PACKAGE} names no kernel; run `apt-get update` first"),
        })?;
    run(
        Command::new("apt-get").args(["download", "-q", package]).current_dir(dir),
        ("apt-get", "apt"),
    )?;
    let downloaded = newest(dir, |name| {
        name.strip_prefix(package).is_some_and(|rest| rest.starts_with('_'))
            && name.ends_with(".deb")
    })?;
    downloaded.ok_or_else(|| KernelError::NoKernel {
        place: dir.to_owned(),
        looked_for: "the package that apt-get downloaded",
    })
}

/// Unpacks the kernel package `deb` into `dir`, and lists its modules' dependencies, which a
/// package leaves to its installation.
///
/// # Errors
/// [`KernelError::ProgramMissing`] without dpkg or kmod, [`KernelError::ProgramFailed`] when the
/// file is not a package, [`KernelError::NoKernel`] when the package holds none.
pub fn unpack_deb(deb: &Path, dir: &Path) -> Result<KernelTree, KernelError> {
    run(Command::new("dpkg-deb").arg("-x").arg(deb).arg(dir), ("dpkg-deb", "dpkg"))?;
    let no_kernel =
        || KernelError::NoKernel { place: deb.to_owned(), looked_for: "/boot/vmlinuz-VERSION" };
    let boot = dir.join("boot");
    let vmlinuz = newest(&boot, |name| name.starts_with("vmlinuz-")).ok().flatten();
    let vmlinuz = vmlinuz.ok_or_else(no_kernel)?;
    let name = vmlinuz.file_name().unwrap_or_default().to_string_lossy();
    let version = name.strip_prefix("vmlinuz-").ok_or_else(no_kernel)?.to_owned();
    let modules = [dir.join("lib/modules"), dir.join("usr/lib/modules")]
        .map(|modules| modules.join(&version))
        .into_iter()
        .find(|modules| modules.is_dir())
        .ok_or_else(no_kernel)?;
    if !modules.join("modules.dep").exists() {
        let base =
            if modules.starts_with(dir.join("usr")) { dir.join("usr") } else { dir.to_owned() };
        run(Command::new("depmod").arg("-b").arg(base).arg(&version), ("depmod", "kmod"))?;
    }
    Ok(KernelTree { version, vmlinuz, modules })
}

/// The last by name among the files of `dir` whose name is wanted.
fn newest(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Option<PathBuf>, KernelError> {
    let mut found: Option<PathBuf> = None;
    for entry in fs::read_dir(dir).map_err(KernelError::file("read directory", dir))? {
        let entry = entry.map_err(KernelError::file("read directory", dir))?;
        if entry.file_name().to_str().is_some_and(&wanted) {
            found = found.max(Some(entry.path()));
        }
    }
    Ok(found)
}

fn run(command: &mut Command, from: (&'static str, &'static str)) -> Result<String, KernelError> {
    let (program, package) = from;
    // depmod is in /sbin, which is not on the path of every user.
    let path = std::env::var("PATH").unwrap_or_default();
    let output = command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .output()
        .map_err(|source| KernelError::ProgramMissing { program, package, source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    let message =
        message.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let first = command.get_args().next().unwrap_or_default().to_string_lossy();
    Err(KernelError::ProgramFailed {
        program: format!("{program} {first}"),
        message: message.trim().to_owned(),
    })
}
