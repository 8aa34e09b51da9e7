//! Who speaks what. The host says [`Hello`] first on each control stream to an init that knows it, and the
//! init answers with its own. What was agreed on is the lower version, and what both can do.
//!
//! | protocol | an init of it |
//! | --- | --- |
//! | 1 | knows no Hello, ends the control stream at an unknown command, and opens ports named by a bare number |
//! | 2 | answers Hello, answers an unknown command with `unsupported`, and opens each [`Channel`](crate::Channel) |

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// The version that this crate speaks.
pub const PROTOCOL: u32 = 2;
/// The version of an init of which no other is recorded.
pub const PROTOCOL_FIRST: u32 = 1;
/// The init takes a [`Command::Workload`](crate::Command::Workload), and the host sends one where it is
/// awaited.
pub const LATE_WORKLOAD: &str = "late_workload";
/// What both sides of this version can do beyond it. A later one adds here what it can do without being a
/// new version.
const CAPABILITIES: [&str; 1] = [LATE_WORKLOAD];

/// What one side speaks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The highest version.
    pub protocol: u32,
    /// What it can do beyond that, by name. Unknown names mean nothing.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub capabilities: BTreeSet<String>,
}

impl Hello {
    /// That of this crate.
    #[must_use]
    pub fn own() -> Hello {
        Hello {
            protocol: PROTOCOL,
            capabilities: CAPABILITIES.into_iter().map(str::to_owned).collect(),
        }
    }

    /// What both speak.
    #[must_use]
    pub fn agreed(&self, other: &Hello) -> Hello {
        Hello {
            protocol: self.protocol.min(other.protocol),
            capabilities: self.capabilities.intersection(&other.capabilities).cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(protocol: u32, capabilities: &[&str]) -> Hello {
        let capabilities = capabilities.iter().map(ToString::to_string).collect();
        Hello { protocol, capabilities }
    }

    #[test]
    fn agreed_is_what_both_sides_speak() {
        let (older, newer) = (hello(2, &["a", "b"]), hello(5, &["b", "c"]));
        assert_eq!(older.agreed(&newer), hello(2, &["b"]));
        assert_eq!(newer.agreed(&older), hello(2, &["b"]));
        assert_eq!(Hello::own().agreed(&Hello::own()), Hello::own());
    }
}
