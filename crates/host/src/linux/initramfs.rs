//! The initramfs: Hearth's init, then the modules of the kernel. One for each pair, in the store.

use super::errors;
use super::layout::create_file;
use super::store::ImageStore;
use crate::HostError;
use hearth_kernel::cpio;
use hearth_model::Digest;
use std::io::Write;
use std::path::PathBuf;
use std::sync::LazyLock;

/// PID 1 of the microVM, a static binary.
static INIT: &[u8] = include_bytes!(env!("HEARTH_INIT"));

/// The archive with the init, and a hasher that has read it: the key of an initramfs depends on all that is
/// in it, since the archive may have another form in another version.
static BASE: LazyLock<(Vec<u8>, blake3::Hasher)> = LazyLock::new(|| {
    let mut archive = cpio::Writer::new();
    archive.dir_all("dev");
    archive.char_device("dev/console", 0o600, 5, 1);
    archive.file("init", 0o755, INIT);
    let bytes = archive.finish();
    let mut key = blake3::Hasher::new();
    key.update(&bytes);
    (bytes, key)
});

/// The initramfs for a kernel with these modules.
pub(super) fn for_modules(
    store: &ImageStore,
    modules: Option<&Digest>,
) -> Result<PathBuf, HostError> {
    let (base, key) = &*BASE;
    let mut key = key.clone();
    key.update(modules.map_or(&[], |digest| &digest.0));
    let path = store.made(&format!("initrd-{}", key.finalize().to_hex()));
    if path.exists() {
        return Ok(path);
    }
    let mut bytes = base.clone();
    if let Some(digest) = modules {
        let modules = store.path(digest);
        let modules = std::fs::read(&modules).map_err(errors::file("read", &modules))?;
        bytes.extend_from_slice(&modules);
    }
    // Several instances may be made at once, each finding it absent.
    let making = store.making();
    create_file(&making.path)
        .and_then(|mut file| file.write_all(&bytes))
        .and_then(|()| making.persist(&path))
        .map_err(errors::file("write", &path))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::layout::Layout;

    #[test]
    fn instances_that_are_made_at_once_on_a_new_machine_all_get_it() {
        for _ in 0..40 {
            let dir = tempfile::tempdir().unwrap();
            let layout =
                Layout::open(&dir.path().join("state"), Some(&dir.path().join("run"))).unwrap();
            let store = ImageStore::open(&layout, dir.path().join("images"), u64::MAX).unwrap();
            std::thread::scope(|scope| {
                for number in 0..8 {
                    let (store, name) = (&store, dir.path().join(number.to_string()));
                    scope.spawn(move || {
                        let made = for_modules(store, None).unwrap();
                        ImageStore::link(&made, &name).unwrap();
                        assert!(std::fs::metadata(name).unwrap().len() > INIT.len() as u64);
                    });
                }
            });
            let left = std::fs::read_dir(layout.images()).unwrap().count();
            assert_eq!(left, 1, "what was made twice is gone");
        }
    }
}
