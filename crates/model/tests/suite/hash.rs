//! The spec hash: its canonical bytes are fixed, and policy is not in it.

use expect_test::expect;
use hearth_model::hash::{canonical_bytes, same_inside, spec_hash};
use hearth_model::{Digest, Images, Spec, Value};

fn map(entries: Vec<(&str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn spec(more: Vec<(&str, Value)>) -> Spec {
    let mut fields = vec![
        ("rootfs", "rootfs-web.ext4".into()),
        ("kernel", "vmlinux".into()),
        ("cmd", Value::List(vec!["/app/bin/server".into()])),
        ("env", map(vec![("MIX_ENV", "prod".into())])),
        ("resources", map(vec![("vcpu", 2.into()), ("mem_mb", 512.into())])),
        ("lifecycle", "service".into()),
    ];
    fields.retain(|(key, _)| !more.iter().any(|(known, _)| known == key));
    fields.extend(more);
    Spec::read(&map(fields)).unwrap()
}

fn images(rootfs: u8) -> Images {
    let rootfs = Some(Digest([rootfs; 32]));
    Images { kernel: Digest([1; 32]), modules: None, rootfs }
}

#[test]
fn the_canonical_bytes_of_the_seeds_service_are_these() {
    let bytes = canonical_bytes(&spec(vec![]), &images(2));
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    expect!["6865617274682d737065632d3100000000000000002000000000000000010101010101010101010101010101010101010101010101010101010101010100000000000000002000000000000000020202020202020202020202020202020202020202020202020202020202020201000000000000000f000000000000002f6170702f62696e2f736572766572010000000000000007000000000000004d49585f454e56040000000000000070726f640200000000000000000200000000000000040000000000000700000000000000736572766963650000000000000000"].assert_eq(&hex);
    expect!["3400AFDB3CF52F97"].assert_eq(&spec_hash(&spec(vec![]), &images(2)).to_string());
}

#[test]
fn what_decides_the_inside_changes_the_hash_and_policy_does_not() {
    let base = spec_hash(&spec(vec![]), &images(2));
    let inside = [
        vec![("cmd", Value::List(vec!["/app/bin/server".into(), "x".into()]))],
        vec![("env", map(vec![("MIX_ENV", "test".into())]))],
        vec![("resources", map(vec![("vcpu", 1.into()), ("mem_mb", 512.into())]))],
        vec![("lifecycle", "daemon".into())],
        vec![("ready", map(vec![("notify", Value::Bool(true))]))],
        vec![("disk_mb", 64.into())],
    ];
    for change in inside {
        assert_ne!(spec_hash(&spec(change.clone()), &images(2)), base, "{change:?}");
        assert!(!same_inside(&spec(change.clone()), &spec(vec![])), "{change:?}");
    }
    assert_ne!(spec_hash(&spec(vec![]), &images(3)), base, "a changed rootfs");
    let policy = [
        vec![("warm_pool", map(vec![("min", 2.into())]))],
        vec![("stop_timeout_s", 3.into())],
        vec![("stop_signal", "SIGINT".into())],
        vec![("labels", map(vec![("app", "web".into())]))],
    ];
    for change in policy {
        assert_eq!(spec_hash(&spec(change.clone()), &images(2)), base, "{change:?}");
        assert!(same_inside(&spec(change.clone()), &spec(vec![])), "{change:?}");
    }
    let job = |auto_remove| {
        let fields = vec![("lifecycle", "job".into()), ("auto_remove", Value::Bool(auto_remove))];
        spec_hash(&spec(fields), &images(2))
    };
    assert_eq!(job(true), job(false));
}

#[test]
fn lists_that_join_to_the_same_text_have_different_hashes() {
    let cmd = |args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).into()).collect();
        spec_hash(&spec(vec![("cmd", Value::List(args))]), &images(2))
    };
    assert_ne!(cmd(&["a", "bc"]), cmd(&["ab", "c"]));
}

#[test]
fn a_digest_has_one_text() {
    let digest = "ab".repeat(32);
    assert_eq!(Digest::parse(&digest).map(|digest| digest.to_string()), Some(digest.clone()));
    for text in [digest.replacen("ab", "+b", 1), digest.replacen("ab", "-0", 1), "ä".repeat(32)] {
        assert_eq!(Digest::parse(&text), None, "{text}");
    }
}
