//! Where things are: the clone, and the cache outside it.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The directories that the tasks work in. All of them are absolute.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The root of the clone.
    pub(crate) repo: PathBuf,
    /// What is downloaded and built once for all clones: `HEARTH_CACHE`, or `hearth` beneath
    /// `XDG_CACHE_HOME` (`~/.cache`).
    pub(crate) cache: PathBuf,
    /// Cargo's target directory: `CARGO_TARGET_DIR` (which the Makefile sets to one in the cache),
    /// or cargo's own default.
    pub(crate) target: PathBuf,
    /// What belongs to this clone and is not committed: the init that is embedded, images.
    pub(crate) build: PathBuf,
}

impl Places {
    /// Finds the places and creates those that are ours.
    pub(crate) fn find() -> Result<Self> {
        let manifest_dir = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let repo = manifest_dir.parent().context("the clone has no root directory")?;
        let repo =
            repo.canonicalize().with_context(|| format!("cannot find {}", repo.display()))?;
        let cache = created(&cache_dir()?)?;
        let target = repo.join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()));
        let build = created(&repo.join("build"))?;
        Ok(Self { target: created(&target)?, cache, build, repo })
    }

    /// A short name for this clone, from its path.
    pub(crate) fn clone_key(&self) -> String {
        let mut hasher = DefaultHasher::new();
        self.repo.hash(&mut hasher);
        format!("{:08x}", hasher.finish() as u32)
    }
}

fn cache_dir() -> Result<PathBuf> {
    if let Some(dir) = env::var_os("HEARTH_CACHE") {
        return std::path::absolute(dir).context("cannot resolve HEARTH_CACHE");
    }
    if let Some(dir) = env::var_os("XDG_CACHE_HOME") {
        return Ok(std::path::absolute(dir)
            .context("cannot resolve XDG_CACHE_HOME")?
            .join("hearth"));
    }
    let home = env::home_dir().context("there is no home directory: set HEARTH_CACHE")?;
    Ok(home.join(".cache/hearth"))
}

fn created(dir: &Path) -> Result<PathBuf> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    dir.canonicalize().with_context(|| format!("cannot find {}", dir.display()))
}
