//! Debian's kernel, for guests and the lab alike, imported once into the cache.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use hearth_kernel::{Source, download_debian, import, unpack_deb};

use crate::packages;
use crate::places::Places;
use crate::terminal::say;

/// The kernel in the cache. It stays the same until the cache is cleared, also if Debian
/// releases a newer one, so that a second run needs no network.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// The uncompressed kernel; the archive of its guest modules is beside it.
    pub(crate) vmlinux: PathBuf,
    /// All modules: a directory like `/lib/modules/VERSION`.
    pub(crate) modules: PathBuf,
}

impl Kernel {
    /// The archive of the modules that a guest needs.
    pub(crate) fn guest_modules(&self) -> PathBuf {
        self.vmlinux.with_extension("modules")
    }

    fn at(dir: &Path, version: &str) -> Option<Self> {
        let dir = dir.join(version);
        let roots = ["tree/lib/modules", "tree/usr/lib/modules"];
        let modules = roots.map(|root| dir.join(root).join(version));
        Some(Self {
            vmlinux: dir.join("vmlinux"),
            modules: modules.into_iter().find(|modules| modules.is_dir())?,
        })
    }
}

/// The kernel, fetched and imported when the cache lacks it.
pub(crate) fn ensure(places: &Places) -> Result<Kernel> {
    let dir = places.cache.join("kernel");
    let current = dir.join("current");
    if let Ok(version) = fs::read_to_string(&current)
        && let Some(kernel) = Kernel::at(&dir, version.trim())
    {
        return Ok(kernel);
    }
    fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let version = fetch(&dir)?;
    fs::write(&current, format!("{version}\n"))
        .with_context(|| format!("cannot write {}", current.display()))?;
    Kernel::at(&dir, &version).context("the kernel that was just imported has no modules")
}

fn fetch(dir: &Path) -> Result<String> {
    if !packages::has_candidate("linux-image-amd64") {
        packages::update()?;
    }
    say("setup: fetching Debian's kernel (linux-image-amd64, about 70 MB; nothing is installed)");
    let work = tempfile::tempdir_in(dir).context("cannot create a temporary directory")?;
    let deb = download_debian(work.path()).or_else(|_| {
        // Lists that are older than the mirror name files that are gone.
        packages::update()?;
        download_debian(work.path()).context("cannot download Debian's kernel")
    })?;
    let tree = work.path().join("tree");
    fs::create_dir(&tree).context("cannot create a directory for the kernel")?;
    let unpacked = unpack_deb(&deb, &tree)?;
    let version = unpacked.version;
    let source = Source::Image { vmlinuz: unpacked.vmlinuz, modules: unpacked.modules };
    import(&source, work.path(), "vmlinux").context("cannot import Debian's kernel")?;
    fs::remove_file(&deb).context("cannot remove the kernel's package")?;
    let kept = dir.join(&version);
    if kept.exists() {
        fs::remove_dir_all(&kept).with_context(|| format!("cannot clear {}", kept.display()))?;
    }
    fs::rename(work.path(), &kept).with_context(|| format!("cannot fill {}", kept.display()))?;
    fs::set_permissions(&kept, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .with_context(|| format!("cannot open {} to others", kept.display()))?;
    say(format_args!("setup: imported Linux {version}"));
    Ok(version)
}
