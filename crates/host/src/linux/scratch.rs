//! Scratch disks: an empty ext4 without a journal, made once for each size and copied sparsely.

use super::errors;
use super::sparse::copy_sparse;
use super::store::ImageStore;
use crate::HostError;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where distributions keep it; a daemon's `PATH` may lack the last two.
const MKE2FS: [&str; 4] = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/bin/mke2fs", "/bin/mke2fs"];

/// How it is formatted.
const OPTIONS: [&str; 9] =
    ["-q", "-F", "-t", "ext4", "-m", "0", "-O", "^has_journal", "-Elazy_itable_init=1,nodiscard"];

/// Makes a scratch disk of `mib` MiB at `target`.
pub(super) fn make(store: &ImageStore, mib: u32, target: &Path) -> Result<(), HostError> {
    let blank = formatted(store, mib)?;
    copy_sparse(&blank, target).map_err(errors::file("copy the empty scratch disk to", target))
}

fn formatted(store: &ImageStore, mib: u32) -> Result<PathBuf, HostError> {
    // All that it is made of: another version may format otherwise.
    let form = blake3::hash(OPTIONS.join(" ").as_bytes()).to_hex();
    let blank = store.made(&format!("scratch-{mib}-{}", &form[..8]));
    if blank.exists() {
        return Ok(blank);
    }
    let mke2fs = MKE2FS.iter().find(|path| Path::new(path).exists()).ok_or_else(|| {
        HostError::permanent("cannot make a scratch disk: mke2fs is not installed (e2fsprogs)")
    })?;
    // Formatted aside, so that two who do it at once don't meet.
    let making = store.making();
    let output = Command::new(mke2fs)
        .args(OPTIONS)
        .arg(&making.path)
        .arg(format!("{mib}M"))
        .stdin(Stdio::null())
        .output()
        .map_err(errors::file("run", Path::new(mke2fs)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.lines().last().unwrap_or_default();
        return Err(HostError::permanent(format!(
            "cannot make a scratch disk of {mib} MiB: mke2fs says {said:?}"
        )));
    }
    making.persist(&blank).map_err(errors::file("make", &blank))?;
    Ok(blank)
}
