//! Turns a distribution's kernel into what Firecracker and Hearth's init can use: an uncompressed
//! ELF `vmlinux`, and one archive of the modules that a guest needs before its root is mounted.
//!
//! It also holds the writer of the archives that a kernel takes as its initramfs, since both the
//! modules and the init travel in one.
//!
//! It never loads a module, never touches `/boot` or `/lib/modules` other than to read them, and
//! installs nothing.

mod bzimage;
pub mod cpio;
mod error;
mod import;
mod modules;
mod package;

pub use bzimage::{VMLINUX_BYTES_MAX, extract_vmlinux};
pub use error::KernelError;
pub use import::{Imported, Source, import, installed_versions};
pub use modules::{GUEST_MODULES, MODULES_DIR, Modules};
pub use package::{KernelTree, download_debian, unpack_deb};
