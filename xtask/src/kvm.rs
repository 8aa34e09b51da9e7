//! Whether this machine's KVM can boot Linux.

use std::fmt;
use std::fs;
use std::path::Path;

/// Why KVM is of no use for Linux guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    /// There is no `/dev/kvm`.
    Absent,
    /// `/dev/kvm` is there, and this user may not open it.
    Forbidden,
    /// `/dev/kvm` is there without `vmx` or `svm` in the CPU's flags: it runs guests that bring
    /// support for it, and an ordinary Linux dies in it.
    NoExtensions,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "there is no /dev/kvm",
            Self::Forbidden => "/dev/kvm can't be opened by this user (is it in the group kvm?)",
            Self::NoExtensions => "/dev/kvm is there, but the CPU shows neither vmx nor svm",
        })
    }
}

/// Whether Linux guests can run on this machine directly.
pub(crate) fn usable() -> Result<(), Reason> {
    can_open()?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if has_extensions(&cpuinfo) { Ok(()) } else { Err(Reason::NoExtensions) }
}

/// Whether at least a bare guest can run: one that needs no more than `/dev/kvm`.
pub(crate) fn can_open() -> Result<(), Reason> {
    let kvm = Path::new("/dev/kvm");
    if !kvm.exists() {
        return Err(Reason::Absent);
    }
    let opened = fs::File::options().read(true).write(true).open(kvm);
    opened.map(drop).map_err(|_| Reason::Forbidden)
}

fn has_extensions(cpuinfo: &str) -> bool {
    let flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    flags.flat_map(str::split_whitespace).any(|flag| flag == "vmx" || flag == "svm")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_flag_of_its_own_counts_as_an_extension() {
        assert!(has_extensions("processor : 0\nflags\t\t: fpu vmx smx\n"));
        assert!(has_extensions("flags : fpu svm\n"));
        assert!(!has_extensions("vmx flags\t: ept vpid\nflags\t: fpu vmx_lite svm_lock\n"));
        assert!(!has_extensions("bugs : vmx\n"));
    }
}
