//! The contract over the simulated host.

use crate::contract::Subject;
use hearth_host::sim::{SimConfig, SimHost};
use hearth_model::{Spec, Value};
use std::time::Duration;

fn spec(lifecycle: &str) -> Spec {
    let text = |text: &str| Value::String(text.to_owned());
    let resources = vec![("vcpu".into(), Value::Int(1)), ("mem_mb".into(), Value::Int(128))];
    let fields = vec![
        ("rootfs".into(), text("rootfs.ext4")),
        ("kernel".into(), text("vmlinux")),
        ("cmd".into(), Value::List(vec![text("/bin/app")])),
        ("resources".into(), Value::Map(resources)),
        ("lifecycle".into(), text(lifecycle)),
    ];
    Spec::read(&Value::Map(fields)).unwrap()
}

#[tokio::test(start_paused = true)]
async fn the_simulated_host_keeps_the_contract() {
    let host = SimHost::new(SimConfig::default());
    let missing = hearth_model::ImageName::parse("no-such-kernel").unwrap();
    host.set_missing(&missing, hearth_host::sim::Presence::Missing);
    let unread = hearth_model::ImageName::parse("unread.ext4").unwrap();
    host.replace_image(&unread, Duration::from_millis(500));
    let subject = Subject {
        host: &host,
        service: spec("service"),
        job: Some(spec("job")),
        unread: Some(Spec { rootfs: Some(unread), ..spec("service") }),
        patience: Duration::from_secs(10),
    };
    subject.check().await;
}
