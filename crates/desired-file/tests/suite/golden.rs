//! What files declare, and what is said of those that declare nothing: what is made by code, or is a file
//! of the documentation. The other cases are files, see [`crate::cases`].

use expect_test::{Expect, expect};
use hearth_desired_file::{Kind, Node, parse, parse_tree};
use std::fmt::Write;

/// The one place where the reader is called: jobs as they were read, or the drawn problems.
pub(crate) fn outcome(label: &str, text: &str) -> String {
    match parse(label, text) {
        Ok(file) => file.jobs.iter().fold(String::new(), |mut seen, job| {
            let tenant = job.tenant.as_ref().map_or("-", |tenant| tenant.as_str());
            let line = text[..job.span.start].lines().count();
            let spec = job.spec.write();
            let _ = writeln!(seen, "{} {tenant} line {line}: {}", job.job_id, draw_value(&spec));
            seen
        }),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

/// The same for the tree, where no job is of interest.
pub(crate) fn outcome_of_tree(text: &str) -> String {
    match parse_tree("vms.exs", text) {
        Ok(tree) => draw(&tree),
        Err(diagnostics) => diagnostics.to_string(),
    }
}

fn check(text: &str, expect: Expect) {
    expect.assert_eq(&outcome("vms.exs", text));
}

fn check_tree(text: &str, expect: Expect) {
    expect.assert_eq(&outcome_of_tree(text));
}

pub(crate) fn draw(node: &Node) -> String {
    let all = |nodes: &[Node]| nodes.iter().map(draw).collect::<Vec<_>>().join(", ");
    match &node.kind {
        Kind::Nil => "nil".to_owned(),
        Kind::Bool(value) => value.to_string(),
        Kind::Int(number) => number.to_string(),
        Kind::BigInt => "an integer beyond 64 bits".to_owned(),
        Kind::Float(number) => format!("{number:?}"),
        Kind::String(text) => format!("{text:?}"),
        Kind::Atom(text) => format!(":{text:?}"),
        Kind::List(nodes) => format!("[{}]", all(nodes)),
        Kind::Tuple(nodes) => format!("{{{}}}", all(nodes)),
        Kind::Map(entries) => {
            let entry =
                |e: &hearth_desired_file::Entry| format!("{} => {}", draw(&e.key), draw(&e.value));
            format!("%{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        Kind::Invalid => "invalid".to_owned(),
    }
}

fn draw_value(value: &hearth_model::Value) -> String {
    use hearth_model::Value;
    match value {
        Value::List(items) => {
            format!("[{}]", items.iter().map(draw_value).collect::<Vec<_>>().join(", "))
        }
        Value::Map(entries) => {
            let entry = |(key, value): &(String, Value)| format!("{key}: {}", draw_value(value));
            format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
        }
        other => other.to_string(),
    }
}

/// A spec with all that is required, to be put into files that are about something else.
const SPEC: &str = r#"%{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}"#;

#[test]
fn the_multi_vm_example_declares_its_three_jobs() {
    check(
        include_str!("../../../../config/desired_vms.exs"),
        expect![[r#"
        web-api production line 3: {rootfs: "rootfs-web.ext4", kernel: "vmlinux", cmd: ["/app/bin/server"], env: {DATABASE_URL: "postgresql://localhost/myapp", MIX_ENV: "prod"}, resources: {vcpu: 2, mem_mb: 512}, lifecycle: "service", warm_pool: {min: 2, max: 5}}
        kafka-consumer analytics line 18: {rootfs: "rootfs-worker.ext4", kernel: "vmlinux", cmd: ["/app/bin/consumer"], env: {KAFKA_BROKERS: "broker1:9092"}, resources: {vcpu: 1, mem_mb: 256}, lifecycle: "daemon", warm_pool: {min: 1, max: 3}}
        image-resizer media line 30: {rootfs: "rootfs-lambda.ext4", kernel: "vmlinux", cmd: ["/app/bin/resize"], env: {S3_BUCKET: "uploads"}, resources: {vcpu: 1, mem_mb: 128}, lifecycle: "job"}
    "#]],
    );
}

#[test]
fn places_that_are_far_apart_are_drawn_one_by_one() {
    let between = "  # and so on\n".repeat(2000);
    check(
        &format!("[\n  {{\"a\", {SPEC}}},\n{between}  {{:a, {SPEC}}}\n]"),
        expect![[r#"
        error: two entries have the job id `a`
            --> vms.exs:2003:4
             |
        2003 |   {:a, %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}}
             |    ^^ again here
             |
            ::: vms.exs:2:4
             |
           2 |   {"a", %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}},
             |    --- first given here
             |
             = help: a job id names one job; rename or remove one of the two

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
}

#[test]
fn places_count_characters_and_not_bytes() {
    let diagnostics = parse("vms.exs", "[\r\n  {\"é日本\", nil, 5}]").unwrap_err();
    let places: Vec<(usize, usize)> = diagnostics.iter().map(|d| (d.line, d.column)).collect();
    assert_eq!(places, [(2, 4), (2, 16)]);
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    let seen = parse("vms.exs", b"[\n  \"a\xFFb\"]").unwrap_err().to_string();
    expect![[r#"
        error: cannot read the file: it is not UTF-8
         --> vms.exs:2:5
          |
        2 |   "a�b"]
          |     ^ byte 0xFF
          |
          = help: save the file as UTF-8

        vms.exs: 1 problem; nothing in it is applied"#]]
    .assert_eq(&seen);
}

#[test]
fn limits_are_kept_and_named() {
    let deep = format!("{}{}", "[".repeat(65), "]".repeat(65));
    let allowed = format!("{}{}", "[".repeat(64), "]".repeat(64));
    assert!(parse_tree("vms.exs", &allowed).is_ok());
    check_tree(
        &deep,
        expect![[r#"
        error: nested too deeply: 64 levels are the limit
         --> vms.exs:1:65
          |
        1 | [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]
          |                                                                 ^

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    let nested = "[\"#{".repeat(100_000);
    assert!(parse("vms.exs", nested).is_err());
    let large = vec![b' '; hearth_desired_file::FILE_BYTES_MAX + 1];
    expect![[r#"
        error: cannot read the file: it is too large
        --> vms.exs:1:1

        vms.exs: 1 problem; nothing in it is applied"#]]
    .assert_eq(&parse("vms.exs", large).unwrap_err().to_string());
    let wide = format!("[{}x]", " ".repeat(20_000));
    check_tree(
        &wide,
        expect![[r#"
        error: cannot take the variable `x`: the file is read as data, nothing in it is evaluated
        --> vms.exs:1:20002
         = help: write "x" if a string is meant, or else the value itself

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    let many = parse("vms.exs", format!("[{}]", "x, ".repeat(5000))).unwrap_err();
    assert_eq!((many.iter().count(), many.omitted()), (100, 4900));
}

#[test]
fn a_thousand_entries_are_read_in_their_order() {
    let entries: Vec<String> = (0..1000).map(|at| format!("{{\"job-{at}\", {SPEC}}}")).collect();
    let file = parse("vms.exs", format!("[{}]", entries.join(",\n"))).unwrap();
    let ids: Vec<String> = file.jobs.iter().map(|job| job.job_id.to_string()).collect();
    assert_eq!(ids, (0..1000).map(|at| format!("job-{at}")).collect::<Vec<_>>());
}
