//! The modules that a guest needs before its root file system is mounted, in the order in which
//! they load, and the archive in which they travel.
//!
//! Nothing is loaded here; Hearth's init does that, by the archive's `order` file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::{KernelError, cpio};

/// What a guest needs: its devices (Firecracker's are virtio over MMIO), its vsock, its root and
/// the checksum that ext4 asks for by name. A kernel may have any of them built in.
pub const GUEST_MODULES: &[&str] = &[
    "virtio_mmio",
    "virtio_blk",
    "virtio_net",
    "vmw_vsock_virtio_transport",
    "overlay",
    "virtio_rng",
    "ext4",
    "crc32c_generic",
];

/// Where the archive puts the modules. Beside them, `order` holds one file name a line.
pub const MODULES_DIR: &str = "/lib/hearth/modules";

/// Modules of one kernel, dependencies first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Modules {
    files: Vec<PathBuf>,
}

impl Modules {
    /// Resolves `wanted` and what it depends on in `dir`, a directory like `/lib/modules/VERSION`
    /// with `modules.dep` and `modules.builtin` in it. What is built in needs no file.
    ///
    /// # Errors
    /// [`KernelError::ModuleMissing`] for a module that is neither a file nor built in,
    /// [`KernelError::ModuleCycle`], [`KernelError::File`] when `modules.dep` can't be read.
    pub fn resolve(dir: &Path, wanted: &[&str]) -> Result<Self, KernelError> {
        let table_path = dir.join("modules.dep");
        let table =
            fs::read_to_string(&table_path).map_err(KernelError::file("read", &table_path))?;
        // A kernel without modules built in may lack this list; an absent one is an empty one.
        let builtin = fs::read_to_string(dir.join("modules.builtin")).unwrap_or_default();
        let mut walk = Walk {
            dir,
            table: table.lines().filter_map(Entry::parse).map(|e| (e.name.clone(), e)).collect(),
            builtin: builtin.lines().map(module_name).collect(),
            done: BTreeSet::new(),
            files: Vec::new(),
        };
        for name in wanted {
            walk.visit(&name.replace('-', "_"), &mut Vec::new())?;
        }
        Ok(Self { files: walk.files })
    }

    /// The files of the modules, in load order.
    #[must_use]
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Each module's file name in an archive (`03-ext4.ko`) and its bytes, decompressed.
    ///
    /// # Errors
    /// [`KernelError::File`] for a module that can't be read or unpacked.
    pub fn load(&self) -> Result<Vec<(String, Vec<u8>)>, KernelError> {
        let named = self.files.iter().enumerate().map(|(at, path)| {
            let name = module_name(&path.to_string_lossy());
            Ok((format!("{at:02}-{name}.ko"), read_module(path)?))
        });
        named.collect()
    }

    /// One uncompressed archive with all modules and their `order`, beneath [`MODULES_DIR`].
    ///
    /// # Errors
    /// As [`Modules::load`].
    pub fn archive(&self) -> Result<Vec<u8>, KernelError> {
        let mut archive = cpio::Writer::new();
        archive.dir_all(MODULES_DIR);
        let mut order = String::new();
        for (name, bytes) in self.load()? {
            archive.file(&format!("{MODULES_DIR}/{name}"), 0o644, &bytes);
            order.push_str(&name);
            order.push('\n');
        }
        archive.file(&format!("{MODULES_DIR}/order"), 0o644, order.as_bytes());
        Ok(archive.finish())
    }
}

struct Entry {
    name: String,
    path: String,
    needs: Vec<String>,
}

impl Entry {
    fn parse(line: &str) -> Option<Self> {
        let (path, needs) = line.split_once(':')?;
        let needs = needs.split_whitespace().map(module_name).collect();
        Some(Self { name: module_name(path), path: path.to_owned(), needs })
    }
}

struct Walk<'a> {
    dir: &'a Path,
    table: BTreeMap<String, Entry>,
    builtin: BTreeSet<String>,
    done: BTreeSet<String>,
    files: Vec<PathBuf>,
}

impl Walk<'_> {
    fn visit(&mut self, name: &str, above: &mut Vec<String>) -> Result<(), KernelError> {
        if self.done.contains(name) || self.builtin.contains(name) {
            return Ok(());
        }
        let dir = self.dir.to_owned();
        if above.iter().any(|upper| upper == name) {
            return Err(KernelError::ModuleCycle { name: name.to_owned(), dir });
        }
        let Some(entry) = self.table.get(name) else {
            return Err(KernelError::ModuleMissing { name: name.to_owned(), dir });
        };
        let path = self.dir.join(&entry.path);
        above.push(name.to_owned());
        for need in entry.needs.clone() {
            self.visit(&need, above)?;
        }
        above.pop();
        self.done.insert(name.to_owned());
        self.files.push(path);
        Ok(())
    }
}

/// `kernel/fs/ext4/ext4.ko.xz` and `ext4` are both `ext4`; dashes and underscores are one.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split(".ko").next().unwrap_or(file).replace('-', "_")
}

fn read_module(path: &Path) -> Result<Vec<u8>, KernelError> {
    let packed = fs::read(path).map_err(KernelError::file("read kernel module", path))?;
    let mut bytes = Vec::new();
    let unpacked = match path.extension().and_then(|extension| extension.to_str()) {
        Some("xz") => liblzma::read::XzDecoder::new(&packed[..]).read_to_end(&mut bytes),
        Some("gz") => flate2::read::GzDecoder::new(&packed[..]).read_to_end(&mut bytes),
        Some("zst") => zstd::stream::copy_decode(&packed[..], &mut bytes).map(|()| bytes.len()),
        _ => return Ok(packed),
    };
    unpacked.map_err(KernelError::file("decompress kernel module", path))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const TABLE: &str = "\
kernel/fs/ext4/ext4.ko: kernel/lib/crc16.ko kernel/fs/mbcache.ko kernel/fs/jbd2/jbd2.ko
kernel/fs/jbd2/jbd2.ko: kernel/lib/crc16.ko
kernel/fs/mbcache.ko.xz:
kernel/lib/crc16.ko.gz:
kernel/net/a-b.ko.zst:
";

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for sub in ["kernel/fs/ext4", "kernel/fs/jbd2", "kernel/lib", "kernel/net"] {
            fs::create_dir_all(dir.path().join(sub)).unwrap();
        }
        fs::write(dir.path().join("modules.dep"), TABLE).unwrap();
        fs::write(dir.path().join("modules.builtin"), "kernel/drivers/virtio/virtio_mmio.ko\n")
            .unwrap();
        let put = |path: &str, bytes: Vec<u8>| fs::write(dir.path().join(path), bytes).unwrap();
        put("kernel/fs/ext4/ext4.ko", b"ext4".to_vec());
        put("kernel/fs/jbd2/jbd2.ko", b"jbd2".to_vec());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
        xz.write_all(b"mbcache").unwrap();
        put("kernel/fs/mbcache.ko.xz", xz.finish().unwrap());
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(b"crc16").unwrap();
        put("kernel/lib/crc16.ko.gz", gz.finish().unwrap());
        put("kernel/net/a-b.ko.zst", zstd::encode_all(&b"a_b"[..], 1).unwrap());
        dir
    }

    #[test]
    fn dependencies_load_first_and_each_once_and_unpacked() {
        let dir = tree();
        let modules =
            Modules::resolve(dir.path(), &["virtio-mmio", "ext4", "jbd2", "a_b"]).unwrap();
        let loaded: Vec<_> = modules.load().unwrap();
        let text: Vec<_> =
            loaded.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
        let expected: Vec<(&str, &[u8])> = vec![
            ("00-crc16.ko", b"crc16"),
            ("01-mbcache.ko", b"mbcache"),
            ("02-jbd2.ko", b"jbd2"),
            ("03-ext4.ko", b"ext4"),
            ("04-a_b.ko", b"a_b"),
        ];
        assert_eq!(text, expected);
    }

    #[test]
    fn the_archive_names_the_modules_in_their_order() {
        let dir = tree();
        let archive = Modules::resolve(dir.path(), &["ext4"]).unwrap().archive().unwrap();
        let order = b"00-crc16.ko\n01-mbcache.ko\n02-jbd2.ko\n03-ext4.ko\n";
        assert!(archive.windows(order.len()).any(|bytes| bytes == order));
    }

    #[test]
    fn a_module_that_is_nowhere_is_named() {
        let dir = tree();
        let error = Modules::resolve(dir.path(), &["ext4", "overlay"]).unwrap_err();
        assert!(matches!(&error, KernelError::ModuleMissing { name, .. } if name == "overlay"));
    }

    #[test]
    fn cyclic_module_dependencies_are_an_error() {
        let dir = tree();
        fs::write(dir.path().join("modules.dep"), "a.ko: b.ko\nb.ko: a.ko\n").unwrap();
        let error = Modules::resolve(dir.path(), &["a"]).unwrap_err();
        assert!(matches!(error, KernelError::ModuleCycle { .. }));
    }
}
