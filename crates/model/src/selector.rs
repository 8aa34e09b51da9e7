//! Which jobs a list shows, by what was declared: tenant and spec. One declaration of each condition
//! serves the query of `GET /vms`, its documentation, and the decision.

use crate::ids::Tenant;
use crate::spec::{Lifecycle, Spec, label_key_fault, label_value_fault};

/// Selects jobs; all conditions must hold, and the default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Only jobs of this tenant.
    pub tenant: Option<Tenant>,
    /// Only jobs of this lifecycle.
    pub lifecycle: Option<Lifecycle>,
    /// Only jobs with these labels: of this value, or of any where `None`.
    pub labels: Vec<(String, Option<String>)>,
}

/// A condition as it is written: a parameter of a query.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// The name of the parameter.
    pub name: &'static str,
    /// What it selects, as a sentence.
    pub doc: &'static str,
    /// What its value may be.
    pub values: Values,
    /// Whether it may be given more than once.
    pub is_repeatable: bool,
}

/// What the value of a condition may be.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// Texts that match this regular expression.
    Pattern(&'static str),
    /// One of these words.
    OneOf(&'static [&'static str]),
}

const LIFECYCLES: &[&str] =
    &[Lifecycle::Service.as_str(), Lifecycle::Daemon.as_str(), Lifecycle::Job.as_str()];

/// All of the rule but that the prefix has at most 253 bytes, which no plain expression can say.
const LABEL: &str = "^([a-z0-9]([a-z0-9-]*[a-z0-9])?(\\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*/)?\
                     [A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?\
                     (=([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?)?$";

impl Selector {
    /// The conditions that there are.
    pub const CONDITIONS: &'static [Condition] = &[
        Condition {
            name: "tenant",
            doc: "Only jobs of this tenant.",
            values: Values::Pattern("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"),
            is_repeatable: false,
        },
        Condition {
            name: "lifecycle",
            doc: "Only jobs of this lifecycle.",
            values: Values::OneOf(LIFECYCLES),
            is_repeatable: false,
        },
        Condition {
            name: "label",
            doc: "Only jobs with this label: `key=value`, or `key` for any value. All that are given \
                  must match.",
            values: Values::Pattern(LABEL),
            is_repeatable: true,
        },
    ];

    /// Adds the condition `name` with this value. `None` if there is no such condition.
    ///
    /// # Errors
    /// What is wrong with the value, as a sentence without a full stop.
    pub fn add(&mut self, name: &str, value: &str) -> Option<Result<(), String>> {
        Some(match name {
            "tenant" => Tenant::parse(value)
                .map(|tenant| self.tenant = Some(tenant))
                .map_err(|error| error.detail),
            "lifecycle" => Lifecycle::parse(value)
                .map(|lifecycle| self.lifecycle = Some(lifecycle))
                .ok_or_else(|| format!("{value:?} is not one of {}", LIFECYCLES.join(", "))),
            "label" => label(value).map(|label| self.labels.push(label)),
            _ => return None,
        })
    }

    /// Whether a job with this tenant and spec is selected.
    #[must_use]
    pub fn matches(&self, tenant: &Tenant, spec: &Spec) -> bool {
        self.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
            && self.lifecycle.is_none_or(|wanted| wanted == spec.lifecycle)
            && self.labels.iter().all(|(key, wanted)| {
                let found = spec.labels.get(key);
                found.is_some_and(|found| wanted.as_ref().is_none_or(|wanted| wanted == found))
            })
    }
}

/// Reads `key` or `key=value`.
fn label(condition: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = match condition.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (condition, None),
    };
    if let Some(fault) = label_key_fault(key) {
        return Err(format!("{key:?} is not the key of a label: {fault}"));
    }
    if let Some(fault) = value.and_then(label_value_fault) {
        return Err(format!(
            "{:?} is not the value of a label: {fault}",
            value.unwrap_or_default()
        ));
    }
    Ok((key.to_owned(), value.map(str::to_owned)))
}
