//! The initramfs: Hearth's init, then the modules of the kernel. One for each pair, in the store.

use super::errors;
use super::layout::replace_by;
use super::store::ImageStore;
use crate::HostError;
use hearth_kernel::cpio;
use hearth_model::Digest;
use std::path::PathBuf;

/// PID 1 of the microVM, a static binary.
static INIT: &[u8] = include_bytes!(env!("HEARTH_INIT"));

/// The initramfs for a kernel with these modules.
pub(super) fn for_modules(
    store: &ImageStore,
    modules: Option<&Digest>,
) -> Result<PathBuf, HostError> {
    let mut key = blake3::Hasher::new();
    key.update(INIT);
    key.update(modules.map_or(&[], |digest| &digest.0));
    let path = store.made(&format!("initrd-{}", key.finalize().to_hex()));
    if path.exists() {
        return Ok(path);
    }
    let mut archive = cpio::Writer::new();
    archive.dir_all("dev");
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, INIT);
    let mut bytes = archive.finish();
    if let Some(digest) = modules {
        let modules = store.path(digest);
        let modules = std::fs::read(&modules).map_err(errors::file("read", &modules))?;
        bytes.extend_from_slice(&modules);
    }
    // Several instances may be made at once, each finding it absent.
    replace_by(&store.temporary(), &path, &bytes).map_err(errors::file("write", &path))?;
    Ok(path)
}
