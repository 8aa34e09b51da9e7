//! The guests' root filesystems, built without root and without mounting anything.
//!
//! Each is what one program needs and a shell beside it. They are kept by a digest of what is in
//! them, so that they stay the same files until their contents change.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};

use crate::cargo::build_static;
use crate::places::Places;
use crate::program;
use crate::terminal::say;

/// Changes whenever [`stage`] or [`make_image`] do.
const RECIPE: &str = "1";
/// What the largest of them needs, and half as much again.
const SIZE: &str = "8M";
/// Any fixed number does: it makes the image depend on its contents alone.
const UUID: &str = "6f4a9d0e-3c5b-4a57-9f0e-5a1d2b7c8e90";

/// The name of each root filesystem and the program that it carries as `/app/bin/…`.
const ROOTFS: [(&str, Option<&str>); 4] = [
    ("rootfs-web.ext4", Some("server")),
    ("rootfs-worker.ext4", Some("consumer")),
    ("rootfs-lambda.ext4", Some("resize")),
    ("rootfs-test.ext4", None),
];

/// Builds those that the cache lacks, and returns the name and the file of each.
pub(crate) fn ensure(places: &Places) -> Result<Vec<(&'static str, PathBuf)>> {
    let manifest = places.repo.join("demo/guests/Cargo.toml");
    let programs = build_static(places, &manifest, &[], "release")?;
    let dir = places.cache.join("rootfs");
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let busybox = read(Path::new("/bin/busybox"))?;
    let mut images = Vec::new();
    for (name, program) in ROOTFS {
        let program = match program {
            Some(program) => Some((program, read(&programs.join(program))?)),
            None => None,
        };
        let mut digest = DefaultHasher::new();
        digest.write(RECIPE.as_bytes());
        digest.write(&busybox);
        if let Some((name, bytes)) = &program {
            digest.write(name.as_bytes());
            digest.write(bytes);
        }
        let image = dir.join(format!("{:016x}-{name}", digest.finish()));
        if !image.exists() {
            say(format_args!("setup: building {name}"));
            let stage_dir = tempfile::tempdir_in(&dir).context("cannot create a directory")?;
            let program = program.as_ref().map(|(name, bytes)| (*name, bytes.as_slice()));
            stage(&stage_dir.path().join("root"), &busybox, program)?;
            make_image(&stage_dir.path().join("root"), &image)?;
        }
        images.push((name, image));
    }
    Ok(images)
}

/// Lays the files out as the guest will see them.
fn stage(root: &Path, busybox: &[u8], program: Option<(&str, &[u8])>) -> Result<()> {
    for dir in ["bin", "dev", "etc", "proc", "run", "sys", "tmp", "var", "root"] {
        let dir = root.join(dir);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    }
    set_mode(&root.join("tmp"), 0o1777)?;
    put(&root.join("bin/busybox"), 0o755, busybox)?;
    let applets = program::output(program::command("/bin/busybox").arg("--list"))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let link = root.join("bin").join(applet);
        symlink("busybox", &link).with_context(|| format!("cannot link {}", link.display()))?;
    }
    put(&root.join("etc/passwd"), 0o644, b"root:x:0:0:root:/root:/bin/sh\n")?;
    put(&root.join("etc/group"), 0o644, b"root:x:0:\n")?;
    put(&root.join("etc/hosts"), 0o644, b"127.0.0.1 localhost\n")?;
    if let Some((name, bytes)) = program {
        let dir = root.join("app/bin");
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        put(&dir.join(name), 0o755, bytes)?;
    }
    Ok(())
}

fn make_image(root: &Path, image: &Path) -> Result<()> {
    let new = root.with_extension("ext4");
    let mut mke2fs = program::command("mke2fs");
    mke2fs
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0", "-N", "1024", "-L", "rootfs"])
        // It is only ever mounted read-only: a journal would be dead weight.
        .args(["-O", "^has_journal,^resize_inode"])
        .args(["-U", UUID, "-E", &format!("root_owner=0:0,hash_seed={UUID}"), "-d"])
        .arg(root)
        .arg(&new)
        .arg(SIZE)
        .env("E2FSPROGS_FAKE_TIME", "1");
    program::output(&mut mke2fs)?;
    set_mode(&new, 0o444)?;
    fs::rename(&new, image).with_context(|| format!("cannot write {}", image.display()))
}

fn put(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    fs::write(path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
    let file = fs::File::options().write(true).open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    file.set_modified(SystemTime::UNIX_EPOCH)
        .with_context(|| format!("cannot set the time of {}", path.display()))?;
    set_mode(path, mode)
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .with_context(|| format!("cannot set the mode of {}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
