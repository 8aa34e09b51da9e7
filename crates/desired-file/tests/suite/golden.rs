//! What files declare, and what is said of those that declare nothing.
#![allow(clippy::too_many_lines, reason = "an expectation is as long as what is said")]

use expect_test::{Expect, expect};
use hearth_desired_file::{Kind, Node, parse, parse_tree};
use std::fmt::Write;

/// The one place where the reader is called: jobs as they were read, or the drawn problems.
fn check(text: &str, expect: Expect) {
    let seen = match parse("vms.exs", text) {
        Ok(file) => file.jobs.iter().fold(String::new(), |mut seen, job| {
            let tenant = job.tenant.as_ref().map_or("-", |tenant| tenant.as_str());
            let line = text[..job.span.start].lines().count();
            let spec = job.spec.write();
            let _ = writeln!(seen, "{} {tenant} line {line}: {}", job.job_id, draw_value(&spec));
            seen
        }),
        Err(diagnostics) => diagnostics.to_string(),
    };
    expect.assert_eq(&seen);
}

/// The same for the tree, where no job is of interest.
fn check_tree(text: &str, expect: Expect) {
    let seen = match parse_tree("vms.exs", text) {
        Ok(tree) => draw(&tree),
        Err(diagnostics) => diagnostics.to_string(),
    };
    expect.assert_eq(&seen);
}

/// One line a problem, for tables of many.
fn check_lines(texts: &[&str], expect: Expect) {
    let mut seen = String::new();
    for text in texts {
        let said = match parse_tree("vms.exs", text) {
            Ok(tree) => draw(&tree),
            Err(diagnostics) => {
                let said: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
                said.join("\n  ")
            }
        };
        let _ = writeln!(seen, "{text:?}\n  {said}");
    }
    expect.assert_eq(&seen);
}

fn draw(node: &Node) -> String {
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
fn an_empty_list_declares_nothing_and_is_no_error() {
    check("[]\n", expect![[""]]);
}

#[test]
fn an_omitted_tenant_stays_omitted_and_ids_may_be_atoms() {
    let text = format!(
        "[{{\"a\", {SPEC}}},\n {{:b, {SPEC}}}, {{\"c\", nil, {SPEC}}}, {{\"d\", :t, {SPEC}}}]"
    );
    check(
        &text,
        expect![[r#"
        a - line 1: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: {vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}
        b - line 2: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: {vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}
        c - line 2: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: {vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}
        d t line 2: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: {vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}
    "#]],
    );
}

#[test]
fn every_form_of_a_map_is_read_as_the_same_spec() {
    check(
        r#"[
  {"keywords", rootfs: "r.ext4", kernel: "vmlinux", cmd: ~w(/run --fast),
    resources: [vcpu: 0x2, mem_mb: 1_024], lifecycle: :service, env: [A: "1"]},
  {"arrows", %{"rootfs" => "r.ext4", :kernel => "vmlinux", "cmd" => ["/run", "--fast"],
    "resources" => %{"vcpu" => 2, "mem_mb" => 1024}, "lifecycle" => "service", "env" => %{"A" => "1"}}},
  quoted: %{"rootfs": "r.ext4", kernel: ~s(vmlinux), cmd: ["/run", ~S[--fast]],
    resources: %{vcpu: 0b10, mem_mb: 0o2000,}, lifecycle: "service", env: %{A: "1"},},
]"#,
        expect![[r#"
            keywords - line 2: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run", "--fast"], env: {A: "1"}, resources: {vcpu: 2, mem_mb: 1024}, lifecycle: "service"}
            arrows - line 4: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run", "--fast"], env: {A: "1"}, resources: {vcpu: 2, mem_mb: 1024}, lifecycle: "service"}
            quoted - line 6: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run", "--fast"], env: {A: "1"}, resources: {vcpu: 2, mem_mb: 1024}, lifecycle: "service"}
        "#]],
    );
}

#[test]
fn the_additions_to_the_form_are_read() {
    check(
        r#"[{"a", %{
  rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64},
  lifecycle: "job", retries: 2, timeout_s: 30, stop_signal: "INT", stop_timeout_s: 3, disk_mb: 64,
  labels: %{"app" => "web", "example.com/tier" => ""},
  ready: %{http: %{port: 4000, path: "/health"}, timeout_s: 5},
  warm_pool: %{min: 1, max: 2, stage: "init"}}},
 {"bare", %{boot: "raw", kernel: "tiny", resources: %{vcpu: 1, mem_mb: 16}, lifecycle: "service"}}]"#,
        expect![[r#"
            a - line 1: {rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: {vcpu: 1, mem_mb: 64}, lifecycle: "job", warm_pool: {min: 1, max: 2}, ready: {http: {port: 4000, path: "/health"}, timeout_s: 5}, retries: 2, timeout_s: 30, stop_signal: "SIGINT", stop_timeout_s: 3, disk_mb: 64, labels: {app: "web", example.com/tier: ""}}
            bare - line 7: {kernel: "tiny", resources: {vcpu: 1, mem_mb: 16}, lifecycle: "service", boot: "raw"}
        "#]],
    );
}

#[test]
fn every_problem_of_the_fields_is_found_in_one_run() {
    check(
        r#"[
  {"web", "prod", %{
    rootfs: "images/r.ext4",
    kernal: "vmlinux",
    cmd: ["/run", 4000],
    env: %{PORT: 4000, "A=B" => "x", ON: true},
    resources: %{vcpu: 99, mem: 512},
    lifecycle: "servce",
    warm_pool: %{min: 3, max: 1}
  }},
  {"two words", 7, %{}},
  {"web", %{}},
  {"t", {}},
  "not an entry",
  {"too", "many", %{}, %{}},
  {"spec-is-a-string", "prod"}
]"#,
        expect![[r#"
            error: job `web`: missing field `kernel`
             --> vms.exs:2:19
              |
            2 |   {"web", "prod", %{
              |                   ^^

            error: job `web`: `rootfs`: "images/r.ext4" is a path; images are named by their file name in the images directory
             --> vms.exs:3:13
              |
            3 |     rootfs: "images/r.ext4",
              |             ^^^^^^^^^^^^^^^

            error: job `web`: unknown field `kernal`
             --> vms.exs:4:5
              |
            4 |     kernal: "vmlinux",
              |     ^^^^^^
              |
              = help: did you mean `kernel`?

            error: job `web`: `cmd[1]`: expected a string, found 4000
             --> vms.exs:5:19
              |
            5 |     cmd: ["/run", 4000],
              |                   ^^^^
              |
              = help: write "4000"

            error: job `web`: `env.PORT`: expected a string, found 4000
             --> vms.exs:6:18
              |
            6 |     env: %{PORT: 4000, "A=B" => "x", ON: true},
              |                  ^^^^
              |
              = help: write "4000"

            error: job `web`: `env`: "A=B" can't name an environment variable: it holds `=`
             --> vms.exs:6:24
              |
            6 |     env: %{PORT: 4000, "A=B" => "x", ON: true},
              |                        ^^^^^

            error: `key => value` cannot follow `name: value`
             --> vms.exs:6:24
              |
            6 |     env: %{PORT: 4000, "A=B" => "x", ON: true},
              |            ----------  ^^^^^^^^^^^^
              |            |
              |            the first `name: value`
              |
              = help: move it before the first `name: value`, or write all in one form

            error: job `web`: `env.ON`: expected a string, found true
             --> vms.exs:6:42
              |
            6 |     env: %{PORT: 4000, "A=B" => "x", ON: true},
              |                                          ^^^^
              |
              = help: write "true"

            error: job `web`: `resources`: missing field `mem_mb`
             --> vms.exs:7:16
              |
            7 |     resources: %{vcpu: 99, mem: 512},
              |                ^^^^^^^^^^^^^^^^^^^^^

            error: job `web`: `resources.vcpu`: 99 is out of range: 1 to 32
             --> vms.exs:7:24
              |
            7 |     resources: %{vcpu: 99, mem: 512},
              |                        ^^

            error: job `web`: `resources`: unknown field `mem`
             --> vms.exs:7:28
              |
            7 |     resources: %{vcpu: 99, mem: 512},
              |                            ^^^
              |
              = help: known fields are vcpu, mem_mb

            error: job `web`: `lifecycle`: "servce" is not one of service, daemon, job
             --> vms.exs:8:16
              |
            8 |     lifecycle: "servce",
              |                ^^^^^^^^
              |
              = help: did you mean "service"?

            error: job `web`: `warm_pool.max`: 1 is less than `min`, which is 3
             --> vms.exs:9:31
              |
            9 |     warm_pool: %{min: 3, max: 1}
              |                               ^

            error: `job_id`: a job id holds ' '; letters, digits, '-', '_' and '.' are allowed
              --> vms.exs:11:4
               |
            11 |   {"two words", 7, %{}},
               |    ^^^^^^^^^^^

            error: `tenant`: expected a string, found 7
              --> vms.exs:11:17
               |
            11 |   {"two words", 7, %{}},
               |                 ^
               |
               = help: write "7"

            error: missing field `rootfs`
              --> vms.exs:11:20
               |
            11 |   {"two words", 7, %{}},
               |                    ^^^

            error: missing field `cmd`
              --> vms.exs:11:20
               |
            11 |   {"two words", 7, %{}},
               |                    ^^^

            error: missing field `kernel`
              --> vms.exs:11:20
               |
            11 |   {"two words", 7, %{}},
               |                    ^^^

            error: missing field `resources`
              --> vms.exs:11:20
               |
            11 |   {"two words", 7, %{}},
               |                    ^^^

            error: missing field `lifecycle`
              --> vms.exs:11:20
               |
            11 |   {"two words", 7, %{}},
               |                    ^^^

            error: two entries have the job id `web`
              --> vms.exs:12:4
               |
             2 |   {"web", "prod", %{
               |    ----- first given here
            ...
            12 |   {"web", %{}},
               |    ^^^^^ again here
               |
               = help: a job id names one job; rename or remove one of the two

            error: job `web`: missing field `rootfs`
              --> vms.exs:12:11
               |
            12 |   {"web", %{}},
               |           ^^^

            error: job `web`: missing field `cmd`
              --> vms.exs:12:11
               |
            12 |   {"web", %{}},
               |           ^^^

            error: job `web`: missing field `kernel`
              --> vms.exs:12:11
               |
            12 |   {"web", %{}},
               |           ^^^

            error: job `web`: missing field `resources`
              --> vms.exs:12:11
               |
            12 |   {"web", %{}},
               |           ^^^

            error: job `web`: missing field `lifecycle`
              --> vms.exs:12:11
               |
            12 |   {"web", %{}},
               |           ^^^

            error: job `t`: a tuple has no place in a spec
              --> vms.exs:13:9
               |
            13 |   {"t", {}},
               |         ^^
               |
               = help: a list is written `[…]` and a map `%{…}`

            error: expected an entry, found a string
              --> vms.exs:14:3
               |
            14 |   "not an entry",
               |   ^^^^^^^^^^^^^^
               |
               = help: an entry is `{vm_id, tenant, spec}` or `{vm_id, spec}`

            error: expected 2 or 3 elements, found 4
              --> vms.exs:15:3
               |
            15 |   {"too", "many", %{}, %{}},
               |   ^^^^^^^^^^^^^^^^^^^^^^^^^
               |
               = help: an entry is `{vm_id, tenant, spec}` or `{vm_id, spec}`

            error: job `spec-is-a-string`: expected a map, found a string
              --> vms.exs:16:24
               |
            16 |   {"spec-is-a-string", "prod"}
               |                        ^^^^^^

            vms.exs: 30 problems; nothing in it is applied"#]],
    );
}

#[test]
fn the_same_job_id_twice_shows_both_places() {
    check(
        &format!("[\n  {{\"a\", {SPEC}}},\n\n\n\n\n  {{:a, {SPEC}}}\n]"),
        expect![[r#"
        error: two entries have the job id `a`
         --> vms.exs:7:4
          |
        2 |   {"a", %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}},
          |    --- first given here
        ...
        7 |   {:a, %{rootfs: "r.ext4", kernel: "vmlinux", cmd: ["/run"], resources: %{vcpu: 1, mem_mb: 64}, lifecycle: "daemon"}}
          |    ^^ again here
          |
          = help: a job id names one job; rename or remove one of the two

        vms.exs: 1 problem; nothing in it is applied"#]],
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
fn a_list_is_the_only_thing_a_file_may_be() {
    check(
        "%{web: 1}",
        expect![[r#"
        error: expected a list, found a map
         --> vms.exs:1:1
          |
        1 | %{web: 1}
          | ^^^^^^^^^
          |
          = help: the file is a list of entries: `[{"vm_id", "tenant", %{…}}, …]`

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "{\"web\", %{}}",
        expect![[r#"
        error: expected a list, found a tuple
         --> vms.exs:1:1
          |
        1 | {"web", %{}}
          | ^^^^^^^^^^^^
          |
          = help: the file is a list of entries: `[{"vm_id", "tenant", %{…}}, …]`

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "",
        expect![[r#"
        error: the file is empty
         --> vms.exs:1:1
          |
        1 |
          | ^
          |
          = help: write `[]` to declare that nothing is to run

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "# nothing\n",
        expect![[r#"
        error: the file is empty
         --> vms.exs:1:1
          |
        1 | # nothing
          | ^
          |
          = help: write `[]` to declare that nothing is to run

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "[]\n[]\n",
        expect![[r#"
        error: the file holds more than one expression
         --> vms.exs:2:1
          |
        1 | []
          | -- the first begins here
        2 | []
          | ^^
          |
          = help: write one list with every entry in it; Elixir would give the last expression

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "[]]",
        expect![[r#"
        error: nothing is open that this `]` could close
         --> vms.exs:1:3
          |
        1 | []]
          | --^
          | |
          | the file's value begins here

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "import Config\n\nconfig :app, vms: []\n",
        expect![[r#"
        error: cannot take `import`: the file is read as data, nothing in it is evaluated
         --> vms.exs:1:1
          |
        1 | import Config
          | ^^^^^^^^^^^^^ not data
          |
          = help: write the list of entries and nothing else

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "kernel = \"vmlinux\"\n[{\"web\", %{kernel: kernel}}]\n",
        expect![[r#"
            error: cannot take a match `=`: the file is read as data, nothing in it is evaluated
             --> vms.exs:1:1
              |
            1 | kernel = "vmlinux"
              | ^^^^^^^^^^^^^^^^^^ not data
              |
              = help: a field is written `name: value` or `"name" => value`

            vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "defmodule Vms do\n  def all, do: []\nend\n",
        expect![[r#"
        error: cannot take `defmodule`: the file is read as data, nothing in it is evaluated
         --> vms.exs:1:1
          |
        1 | defmodule Vms do
          | ^^^^^^^^^^^^^^^^ not data
          |
          = help: write the list of entries and nothing else

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
}

#[test]
fn each_construct_is_refused_by_name_and_reading_continues() {
    check_tree(
        r##"[
  a: System.get_env("X"), b: get("x", 1), c: Mod.fun, d: get "x",
  e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
  k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
  q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
  x: if(a, do: 1, else: 2), y: if a, do: 1, else: 2,
  z: "a" |> String.upcase(), last: null
]"##,
        expect![[r#"
            error: cannot take a function call: the file is read as data, nothing in it is evaluated
             --> vms.exs:2:6
              |
            2 |   a: System.get_env("X"), b: get("x", 1), c: Mod.fun, d: get "x",
              |      ^^^^^^^^^^^^^^^^^^^ would be called
              |
              = help: write the value itself: the file sees no environment variables

            error: cannot take a function call: the file is read as data, nothing in it is evaluated
             --> vms.exs:2:30
              |
            2 |   a: System.get_env("X"), b: get("x", 1), c: Mod.fun, d: get "x",
              |                              ^^^^^^^^^^^ would be called
              |
              = help: write the value that the call would give

            error: cannot take a function call: the file is read as data, nothing in it is evaluated
             --> vms.exs:2:46
              |
            2 |   a: System.get_env("X"), b: get("x", 1), c: Mod.fun, d: get "x",
              |                                              ^^^^^^^ would be called
              |
              = help: write the value that the call would give

            error: cannot take a function call: the file is read as data, nothing in it is evaluated
             --> vms.exs:2:58
              |
            2 |   a: System.get_env("X"), b: get("x", 1), c: Mod.fun, d: get "x",
              |                                                          ^^^^^^^ would be called
              |
              = help: write the value that the call would give

            error: cannot take the operator `<>`: the file is read as data, nothing in it is evaluated
             --> vms.exs:3:10
              |
            3 |   e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
              |          ^^ not data
              |
              = help: write the joined text as one string

            error: cannot take an interpolation: the file is read as data, nothing in it is evaluated
             --> vms.exs:3:23
              |
            3 |   e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
              |                       ^^^^ would be evaluated
              |
              = help: write the text itself; `\#{` gives the two characters

            error: cannot take the operator `++`: the file is read as data, nothing in it is evaluated
             --> vms.exs:3:38
              |
            3 |   e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
              |                                      ^^ not data
              |
              = help: write one list with every element in it

            error: cannot take a range: the file is read as data, nothing in it is evaluated
             --> vms.exs:3:50
              |
            3 |   e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
              |                                                  ^^ not data
              |
              = help: write "1..3" if a string is meant

            error: cannot take the operator `+`: the file is read as data, nothing in it is evaluated
             --> vms.exs:3:60
              |
            3 |   e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
              |                                                            ^ not data
              |
              = help: write the result

            error: cannot take the operator `not`: the file is read as data, nothing in it is evaluated
             --> vms.exs:3:68
              |
            3 |   e: "a" <> "b", f: "x#{y}z", g: [1] ++ [2], h: 1..3, i: 1 + 2, j: not true,
              |                                                                    ^^^^^^^^ not data
              |
              = help: write the result

            error: cannot take the variable `name`: the file is read as data, nothing in it is evaluated
             --> vms.exs:4:6
              |
            4 |   k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
              |      ^^^^ has no value here
              |
              = help: write "name" if a string is meant, or else the value itself

            error: cannot take the module name `Mod`: the file is read as data, nothing in it is evaluated
             --> vms.exs:4:15
              |
            4 |   k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
              |               ^^^ not data
              |
              = help: write "Mod" if a string is meant

            error: cannot take a module attribute: the file is read as data, nothing in it is evaluated
             --> vms.exs:4:23
              |
            4 |   k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
              |                       ^^^^^ has no value here
              |
              = help: write the value itself

            error: cannot take an anonymous function: the file is read as data, nothing in it is evaluated
             --> vms.exs:4:33
              |
            4 |   k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
              |                                 ^^^^^^^^^^^^^^^^ not data
              |
              = help: write the value that the function would give

            error: cannot take a function capture: the file is read as data, nothing in it is evaluated
             --> vms.exs:4:54
              |
            4 |   k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
              |                                                      ^^^^^^^^^ not data
              |
              = help: write the value that the function would give

            error: cannot take a struct: the file is read as data, nothing in it is evaluated
             --> vms.exs:4:68
              |
            4 |   k: name, l: Mod, m: @attr, n: fn a, b -> a end, o: &(&1 + 1), p: %User{id: 1},
              |                                                                    ^^^^^^^^^^^^ not data
              |
              = help: write a map without a name: `%{…}`

            error: cannot take a map update: the file is read as data, nothing in it is evaluated
             --> vms.exs:5:8
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |        ^^^^^^^^^^^ not data
              |
              = help: write every field of the map

            error: cannot take a binary `<<…>>`: the file is read as data, nothing in it is evaluated
             --> vms.exs:5:25
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |                         ^^^^^^^^ not data
              |
              = help: write a string; `\xHH` gives a byte by its number

            error: cannot take parentheses: the file is read as data, nothing in it is evaluated
             --> vms.exs:5:38
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |                                      ^^^^^ not data
              |
              = help: write the value without them

            error: cannot take a charlist: the file is read as data, nothing in it is evaluated
             --> vms.exs:5:48
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |                                                ^^^^^^^ single quotes make a list of numbers in Elixir
              |
              = help: use double quotes: "chars"

            error: cannot take a character literal: the file is read as data, nothing in it is evaluated
             --> vms.exs:5:60
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |                                                            ^^ stands for a number in Elixir
              |
              = help: write "a" for the text or 97 for the number

            error: cannot take the sigil `~r`: the file is read as data, nothing in it is evaluated
             --> vms.exs:5:67
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |                                                                   ^^^^^ not data
              |
              = help: write a string or a list; of the sigils ~s, ~S, ~w and ~W are read

            error: cannot take the modifier `c` of `~w`
             --> vms.exs:5:84
              |
            5 |   q: %{base | a: 1}, r: <<1, 2>>, s: ("x"), t: 'chars', u: ?a, v: ~r/x/, w: ~w(a b)c,
              |                                                                                    ^
              |
              = help: charlists are not read; without it the words are strings

            error: cannot take `if`: the file is read as data, nothing in it is evaluated
             --> vms.exs:6:6
              |
            6 |   x: if(a, do: 1, else: 2), y: if a, do: 1, else: 2,
              |      ^^^^^^^^^^^^^^^^^^^^^ not data
              |
              = help: write the value of the branch that is meant; two machines can have two files

            error: cannot take `if`: the file is read as data, nothing in it is evaluated
             --> vms.exs:6:32
              |
            6 |   x: if(a, do: 1, else: 2), y: if a, do: 1, else: 2,
              |                                ^^^^^^^^^^^^^^^^^^^^ not data
              |
              = help: write the value of the branch that is meant; two machines can have two files

            error: cannot take the operator `|>`: the file is read as data, nothing in it is evaluated
             --> vms.exs:7:10
              |
            7 |   z: "a" |> String.upcase(), last: null
              |          ^^ not data
              |
              = help: write the value that the call would give

            error: cannot take the variable `null`: the file is read as data, nothing in it is evaluated
             --> vms.exs:7:36
              |
            7 |   z: "a" |> String.upcase(), last: null
              |                                    ^^^^ has no value here
              |
              = help: write `nil`

            vms.exs: 27 problems; nothing in it is applied"#]],
    );
}

#[test]
fn slips_of_the_pen_are_named() {
    check_lines(
        &[
            "[1 2]",
            "[\"a\"\n \"b\"]",
            "%{a: 1\n b: 2}",
            "[1,, 2]",
            "[, 1]",
            "[1\n, 2]",
            "[a:1]",
            "%{\"a\": 1, \"b\":2}",
            "%{\"a\" : 1}",
            "{\"a\": 1}",
            "%{a: 1, \"b\" => 2}",
            "[a: 1, 2]",
            "%{a: , b: 2}",
            "%{a => 1}",
            "%{\"a\"}",
            "%{\"a\" => }",
            "[\"a\" => 1]",
            "% {}",
            "[a: 1, a: 2]",
            "%{a: 1, \"a\" => 2}",
            "[“a”]",
            "[\u{A0}1]",
            "[1; 2]",
            "[é: 1]",
            "[:é]",
            "[True]",
            "[512MB]",
            "[1_]",
            "[0xZ]",
            "[9223372036854775808, -9223372036854775808, 1.0e999]",
            "[\"\\xZ\", \"\\u12\", \"\\u{D800}\", \"\\xFF\"]",
            "[\"\u{202E}abc\"] # \u{2066}",
            "[\"\"\"a\"\"\"]",
            "[~q(a), ~s(a)x]",
            "\r[]",
            "%{\"a\\e[31m\" => 1, \"a\\e[31m\" => 2}",
        ],
        expect![[r#"
            "[1 2]"
              1:3: expected `,` or `]`, found `2`
            "[\"a\"\n \"b\"]"
              1:5: expected `,` or `]`, found `"b"`
            "%{a: 1\n b: 2}"
              1:7: expected `,` or `}`, found `b:`
            "[1,, 2]"
              1:4: a comma without a value before it; remove it
            "[, 1]"
              1:2: a comma without a value before it; remove it
            "[1\n, 2]"
              2:1: a comma cannot begin a line in Elixir; put it at the end of the line before
            "[a:1]"
              1:3: a space has to follow the `:` of a key; write `a: …`
            "%{\"a\": 1, \"b\":2}"
              1:14: a space has to follow the `:` of a key; write `"b": …`
            "%{\"a\" : 1}"
              1:7: no space may stand before the `:` of a key; write `"a": …`
            "{\"a\": 1}"
              1:1: a tuple cannot begin with a key; a map begins with `%{`
            "%{a: 1, \"b\" => 2}"
              1:9: `key => value` cannot follow `name: value`; move it before the first `name: value`, or write all in one form
            "[a: 1, 2]"
              1:8: a value cannot follow `name: value`; move it before the first `name: value`, or write all in one form
            "%{a: , b: 2}"
              1:3: the key `a` has no value
            "%{a => 1}"
              1:3: cannot take the variable `a`: the file is read as data, nothing in it is evaluated; write "a" if a string is meant, or else the value itself
            "%{\"a\"}"
              1:3: expected a key in the map, found a string; an entry of a map is `name: value` or `"name" => value`
            "%{\"a\" => }"
              1:10: expected a value after `=>`, found `}`
            "[\"a\" => 1]"
              1:6: `=>` has no place in a list; a map begins with `%{`
            "% {}"
              1:1: expected `{` right after `%`; a map is written `%{name: value}`, without a space after `%`
            "[a: 1, a: 2]"
              [{:"a", 1}, {:"a", 2}]
            "%{a: 1, \"a\" => 2}"
              1:9: duplicate key `a`; remove one of the two; Elixir would take the last with a warning
              1:9: `key => value` cannot follow `name: value`; move it before the first `name: value`, or write all in one form
            "[“a”]"
              1:2: expected a value, found '“' (U+201C); use straight quotes: "…"
            "[\u{a0}1]"
              1:2: expected a value, found '\u{a0}' (U+00A0); use a plain space
            "[1; 2]"
              1:3: expected `,` or `]`, found `;`; values are separated by `,`
            "[é: 1]"
              1:2: the key `é` has to be quoted; write `"é": …`
            "[:é]"
              1:2: expected a name right after `:`; a name that is not made of ASCII letters, digits and `_` is quoted: `:"…"`
            "[True]"
              1:2: cannot take the module name `True`: the file is read as data, nothing in it is evaluated; write `true`
            "[512MB]"
              1:2: `MB` cannot follow the number 512; write "512MB" if a string is meant; or 512: a unit is part of a field's name, as in `mem_mb`
            "[1_]"
              1:2: `_` cannot follow the number 1; write "1_" if a string is meant; `_` stands between two digits
            "[0xZ]"
              1:2: `xZ` cannot follow the number 0; write "0xZ" if a string is meant; `0x` stands before hexadecimal digits, `0o` before octal, `0b` before binary ones
            "[9223372036854775808, -9223372036854775808, 1.0e999]"
              1:45: the number is too large; write "1.0e999" if a string is meant
            "[\"\\xZ\", \"\\u12\", \"\\u{D800}\", \"\\xFF\"]"
              1:3: `\x` is not a complete escape; write `\xHH`, `\uHHHH` or `\u{H…}`
              1:10: `\u12` is not a complete escape; write `\xHH`, `\uHHHH` or `\u{H…}`
              1:18: there is no character U+D800; write `\xHH`, `\uHHHH` or `\u{H…}`
              1:30: the text is not UTF-8; `\xHH` gives one byte; write `\u{H…}` for a character
            "[\"\u{202e}abc\"] # \u{2066}"
              1:3: the text holds the invisible character U+202E; remove it; in a string `\u202E` can stand for it
              1:12: a comment holds the invisible character U+2066; remove it; in a string `\u2066` can stand for it
            "[\"\"\"a\"\"\"]"
              1:2: expected a line break right after the opening """; the text begins on the next line
            "[~q(a), ~s(a)x]"
              1:2: cannot take the sigil `~q`: the file is read as data, nothing in it is evaluated; write a string or a list; of the sigils ~s, ~S, ~w and ~W are read
              1:14: cannot take the modifier `x` of `~s`; remove it
            "\r[]"
              1:1: expected a value, found '\r' (U+000D); end lines with a line feed, or with both
            "%{\"a\\e[31m\" => 1, \"a\\e[31m\" => 2}"
              1:19: duplicate key `a\u{1b}[31m`; remove one of the two; Elixir would take the last with a warning
        "#]],
    );
}

#[test]
fn what_is_not_closed_shows_where_it_begins() {
    check(
        "[\n  {\"web\", %{\n    cmd: [\"/run\"]\n",
        expect![[r#"
        error: expected `}` to close the map, found the end of the file
         --> vms.exs:3:18
          |
        2 |   {"web", %{
          |           -- the map begins here
        3 |     cmd: ["/run"]
          |                  ^ the file ends here

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "[\n  {\"web\", %{cmd: [\"/run\"}}\n]\n",
        expect![[r#"
        error: expected `]` to close the list, found `}`
         --> vms.exs:2:25
          |
        2 |   {"web", %{cmd: ["/run"}}
          |                  -      ^
          |                  |
          |                  the list begins here

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "[\n  {\"web, %{\n    cmd: []}}\n]\n",
        expect![[r#"
        error: expected `"` to close the text, found the end of the file
         --> vms.exs:2:4
          |
        2 |   {"web, %{
          |    ^^^^^^^^ the text begins here

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
    check(
        "[\"\"\"\n  a\n  \"\"]\n",
        expect![[r#"
        error: expected `"""` to close the text, found the end of the file
         --> vms.exs:1:2
          |
        1 | ["""
          |  ^^^ the text begins here

        vms.exs: 1 problem; nothing in it is applied"#]],
    );
}

#[test]
fn literals_mean_what_they_mean_in_elixir() {
    check_lines(
        &[
            "[nil, true, false, :nil, :true, :a, :a?, :a@b, :\"a b\", :'a b', :Foo, :+]",
            "[1_000, 0x1F, 0o17, 0b11, 007, -1, +1, - 1, -0x10]",
            "[1.0, 1.5e3, 1.0E-3, 1_0.0_1, -0.5]",
            "[1, 2,]",
            "{1, a: 2, b: 3,}",
            "[1, a: 2]",
            "%{\"b\" => 2, a: 1,}",
            "%{:a => 1, \"b\" =>\n 2, 3 => 4}",
            "[do: 1, if: 2, nil: 3, \"a b\": 4, 'c d': 5]",
            "\"\\a\\b\\d\\e\\f\\n\\r\\s\\t\\v\\0\\q\\\"\\\\\\#{x}\"",
            "\"\\x41\\xC3\\xA9\\u00e9\\u{1F600}\\x{41}\"",
            "\"a\\\nb\"",
            "\"a\nb\"",
            "\"\"\"\n  a\n    b\n\n  c \"\"\" d\\\n  e\n  \"\"\"",
            "\"\"\"\r\n  a\r\n  b\r\n  \"\"\"",
            "[~s(a\\)b\\n), ~S(a\\)b\\n), ~s|\"|, ~s/'/, ~s<>, ~s[a], ~s{a}, ~s'a', ~s\"a\"]",
            "~S\"\"\"\n  a\\n#{x}\n  \"\"\"",
            "[~w(a b\n c), ~w(a b)a, ~w(a)s, ~W(a\\sb), ~w(a\\sb), ~w()]",
            "[1,\\\n 2] # end",
            "\u{FEFF}[\r\n1\r\n]\r\n",
        ],
        expect![[r#"
            "[nil, true, false, :nil, :true, :a, :a?, :a@b, :\"a b\", :'a b', :Foo, :+]"
              [nil, true, false, nil, true, :"a", :"a?", :"a@b", :"a b", :"a b", :"Foo", :"+"]
            "[1_000, 0x1F, 0o17, 0b11, 007, -1, +1, - 1, -0x10]"
              [1000, 31, 15, 3, 7, -1, 1, -1, -16]
            "[1.0, 1.5e3, 1.0E-3, 1_0.0_1, -0.5]"
              [1.0, 1500.0, 0.001, 10.01, -0.5]
            "[1, 2,]"
              [1, 2]
            "{1, a: 2, b: 3,}"
              {1, [{:"a", 2}, {:"b", 3}]}
            "[1, a: 2]"
              [1, {:"a", 2}]
            "%{\"b\" => 2, a: 1,}"
              %{"b" => 2, :"a" => 1}
            "%{:a => 1, \"b\" =>\n 2, 3 => 4}"
              %{:"a" => 1, "b" => 2, 3 => 4}
            "[do: 1, if: 2, nil: 3, \"a b\": 4, 'c d': 5]"
              [{:"do", 1}, {:"if", 2}, {nil, 3}, {:"a b", 4}, {:"c d", 5}]
            "\"\\a\\b\\d\\e\\f\\n\\r\\s\\t\\v\\0\\q\\\"\\\\\\#{x}\""
              "\u{7}\u{8}\u{7f}\u{1b}\u{c}\n\r \t\u{b}\0q\"\\#{x}"
            "\"\\x41\\xC3\\xA9\\u00e9\\u{1F600}\\x{41}\""
              "Aéé😀A"
            "\"a\\\nb\""
              "ab"
            "\"a\nb\""
              "a\nb"
            "\"\"\"\n  a\n    b\n\n  c \"\"\" d\\\n  e\n  \"\"\""
              "a\n  b\n\nc \"\"\" de\n"
            "\"\"\"\r\n  a\r\n  b\r\n  \"\"\""
              "a\nb\n"
            "[~s(a\\)b\\n), ~S(a\\)b\\n), ~s|\"|, ~s/'/, ~s<>, ~s[a], ~s{a}, ~s'a', ~s\"a\"]"
              ["a)b\n", "a)b\\n", "\"", "'", "", "a", "a", "a", "a"]
            "~S\"\"\"\n  a\\n#{x}\n  \"\"\""
              "a\\n#{x}\n"
            "[~w(a b\n c), ~w(a b)a, ~w(a)s, ~W(a\\sb), ~w(a\\sb), ~w()]"
              [["a", "b", "c"], [:"a", :"b"], ["a"], ["a\\sb"], ["a", "b"], []]
            "[1,\\\n 2] # end"
              [1, 2]
            "\u{feff}[\r\n1\r\n]\r\n"
              [1]
        "#]],
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
