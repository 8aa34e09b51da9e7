//! Copies of files that keep their holes: a hole is neither read nor written.

use super::layout::create_file;
use rustix::fs::SeekFrom;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes that are read at once.
pub(super) const CHUNK_BYTES: usize = 1024 * 1024;
/// Zeroes of this length and alignment become a hole.
const BLOCK_BYTES: usize = 4096;

/// Copies a file sparsely without digesting it: shares its blocks where the file system can.
pub(super) fn copy_sparse(source: &Path, target: &Path) -> io::Result<()> {
    let source = File::open(source)?;
    let target = create_file(target)?;
    if rustix::fs::ioctl_ficlone(&target, &source).is_ok() {
        return Ok(());
    }
    let len = source.metadata()?.len();
    target.set_len(len)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while let Some((start, end)) = next_data(&source, at, len) {
        copy_range(&source, &target, start, end, &mut chunk, |_| ())?;
        at = end;
    }
    Ok(())
}

/// The next range that may hold data at or after `at`. `None` where only a hole is left. A file
/// system that knows no holes has one range.
pub(super) fn next_data(file: &File, at: u64, len: u64) -> Option<(u64, u64)> {
    if at >= len {
        return None;
    }
    match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Err(rustix::io::Errno::NXIO) => None,
        Err(_) => Some((at, len)),
        Ok(start) => {
            let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(len);
            // A file that has grown meanwhile may have its next data behind what was its end.
            (start < len).then(|| (start, end.clamp(start + 1, len)))
        }
    }
}

/// Copies a range and leaves holes where it is zero.
pub(super) fn copy_range(
    source: &File,
    target: &File,
    start: u64,
    end: u64,
    chunk: &mut [u8],
    mut see: impl FnMut(&[u8]),
) -> io::Result<()> {
    let mut at = start;
    while at < end {
        let want = usize::try_from(end - at).unwrap_or(usize::MAX).min(chunk.len());
        let count = source.read_at(&mut chunk[..want], at)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        see(&chunk[..count]);
        let mut block_at = at;
        for block in chunk[..count].chunks(BLOCK_BYTES) {
            if block.iter().any(|&byte| byte != 0) {
                target.write_all_at(block, block_at)?;
            }
            block_at += block.len() as u64;
        }
        at += count as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_behind_the_length_that_is_asked_about_is_none() {
        let file = tempfile::tempfile().expect("a file");
        file.write_all_at(b"x", 3 * BLOCK_BYTES as u64).expect("written");
        let block = BLOCK_BYTES as u64;
        assert_eq!(next_data(&file, 0, block), None, "as if it had grown meanwhile");
        assert_eq!(next_data(&file, 0, 3 * block), None);
        assert_eq!(next_data(&file, 0, 3 * block + 1), Some((3 * block, 3 * block + 1)));
        assert_eq!(next_data(&file, 9 * block, block), None);
    }
}
