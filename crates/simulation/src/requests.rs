//! Names and specs of what is asked for, and what the requests that share a step have to do with each other.

use crate::schedule::{JOBS, Make};
use hearth_engine::{Call, Input};
use hearth_model::{JobId, Lifecycle, Spec, Tenant, Value};
use std::collections::BTreeSet;

/// What a step is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Asks {
    /// To change a job.
    pub(crate) changes: bool,
    /// To change one job more than once.
    pub(crate) crowded: bool,
}

impl Asks {
    pub(crate) fn of(inputs: &[Input]) -> Asks {
        let (mut asks, mut changed) = (Asks::default(), BTreeSet::new());
        for input in inputs {
            let Input::Request(Call { request, .. }) = input else { continue };
            if let Some(job) = request.changed_job() {
                asks.changes = true;
                asks.crowded |= !changed.insert(job);
            }
        }
        asks
    }
}

pub(crate) fn id(job: u8) -> JobId {
    debug_assert!(job < JOBS, "a schedule names its jobs");
    JobId::parse(&format!("job-{job}")).expect("a name")
}

pub(crate) fn tenant(name: &str) -> Tenant {
    Tenant::parse(name).expect("a name")
}

pub(crate) fn spec(make: Make) -> Spec {
    let object = |entries: Vec<(&str, Value)>| {
        Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
    };
    let line = format!("exit {}", make.code);
    let mut fields = vec![
        ("rootfs", format!("rootfs-{}.ext4", make.version).as_str().into()),
        ("kernel", "vmlinux".into()),
        ("cmd", Value::List(vec!["sh".into(), "-c".into(), line.as_str().into()])),
        ("resources", object(vec![("vcpu", Value::Int(1)), ("mem_mb", Value::Int(128))])),
        ("lifecycle", make.lifecycle.as_str().into()),
    ];
    if make.warm > 0 {
        let bounds = vec![("min", Value::Int(1)), ("max", Value::Int(i64::from(make.warm)))];
        fields.push(("warm_pool", object(bounds)));
    }
    if make.checked {
        fields.push(("ready", object(vec![("tcp", object(vec![("port", Value::Int(80))]))])));
    }
    if make.lifecycle == Lifecycle::Job && make.retries > 0 {
        fields.push(("retries", Value::Int(i64::from(make.retries))));
    }
    // As good as any third of the jobs, and no other draw of the seed.
    if make.lifecycle == Lifecycle::Job && (make.shared, make.version) == (true, 1) {
        fields.push(("auto_remove", Value::Bool(true)));
    }
    let version = Value::String(make.version.to_string());
    fields.push(("labels", object(vec![("version", version)])));
    Spec::read(&object(fields)).expect("a spec")
}
