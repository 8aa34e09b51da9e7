//! How causes become [`HostError`]s.

use crate::HostError;
use std::path::Path;

/// A failed operation on a path of Hearth's own; it may work again, for instance with more disk.
pub(super) fn file(
    operation: &'static str,
    path: &Path,
) -> impl FnOnce(std::io::Error) -> HostError {
    let message = format!("cannot {operation} {}", path.display());
    move |source| HostError::transient(message).because(source)
}

/// A task that panicked or was cut off at the end of the daemon.
pub(super) fn task(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> HostError {
    HostError::transient("a task of the host ended early").because(source)
}
