//! Names and numbers of things. Every id is a type of its own. Names are cheap to clone and to
//! compare, since each stands in many indexes: one of up to 23 bytes lies in there itself.

use crate::digest::SpecHash;
use smol_str::SmolStr;
use std::fmt;

/// Longest job id or tenant, in bytes.
pub const NAME_BYTES_MAX: usize = 64;

/// Why a text is not an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdError {
    /// A sentence that names the rule.
    pub detail: String,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for IdError {}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(SmolStr);

        impl $name {
            /// Checks a text: 1 to 64 letters, digits, `-`, `_` and `.`, beginning with a letter
            /// or a digit, so that it is safe in a path, a URL and a host name's label.
            ///
            /// # Errors
            /// [`IdError`] with the rule that it breaks.
            pub fn parse(text: &str) -> Result<$name, IdError> {
                check_name(text, $what)?;
                Ok($name(text.into()))
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name_type!(
    /// What a user wants running goes by this name. Unique on a host.
    JobId,
    "a job id"
);
name_type!(
    /// A logical namespace or customer.
    Tenant,
    "a tenant"
);

fn check_name(text: &str, what: &str) -> Result<(), IdError> {
    let rule = if text.is_empty() {
        "is empty".to_owned()
    } else if text.len() > NAME_BYTES_MAX {
        format!("has {} bytes; {NAME_BYTES_MAX} is the limit", text.len())
    } else if !text.as_bytes()[0].is_ascii_alphanumeric() {
        "must begin with a letter or a digit".to_owned()
    } else if let Some(bad) =
        text.chars().find(|c| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')))
    {
        format!("holds {bad:?}; letters, digits, '-', '_' and '.' are allowed")
    } else {
        return Ok(());
    };
    Err(IdError { detail: format!("{what} {rule}") })
}

/// Who may share a pool: a tenant that was given, or all whose tenant was only defaulted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PoolTenant {
    /// Jobs without a tenant of their own.
    Shared,
    /// Jobs of this tenant.
    Named(Tenant),
}

/// Names a pool.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// Who may claim from it.
    pub tenant: PoolTenant,
    /// What its instances are made of.
    pub hash: SpecHash,
}

/// The opaque suffix of one microVM, never reused. Lower-case letters and digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InstanceId(SmolStr);

impl InstanceId {
    /// Checks a suffix: 1 to 32 lower-case letters and digits.
    ///
    /// # Errors
    /// [`IdError`] if it is anything else, so that an unrelated folder is not taken for an instance.
    pub fn parse(text: &str) -> Result<InstanceId, IdError> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if text.is_empty() || text.len() > 32 || !text.bytes().all(plain) {
            return Err(IdError {
                detail: format!(
                    "an instance id is 1 to 32 lower-case letters and digits, not {text:?}"
                ),
            });
        }
        Ok(InstanceId(text.into()))
    }

    /// The suffix.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as it is shown once the instance serves a job.
    #[must_use]
    pub fn vm_id(&self) -> String {
        format!("vm-{}", self.0)
    }

    /// The name as it is shown while the instance is in a pool.
    #[must_use]
    pub fn warm_id(&self) -> String {
        format!("warm-{}", self.0)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number that grows with every accepted change of a job. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub u64);

impl Generation {
    /// The largest that is read back: more changes than anybody makes, and a number that is the same
    /// in whatever reads JSON and SQL.
    const MAX: u64 = 1 << 53;

    /// A stored one; `None` if it cannot be one.
    #[must_use]
    pub fn from_stored(number: u64) -> Option<Generation> {
        (1..=Generation::MAX).contains(&number).then_some(Generation(number))
    }

    /// The next one.
    #[must_use]
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A small integer from which an instance's host-side names follow by arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u32);

impl Slot {
    /// More than any host has microVMs, and few enough to keep account of those that are free.
    pub const COUNT: u32 = 1 << 16;

    /// A stored one; `None` if it cannot be one.
    #[must_use]
    pub fn from_stored(number: u32) -> Option<Slot> {
        (number < Slot::COUNT).then_some(Slot(number))
    }
}

/// What a guest learns about its job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The job.
    pub job_id: JobId,
    /// Its tenant.
    pub tenant: Tenant,
    /// The generation that the instance serves.
    pub generation: Generation,
}
