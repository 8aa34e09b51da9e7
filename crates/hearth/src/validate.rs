//! `hearth validate FILE`.

use crate::output::Output;
use anyhow::Context;
use std::io::Read;
use std::path::Path;

/// Checks a file and shows every problem of it. 0 where there is none, else 1.
///
/// # Errors
/// Where the file cannot be read.
pub(crate) fn validate(path: &Path, output: &Output) -> anyhow::Result<u8> {
    let label = path.display().to_string();
    let mut bytes = Vec::new();
    // One byte more than is allowed, so that what is too large is told as such.
    let limit = u64::try_from(hearth_manifest::FILE_BYTES_MAX)? + 1;
    std::fs::File::open(path)
        .and_then(|file| file.take(limit).read_to_end(&mut bytes))
        .with_context(|| format!("cannot read {label}"))?;
    match hearth_manifest::parse(&label, &bytes) {
        Ok(file) => {
            output.valid(&label, file.jobs.len());
            Ok(0)
        }
        Err(diagnostics) => {
            output.invalid(&diagnostics);
            Ok(1)
        }
    }
}
