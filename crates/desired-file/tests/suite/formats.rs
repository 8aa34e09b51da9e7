//! The four formats beside each other: the same jobs, the same problems, the same bounds.
#![allow(clippy::too_many_lines, reason = "an expectation is as long as what is said")]

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

/// What is said of many, a line each.
fn check_lines(label: &str, texts: &[&str], expect: Expect) {
    let mut seen = String::new();
    for text in texts {
        let said = match parse(label, text) {
            Ok(file) => format!("{} jobs", file.jobs.len()),
            Err(problems) => {
                problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n  ")
            }
        };
        let _ = writeln!(seen, "{text:?}\n  {said}");
    }
    expect.assert_eq(&seen);
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
fn every_problem_of_the_fields_is_at_its_place_in_toml() {
    check(
        "vms.toml",
        r#"[[vm]]
job_id = "web"
tenant = 7
colour = "red"

[vm.spec]
rootfs = "images/r.ext4"
kernal = "vmlinux"
cmd = ["/run", 4000]
lifecycle = "servce"
warm_pool = { min = 3, max = 1 }

[vm.spec.env]
PORT = 4000
"A=B" = "x"

[vm.spec.resources]
vcpu = 99
mem = 512

[[vm]]
vm_id = "web"
kernel = "vmlinux"

[other]
x = 1
"#,
        expect![[r#"
            error: job `web`: `tenant`: expected a string, found 7
             --> vms.toml:3:10
              |
            3 | tenant = 7
              |          ^
              |
              = help: write "7"

            error: job `web`: unknown field `colour`
             --> vms.toml:4:1
              |
            4 | colour = "red"
              | ^^^^^^
              |
              = help: known fields are job_id, vm_id, tenant, spec

            error: job `web`: missing field `kernel`
             --> vms.toml:6:1
              |
            6 | [vm.spec]
              | ^^^^^^^^^

            error: job `web`: `rootfs`: "images/r.ext4" is a path; images are named by their file name in the images directory
             --> vms.toml:7:10
              |
            7 | rootfs = "images/r.ext4"
              |          ^^^^^^^^^^^^^^^

            error: job `web`: unknown field `kernal`
             --> vms.toml:8:1
              |
            8 | kernal = "vmlinux"
              | ^^^^^^
              |
              = help: did you mean `kernel`?

            error: job `web`: `cmd[1]`: expected a string, found 4000
             --> vms.toml:9:16
              |
            9 | cmd = ["/run", 4000]
              |                ^^^^
              |
              = help: write "4000"

            error: job `web`: `lifecycle`: "servce" is not one of service, daemon, job
              --> vms.toml:10:13
               |
            10 | lifecycle = "servce"
               |             ^^^^^^^^
               |
               = help: did you mean "service"?

            error: job `web`: `warm_pool.max`: 1 is less than `min`, which is 3
              --> vms.toml:11:30
               |
            11 | warm_pool = { min = 3, max = 1 }
               |                              ^

            error: job `web`: `env.PORT`: expected a string, found 4000
              --> vms.toml:14:8
               |
            14 | PORT = 4000
               |        ^^^^
               |
               = help: write "4000"

            error: job `web`: `env`: "A=B" can't name an environment variable: it holds `=`
              --> vms.toml:15:1
               |
            15 | "A=B" = "x"
               | ^^^^^

            error: job `web`: `resources`: missing field `mem_mb`
              --> vms.toml:17:1
               |
            17 | [vm.spec.resources]
               | ^^^^^^^^^^^^^^^^^^^

            error: job `web`: `resources.vcpu`: 99 is out of range: 1 to 32
              --> vms.toml:18:8
               |
            18 | vcpu = 99
               |        ^^

            error: job `web`: `resources`: unknown field `mem`
              --> vms.toml:19:1
               |
            19 | mem = 512
               | ^^^
               |
               = help: known fields are vcpu, mem_mb

            error: job `web`: missing field `spec`
              --> vms.toml:21:1
               |
            21 | [[vm]]
               | ^^^^^^

            error: two entries have the job id `web`
              --> vms.toml:22:9
               |
             2 | job_id = "web"
               |          ----- first given here
            ...
            22 | vm_id = "web"
               |         ^^^^^ again here
               |
               = help: a job id names one job; rename or remove one of the two

            error: job `web`: unknown field `kernel`
              --> vms.toml:23:1
               |
            23 | kernel = "vmlinux"
               | ^^^^^^
               |
               = help: `kernel` belongs in `spec`

            error: unknown field `other`
              --> vms.toml:25:2
               |
            25 | [other]
               |  ^^^^^
               |
               = help: an entry is a table `[[vm]]` with job_id, tenant and `[vm.spec]`

            vms.toml: 17 problems; nothing in it is applied"#]],
    );
}

#[test]
fn every_problem_of_the_fields_is_at_its_place_in_yaml() {
    check(
        "vms.yaml",
        r#"- job_id: web
  tenant: 7
  colour: red
  spec:
    rootfs: images/r.ext4
    kernal: vmlinux
    cmd: [/run, 4000]
    env:
      PORT: 4000
      "A=B": x
      ON: yes
      OFF: false
    resources:
      vcpu: 99
      mem: 512
    lifecycle: servce
    warm_pool: {min: 3, max: 1}
- vm_id: web
  kernel: vmlinux
- a string
- job_id: one
  vm_id: two
  spec: {}
"#,
        expect![[r#"
            error: job `web`: `tenant`: expected a string, found 7
             --> vms.yaml:2:11
              |
            2 |   tenant: 7
              |           ^
              |
              = help: write "7"

            error: job `web`: unknown field `colour`
             --> vms.yaml:3:3
              |
            3 |   colour: red
              |   ^^^^^^
              |
              = help: known fields are job_id, vm_id, tenant, spec

            error: job `web`: missing field `kernel`
             --> vms.yaml:5:5
              |
            5 |     rootfs: images/r.ext4
              |     ^^^^^^^^^^^^^^^^^^^^^

            error: job `web`: `rootfs`: "images/r.ext4" is a path; images are named by their file name in the images directory
             --> vms.yaml:5:13
              |
            5 |     rootfs: images/r.ext4
              |             ^^^^^^^^^^^^^

            error: job `web`: unknown field `kernal`
             --> vms.yaml:6:5
              |
            6 |     kernal: vmlinux
              |     ^^^^^^
              |
              = help: did you mean `kernel`?

            error: job `web`: `cmd[1]`: expected a string, found 4000
             --> vms.yaml:7:17
              |
            7 |     cmd: [/run, 4000]
              |                 ^^^^
              |
              = help: write "4000"

            error: job `web`: `env.PORT`: expected a string, found 4000
             --> vms.yaml:9:13
              |
            9 |       PORT: 4000
              |             ^^^^
              |
              = help: write "4000"

            error: job `web`: `env`: "A=B" can't name an environment variable: it holds `=`
              --> vms.yaml:10:7
               |
            10 |       "A=B": x
               |       ^^^^^

            error: job `web`: `env.OFF`: expected a string, found false
              --> vms.yaml:12:12
               |
            12 |       OFF: false
               |            ^^^^^
               |
               = help: write "false"

            error: job `web`: `resources`: missing field `mem_mb`
              --> vms.yaml:14:7
               |
            14 |       vcpu: 99
               |       ^^^^^^^^

            error: job `web`: `resources.vcpu`: 99 is out of range: 1 to 32
              --> vms.yaml:14:13
               |
            14 |       vcpu: 99
               |             ^^

            error: job `web`: `resources`: unknown field `mem`
              --> vms.yaml:15:7
               |
            15 |       mem: 512
               |       ^^^
               |
               = help: known fields are vcpu, mem_mb

            error: job `web`: `lifecycle`: "servce" is not one of service, daemon, job
              --> vms.yaml:16:16
               |
            16 |     lifecycle: servce
               |                ^^^^^^
               |
               = help: did you mean "service"?

            error: job `web`: `warm_pool.max`: 1 is less than `min`, which is 3
              --> vms.yaml:17:30
               |
            17 |     warm_pool: {min: 3, max: 1}
               |                              ^

            error: job `web`: missing field `spec`
              --> vms.yaml:18:3
               |
            18 | - vm_id: web
               |   ^^^^^^^^^^

            error: two entries have the job id `web`
              --> vms.yaml:18:10
               |
             1 | - job_id: web
               |           --- first given here
            ...
            18 | - vm_id: web
               |          ^^^ again here
               |
               = help: a job id names one job; rename or remove one of the two

            error: job `web`: unknown field `kernel`
              --> vms.yaml:19:3
               |
            19 |   kernel: vmlinux
               |   ^^^^^^
               |
               = help: `kernel` belongs in `spec`

            error: expected an entry, found a string
              --> vms.yaml:20:3
               |
            20 | - a string
               |   ^^^^^^^^
               |
               = help: an entry is a map with job_id, tenant and spec

            error: job `one`: `vm_id` is another name for `job_id`, which is "one" here
              --> vms.yaml:22:3
               |
            22 |   vm_id: two
               |   ^^^^^
               |
               = help: leave it out

            error: job `one`: missing field `rootfs`
              --> vms.yaml:23:9
               |
            23 |   spec: {}
               |         ^^

            error: job `one`: missing field `cmd`
              --> vms.yaml:23:9
               |
            23 |   spec: {}
               |         ^^

            error: job `one`: missing field `kernel`
              --> vms.yaml:23:9
               |
            23 |   spec: {}
               |         ^^

            error: job `one`: missing field `resources`
              --> vms.yaml:23:9
               |
            23 |   spec: {}
               |         ^^

            error: job `one`: missing field `lifecycle`
              --> vms.yaml:23:9
               |
            23 |   spec: {}
               |         ^^

            vms.yaml: 24 problems; nothing in it is applied"#]],
    );
}

#[test]
fn every_problem_of_the_fields_is_at_its_place_in_json() {
    check(
        "vms.json",
        r#"[
  {"job_id": "web", "tenant": 7, "colour": "red", "spec": {
    "rootfs": "images/r.ext4",
    "kernal": "vmlinux",
    "cmd": ["/run", 4000],
    "env": {"PORT": 4000, "A=B": "x", "PORT": "1"},
    "resources": {"vcpu": 99, "mem": 512},
    "lifecycle": "servce",
    "warm_pool": {"min": 3, "max": 1.5}
  }},
  {"vm_id": "web", "kernel": null},
  "a string",
  {"job_id": null, "spec": null}
]
"#,
        expect![[r#"
            error: job `web`: `tenant`: expected a string, found 7
             --> vms.json:2:31
              |
            2 |   {"job_id": "web", "tenant": 7, "colour": "red", "spec": {
              |                               ^
              |
              = help: write "7"

            error: job `web`: unknown field `colour`
             --> vms.json:2:34
              |
            2 |   {"job_id": "web", "tenant": 7, "colour": "red", "spec": {
              |                                  ^^^^^^^^
              |
              = help: known fields are job_id, vm_id, tenant, spec

            error: job `web`: missing field `kernel`
             --> vms.json:2:59
              |
            2 |   {"job_id": "web", "tenant": 7, "colour": "red", "spec": {
              |                                                           ^

            error: job `web`: `rootfs`: "images/r.ext4" is a path; images are named by their file name in the images directory
             --> vms.json:3:15
              |
            3 |     "rootfs": "images/r.ext4",
              |               ^^^^^^^^^^^^^^^

            error: job `web`: unknown field `kernal`
             --> vms.json:4:5
              |
            4 |     "kernal": "vmlinux",
              |     ^^^^^^^^
              |
              = help: did you mean `kernel`?

            error: job `web`: `cmd[1]`: expected a string, found 4000
             --> vms.json:5:21
              |
            5 |     "cmd": ["/run", 4000],
              |                     ^^^^
              |
              = help: write "4000"

            error: job `web`: `env.PORT`: expected a string, found 4000
             --> vms.json:6:21
              |
            6 |     "env": {"PORT": 4000, "A=B": "x", "PORT": "1"},
              |                     ^^^^
              |
              = help: write "4000"

            error: job `web`: `env`: "A=B" can't name an environment variable: it holds `=`
             --> vms.json:6:27
              |
            6 |     "env": {"PORT": 4000, "A=B": "x", "PORT": "1"},
              |                           ^^^^^

            error: duplicate key `PORT`
             --> vms.json:6:39
              |
            6 |     "env": {"PORT": 4000, "A=B": "x", "PORT": "1"},
              |             ------ first given here   ^^^^^^
              |
              = help: remove one of the two; most readers of JSON would take the last

            error: job `web`: `resources`: missing field `mem_mb`
             --> vms.json:7:18
              |
            7 |     "resources": {"vcpu": 99, "mem": 512},
              |                  ^^^^^^^^^^^^^^^^^^^^^^^^

            error: job `web`: `resources.vcpu`: 99 is out of range: 1 to 32
             --> vms.json:7:27
              |
            7 |     "resources": {"vcpu": 99, "mem": 512},
              |                           ^^

            error: job `web`: `resources`: unknown field `mem`
             --> vms.json:7:31
              |
            7 |     "resources": {"vcpu": 99, "mem": 512},
              |                               ^^^^^
              |
              = help: known fields are vcpu, mem_mb

            error: job `web`: `lifecycle`: "servce" is not one of service, daemon, job
             --> vms.json:8:18
              |
            8 |     "lifecycle": "servce",
              |                  ^^^^^^^^
              |
              = help: did you mean "service"?

            error: job `web`: `warm_pool.max`: expected an integer, found 1.5
             --> vms.json:9:36
              |
            9 |     "warm_pool": {"min": 3, "max": 1.5}
              |                                    ^^^

            error: job `web`: missing field `spec`
              --> vms.json:11:3
               |
            11 |   {"vm_id": "web", "kernel": null},
               |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^

            error: two entries have the job id `web`
              --> vms.json:11:13
               |
             2 |   {"job_id": "web", "tenant": 7, "colour": "red", "spec": {
               |              ----- first given here
            ...
            11 |   {"vm_id": "web", "kernel": null},
               |             ^^^^^ again here
               |
               = help: a job id names one job; rename or remove one of the two

            error: job `web`: unknown field `kernel`
              --> vms.json:11:20
               |
            11 |   {"vm_id": "web", "kernel": null},
               |                    ^^^^^^^^
               |
               = help: `kernel` belongs in `spec`

            error: expected an entry, found a string
              --> vms.json:12:3
               |
            12 |   "a string",
               |   ^^^^^^^^^^
               |
               = help: an entry is a map with job_id, tenant and spec

            error: missing field `job_id`
              --> vms.json:13:3
               |
            13 |   {"job_id": null, "spec": null}
               |   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: an entry is a map with job_id, tenant and spec

            error: missing field `spec`
              --> vms.json:13:28
               |
            13 |   {"job_id": null, "spec": null}
               |                            ^^^^

            vms.json: 20 problems; nothing in it is applied"#]],
    );
}

#[test]
fn slips_of_json_are_named_and_reading_continues() {
    check_lines(
        "vms.json",
        &[
            "",
            "{}",
            "[] []",
            "[\n  1,\n]",
            "[1 2]",
            "[/* a */ 1, # b\n 2 // c\n]",
            "[{a: 'b'}]",
            "[None, True, vmlinux, nul]",
            "[01, 1., .5, 0x10, 1e, 1_000, +1, -]",
            "[99999999999999999999, 1e999, 1.5e3, -0]",
            r#"["\q", "\u12", "\ud800", "\ud83d\ude00", "a	b"]"#,
            "[\"a",
            "[\"a\n\"]",
            "[",
            "[}",
            "[1}",
            "{\"a\" 1}",
            "[\u{201C}a\u{201D}]",
            "[;]",
        ],
        expect![[r#"
            ""
              1:1: the file is empty; write `[]` to declare that nothing is to run
            "{}"
              1:1: expected a list, found a map; the file is a list: `[{"job_id": …, "tenant": …, "spec": {…}}, …]`
            "[] []"
              1:4: there is more than one value
            "[\n  1,\n]"
              2:3: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
              2:4: JSON has no comma behind the last element; remove it
            "[1 2]"
              1:2: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
              1:3: expected `,` or `]`
              1:4: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
            "[/* a */ 1, # b\n 2 // c\n]"
              1:2: JSON has no comments; remove it
              1:10: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
              1:13: JSON has no comments; remove it
              2:2: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
              2:4: JSON has no comments; remove it
            "[{a: 'b'}]"
              1:2: missing field `job_id`; an entry is a map with job_id, tenant and spec
              1:2: missing field `spec`
              1:3: a key has to be quoted; write "a"
              1:3: unknown field `a`; known fields are job_id, vm_id, tenant, spec
              1:6: JSON has double quotes only; write "b"
            "[None, True, vmlinux, nul]"
              1:2: `None` is not a JSON value; write `null`
              1:8: `True` is not a JSON value; write `true`, or "True" if a string is meant
              1:14: `vmlinux` is not a JSON value; write "vmlinux" if a string is meant
              1:23: `nul` is not a JSON value; write "nul" if a string is meant
            "[01, 1., .5, 0x10, 1e, 1_000, +1, -]"
              1:2: `01` is not a JSON number; write "01" if a string is meant; a JSON number has decimal digits, without zeros in front
              1:6: `1.` is not a JSON number; write "1." if a string is meant; a JSON number has decimal digits, without zeros in front
              1:10: `.5` is not a JSON value; write ".5" if a string is meant
              1:14: `0x10` is not a JSON number; write "0x10" if a string is meant; a JSON number has decimal digits, without zeros in front
              1:20: `1e` is not a JSON number; write "1e" if a string is meant; a JSON number has decimal digits, without zeros in front
              1:24: `1_000` is not a JSON number; write "1_000" if a string is meant; a JSON number has decimal digits, without zeros in front
              1:31: `+1` is not a JSON number; write "+1" if a string is meant; a JSON number has decimal digits, without zeros in front
              1:35: `-` is not a JSON number; write "-" if a string is meant; a JSON number has decimal digits, without zeros in front
            "[99999999999999999999, 1e999, 1.5e3, -0]"
              1:2: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
              1:24: expected an entry, found a floating-point number; an entry is a map with job_id, tenant and spec
              1:31: expected an entry, found a floating-point number; an entry is a map with job_id, tenant and spec
              1:38: expected an entry, found an integer; an entry is a map with job_id, tenant and spec
            "[\"\\q\", \"\\u12\", \"\\ud800\", \"\\ud83d\\ude00\", \"a\tb\"]"
              1:3: no escape of JSON; JSON's escapes are \" \\ \/ \b \f \n \r \t \uXXXX; `\\` gives a backslash
              1:9: no escape of a character; `\u` stands before four hexadecimal digits; a character beyond U+FFFF takes two of them
              1:17: no escape of a character; `\u` stands before four hexadecimal digits; a character beyond U+FFFF takes two of them
              1:26: expected an entry, found a string; an entry is a map with job_id, tenant and spec
              1:44: a control character stands in the string; write `\u0009`, or `\t` for a tab
            "[\"a"
              1:2: the string has no closing `"`; a line break in a string is `\n`
            "[\"a\n\"]"
              1:2: the string has no closing `"`; a line break in a string is `\n`
            "["
              1:2: expected `]` to close the list, found the end of the text
            "[}"
              1:2: expected `]` to close the list, found `}`
            "[1}"
              1:3: expected `]` to close the list, found `}`
            "{\"a\" 1}"
              1:6: expected `:` behind the key, found `1`
            "[“a”]"
              1:2: expected a value, found '“' (U+201C)
            "[;]"
              1:2: expected a value, found `;`
        "#]],
    );
}

#[test]
fn slips_of_yaml_are_named() {
    check_lines(
        "vms.yaml",
        &[
            "",
            "# nothing\n",
            "a: 1",
            "text",
            "[]",
            "--- []\n",
            "[]\n--- []\n",
            "- a: b: c",
            "- a: @b",
            "- a: 1\n  - b",
            "- \"a",
            "- [1",
            "-\ta: 1\n\t b: 2",
            "- !!binary aGk=",
            "- !mine {a: 1}",
            "- *absent",
            "- &a [*a]",
            "- {1: 2, ~: 3, ? [a] : 4, <<: {b: 1}}",
            "- a: 1\n  a: 2",
            "- [99999999999999999999, .inf, 0x1F, 0o17, 1e3, 1.5, -.5, 012, 1_000, +1]",
            "%{a: 1}",
        ],
        expect![[r##"
            ""
              1:1: the file is empty; write `[]` to declare that nothing is to run
            "# nothing\n"
              1:1: the file is empty; write `[]` to declare that nothing is to run
            "a: 1"
              1:1: expected a list, found a map; the file is a list: each entry begins `- job_id: …`
            "text"
              1:1: expected a list, found a string; the file is a list: each entry begins `- job_id: …`
            "[]"
              0 jobs
            "--- []\n"
              0 jobs
            "[]\n--- []\n"
              2:1: the file holds more than one document; write one list with every entry in it
            "- a: b: c"
              1:7: mapping values are not allowed in this context; put a text that holds `: ` in quotes: "…"
            "- a: @b"
              1:6: unexpected character: `@'; put the text in quotes if it is one: "…"
            "- a: 1\n  - b"
              2:5: while parsing a block mapping, did not find expected key; what belongs together is indented by the same number of spaces
            "- \"a"
              1:3: unclosed quote
            "- [1"
              1:3: unclosed bracket '['
            "-\ta: 1\n\t b: 2"
              1:6: while scanning a plain scalar, found a tab; indent by spaces
            "- !!binary aGk="
              1:12: cannot take the tag `!!binary`; remove it; of the tags, `!!str` is read
            "- !mine {a: 1}"
              1:9: cannot take the tag `!mine`; remove it; of the tags, `!!str` is read
              1:9: missing field `job_id`; an entry is a map with job_id, tenant and spec
              1:9: missing field `spec`
              1:10: unknown field `a`; known fields are job_id, vm_id, tenant, spec
            "- *absent"
              1:3: no anchor `&absent` stands before this alias; write `&absent` before the value that is meant
            "- &a [*a]"
              1:6: expected an entry, found a list; an entry is a map with job_id, tenant and spec
              1:7: the alias stands inside the value it names
            "- {1: 2, ~: 3, ? [a] : 4, <<: {b: 1}}"
              1:4: unknown field `1`; known fields are job_id, vm_id, tenant, spec
              1:10: a key is missing; put it in quotes
              1:18: a key is a string, not a list
              1:27: cannot take the merge key `<<`; write the fields, or name the whole value by an alias: `field: *name`
            "- a: 1\n  a: 2"
              1:3: unknown field `a`; known fields are job_id, vm_id, tenant, spec
              1:3: missing field `job_id`; an entry is a map with job_id, tenant and spec
              1:3: missing field `spec`
              2:3: duplicate key `a`; remove one of the two
            "- [99999999999999999999, .inf, 0x1F, 0o17, 1e3, 1.5, -.5, 012, 1_000, +1]"
              1:3: expected an entry, found a list; an entry is a map with job_id, tenant and spec
            "%{a: 1}"
              1:8: did not find expected <document start>
        "##]],
    );
}

#[test]
fn slips_of_toml_are_named_once_each() {
    check_lines(
        "vms.toml",
        &[
            "",
            "# nothing\n",
            "vm = []",
            "vm = 1",
            "[vm]\njob_id = \"a\"",
            "vms = []",
            "[[vm]]\njob_id = web\n",
            "[[vm]]\njob_id = \"a\"\nkernel vmlinux\n[[vm]]\njob_id = 'b\n",
            "[[vm]]\njob_id = \"a\"\njob_id = \"b\"\n",
            "[[vm]]\nx = [1, 2\ny = 3\n[[vm]]\na = 1\n",
            "[[vm]]\njob_id = 1979-05-27\nspec = inf\n",
            "[[vm]]\njob_id = 99999999999999999999\n",
            "vm = [1, {}]",
        ],
        expect![[r##"
            ""
              1:1: the file is empty; write `vm = []` to declare that nothing is to run
            "# nothing\n"
              1:1: the file is empty; write `vm = []` to declare that nothing is to run
            "vm = []"
              0 jobs
            "vm = 1"
              1:1: expected a list, found an integer; an entry begins with `[[vm]]`, in two brackets each
            "[vm]\njob_id = \"a\""
              1:2: expected a list, found a map; an entry begins with `[[vm]]`, in two brackets each
            "vms = []"
              1:1: unknown field `vms`; an entry is a table `[[vm]]` with job_id, tenant and `[vm.spec]`
            "[[vm]]\njob_id = web\n"
              2:10: string values must be quoted, expected literal string; write "web" if a string is meant
            "[[vm]]\njob_id = \"a\"\nkernel vmlinux\n[[vm]]\njob_id = 'b\n"
              3:8: key with no value, expected `=`
            "[[vm]]\njob_id = \"a\"\njob_id = \"b\"\n"
              3:1: duplicate key; remove one of the two; a further entry begins with `[[vm]]`
            "[[vm]]\nx = [1, 2\ny = 3\n[[vm]]\na = 1\n"
              3:1: missing comma between array elements, expected `,`
            "[[vm]]\njob_id = 1979-05-27\nspec = inf\n"
              2:10: a date has no place in the file; write "1979-05-27" if a string is meant
              3:8: expected a map, found a floating-point number
            "[[vm]]\njob_id = 99999999999999999999\n"
              1:1: missing field `spec`
              2:10: `job_id`: expected a string, found 99999999999999999999; write "99999999999999999999"
            "vm = [1, {}]"
              1:7: expected an entry, found an integer; an entry is a table `[[vm]]` with job_id, tenant and spec
              1:10: missing field `job_id`; an entry is a table `[[vm]]` with job_id, tenant and spec
              1:10: missing field `spec`
        "##]],
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
