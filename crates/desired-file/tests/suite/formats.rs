//! The four formats beside each other: the same jobs, the same problems, the same bounds.

use expect_test::{Expect, expect};
use hearth_desired_file::{
    DEPTH_MAX, Declared, Format, PROBLEMS_MAX, Span, parse, parse_as, write,
};
use hearth_model::fields::env_name_fault;
use hearth_model::{JobId, Spec, Tenant, Value};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::fmt::Write;

const EXS: &str = include_str!("../../../../config/desired_vms.exs");
const TOML: &str = include_str!("../../../../docs/examples/desired_vms.toml");
const YAML: &str = include_str!("../../../../docs/examples/desired_vms.yaml");
const JSON: &str = include_str!("../../../../docs/examples/desired_vms.json");
const EXAMPLES: [(&str, &str); 4] =
    [("vms.exs", EXS), ("vms.toml", TOML), ("vms.yaml", YAML), ("vms.json", JSON)];

/// A job without its place.
type Bare = (String, Option<String>, Value);

fn bare(job: &Declared) -> Bare {
    let tenant = job.tenant.as_ref().map(ToString::to_string);
    (job.job_id.to_string(), tenant, job.spec.write())
}

fn jobs(label: &str, text: &str) -> Vec<Bare> {
    match parse(label, text) {
        Ok(file) => file.jobs.iter().map(bare).collect(),
        Err(problems) => panic!("{problems}"),
    }
}

/// What is said of a file, drawn.
fn check(label: &str, text: &str, expect: Expect) {
    expect.assert_eq(
        &parse(label, text).map_or_else(
            |problems| problems.to_string(),
            |file| format!("{} jobs", file.jobs.len()),
        ),
    );
}

#[test]
fn the_example_declares_the_same_jobs_in_all_four_formats() {
    let expected = jobs("vms.exs", EXS);
    assert_eq!(expected.len(), 3);
    for (label, text) in EXAMPLES {
        assert_eq!(jobs(label, text), expected, "{label}");
    }
    assert_eq!(jobs("VMS.YML", YAML), expected);
}

#[test]
fn a_name_that_tells_no_format_is_an_error_that_names_the_four() {
    for label in ["vms", "vms.conf", "toml", ".json"] {
        let problems = parse(label, EXS).unwrap_err().to_string();
        assert!(problems.contains(&format!("the format of {label} by")), "{problems}");
        assert!(problems.contains(".exs, .toml, .yaml (or .yml) or .json"), "{problems}");
    }
    assert_eq!(parse_as(Format::Elixir, "stdin", EXS).unwrap().jobs.len(), 3);
}

#[test]
fn a_file_that_holds_another_format_is_told_so() {
    for (label, text) in EXAMPLES {
        for (other, other_text) in EXAMPLES {
            // JSON is YAML.
            if label == other || (label, other) == ("vms.yaml", "vms.json") {
                continue;
            }
            let problems = parse(label, other_text).unwrap_err();
            assert_eq!(problems.count(), 1, "{label} holds {other}: {problems}");
            let said = problems.to_string();
            let extension = other.rsplit('.').next().unwrap();
            assert!(said.contains(&format!("ends in .{extension}")), "{said}");
        }
        assert!(parse(label, text).is_ok());
    }
    check(
        "vms.toml",
        JSON,
        expect![[r#"
            error: the file is read as TOML, and holds JSON
             --> vms.toml:1:1
              |
            1 | [
              | ^
              |
              = help: name it so that it ends in .json

            vms.toml: 1 problem; nothing in it is applied"#]],
    );
}

#[test]
fn aliases_stand_for_what_they_name_and_cannot_fill_the_memory() {
    let shared = "- job_id: a
  spec: &spec
    rootfs: r.ext4
    kernel: vmlinux
    cmd: [/run]
    resources: &size {vcpu: 1, mem_mb: 64}
    lifecycle: daemon
- job_id: b
  spec: *spec
";
    let jobs = jobs("vms.yaml", shared);
    assert_eq!(jobs[0].2, jobs[1].2);

    let mut laughs = "- &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]\n".to_owned();
    for level in 1..20 {
        let inner = format!("*a{}, ", level - 1).repeat(9);
        let _ = writeln!(laughs, "- &a{level} [{}]", inner.trim_end_matches(", "));
    }
    let problems = parse("vms.yaml", laughs).unwrap_err();
    assert!(problems.to_string().contains("aliases add more than"), "{problems}");

    let mut deep = "- &a0 [x]\n".to_owned();
    for level in 1..100 {
        let _ = writeln!(deep, "- &a{level} [*a{}]", level - 1);
    }
    let problems = parse("vms.yaml", deep).unwrap_err();
    assert!(problems.to_string().contains("nested too deeply"), "{problems}");
}

#[test]
fn nesting_has_an_end_in_every_format() {
    let dotted = "a.".repeat(70) + "a";
    let nested = format!("{{{dotted} = ").repeat(70);
    let deep = [
        ("a.exs", "[".repeat(100_000)),
        ("a.json", "[".repeat(100_000)),
        ("a.json", "[{\"a\":".repeat(100_000)),
        ("a.yaml", "[".repeat(100_000)),
        ("a.yaml", "- ".repeat(100_000)),
        ("a.yaml", "[{a: ".repeat(100_000)),
        ("a.toml", format!("vm = {}", "[".repeat(100_000))),
        ("a.toml", format!("vm = {}", "{a = ".repeat(100_000))),
        ("a.toml", format!("vm = {nested}1{}", "}".repeat(70))),
        ("a.toml", format!("[{}]", "a.".repeat(100_000) + "a")),
    ];
    // The stack of a thread that reads a file is no larger than this anywhere.
    let read = move || {
        for (label, text) in deep {
            assert!(parse(label, text).is_err(), "{label}");
        }
        for (label, levels) in [("a.json", DEPTH_MAX), ("a.yaml", DEPTH_MAX)] {
            let text = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let said = parse(label, text).unwrap_err().to_string();
            assert!(!said.contains("nested too deeply"), "{said}");
        }
    };
    std::thread::Builder::new().stack_size(2 << 20).spawn(read).unwrap().join().unwrap();
}

#[test]
fn a_file_of_nothing_but_problems_is_told_of_in_bounded_time() {
    let many = [
        ("a.json", format!("[{}]", "x,".repeat(200_000))),
        ("a.yaml", "- {a: 1}\n".repeat(40_000)),
        ("a.toml", "a b\n".repeat(100_000)),
        ("a.toml", "x ".repeat(200_000)),
        ("a.toml", format!("vm = [{}]", "x,".repeat(100_000))),
    ];
    for (label, text) in many {
        let started = std::time::Instant::now();
        let problems = parse(label, &text).unwrap_err();
        assert!(problems.iter().len() <= PROBLEMS_MAX);
        let took = started.elapsed();
        assert!(took.as_secs() < 10, "{label}: {took:?}");
    }
}

fn check_places(label: &str, text: &[u8]) -> Result<(), TestCaseError> {
    let Err(problems) = parse(label, text) else { return Ok(()) };
    prop_assert!(problems.count() > 0);
    prop_assert!(!problems.to_string().is_empty());
    for problem in &problems {
        prop_assert!(problem.line >= 1 && problem.column >= 1, "{problem:?}");
        prop_assert!(problem.end_column >= problem.column, "{problem:?}");
        prop_assert!(!problem.to_string().contains(char::is_control), "{problem:?}");
    }
    Ok(())
}

/// The reader's words in no order.
const TOKENS: [&str; 64] = [
    "[",
    "]",
    "[[",
    "]]",
    "{",
    "}",
    "%{",
    ",",
    ":",
    ": ",
    "=",
    " = ",
    "=>",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\n",
    "\n  ",
    "\n- ",
    "- ",
    "\r\n",
    " ",
    "\t",
    "#",
    "# c\n",
    "//",
    "/*",
    "\\",
    "\\u",
    "\\ud83d",
    "\\x41",
    "&a ",
    "*a",
    "!!str ",
    "!",
    "|",
    ">",
    "|-\n ",
    "---",
    "...",
    "? ",
    "<<: ",
    "@",
    "`",
    "%",
    "a",
    "vm",
    "[[vm]]\n",
    "[vm.spec]\n",
    "job_id",
    "spec",
    "null",
    "true",
    "~",
    "1",
    "-1",
    "1.5",
    "0x",
    "1979-05-27",
    ".inf",
    "\u{FEFF}",
    "é\u{202E}",
    "\0",
];

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        for (label, _) in EXAMPLES {
            check_places(label, &bytes)?;
        }
    }

    #[test]
    fn random_tokens_never_panic(picks in prop::collection::vec(0..TOKENS.len(), 0..60)) {
        let text: String = picks.iter().map(|at| TOKENS[*at]).collect();
        for (label, _) in EXAMPLES {
            check_places(label, text.as_bytes())?;
        }
    }

    #[test]
    fn a_damaged_example_is_read_or_refused(
        which in 0..4usize, at in 0..1000usize, len in 0..20usize, token in 0..TOKENS.len(),
    ) {
        let (label, text) = EXAMPLES[which];
        let at = at.min(text.len());
        let end = (at + len).min(text.len());
        let text = [&text.as_bytes()[..at], TOKENS[token].as_bytes(), &text.as_bytes()[end..]];
        check_places(label, &text.concat())?;
    }
}

#[test]
fn truncated_example_is_refused_or_read_in_full_entries() {
    let whole = jobs("vms.exs", EXS);
    for (label, text) in EXAMPLES {
        for cut in 0..text.len() {
            let bytes = &text.as_bytes()[..cut];
            check_places(label, bytes).unwrap();
            let Ok(file) = parse(label, bytes) else { continue };
            // A cut at the end of a field that is the last one needed can't be told from the end.
            let read: Vec<Bare> = file.jobs.iter().map(bare).collect();
            let ids = |jobs: &[Bare]| jobs.iter().map(|job| job.0.clone()).collect::<Vec<_>>();
            assert_eq!(ids(&read), ids(&whole[..read.len()]), "{label} cut at {cut}");
            let before = read.len().saturating_sub(1);
            assert_eq!(read[..before], whole[..before], "{label} cut at {cut}");
            if label == "vms.json" || label == "vms.exs" {
                assert_eq!(read, whole, "{label} cut at {cut}");
            }
        }
    }
}

#[test]
fn the_example_is_written_in_every_format() {
    let file = parse("vms.exs", EXS).unwrap();
    let written: Vec<String> =
        Format::ALL.iter().map(|format| write(*format, &file.jobs[..1])).collect();
    expect![[r#"
        [
          {"web-api", "production",
           %{
             rootfs: "rootfs-web.ext4",
             kernel: "vmlinux",
             cmd: ["/app/bin/server"],
             env: %{DATABASE_URL: "postgresql://localhost/myapp", MIX_ENV: "prod"},
             resources: %{vcpu: 2, mem_mb: 512},
             lifecycle: "service",
             warm_pool: %{min: 2, max: 5}
           }}
        ]

        [[vm]]
        job_id = "web-api"
        tenant = "production"

        [vm.spec]
        rootfs = "rootfs-web.ext4"
        kernel = "vmlinux"
        cmd = ["/app/bin/server"]
        env = { DATABASE_URL = "postgresql://localhost/myapp", MIX_ENV = "prod" }
        resources = { vcpu = 2, mem_mb = 512 }
        lifecycle = "service"
        warm_pool = { min = 2, max = 5 }

        - job_id: "web-api"
          tenant: "production"
          spec:
            rootfs: "rootfs-web.ext4"
            kernel: "vmlinux"
            cmd: ["/app/bin/server"]
            env: {DATABASE_URL: "postgresql://localhost/myapp", MIX_ENV: "prod"}
            resources: {vcpu: 2, mem_mb: 512}
            lifecycle: "service"
            warm_pool: {min: 2, max: 5}

        [
          {
            "job_id": "web-api",
            "tenant": "production",
            "spec": {
              "rootfs": "rootfs-web.ext4",
              "kernel": "vmlinux",
              "cmd": ["/app/bin/server"],
              "env": {"DATABASE_URL": "postgresql://localhost/myapp", "MIX_ENV": "prod"},
              "resources": {"vcpu": 2, "mem_mb": 512},
              "lifecycle": "service",
              "warm_pool": {"min": 2, "max": 5}
            }
          }
        ]
    "#]]
    .assert_eq(&written.join("\n"));
    for format in Format::ALL {
        let none = write(format, &[]);
        assert_eq!(parse_as(format, "none", &none).unwrap().jobs, []);
    }
}

/// Texts that some format might take for something else.
const ODD: [&str; 40] = [
    "",
    " ",
    "yes",
    "no",
    "null",
    "~",
    "nil",
    "true",
    "on",
    "1",
    "1e3",
    "0x1F",
    "1979-05-27",
    ".inf",
    "#{x}",
    "#",
    " # c",
    "##{",
    "\\#{",
    "- a",
    ": ",
    "a: b",
    "{",
    "}",
    "[",
    "%{}",
    "&a",
    "*a",
    "!t",
    "|",
    "\"",
    "'",
    "\"\"\"",
    "'''",
    "\\",
    "\\u0041",
    "\n",
    "\r\n\t",
    "end",
    "do",
];

fn odd() -> impl Strategy<Value = String> {
    let strange =
        "[\u{80}-\u{A0}\u{2028}-\u{202E}\u{2066}-\u{2069}\u{FEFF}\u{FFFD}-\u{FFFF}😀é]{1,3}";
    let word = prop_oneof![
        3 => prop::sample::select(&ODD[..]).prop_map(str::to_owned),
        1 => "(?s).{0,6}",
        1 => strange,
        1 => "[a-z ]{60,90}",
    ];
    prop::collection::vec(word, 1..4).prop_map(|words| words.concat().replace('\0', ""))
}

fn map(entries: Vec<(&str, Value)>) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect())
}

fn list(texts: &[String]) -> Value {
    Value::List(texts.iter().map(|text| text.as_str().into()).collect())
}

/// What of a text may stand in the name of a variable.
fn name_of(text: &str) -> String {
    text.chars().filter(|c| env_name_fault(&c.to_string()).is_none()).collect()
}

fn specs() -> impl Strategy<Value = Spec> {
    let key = prop_oneof![
        "[A-Z_]{1,9}",
        odd().prop_map(|key| format!("K{}", name_of(&key))),
        odd().prop_map(|key| format!("{}K", name_of(&key))),
        prop::sample::select(&["nil", "true", "null", "do", "end", "yes", "n", "fn"][..])
            .prop_map(str::to_owned),
        Just("LONG".repeat(300)),
    ];
    let env = prop::collection::btree_map(key, odd(), 0..5);
    let cmd = prop::collection::vec(odd(), 0..5);
    let ready = prop_oneof![
        Just(Value::Null),
        Just(map(vec![("tcp", map(vec![("port", 80.into())])), ("timeout_s", 5.into())])),
        "/[a-z\"#{}]{0,90}".prop_map(|path| {
            map(vec![("http", map(vec![("port", 80.into()), ("path", path.as_str().into())]))])
        }),
        prop::collection::vec(odd(), 0..4).prop_map(|mut cmd| {
            cmd.insert(0, "/check".to_owned());
            map(vec![("exec", list(&cmd))])
        }),
    ];
    let labels = prop::collection::btree_map(
        "([a-z]{1,3}[.][a-z]/)?[A-Za-z0-9]([A-Za-z0-9._-]{0,9}[A-Za-z0-9])?",
        "([A-Za-z0-9]([A-Za-z0-9._-]{0,9}[A-Za-z0-9])?)?",
        0..4,
    );
    let lifecycle = prop::sample::select(&["service", "daemon", "job"][..]);
    (env, cmd, ready, lifecycle, 1u32..33, prop::option::of(0u32..9), labels).prop_map(
        |(env, mut cmd, ready, lifecycle, vcpu, pool, labels)| {
            cmd.insert(0, "/app".to_owned());
            let texts = |texts: BTreeMap<String, String>| {
                Value::Map(
                    texts.into_iter().map(|(key, text)| (key, text.as_str().into())).collect(),
                )
            };
            let pool = pool.map_or(Value::Null, |min| map(vec![("min", min.into())]));
            let tree = map(vec![
                ("rootfs", "r.ext4".into()),
                ("kernel", "vmlinux".into()),
                ("cmd", list(&cmd)),
                ("env", texts(env)),
                ("labels", texts(labels)),
                ("resources", map(vec![("vcpu", vcpu.into()), ("mem_mb", 64.into())])),
                ("lifecycle", lifecycle.into()),
                ("warm_pool", pool),
                ("ready", ready),
            ]);
            Spec::read(&tree).unwrap()
        },
    )
}

fn declared() -> impl Strategy<Value = Vec<Declared>> {
    let job = ("[a-zA-Z0-9][a-zA-Z0-9._-]{0,9}", prop::option::of("[a-z0-9._-]{0,5}"), specs());
    prop::collection::vec(job, 0..4).prop_map(|jobs| {
        let declared =
            |(at, (id, tenant, spec)): (usize, (String, Option<String>, Spec))| Declared {
                job_id: JobId::parse(&format!("{id}{at}")).unwrap(),
                tenant: tenant.map(|tenant| Tenant::parse(&format!("1{tenant}")).unwrap()),
                spec,
                span: Span::at(0),
            };
        jobs.into_iter().enumerate().map(declared).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_in_a_format_reads_back_as_the_same_jobs(jobs in declared()) {
        let expected: Vec<Bare> = jobs.iter().map(bare).collect();
        let mut jobs = jobs;
        // From one format to the next, and back to the first.
        for format in Format::ALL.into_iter().chain(Format::ALL) {
            let text = write(format, &jobs);
            let read = parse_as(format, "made", &text);
            let read = read.map_err(|problems| TestCaseError::fail(format!("{text}\n{problems}")))?;
            jobs = read.jobs;
            prop_assert_eq!(&jobs.iter().map(bare).collect::<Vec<_>>(), &expected, "{}", text);
        }
    }
}

#[test]
fn depth_is_bounded_with_the_limit_named_in_every_style() {
    let deep = DEPTH_MAX + 1;
    let block_maps: String = (0..deep).map(|level| format!("{}a:\n", " ".repeat(level))).collect();
    for text in [
        "- ".repeat(deep) + "x",
        "[".repeat(deep) + &"]".repeat(deep),
        "[".repeat(100_000),
        format!("- {}x{}", "{a: ".repeat(deep), "}".repeat(deep)),
        block_maps,
        format!("{}{}", "- ".repeat(DEPTH_MAX / 2), "[".repeat(deep)),
    ] {
        let problems = parse("vms.yaml", &text).unwrap_err();
        let said = problems.iter().last().expect("a problem").to_string();
        assert!(said.ends_with("nested too deeply: 64 levels are the limit"), "{said}");
    }
    for deep in [deep, 100_000] {
        for (open, close) in [("[", "]"), ("{a = ", "}")] {
            let text = format!("vm = {}1{}", open.repeat(deep), close.repeat(deep));
            let said = parse("vms.toml", &text).unwrap_err().to_string();
            assert!(said.contains("nested too deeply: 64 levels are the limit"), "{said}");
        }
    }
}
