//! Names and paths, each line of an input as all of them: job ids, tenants, instances, images, the
//! addresses that the daemon listens on, sources of desired-state files, digests.
//!
//! A name that is taken is what it was, and safe where it goes: a part of a path, a URL, a line. An
//! image that is taken lies in the images directory itself, whatever links are there.

#![no_main]

use hearth_daemon::Listen;
use hearth_desired_file::{Format, parse};
use hearth_fuzz::work_dir;
use hearth_host::linux::fuzzing::{Library, images};
use hearth_model::{
    Declaration, Digest, ImageName, InstanceId, JobId, Path as Pointer, Segment, SpecHash, Tenant,
    Value, fields, problems, text,
};
use libfuzzer_sys::fuzz_target;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Component, Path};
use std::sync::LazyLock;

/// The words of the file outside of the images directory.
const SECRET: &[u8] = b"a secret kernel";

static DIR: LazyLock<tempfile::TempDir> = LazyLock::new(work_dir);
static LIBRARY: LazyLock<Library> = LazyLock::new(library);

fuzz_target!(|input: &[u8]| {
    let text = String::from_utf8_lossy(input);
    for text in text.split('\n').take(32) {
        ids(text);
        image(text);
        listen(text);
        source(text);
        digests(text);
        pointer(text);
        suggested(text);
        in_a_file(text);
    }
});

fn is_safe(name: &str, plain: &str) -> bool {
    let parts: Vec<_> = Path::new(name).components().collect();
    matches!(parts.as_slice(), [Component::Normal(part)] if **part == *name)
        && name.chars().all(|c| c.is_ascii_alphanumeric() || plain.contains(c))
        && !name.starts_with(['.', '-'])
}

fn ids(text: &str) {
    match (JobId::parse(text), Tenant::parse(text)) {
        (Ok(job), Ok(tenant)) => {
            assert_eq!((job.as_str(), tenant.as_str()), (text, text));
            assert!(is_safe(text, "-_.") && text.len() <= 64);
            assert_eq!(JobId::parse(&job.to_string()), Ok(job));
        }
        (Err(job), Err(tenant)) => {
            assert!(job.detail.starts_with("a job id "), "{job}");
            assert!(tenant.detail.starts_with("a tenant "), "{tenant}");
            assert!(!job.detail.contains(char::is_control), "{job}");
        }
        (job, tenant) => panic!("{job:?}, {tenant:?}"),
    }
    match InstanceId::parse(text) {
        Ok(instance) => {
            assert!(is_safe(text, "") && text.len() <= 32);
            let (vm, warm) = (instance.vm_id(), instance.warm_id());
            assert!(JobId::parse(&vm).is_ok() && JobId::parse(&warm).is_ok());
            assert_eq!(
                (vm.strip_prefix("vm-"), warm.strip_prefix("warm-")),
                (Some(text), Some(text))
            );
        }
        Err(error) => assert!(!error.detail.contains(char::is_control), "{error}"),
    }
}

fn image(text: &str) {
    match ImageName::parse(text) {
        Ok(name) => {
            assert!(is_safe(text, "-_.+") || text.starts_with('-'));
            assert_eq!(name.as_str(), text);
        }
        Err(rule) => return assert!(!rule.is_empty() && !rule.contains(char::is_control)),
    }
    let spec = Value::Map(vec![
        ("kernel".into(), text.into()),
        ("boot".into(), "raw".into()),
        ("lifecycle".into(), "daemon".into()),
        (
            "resources".into(),
            Value::Map(vec![("vcpu".into(), 1.into()), ("mem_mb".into(), 128.into())]),
        ),
    ]);
    let spec = hearth_model::Spec::read(&spec).expect("it is right");
    let source = DIR.path().join("source");
    let found = source.join(text).symlink_metadata();
    match LIBRARY.resolve(&spec) {
        Ok(resolved) => {
            assert!(found.is_ok_and(|found| found.is_file()), "{text}");
            let bytes = fs::read(source.join(text)).expect("it was read just now");
            assert_eq!(resolved.kernel.0, *blake3::hash(&bytes).as_bytes());
            assert_ne!(bytes, SECRET);
        }
        Err(error) => assert!(error.sentence().contains(text), "{}", error.sentence()),
    }
}

/// A directory of images: one that is right, and others that are something else.
fn library() -> Library {
    let source = DIR.path().join("source");
    fs::create_dir_all(source.join("directory")).expect("it is made");
    let mut kernel = vec![0; 200];
    kernel[..6].copy_from_slice(b"\x7fELF\x02\x01");
    (kernel[18], kernel[32], kernel[54], kernel[56]) = (62, 64, 56, 1);
    (kernel[64], kernel[72], kernel[96]) = (1, 120, 80);
    fs::write(source.join("vmlinux"), &kernel).expect("it is written");
    fs::write(source.join("short"), &kernel[..150]).expect("it is written");
    fs::write(source.join("empty"), "").expect("it is written");
    let outside = DIR.path().join("outside");
    fs::write(&outside, SECRET).expect("it is written");
    symlink(&outside, source.join("link")).expect("it is made");
    symlink("vmlinux", source.join("inner")).expect("it is made");
    symlink("link", source.join("loop")).expect("it is made");
    images(&DIR.path().join("state"), source).expect("it is opened")
}

fn listen(text: &str) {
    match text.parse::<Listen>() {
        Ok(Listen::Tcp(address)) => {
            assert!(address.ip().is_loopback(), "{address}");
            assert_eq!(Listen::Tcp(address).to_string().parse().ok(), Some(Listen::Tcp(address)));
        }
        Ok(Listen::Unix(path)) => {
            assert!(path.is_absolute() && path.as_os_str().len() <= 107, "{}", path.display());
            let shown = Listen::Unix(path.clone()).to_string();
            assert_eq!(shown.parse().ok(), Some(Listen::Unix(path)));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fn source(text: &str) {
    if text.is_empty() {
        return;
    }
    let source = hearth_daemon::source_of(Path::new(text));
    assert!(source.is_absolute());
    assert!(
        source.components().all(|part| !matches!(part, Component::ParentDir | Component::CurDir))
    );
    assert_eq!(hearth_daemon::source_of(&source), source);
}

fn digests(text: &str) {
    if let Some(digest) = Digest::parse(text) {
        assert_eq!(digest.to_string(), text.to_ascii_lowercase());
        assert_eq!(SpecHash::parse(text), Some(SpecHash(digest.0)));
        assert_eq!(SpecHash(digest.0).to_hex(), digest.to_string());
    } else {
        assert!(text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}

/// A key is found again by the pointer to it, which is cut beyond a bound.
fn pointer(text: &str) {
    if text.len() > problems::POINTER_KEY_BYTES_MAX {
        return;
    }
    let pointer = Pointer(vec![Segment::Key(text.to_owned()), Segment::Index(1)]).pointer();
    let json = serde_json::json!({ text: [null, "here"] });
    assert_eq!(json.pointer(&pointer), Some(&"here".into()), "{pointer}");
}

fn suggested(text: &str) {
    let near = text::suggest(text, fields::SPEC_FIELDS);
    assert!(near.is_none_or(|near| fields::SPEC_FIELDS.contains(&near)));
    for field in fields::SPEC_FIELDS {
        assert_eq!(text::suggest(field, fields::SPEC_FIELDS), Some(*field));
    }
    let declared = Declaration::read(&Value::Map(vec![(text.to_owned(), Value::Null)]), &|_| None);
    let errors = declared.expect_err("it has no spec");
    assert!(errors.iter().any(|error| error.detail == "missing field `spec`"), "{errors:?}");
}

/// The same name in a file: taken where it is one.
fn in_a_file(text: &str) {
    let quoted = serde_json::to_string(text).expect("it is a text");
    let file = format!(
        r#"[{{"job_id": {quoted}, "spec": {{"kernel": "k", "boot": "raw", "lifecycle": "daemon", "resources": {{"vcpu": 1, "mem_mb": 64}}}}}}]"#
    );
    let parsed = parse("names.json", file);
    assert_eq!(parsed.is_ok(), JobId::parse(text).is_ok(), "{parsed:?}");
    if let Ok(format) = Format::of(text) {
        let extension = if format == Format::Yaml { "y" } else { format.extension() };
        assert!(text.to_ascii_lowercase().contains(&format!(".{extension}")), "{text:?}");
    }
}
