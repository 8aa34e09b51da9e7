//! What counts as a name, a number or a digest, and how each is shown.

use hearth_model::{
    Digest, Generation, ImageName, InstanceId, JobId, Mono, Slot, SpecHash, Stage, Tenant, Value,
};
use std::time::Duration;

#[test]
fn name_is_1_to_64_plain_characters_and_the_error_says_why() {
    let refused = |text: &str| JobId::parse(text).unwrap_err().to_string();
    for text in ["a", "0", "web-1", "A.b_c", &"x".repeat(64)] {
        assert_eq!(JobId::parse(text).unwrap().to_string(), text);
        assert_eq!(Tenant::parse(text).unwrap().as_str(), text);
    }
    assert_eq!(refused(""), "a job id is empty");
    assert_eq!(refused(&"x".repeat(65)), "a job id has 65 bytes; 64 is the limit");
    assert_eq!(refused("-a"), "a job id must begin with a letter or a digit");
    assert_eq!(refused("a/b"), "a job id holds '/'; letters, digits, '-', '_' and '.' are allowed");
    assert!(Tenant::parse("ü").unwrap_err().to_string().starts_with("a tenant must begin"));
}

#[test]
fn an_instance_is_named_by_lower_case_letters_and_digits_alone() {
    for text in ["a", "7", "a1b2c3", &"z".repeat(32)] {
        let id = InstanceId::parse(text).unwrap();
        assert_eq!((id.as_str(), id.to_string().as_str()), (text, text));
        assert_eq!(id.vm_id(), format!("vm-{text}"));
        assert_eq!(id.warm_id(), format!("warm-{text}"));
    }
    for text in ["", "A", "a-b", "..", "a/b", &"z".repeat(33)] {
        let error = InstanceId::parse(text).unwrap_err().to_string();
        assert!(error.contains("1 to 32 lower-case letters and digits"), "{error}");
    }
}

#[test]
fn an_image_is_named_by_its_file_name() {
    for text in ["vmlinux", "rootfs-web.ext4", "a+b_c", &"k".repeat(128)] {
        let name = ImageName::parse(text).unwrap();
        assert_eq!((name.as_str(), name.to_string().as_str()), (text, text));
    }
    let refused = |text: &str| ImageName::parse(text).unwrap_err();
    assert_eq!(refused(""), "an image name is empty");
    assert!(refused("../vmlinux").contains("is a path"));
    for text in [".hidden", "a b", "ü", &"k".repeat(129)] {
        assert!(refused(text).contains("is not an image name"), "{text}");
    }
}

#[test]
fn numbers_that_were_kept_are_taken_back_within_their_bounds() {
    let kept = |number| Generation::from_stored(number).map(|generation| generation.0);
    assert_eq!((kept(0), kept(1), kept(1 << 53)), (None, Some(1), Some(1 << 53)));
    assert_eq!((kept((1 << 53) + 1), kept(u64::MAX)), (None, None));
    assert_eq!(Generation(4).next(), Generation(5));
    assert_eq!(Generation(4).to_string(), "4");
    let kept = |number| Slot::from_stored(number).map(|slot| slot.0);
    assert_eq!((kept(0), kept(65_535)), (Some(0), Some(65_535)));
    assert_eq!((kept(65_536), kept(u32::MAX)), (None, None));
}

#[test]
fn digests_are_64_digits_and_hashes_are_shown_by_their_first_16() {
    let hex = "ab".repeat(32);
    let digest = Digest::parse(&hex).unwrap();
    assert_eq!((digest.to_string(), format!("{digest:?}")), (hex.clone(), hex.clone()));
    let hash = SpecHash::parse(&hex).unwrap();
    assert_eq!(hash.to_hex(), hex);
    assert_eq!((hash.to_string(), format!("{hash:?}")), ("AB".repeat(8), "AB".repeat(8)));
    assert!(Digest::parse(&hex[1..]).is_none() && SpecHash::parse(&hex[1..]).is_none());
}

#[test]
fn times_are_milliseconds_of_one_clock_and_never_negative() {
    let (early, late) = (Mono::from_millis(1_500), Mono::from_millis(4_000));
    assert_eq!((early.as_millis(), early.0), (1_500, Duration::from_millis(1_500)));
    assert_eq!(late.since(early), Duration::from_millis(2_500));
    assert_eq!(early.since(late), Duration::ZERO);
    assert_eq!(early.after(Duration::from_millis(2_500)), late);
}

#[test]
fn a_map_gives_its_values_by_key_and_nothing_else_does() {
    let map = Value::Map(vec![("a".to_owned(), 1.into()), ("b".to_owned(), 2.into())]);
    assert_eq!((map.get("b"), map.get("c")), (Some(&Value::Int(2)), None));
    assert_eq!(Value::List(vec![map]).get("a"), None);
}

#[test]
fn stages_have_the_names_of_the_wire() {
    assert_eq!([Stage::Init, Stage::App].map(Stage::as_str), ["init", "app"]);
}
