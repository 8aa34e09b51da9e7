//! From a bzImage, as a distribution ships it, to the ELF file inside.
//!
//! The layout is that of the kernel's `Documentation/arch/x86/boot.rst`: a setup header at 0x1f1,
//! `HdrS` at 0x202, and the compressed payload's offset and length at 0x248, counted from the end
//! of the setup sectors.

use std::io::{self, Read};

use crate::KernelError;

/// The largest kernel that is taken, in bytes. A Debian kernel unpacks to about 60 MB; the bound
/// keeps a damaged or hostile payload from filling memory.
pub const VMLINUX_BYTES_MAX: usize = 512 << 20;

const SETUP_SECTS: usize = 0x1f1;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const PAYLOAD: usize = 0x248;
/// The payload's place is in the header since this version of the boot protocol.
const VERSION_MIN: u16 = 0x0208;

/// A block of the legacy LZ4 format unpacks to at most this.
const LZ4_BLOCK_BYTES_MAX: usize = 8 << 20;

/// The uncompressed ELF kernel of `bzimage`. An image that is an x86-64 ELF file already is
/// returned as it is.
///
/// # Errors
/// [`KernelError::NotBzImage`], [`KernelError::UnknownCompression`], [`KernelError::Decompress`]
/// (which a truncated file gives), [`KernelError::NotElf`].
pub fn extract_vmlinux(bzimage: &[u8]) -> Result<Vec<u8>, KernelError> {
    if bzimage.starts_with(b"\x7fELF") {
        check_elf(bzimage)?;
        return Ok(bzimage.to_vec());
    }
    let vmlinux = decompress(payload(bzimage)?)?;
    check_elf(&vmlinux)?;
    Ok(vmlinux)
}

fn payload(image: &[u8]) -> Result<&[u8], KernelError> {
    let not = |reason| KernelError::NotBzImage { reason };
    if image.get(MAGIC..MAGIC + 4).ok_or(not("it is too short"))? != b"HdrS" {
        return Err(not("it has no boot header"));
    }
    let version = u16::from_le_bytes([image[VERSION], image[VERSION + 1]]);
    if version < VERSION_MIN {
        return Err(not("its boot protocol is older than 2.08"));
    }
    let field = |at: usize| {
        let bytes = image.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(|bytes| u32::from_le_bytes(bytes) as usize).ok_or(not("it is too short"))
    };
    // Zero stands for four, for the sake of very old boot loaders.
    let setup_sectors = match image[SETUP_SECTS] {
        0 => 4,
        sectors => usize::from(sectors),
    };
    let start = (setup_sectors + 1) * 512 + field(PAYLOAD)?;
    let end = start + field(PAYLOAD + 4)?;
    image.get(start..end).filter(|payload| payload.len() > 6).ok_or(not("it is truncated"))
}

fn decompress(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    let (compression, result) = match payload {
        [0x1f, 0x8b, ..] => ("gzip", bounded(flate2::read::GzDecoder::new(payload))),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            ("xz", bounded(liblzma::read::XzDecoder::new(payload)))
        }
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let frame = zstd::stream::read::Decoder::with_buffer(payload);
            ("zstd", frame.and_then(|frame| bounded(frame.single_frame())))
        }
        // The kernel's build appends the unpacked size to formats that don't carry it.
        [0x02, 0x21, 0x4c, 0x18, blocks @ .., _, _, _, _] => ("lz4", lz4_legacy(blocks)),
        _ => {
            let magic = payload.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
            return Err(KernelError::UnknownCompression { magic });
        }
    };
    result.map_err(|source| KernelError::Decompress { compression, source })
}

fn bounded(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(VMLINUX_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > VMLINUX_BYTES_MAX { Err(too_large()) } else { Ok(bytes) }
}

fn lz4_legacy(mut blocks: &[u8]) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut block = vec![0; LZ4_BLOCK_BYTES_MAX];
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let packed = rest.get(..length).ok_or(io::ErrorKind::UnexpectedEof)?;
        let unpacked =
            lz4_flex::block::decompress_into(packed, &mut block).map_err(io::Error::other)?;
        bytes.extend_from_slice(&block[..unpacked]);
        if bytes.len() > VMLINUX_BYTES_MAX {
            return Err(too_large());
        }
        blocks = &rest[length..];
    }
    Ok(bytes)
}

fn too_large() -> io::Error {
    io::Error::other(format!("it unpacks to more than {VMLINUX_BYTES_MAX} bytes"))
}

/// An ELF64 little-endian executable for x86-64, by the bytes that say so.
fn check_elf(vmlinux: &[u8]) -> Result<(), KernelError> {
    let not = |reason| Err(KernelError::NotElf { reason });
    match vmlinux {
        [0x7f, b'E', b'L', b'F', 2, 1, rest @ ..] if rest.len() >= 58 => {
            if rest[12..14] == [62, 0] { Ok(()) } else { not("it is for another machine") }
        }
        [0x7f, b'E', b'L', b'F', ..] => not("it is a 32-bit, big-endian or truncated ELF file"),
        _ => not("it does not begin as one"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// The smallest thing that passes for a kernel, with enough behind it to span blocks.
    fn elf() -> Vec<u8> {
        let mut elf = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 62, 0];
        elf.extend((0..9 << 20).map(|at: u32| (at / 7) as u8));
        elf
    }

    fn bzimage(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 0x400];
        image[SETUP_SECTS] = 1;
        image[MAGIC..MAGIC + 4].copy_from_slice(b"HdrS");
        image[VERSION..VERSION + 2].copy_from_slice(&0x020f_u16.to_le_bytes());
        image[PAYLOAD..PAYLOAD + 4].copy_from_slice(&16_u32.to_le_bytes());
        image[PAYLOAD + 4..PAYLOAD + 8].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        image.extend([0xcc; 16]);
        image.extend(payload);
        image.extend([0xcc; 100]);
        image
    }

    /// The build of a kernel appends the unpacked size to its payload.
    fn with_size(mut payload: Vec<u8>, elf: &[u8]) -> Vec<u8> {
        payload.extend((elf.len() as u32).to_le_bytes());
        payload
    }

    fn packed(compression: &str) -> Vec<u8> {
        let elf = elf();
        let payload = match compression {
            "gzip" => {
                let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                gz.write_all(&elf).unwrap();
                gz.finish().unwrap()
            }
            "xz" => {
                let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
                xz.write_all(&elf).unwrap();
                xz.finish().unwrap()
            }
            "zstd" => zstd::encode_all(&elf[..], 1).unwrap(),
            _ => {
                let mut legacy = vec![0x02, 0x21, 0x4c, 0x18];
                for block in elf.chunks(LZ4_BLOCK_BYTES_MAX) {
                    let block = lz4_flex::block::compress(block);
                    legacy.extend((block.len() as u32).to_le_bytes());
                    legacy.extend(block);
                }
                legacy
            }
        };
        bzimage(&with_size(payload, &elf))
    }

    #[test]
    fn each_compression_unpacks_to_the_same_kernel() {
        for compression in ["gzip", "xz", "zstd", "lz4"] {
            let vmlinux = extract_vmlinux(&packed(compression)).expect(compression);
            assert!(vmlinux == elf(), "{compression} changed the kernel");
        }
    }

    #[test]
    fn a_kernel_that_is_an_elf_file_already_is_taken_as_it_is() {
        assert!(extract_vmlinux(&elf()).unwrap() == elf());
    }

    #[test]
    fn a_truncated_image_is_refused_in_every_compression() {
        for compression in ["gzip", "xz", "zstd", "lz4"] {
            let whole = packed(compression);
            let error = extract_vmlinux(&whole[..whole.len() - 2000]).unwrap_err();
            assert!(matches!(error, KernelError::NotBzImage { .. }), "{compression}: {error}");
            let mut damaged = whole;
            let payload_length = u32::from_le_bytes(damaged[0x24c..0x250].try_into().unwrap());
            damaged[0x24c..0x250].copy_from_slice(&(payload_length - 2000).to_le_bytes());
            let error = extract_vmlinux(&damaged).unwrap_err();
            assert!(matches!(error, KernelError::Decompress { .. }), "{compression}: {error}");
        }
    }

    #[test]
    fn what_is_no_kernel_is_refused_with_what_it_is_instead() {
        let check = |image: &[u8]| extract_vmlinux(image).unwrap_err().to_string();
        assert!(check(b"").contains("too short"));
        assert!(check(&[0; 4096]).contains("no boot header"));
        assert!(check(&bzimage(b"plain text, no payload")).contains("706c61696e20"));
        let text = gzip(b"no kernel at all");
        assert!(check(&bzimage(&text)).contains("does not begin as one"));
        let mut other_machine = elf();
        other_machine[18] = 183;
        assert!(check(&other_machine).contains("another machine"));
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(bytes).unwrap();
        gz.finish().unwrap()
    }
}
