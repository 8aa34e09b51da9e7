//! What can go wrong with a kernel, one variant a reader can act on each.

use std::io;
use std::path::PathBuf;

/// Why a kernel cannot be used. The messages name the object and, if the caller can fix it, the
/// remedy.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// The file is neither a bzImage nor an ELF kernel.
    #[error("the kernel image is not a bzImage: {reason} (expected a vmlinuz as in /boot)")]
    NotBzImage {
        /// What was found instead.
        reason: &'static str,
    },
    /// The payload's compression is none of gzip, xz, lz4 and zstd.
    #[error("the kernel image is compressed in an unknown way (payload begins with {magic})")]
    UnknownCompression {
        /// The first six bytes, in hex.
        magic: String,
    },
    /// The payload did not decompress.
    #[error("cannot decompress the kernel image's {compression} payload")]
    Decompress {
        /// Which compression it said it was.
        compression: &'static str,
        /// What the decompressor said.
        #[source]
        source: io::Error,
    },
    /// The payload is not an x86-64 ELF file.
    #[error("the kernel is not an x86-64 ELF file: {reason}")]
    NotElf {
        /// What was found instead.
        reason: &'static str,
    },
    /// A module that the guest needs is neither a file nor built in.
    #[error(
        "kernel module {name} is neither in {dir} nor built in; a guest can't start without it"
    )]
    ModuleMissing {
        /// The module.
        name: String,
        /// The directory of modules that was searched.
        dir: PathBuf,
    },
    /// Modules that name each other as dependencies.
    #[error("modules.dep in {dir} makes module {name} depend on itself")]
    ModuleCycle {
        /// The module.
        name: String,
        /// The directory of modules.
        dir: PathBuf,
    },
    /// A file could not be read or written.
    #[error("cannot {op} {path}")]
    File {
        /// What was being done.
        op: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A program that the import needs could not be started.
    #[error("cannot run {program}; it comes with the Debian package {package}")]
    ProgramMissing {
        /// The program.
        program: &'static str,
        /// The Debian package that holds it.
        package: &'static str,
        /// Why it did not start.
        #[source]
        source: io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed: {message}")]
    ProgramFailed {
        /// The program with its first argument.
        program: String,
        /// What it said last.
        message: String,
    },
    /// A package or directory that holds no kernel.
    #[error("no kernel in {place} (looked for {looked_for})")]
    NoKernel {
        /// The package or directory.
        place: PathBuf,
        /// The names that were looked for.
        looked_for: &'static str,
    },
    /// A name of an image that could leave the images directory.
    #[error("{name:?} can't be the name of a kernel: use letters, digits, dots and dashes")]
    BadName {
        /// The name that was given.
        name: String,
    },
}

impl KernelError {
    pub(crate) fn file(
        op: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { op, path, source }
    }
}
