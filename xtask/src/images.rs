//! A directory of images, as `hearth serve --images` takes it: the kernel with its modules, the
//! demo's root filesystems, and a guest that needs neither.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::places::Places;
use crate::{kernel, program, rootfs};

/// Puts every image into `dir` under its name. What is there and is the same stays.
pub(crate) fn put(places: &Places, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let kernel = kernel::ensure(places)?;
    place(&kernel.vmlinux, &dir.join("vmlinux"))?;
    place(&kernel.guest_modules(), &dir.join("vmlinux.modules"))?;
    place(&bare_guest(places)?, &dir.join("tiny"))?;
    for (name, image) in rootfs::ensure(places)? {
        place(&image, &dir.join(name))?;
    }
    Ok(())
}

/// The bare guest: an ELF file that Firecracker runs as if it were a kernel.
fn bare_guest(places: &Places) -> Result<PathBuf> {
    let source = places.repo.join("demo/raw/tiny.S");
    let dir = places.cache.join("bare");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let text =
        fs::read_to_string(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let kept_source = dir.join("tiny.S");
    let built = dir.join("tiny");
    if built.exists() && fs::read_to_string(&kept_source).is_ok_and(|kept| kept == text) {
        return Ok(built);
    }
    // Above the first MiB, where Firecracker puts what it tells the guest.
    let layout = ["-Wl,-Ttext=0x1000000", "-Wl,--build-id=none", "-Wl,-z,noexecstack"];
    let mut gcc = program::command("gcc");
    gcc.args(["-nostdlib", "-static"]).args(layout).arg("-o").arg(dir.join("tiny.new"));
    program::output(gcc.arg(&source))?;
    fs::rename(dir.join("tiny.new"), &built).context("cannot keep the bare guest")?;
    fs::write(&kept_source, text).context("cannot keep the bare guest's source")?;
    Ok(built)
}

/// Makes `to` the same file as `from`; a copy where they are on different file systems.
fn place(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("cannot put {} at {}", from.display(), to.display());
    let source = fs::metadata(from).with_context(failed)?;
    if let Ok(old) = fs::symlink_metadata(to) {
        let linked = (old.dev(), old.ino()) == (source.dev(), source.ino());
        let copied = old.is_file() && old.len() == source.len() && old.mtime() == source.mtime();
        if linked || (copied && old.dev() != source.dev()) {
            return Ok(());
        }
    }
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = to.with_file_name(name);
    let _ = fs::remove_file(&new);
    if fs::hard_link(from, &new).is_err() {
        fs::copy(from, &new).with_context(failed)?;
        let copy = fs::File::open(&new).with_context(failed)?;
        copy.set_modified(source.modified().with_context(failed)?).with_context(failed)?;
    }
    fs::rename(&new, to).with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_changed_is_replaced_and_one_that_did_not_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to"));
        fs::write(&from, "one").unwrap();
        fs::write(&to, "something else").unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "one");
        let inode = fs::metadata(&to).unwrap().ino();
        place(&from, &to).unwrap();
        assert_eq!(fs::metadata(&to).unwrap().ino(), inode);
        fs::write(dir.path().join("new"), "two").unwrap();
        fs::rename(dir.path().join("new"), &from).unwrap();
        place(&from, &to).unwrap();
        assert_eq!(fs::read_to_string(&to).unwrap(), "two");
    }
}
