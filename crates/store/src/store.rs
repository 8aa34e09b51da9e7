//! What an engine counts on.

use crate::changes::{Changes, Loaded, Used};
use crate::error::StoreError;
use crate::query::{EventPage, Events};
use std::fmt;
use std::path::PathBuf;

/// What an engine keeps its state in. It has one owner, which alone writes.
pub trait Store: fmt::Debug + Send {
    /// Everything but the events and keys.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Row`] for a row that holds nonsense.
    fn load(&self) -> Result<Loaded, StoreError>;

    /// Writes what a step changed, all or nothing, and returns when it is on disk. Without changes it does
    /// nothing.
    ///
    /// # Errors
    /// [`StoreError::Write`]: nothing was written. [`StoreError::Lost`]: it was, to files that are lost.
    fn commit(&mut self, changes: &Changes<'_>) -> Result<(), StoreError>;

    /// What a key was used for, however long ago.
    ///
    /// # Errors
    /// [`StoreError::Read`], or [`StoreError::Row`] for a row that holds nonsense.
    fn used(&self, key: &str) -> Result<Option<Used>, StoreError>;

    /// Events of one job or of all, oldest first: the newest, or those behind one.
    ///
    /// # Errors
    /// [`StoreError::Read`].
    fn events(&self, query: &Events) -> Result<EventPage, StoreError>;

    /// Looks whether the files are still those that were opened. Costs some calls of stat(2).
    ///
    /// # Errors
    /// [`StoreError::Lost`].
    fn check(&mut self) -> Result<(), StoreError>;

    /// Writes something that means nothing, to see whether a commit would succeed.
    ///
    /// # Errors
    /// As [`Store::commit`].
    fn probe(&mut self) -> Result<(), StoreError>;

    /// Puts a copy of what was committed where the next daemon finds it; `rows` is what it holds, but for
    /// the events and keys. `None` for a store that is not on disk.
    ///
    /// # Errors
    /// Where no whole copy could be made.
    fn save(&self, rows: &Changes<'_>) -> Result<Option<PathBuf>, StoreError>;
}
