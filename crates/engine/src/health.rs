//! Whether the database takes changes.

use crate::input::Input;
use crate::reply::Refusal;
use hearth_model::Mono;

/// Whether the database takes changes.
#[derive(Debug, Default)]
pub(crate) struct Health {
    /// Why changes are refused.
    pub(crate) refusing: Option<Refusal>,
    /// How its files are lost, while they are: no change is tried then.
    pub(crate) lost: Option<String>,
    /// When a write last succeeded or failed.
    pub(crate) tried_at: Option<Mono>,
    /// What actions came to while the files were lost. Each instance has one action at most.
    pub(crate) deferred: Vec<Input>,
}
