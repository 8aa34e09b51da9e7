//! The grammar of fields: what is read, what is refused and in which words.

use expect_test::{Expect, expect};
use hearth_model::fields::{CMD_ARGS_MAX, CMD_ENV_BYTES_MAX, ENV_VARS_MAX};
use hearth_model::text::suggest;
use hearth_model::{Declaration, Path, Segment, Spec, Value};
use proptest::prelude::*;

fn map(entries: &[(&str, Value)]) -> Value {
    Value::Map(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
}

fn list(texts: &[&str]) -> Value {
    Value::List(texts.iter().map(|text| (*text).into()).collect())
}

fn web() -> Vec<(&'static str, Value)> {
    vec![
        ("rootfs", "rootfs-web.ext4".into()),
        ("kernel", "vmlinux".into()),
        ("cmd", list(&["/app/bin/server"])),
        ("resources", map(&[("vcpu", 2.into()), ("mem_mb", 512.into())])),
        ("lifecycle", "service".into()),
    ]
}

fn with(more: &[(&'static str, Value)]) -> Value {
    let mut entries = web();
    for (key, value) in more {
        entries.retain(|(known, _)| known != key);
        entries.push((key, value.clone()));
    }
    map(&entries)
}

fn check(tree: &Value, expected: &Expect) {
    let shown = match Spec::read(tree) {
        Ok(spec) => format!("{spec:#?}"),
        Err(errors) => errors
            .iter()
            .map(|error| {
                let help = error.help.as_deref().map_or(String::new(), |help| format!(" [{help}]"));
                let pointer = error.path.pointer();
                let at = if pointer.is_empty() { "(whole)" } else { &pointer };
                format!("{at} {}{help}\n", error.detail)
            })
            .collect(),
    };
    expected.assert_eq(&shown);
}

#[test]
fn every_problem_is_found_at_once_with_its_place_and_remedy() {
    check(
        &map(&[
            ("rootfs", "../etc/passwd".into()),
            ("kernel", Value::Int(5)),
            ("cmd", Value::List(vec!["/bin/sh".into(), Value::Int(1)])),
            ("env", map(&[("PORT", Value::Int(4000)), ("A=B", "x".into())])),
            ("resources", map(&[("vcpu", Value::Int(0)), ("mem", Value::Int(1))])),
            ("lifecycle", "servce".into()),
            ("warm_pol", Value::Null),
        ]),
        &expect![[r#"
            /warm_pol unknown field `warm_pol` [did you mean `warm_pool`?]
            /rootfs "../etc/passwd" is a path; images are named by their file name in the images directory
            /cmd/1 expected a string, found 1 [write "1"]
            /kernel expected a string, found 5 [write "5"]
            /env/PORT expected a string, found 4000 [write "4000"]
            /resources/mem unknown field `mem` [known fields are vcpu, mem_mb]
            /resources/vcpu 0 is out of range: 1 to 32
            /resources/mem_mb missing field `mem_mb`
            /lifecycle "servce" is not one of service, daemon, job [did you mean "service"?]
        "#]],
    );
}

#[test]
fn an_empty_map_names_what_a_spec_needs() {
    check(
        &map(&[]),
        &expect![[r#"
            /rootfs missing field `rootfs`
            /cmd missing field `cmd`
            /kernel missing field `kernel`
            /resources missing field `resources`
            /lifecycle missing field `lifecycle`
        "#]],
    );
    check(
        &Value::Null,
        &expect![[r#"
        (whole) expected a map, found null
    "#]],
    );
}

#[test]
fn rules_that_span_fields_are_checked() {
    check(
        &with(&[
            ("warm_pool", map(&[("min", 3.into()), ("max", 1.into())])),
            ("retries", 2.into()),
            ("timeout_s", 5.into()),
            ("auto_remove", Value::Bool(true)),
            ("ready", map(&[("tcp", map(&[("port", 1.into())])), ("notify", Value::Bool(true))])),
        ]),
        &expect![[r#"
            /warm_pool/max 1 is less than `min`, which is 3
            /ready needs exactly one of http, tcp, exec and notify
            /retries `retries` is for lifecycle "job" [remove it]
            /timeout_s `timeout_s` is for lifecycle "job" [remove it]
            /auto_remove `auto_remove` is for lifecycle "job" [remove it]
        "#]],
    );
    check(
        &with(&[
            ("lifecycle", "job".into()),
            ("warm_pool", map(&[("min", 1.into()), ("stage", "app".into())])),
        ]),
        &expect![[r#"
            /warm_pool/stage a `job` would run before it is claimed [use "init"]
        "#]],
    );
}

#[test]
fn raw_guest_needs_only_a_kernel_and_no_field_of_the_init() {
    let raw = map(&[
        ("boot", "raw".into()),
        ("kernel", "tiny".into()),
        ("resources", map(&[("vcpu", 1.into()), ("mem_mb", 128.into())])),
        ("lifecycle", "service".into()),
    ]);
    let spec = Spec::read(&raw).unwrap();
    assert!(spec.rootfs.is_none() && spec.cmd.is_empty());
    check(
        &with(&[
            ("boot", "raw".into()),
            ("lifecycle", "job".into()),
            ("env", map(&[("A", "b".into())])),
        ]),
        &expect![[r#"
            /env needs Hearth's init, which `boot: "raw"` turns off
            /lifecycle "job" needs Hearth's init, which `boot: "raw"` turns off
        "#]],
    );
}

#[test]
fn a_pool_without_a_maximum_is_bounded_by_its_minimum() {
    let spec = Spec::read(&with(&[("warm_pool", map(&[("min", 2.into())]))])).unwrap();
    assert_eq!(spec.pool_bounds(), (2, 2));
}

fn accepted(more: &[(&'static str, Value)]) -> bool {
    Spec::read(&with(more)).is_ok()
}

#[test]
fn a_command_and_its_environment_are_bounded_to_the_last_one() {
    let cmd = |count: usize| ("cmd", Value::List(vec!["a".into(); count]));
    assert!(accepted(&[cmd(1)]) && accepted(&[cmd(CMD_ARGS_MAX)]));
    assert!(!accepted(&[cmd(0)]) && !accepted(&[cmd(CMD_ARGS_MAX + 1)]));
    let env = |count: usize| {
        let names = (0..count).map(|number| (format!("V{number}"), "x".into()));
        ("env", Value::Map(names.collect()))
    };
    assert!(accepted(&[env(ENV_VARS_MAX)]) && !accepted(&[env(ENV_VARS_MAX + 1)]));
    // Each variable takes its name, its value, an equals sign and an end.
    let bytes = |count: usize| {
        let value = "x".repeat(count - "/a".len() - "K".len() - 2);
        [("cmd", list(&["/a"])), ("env", map(&[("K", value.as_str().into())]))]
    };
    assert!(accepted(&bytes(CMD_ENV_BYTES_MAX)) && !accepted(&bytes(CMD_ENV_BYTES_MAX + 1)));
    assert!(!accepted(&[("cmd", list(&["/a", "\0"]))]));
    assert_eq!(CMD_ENV_BYTES_MAX, 49_152);
}

#[test]
fn a_check_is_of_one_kind_with_a_port_and_a_path_that_can_be() {
    let http = |port: u32, path: &str| {
        let http = map(&[("port", port.into()), ("path", path.into())]);
        [("ready", map(&[("http", http)]))]
    };
    let port = |port: u32| [("ready", map(&[("tcp", map(&[("port", port.into())]))]))];
    assert!(accepted(&http(80, "/up?a=b")) && accepted(&port(1)) && accepted(&port(65_535)));
    assert!(!accepted(&port(0)) && !accepted(&port(65_536)));
    for path in ["up", "/a b", "/a\nb", ""] {
        assert!(!accepted(&http(80, path)), "{path:?}");
    }
    let spec = Spec::read(&with(&port(4000))).unwrap();
    assert_eq!(spec.write().get("ready"), with(&port(4000)).get("ready"));
}

#[test]
fn what_is_as_by_default_is_not_written() {
    let written = |more: &[(&'static str, Value)]| Spec::read(&with(more)).unwrap().write();
    let keys = |value: &Value| match value {
        Value::Map(entries) => entries.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
        _ => Vec::new(),
    };
    let plain = written(&[("stop_timeout_s", 10.into()), ("disk_mb", 1024.into())]);
    assert_eq!(keys(&plain), ["rootfs", "kernel", "cmd", "resources", "lifecycle"]);
    let pool = |stage: &str| map(&[("min", 1.into()), ("max", 2.into()), ("stage", stage.into())]);
    let stage = |stage: &str| {
        written(&[("warm_pool", pool(stage))]).get("warm_pool").unwrap().get("stage").cloned()
    };
    assert_eq!((stage("app"), stage("init")), (None, Some("init".into())));
    let job = [("lifecycle", Value::from("job"))];
    let retries =
        |count: u32| written(&[job[0].clone(), ("retries", count.into())]).get("retries").cloned();
    assert_eq!((retries(0), retries(2)), (None, Some(2.into())));
    let auto_remove = |truth| {
        let fields = [job[0].clone(), ("auto_remove", Value::Bool(truth))];
        written(&fields).get("auto_remove").cloned()
    };
    assert_eq!((auto_remove(false), auto_remove(true)), (None, Some(Value::Bool(true))));
}

#[test]
fn stop_signal_is_read_in_all_its_forms_and_written_in_one() {
    let read = |text: &str| Spec::read(&with(&[("stop_signal", text.into())]));
    let written = |text: &str| read(text).unwrap().write().get("stop_signal").cloned();
    for text in ["SIGINT", "INT", "sigint", "2"] {
        assert_eq!(written(text), Some("SIGINT".into()), "{text}");
    }
    assert_eq!(written("37"), Some("SIGRTMIN+3".into()));
    for text in ["SIGTERM", "term", "15"] {
        assert_eq!(written(text), None, "{text} is the default");
    }
    let refused = |value: Value| {
        let error =
            Spec::read(&with(&[("stop_signal", value)])).unwrap_err().into_iter().next().unwrap();
        format!("{}: {} [{}]", error.path, error.detail, error.help.unwrap())
    };
    let forms = r#"name it as in "SIGINT", "SIGRTMIN+3" or "2""#;
    for (value, expected) in [
        ("SIGTREM", r#""SIGTREM" is not a signal [did you mean "SIGTERM"?]"#.to_owned()),
        ("TERM\r", r#""TERM\r" is not a signal [did you mean "SIGTERM"?]"#.to_owned()),
        ("0", format!(r#""0" is not a signal [{forms}]"#)),
        ("", format!(r#""" is not a signal [{forms}]"#)),
    ] {
        assert_eq!(refused(value.into()), format!("stop_signal: {expected}"));
    }
    assert_eq!(refused(2.into()), r#"stop_signal: expected a string, found 2 [write "2"]"#);
    let raw = [("boot", "raw".into()), ("stop_signal", "INT".into())];
    let raw = Spec::read(&with(&raw)).unwrap_err().into_iter().next().unwrap();
    assert_eq!(raw.path.to_string(), "stop_signal");
    assert!(raw.detail.starts_with("needs Hearth's init"), "{}", raw.detail);
}

#[test]
fn a_declaration_has_a_name_a_tenant_and_a_spec() {
    let spec = || ("spec", with(&[]));
    let read = |entries: &[(&str, Value)]| Declaration::read(&map(entries), &|_| None);
    let refused = |entries: &[(&str, Value)]| {
        let errors = read(entries).unwrap_err();
        let shown = errors.iter().map(|error| {
            format!("{}: {} [{}]", error.path, error.detail, error.help.as_deref().unwrap_or(""))
        });
        shown.collect::<Vec<_>>()
    };
    let whole = read(&[("job_id", "web".into()), ("tenant", "t".into()), spec()]).unwrap();
    assert_eq!(whole.job_id.unwrap().as_str(), "web");
    assert_eq!(whole.tenant.unwrap().as_str(), "t");
    assert_eq!(whole.spec, Spec::read(&with(&[])).unwrap());
    let other = read(&[("vm_id", "web".into()), spec()]).unwrap();
    assert_eq!((other.job_id.unwrap().as_str(), other.tenant), ("web", None));
    assert!(read(&[("job_id", "web".into()), ("vm_id", "web".into()), spec()]).is_ok());
    assert_eq!(
        refused(&[("job_id", "web".into()), ("vm_id", "api".into()), spec()]),
        ["vm_id: `vm_id` is another name for `job_id`, which is \"web\" here [leave it out]"]
    );
    assert_eq!(
        refused(&[("job_id", "a/b".into()), spec()]),
        ["job_id: a job id holds '/'; letters, digits, '-', '_' and '.' are allowed []"]
    );
    assert_eq!(refused(&[]), ["spec: missing field `spec` []"]);
    assert_eq!(
        refused(&[("cmd", list(&["/a"])), spec()]),
        ["cmd: unknown field `cmd` [`cmd` belongs in `spec`]"]
    );
    let within = read(&[("spec", with(&[("tenant", "t".into())]))]).unwrap_err();
    assert!(
        within.iter().next().unwrap().help.as_ref().unwrap().starts_with("known fields are "),
        "{within:?}"
    );
    let unknown = read(&[("whatever", "t".into()), spec()]).unwrap_err();
    assert!(
        unknown.iter().next().unwrap().help.as_ref().unwrap().starts_with("known fields are "),
        "{unknown:?}"
    );
}

#[test]
fn a_place_is_shown_as_a_user_would_write_it() {
    let path = Path(vec![
        Segment::Key("spec".to_owned()),
        Segment::Key("cmd".to_owned()),
        Segment::Index(2),
    ]);
    assert_eq!(
        (path.to_string(), path.pointer()),
        ("spec.cmd[2]".to_owned(), "/spec/cmd/2".to_owned())
    );
}

#[test]
fn the_nearest_name_is_suggested_where_it_is_near_enough() {
    let known = ["kernel", "cmd", "resources", "retries"];
    let cases = [
        ("kernal", Some("kernel")),
        ("krnl", Some("kernel")),
        ("KERNEL", Some("kernel")),
        ("kernels", Some("kernel")),
        ("cmdd", Some("cmd")),
        ("cm", Some("cmd")),
        ("md", Some("cmd")),
        ("c", None),
        ("resourcez", Some("resources")),
        ("rtries", Some("retries")),
        ("xyz", None),
        // Two letters of six may be other, more or fewer, at either end and between.
        ("kernelxx", Some("kernel")),
        ("xxkernel", Some("kernel")),
        ("kexxrnel", Some("kernel")),
        ("kxrnxl", Some("kernel")),
        ("xxrnel", Some("kernel")),
        ("rnel", Some("kernel")),
        ("kern", Some("kernel")),
        ("kernelxxx", None),
        ("xxxkernel", None),
        ("xxxnel", None),
        ("ker", None),
        ("nel", None),
        ("", None),
    ];
    for (word, name) in cases {
        assert_eq!(suggest(word, &known), name, "{word}");
    }
}

fn ready() -> impl Strategy<Value = Option<Value>> {
    let check = prop_oneof![
        (1u32..65536, "/[a-z]{0,8}").prop_map(|(port, path)| (
            "http",
            map(&[("port", port.into()), ("path", path.as_str().into())])
        )),
        (1u32..65536).prop_map(|port| ("tcp", map(&[("port", port.into())]))),
        Just(("exec", list(&["/bin/true", "x"]))),
        Just(("notify", Value::Bool(true))),
    ];
    proptest::option::of((check, 1u32..1000).prop_map(|((kind, check), timeout_s)| {
        map(&[(kind, check), ("timeout_s", timeout_s.into())])
    }))
}

proptest! {
    #[test]
    fn what_is_written_reads_back_as_the_same(
        lifecycle in prop_oneof![Just("service"), Just("daemon"), Just("job")],
        cmd in proptest::collection::vec("[a-z]{1,9}", 1..4),
        env in proptest::collection::btree_map("[A-Z_]{1,9}", ".{0,12}", 0..4),
        pool in proptest::option::of((0u32..5, 0u32..5)),
        ready in ready(),
        (vcpu, mem, stop, disk) in (1u32..33, 1u32..99999, 0u32..3600, 16u32..9999),
        signal in 1u32..65,
    ) {
        let cmd: Vec<&str> = cmd.iter().map(String::as_str).collect();
        let env: Vec<(&str, Value)> = env
            .iter()
            .filter(|(_, value)| !value.contains('\0'))
            .map(|(key, value)| (key.as_str(), value.as_str().into()))
            .collect();
        let pool = pool.map_or(Value::Null, |(min, more)| {
            map(&[("min", min.into()), ("max", (min + more).into())])
        });
        let tree = with(&[
            ("lifecycle", lifecycle.into()),
            ("cmd", list(&cmd)),
            ("env", map(&env)),
            ("warm_pool", pool),
            ("ready", ready.unwrap_or(Value::Null)),
            ("resources", map(&[("vcpu", vcpu.into()), ("mem_mb", mem.into())])),
            ("stop_signal", signal.to_string().as_str().into()),
            ("stop_timeout_s", stop.into()),
            ("disk_mb", disk.into()),
        ]);
        let spec = Spec::read(&tree).unwrap();
        prop_assert_eq!(Spec::read(&spec.write()).unwrap(), spec);
    }
}

#[test]
fn labels_keep_the_rules_of_kubernetes() {
    let at_limit = "a".repeat(63);
    let fit = [
        ("app", "web"),
        ("example.com/app.kubernetes_name-2", ""),
        (at_limit.as_str(), at_limit.as_str()),
    ];
    let labels = fit.map(|(key, value)| (key, value.into()));
    let spec = Spec::read(&with(&[("labels", map(&labels))])).unwrap();
    assert_eq!(spec.labels.len(), 3);
    assert_eq!(Spec::read(&spec.write()).unwrap(), spec);
    let over = "a".repeat(64);
    check(
        &with(&[(
            "labels",
            map(&[
                ("", "x".into()),
                ("-app", "x".into()),
                ("Example.com/app", "x".into()),
                ("a/b/c", "x".into()),
                (over.as_str(), "x".into()),
                ("tier", "two words".into()),
                ("long", over.as_str().into()),
                ("port", Value::Int(80)),
            ]),
        )]),
        &expect![[r#"
            /labels/ "" is not the key of a label [the name must have up to 63 letters, digits, '-', '_' and '.', the first and the last of them a letter or a digit]
            /labels/-app "-app" is not the key of a label [the name must have up to 63 letters, digits, '-', '_' and '.', the first and the last of them a letter or a digit]
            /labels/Example.com~1app "Example.com/app" is not the key of a label [before the `/` stands a DNS name of up to 253 lower-case letters, digits, '-' and '.']
            /labels/a~1b~1c "a/b/c" is not the key of a label [the name must have up to 63 letters, digits, '-', '_' and '.', the first and the last of them a letter or a digit]
            /labels/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is not the key of a label [the name must have up to 63 letters, digits, '-', '_' and '.', the first and the last of them a letter or a digit]
            /labels/tier "two words" is not the value of a label [it must be empty or have up to 63 letters, digits, '-', '_' and '.', the first and the last of them a letter or a digit]
            /labels/long "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa" is not the value of a label [it must be empty or have up to 63 letters, digits, '-', '_' and '.', the first and the last of them a letter or a digit]
            /labels/port expected a string, found 80 [write "80"]
        "#]],
    );
    let many: Vec<(String, Value)> = (0..65).map(|at| (format!("k{at}"), "".into())).collect();
    check(
        &with(&[("labels", Value::Map(many))]),
        &expect![[r#"
        /labels has 65 labels; 64 is the limit
    "#]],
    );
    check(
        &with(&[("labels", list(&["app"]))]),
        &expect![[r#"
        /labels expected a map, found a list
    "#]],
    );
}
