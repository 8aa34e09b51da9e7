//! What identifies an entry of a desired-state file.

use hearth_model::{Spec, Tenant};
use hearth_store::json::spec_to_json;
use std::sync::Arc;

/// The digest of what an entry says, not of what its names point at. It takes as long as all that the
/// engine does with the entry, so it is made before the engine is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDigest(pub(crate) String);

impl EntryDigest {
    /// That of an entry with this tenant and spec.
    #[must_use]
    pub fn of(tenant: Option<&Tenant>, spec: &Arc<Spec>) -> EntryDigest {
        let tenant = tenant.map(ToString::to_string);
        let text = serde_json::json!([tenant, spec_to_json(spec)]).to_string();
        EntryDigest(blake3::hash(text.as_bytes()).to_string())
    }
}
