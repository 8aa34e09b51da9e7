//! Whether an image is what a spec needs: an ELF kernel, a whole ext4. It reads headers only, and
//! never changes an image.

use hearth_model::Boot;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What an image has to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Kernel,
    Modules,
    /// What Hearth's init mounts.
    Ext4,
    /// Any file system: a raw guest mounts it by itself.
    Disk,
}

impl Kind {
    pub(super) fn rootfs(boot: Boot) -> Kind {
        match boot {
            Boot::Init => Kind::Ext4,
            Boot::Raw => Kind::Disk,
        }
    }

    /// The word for it in messages.
    pub(super) fn noun(self) -> &'static str {
        match self {
            Kind::Kernel => "kernel",
            Kind::Modules => "modules",
            Kind::Ext4 | Kind::Disk => "rootfs",
        }
    }

    /// What is wrong with the image and how to fix it, or `None`.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(super) fn fault(self, file: &File, len: u64) -> io::Result<Option<String>> {
        if len == 0 {
            return Ok(Some("it is empty; put a whole image in its place".to_owned()));
        }
        match self {
            Kind::Kernel => kernel_fault(file, len),
            Kind::Modules => {
                let magic: [u8; 6] = header(file, 0)?;
                Ok((&magic != b"070701").then(|| {
                    "it is not a cpio archive; `hearth kernel import` makes one".to_owned()
                }))
            }
            Kind::Ext4 => ext4_fault(file, len),
            Kind::Disk => Ok(None),
        }
    }
}

/// The ELF-64 header and its program headers (elf(5)).
fn kernel_fault(file: &File, len: u64) -> io::Result<Option<String>> {
    const X86_64: u16 = 62;
    const PT_LOAD: u32 = 1;
    let head: [u8; 64] = header(file, 0)?;
    if &head[..4] != b"\x7fELF" {
        // The magic of a bzImage's setup header (Documentation/arch/x86/boot.rst).
        let setup: [u8; 4] = header(file, 0x202)?;
        let fault = if &setup == b"HdrS" {
            "it is a compressed bzImage; `hearth kernel import` makes an ELF vmlinux of it"
        } else {
            "it is not an ELF file; Firecracker boots an uncompressed vmlinux"
        };
        return Ok(Some(fault.to_owned()));
    }
    if head[4] != 2 || head[5] != 1 || number::<2>(&head, 18) != u64::from(X86_64) {
        return Ok(Some("it is an ELF file for another machine than x86-64".to_owned()));
    }
    let (table, size, count) =
        (number::<8>(&head, 32), number::<2>(&head, 54), number::<2>(&head, 56));
    if count == 0 || size < 56 {
        return Ok(Some("it is an ELF file without anything to load".to_owned()));
    }
    for at in 0..count {
        let offset = table
            .checked_add(at * size)
            .filter(|offset| offset.checked_add(56).is_some_and(|end| end <= len));
        let Some(offset) = offset else { return Ok(Some(truncated(len))) };
        let program: [u8; 56] = header(file, offset)?;
        let end = number::<8>(&program, 8).checked_add(number::<8>(&program, 32));
        if number::<4>(&program, 0) == u64::from(PT_LOAD) && end.is_none_or(|end| end > len) {
            return Ok(Some(truncated(len)));
        }
    }
    Ok(None)
}

/// The superblock (Documentation/filesystems/ext4/super.rst).
fn ext4_fault(file: &File, len: u64) -> io::Result<Option<String>> {
    const SIXTY_FOUR_BIT: u64 = 0x80;
    let block: [u8; 1024] = header(file, 1024)?;
    if number::<2>(&block, 0x38) != 0xef53 {
        let fault = "it is not an ext4 file system; `mke2fs -t ext4 -d DIR FILE SIZE` makes one";
        return Ok(Some(fault.to_owned()));
    }
    let high = match number::<4>(&block, 0x60) & SIXTY_FOUR_BIT {
        0 => 0,
        _ => number::<4>(&block, 0x150),
    };
    let blocks = high << 32 | number::<4>(&block, 0x4);
    let block_bytes = 1024_u64.checked_shl(u32::try_from(number::<4>(&block, 0x18)).unwrap_or(64));
    let bytes = block_bytes.and_then(|bytes| bytes.checked_mul(blocks));
    if bytes.is_none_or(|bytes| bytes > len) {
        return Ok(Some(truncated(len)));
    }
    Ok(None)
}

fn truncated(len: u64) -> String {
    format!("it is truncated at {len} bytes; copy it again")
}

/// The bytes at an offset; zeroes where the file ends before.
fn header<const N: usize>(file: &File, offset: u64) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match file.read_at(&mut bytes[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

/// A little-endian number of N bytes, N up to 8.
fn number<const N: usize>(bytes: &[u8], at: usize) -> u64 {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn fault(kind: Kind, bytes: &[u8]) -> String {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        kind.fault(&file, bytes.len() as u64).unwrap().unwrap_or_default()
    }

    fn elf() -> Vec<u8> {
        let mut elf = vec![0; 200];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        elf[32] = 64;
        elf[54] = 56;
        elf[56] = 1;
        elf[64] = 1;
        elf[64 + 8] = 120;
        elf[64 + 32] = 80;
        elf
    }

    #[test]
    fn a_kernel_is_a_whole_elf_for_this_machine() {
        assert_eq!(fault(Kind::Kernel, &elf()), "");
        assert_eq!(
            fault(Kind::Kernel, &elf()[..199]),
            "it is truncated at 199 bytes; copy it again"
        );
        let mut other = elf();
        other[18] = 183;
        assert!(fault(Kind::Kernel, &other).contains("another machine"));
        assert!(fault(Kind::Kernel, b"hello").contains("not an ELF file"));
        assert!(fault(Kind::Kernel, b"").contains("empty"));
        let mut image = vec![0; 0x210];
        image[0x202..0x206].copy_from_slice(b"HdrS");
        assert!(fault(Kind::Kernel, &image).contains("hearth kernel import"));
    }

    #[test]
    fn kernel_with_headers_out_of_range_is_truncated_not_a_panic() {
        let mut far = elf();
        far[32..40].fill(0xff);
        assert!(fault(Kind::Kernel, &far).contains("truncated"));
    }

    #[test]
    fn a_root_file_system_is_a_whole_ext4() {
        let mut disk = vec![0; 8192];
        assert!(fault(Kind::Ext4, &disk).contains("not an ext4"));
        disk[1024 + 0x38] = 0x53;
        disk[1024 + 0x39] = 0xef;
        disk[1024 + 4] = 8;
        assert_eq!(fault(Kind::Ext4, &disk), "");
        assert!(fault(Kind::Ext4, &disk[..8191]).contains("truncated"));
        disk[1024 + 0x18] = 200;
        assert!(fault(Kind::Ext4, &disk).contains("truncated"));
        assert_eq!(fault(Kind::Disk, b"anything"), "");
    }
}
