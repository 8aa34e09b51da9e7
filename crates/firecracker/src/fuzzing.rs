//! Entry points for the fuzz targets. It exists only under `--cfg fuzzing`.

use crate::process::Stat;

/// Whether a `/proc/<pid>/stat` is a zombie's, and when the process started.
#[must_use]
pub fn stat(text: &str) -> Option<(bool, u64)> {
    Stat::parse(text).map(|stat| (stat.is_zombie, stat.start_ticks))
}
