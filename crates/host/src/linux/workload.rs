//! What runs inside a guest, as its init gets it.

use hearth_guest::{Config, Workload};
use hearth_model::{Create, Delivery, Identity, InstanceId, Owner, ReadyCheck, Spec, Stage};

/// The content of the config drive, with a workload that comes this way.
pub(super) fn config(create: &Create, delivery: Delivery) -> Config {
    let spec = &create.spec;
    Config {
        instance: create.instance.as_str().to_owned(),
        rootfs: spec.rootfs.as_ref().map_or_else(String::new, ToString::to_string),
        rootfs_digest: create.machine.images().rootfs.map(|digest| digest.to_string()),
        stage: match create.stage {
            Stage::Init => hearth_guest::Stage::Init,
            Stage::App => hearth_guest::Stage::App,
        },
        workload: match delivery {
            Delivery::Inline => hearth_guest::Delivery::Inline(of(spec)),
            Delivery::Late => hearth_guest::Delivery::LATE,
        },
        stop_signal: spec.stop_signal.number(),
        stop_timeout_s: spec.stop_timeout_s,
        identity: match &create.owner {
            Owner::Job(identity) => Some(to_wire(identity, &create.instance)),
            Owner::Pool(_) => None,
        },
    }
}

/// An identity as the guest gets it.
pub(super) fn to_wire(identity: &Identity, id: &InstanceId) -> hearth_guest::Identity {
    hearth_guest::Identity {
        job_id: identity.job_id.as_str().to_owned(),
        tenant: identity.tenant.as_str().to_owned(),
        generation: identity.generation.0,
        vm_id: id.vm_id(),
    }
}

/// The workload of a spec. No policy is in it: it is the same for all generations of one hash.
pub(super) fn of(spec: &Spec) -> Workload {
    let check = spec.ready.as_ref().map(|ready| match &ready.check {
        ReadyCheck::Http { port, path } => {
            hearth_guest::ReadyCheck::Http { port: *port, path: path.clone() }
        }
        ReadyCheck::Tcp { port } => hearth_guest::ReadyCheck::Tcp { port: *port },
        ReadyCheck::Exec(cmd) => hearth_guest::ReadyCheck::Exec(cmd.clone()),
        ReadyCheck::Notify => hearth_guest::ReadyCheck::Notify,
    });
    Workload {
        cmd: spec.cmd.clone(),
        env: spec.env.clone(),
        ready: check.map(|check| hearth_guest::Ready { check }),
    }
}
