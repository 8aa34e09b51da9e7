//! Reads a kernel as Firecracker's loader does, and says what is wrong with it in its words.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The code of a kernel.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) code: Vec<u8>,
    /// Where in it the guest begins.
    pub(crate) entry: usize,
}

/// Loads the first segment of an ELF file.
pub(crate) fn load(path: &Path, memory_mib: u64) -> Result<Loaded, &'static str> {
    let file = File::open(path).map_err(|_| "Unable to read elf header")?;
    let mut head = [0_u8; 64];
    file.read_exact_at(&mut head, 0).map_err(|_| "Unable to read elf header")?;
    if &head[..4] != b"\x7fELF" {
        return Err("Invalid Elf magic number");
    }
    let mut segment = [0_u8; 56];
    let table = number(&head, 32);
    file.read_exact_at(&mut segment, table).map_err(|_| "Unable to read program header")?;
    let (offset, address, bytes) =
        (number(&segment, 8), number(&segment, 24), number(&segment, 32));
    if address.checked_add(bytes).is_none_or(|end| end > memory_mib << 20) {
        return Err("Unable to read kernel image");
    }
    let size = usize::try_from(bytes).map_err(|_| "Unable to read kernel image")?;
    let mut code = vec![0; size];
    file.read_exact_at(&mut code, offset).map_err(|_| "Unable to read kernel image")?;
    let entry = number(&head, 24).saturating_sub(address);
    Ok(Loaded { code, entry: usize::try_from(entry).unwrap_or(usize::MAX) })
}

fn number(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
