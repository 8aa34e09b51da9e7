//! What the lab's kernel unpacks at boot: busybox, the modules, the lab's scripts and keys.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use hearth_kernel::{MODULES_DIR, Modules, cpio};

use super::link::Keys;
use super::write_private;
use crate::kernel::Kernel;

/// What the lab needs early, and what Firecracker, networks and tests would load later at the
/// price of seconds each.
const MODULES: &[&str] = &[
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_rng",
    "overlay",
    "ext4",
    "crc32c_generic",
    "9pnet_virtio",
    "9p",
    "kvm-amd",
    "tun",
    "loop",
    "veth",
    "bridge",
    "nf_tables",
    "nft_chain_nat",
    "nft_masq",
    "nft_nat",
    "nft_ct",
    "nft_limit",
    "nft_reject_inet",
];

pub(super) fn write(kernel: &Kernel, keys: &Keys, path: &Path) -> Result<()> {
    let mut archive = cpio::Writer::new();
    for dir in ["bin", "dev", "proc", "sys", "lab"] {
        archive.dir_all(dir);
    }
    // The kernel opens it as the streams of PID 1.
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, include_bytes!("init.sh"));
    archive.file("bin/busybox", 0o755, &read(Path::new("/bin/busybox"))?);
    archive.file("lab/main", 0o755, include_bytes!("main.sh"));
    archive.file("lab/session", 0o755, include_bytes!("session.sh"));
    archive.file("lab/signal", 0o755, include_bytes!("signal.sh"));
    archive.file("lab/host_key", 0o600, &read(&keys.host)?);
    archive.file("lab/authorized_keys", 0o600, &read(&keys.user_public())?);
    let modules = kernel.modules.parent().context("the kernel's modules have no directory")?;
    let settings = format!("MODULES='{}'\n", modules.display());
    archive.file("lab/settings", 0o644, settings.as_bytes());
    archive.dir_all(MODULES_DIR);
    let mut order = String::new();
    for (name, bytes) in Modules::resolve(&kernel.modules, MODULES)?.load()? {
        archive.file(&format!("{MODULES_DIR}/{name}"), 0o644, &bytes);
        order.push_str(&name);
        order.push('\n');
    }
    archive.file(&format!("{MODULES_DIR}/order"), 0o644, order.as_bytes());
    write_private(path, &archive.finish())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
