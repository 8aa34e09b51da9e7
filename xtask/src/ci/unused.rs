//! Dependencies that no source file names.
//!
//! A name that occurs is taken for a use: this finds what was forgotten, not what is subtle.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::cargo::cargo;
use crate::places::Places;
use crate::program;

#[derive(Debug, Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

#[derive(Debug, Deserialize)]
struct Package {
    name: String,
    manifest_path: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    rename: Option<String>,
}

pub(super) fn check(places: &Places) -> Result<()> {
    let mut command = cargo(places);
    command.args(["metadata", "--no-deps", "--format-version", "1", "--offline"]);
    let metadata: Metadata = serde_json::from_str(&program::output(&mut command)?)
        .context("cannot understand cargo's metadata")?;
    let mut unused = BTreeMap::<String, Vec<String>>::new();
    for package in metadata.packages {
        let dir =
            Path::new(&package.manifest_path).parent().context("a manifest has no directory")?;
        let mut source = String::new();
        for part in ["src", "tests", "benches", "examples"] {
            read_sources(&dir.join(part), &mut source)?;
        }
        for dependency in package.dependencies {
            let name = dependency.rename.unwrap_or(dependency.name);
            if !names(&source, &name.replace('-', "_")) {
                unused.entry(package.name.clone()).or_default().push(name);
            }
        }
    }
    if unused.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> =
        unused.iter().map(|(name, unused)| format!("{name}: {}", unused.join(", "))).collect();
    bail!("dependencies that nothing uses: {}", lines.join("; "))
}

fn read_sources(dir: &Path, source: &mut String) -> Result<()> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", dir.display()))?.path();
        if path.is_dir() {
            read_sources(&path, source)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path);
            source.push_str(&text.with_context(|| format!("cannot read {}", path.display()))?);
        }
    }
    Ok(())
}

/// Whether `name` occurs in `source` as a word.
fn names(source: &str, name: &str) -> bool {
    let in_word = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(name).any(|(at, _)| {
        !source[..at].ends_with(in_word) && !source[at + name.len()..].starts_with(in_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_word_is_a_use() {
        assert!(names("use serde_json::Value;", "serde_json"));
        assert!(names("#[derive(serde::Serialize)]", "serde"));
        assert!(!names("use serde_json::Value;", "serde"));
        assert!(!names("let my_vsock = 1;", "vsock"));
    }
}
