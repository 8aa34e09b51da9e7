//! Desired-state files on the command line, in each of their formats.
#![allow(clippy::too_many_lines, reason = "an expectation is as long as what is said")]

use crate::support::{Home, finished, shown};
use expect_test::{Expect, expect};
use std::io::Write;
use std::process::Stdio;

const BAD_TOML: &str = "[[vm]]\njob_id = \"web\"\n\n[vm.spec]\nkernal = \"vmlinux\"\nrootfs = 5\n";

/// Runs a command with `input` on its stdin and compares what it did.
fn check(home: &Home, args: &[&str], input: &str, expected: Expect) {
    let mut command = home.hearth(args);
    let mut stdin = tempfile::tempfile().expect("a file for stdin");
    stdin.write_all(input.as_bytes()).expect("it takes bytes");
    std::io::Seek::rewind(&mut stdin).expect("it has a beginning");
    command.stdin(Stdio::from(stdin));
    expected.assert_eq(&shown(&finished(command)));
}

#[test]
fn a_file_is_validated_in_the_format_that_its_name_tells() {
    let home = Home::new();
    home.write("good.toml", "vm = []\n");
    home.write("bad.toml", BAD_TOML);
    home.write("vms.conf", "[]");
    check(
        &home,
        &["validate", "good.toml"],
        "",
        expect![[r#"
            exit code: 0
            --- stdout
            good.toml: 0 jobs, no problems
            --- stderr
        "#]],
    );
    check(
        &home,
        &["validate", "bad.toml"],
        "",
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            error: job `web`: missing field `cmd`
             --> bad.toml:4:1
              |
            4 | [vm.spec]
              | ^^^^^^^^^

            error: job `web`: missing field `kernel`
             --> bad.toml:4:1
              |
            4 | [vm.spec]
              | ^^^^^^^^^

            error: job `web`: missing field `resources`
             --> bad.toml:4:1
              |
            4 | [vm.spec]
              | ^^^^^^^^^

            error: job `web`: missing field `lifecycle`
             --> bad.toml:4:1
              |
            4 | [vm.spec]
              | ^^^^^^^^^

            error: job `web`: unknown field `kernal`
             --> bad.toml:5:1
              |
            5 | kernal = "vmlinux"
              | ^^^^^^
              |
              = help: did you mean `kernel`?

            error: job `web`: `rootfs`: expected a string, found 5
             --> bad.toml:6:10
              |
            6 | rootfs = 5
              |          ^
              |
              = help: write "5"

            bad.toml: 6 problems; nothing in it is applied
        "#]],
    );
    check(
        &home,
        &["validate", "bad.toml", "--format", "json"],
        "",
        expect![[r#"
            exit code: 1
            --- stdout
            {"file":"bad.toml","problems":[{"line":4,"column":1,"end_column":10,"message":"job `web`: missing field `cmd`","help":null,"pointer":"/0/spec/cmd"},{"line":4,"column":1,"end_column":10,"message":"job `web`: missing field `kernel`","help":null,"pointer":"/0/spec/kernel"},{"line":4,"column":1,"end_column":10,"message":"job `web`: missing field `resources`","help":null,"pointer":"/0/spec/resources"},{"line":4,"column":1,"end_column":10,"message":"job `web`: missing field `lifecycle`","help":null,"pointer":"/0/spec/lifecycle"},{"line":5,"column":1,"end_column":7,"message":"job `web`: unknown field `kernal`","help":"did you mean `kernel`?","pointer":"/0/spec/kernal"},{"line":6,"column":10,"end_column":11,"message":"job `web`: `rootfs`: expected a string, found 5","help":"write \"5\"","pointer":"/0/spec/rootfs"}],"omitted":0}
            --- stderr
        "#]],
    );
    check(
        &home,
        &["validate", "vms.conf"],
        "",
        expect![[r#"
            exit code: 2
            --- stdout
            --- stderr
            hearth: cannot tell the format of vms.conf by its name: a desired-state file ends in .exs, .toml, .yaml (or .yml) or .json; --input-format names another's
        "#]],
    );
    check(
        &home,
        &["validate", "vms.conf", "--input-format", "exs"],
        "",
        expect![[r#"
            exit code: 0
            --- stdout
            vms.conf: 0 jobs, no problems
            --- stderr
        "#]],
    );
    check(
        &home,
        &["validate", "none.yaml"],
        "",
        expect![[r#"
            exit code: 2
            --- stdout
            --- stderr
            hearth: cannot read none.yaml: No such file or directory (os error 2)
        "#]],
    );
}

#[test]
fn stdin_is_validated_in_the_format_that_is_named() {
    let home = Home::new();
    check(
        &home,
        &["validate", "-", "--input-format", "yaml"],
        "- job_id: a\n  spec: {}\n  x: 1\n",
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            error: job `a`: missing field `rootfs`
             --> stdin:2:9
              |
            2 |   spec: {}
              |         ^^

            error: job `a`: missing field `cmd`
             --> stdin:2:9
              |
            2 |   spec: {}
              |         ^^

            error: job `a`: missing field `kernel`
             --> stdin:2:9
              |
            2 |   spec: {}
              |         ^^

            error: job `a`: missing field `resources`
             --> stdin:2:9
              |
            2 |   spec: {}
              |         ^^

            error: job `a`: missing field `lifecycle`
             --> stdin:2:9
              |
            2 |   spec: {}
              |         ^^

            error: job `a`: unknown field `x`
             --> stdin:3:3
              |
            3 |   x: 1
              |   ^
              |
              = help: known fields are job_id, vm_id, tenant, spec

            stdin: 6 problems; nothing in it is applied
        "#]],
    );
    check(
        &home,
        &["validate", "-"],
        "[]",
        expect![[r#"
            exit code: 2
            --- stdout
            --- stderr
            error: the following required arguments were not provided:
              --input-format <FORMAT>

            Usage: hearth validate --input-format <FORMAT> <FILE>

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn a_daemon_keeps_what_any_format_declares() {
    for (name, text) in [
        ("vms.toml", include_str!("../../../../docs/examples/desired_vms.toml")),
        ("vms.yaml", include_str!("../../../../docs/examples/desired_vms.yaml")),
        ("vms.json", include_str!("../../../../docs/examples/desired_vms.json")),
    ] {
        let home = Home::new();
        home.write(name, text);
        let daemon = home.start(&["--desired", name]);
        daemon.until_job("web-api", "running");
        daemon.until_job("kafka-consumer", "running");
        daemon.until_job("image-resizer", "completed");
    }
}

#[test]
fn a_file_is_converted_to_stdout_or_to_a_new_file() {
    let home = Home::new();
    home.write("vms.exs", include_str!("../../../../config/desired_vms.exs"));
    home.write("bad.toml", BAD_TOML);
    check(
        &home,
        &["convert", "vms.exs", "--into", "vms.yaml"],
        "",
        expect![[r#"
        exit code: 0
        --- stdout
        vms.exs: 3 jobs written to vms.yaml
        --- stderr
    "#]],
    );
    check(
        &home,
        &["convert", "vms.yaml", "--into", "vms.toml", "-o", "json"],
        "",
        expect![[r#"
            exit code: 0
            --- stdout
            {"file":"vms.yaml","jobs":3,"into":"vms.toml"}
            --- stderr
        "#]],
    );
    check(
        &home,
        &["convert", "vms.toml", "--to", "exs"],
        "",
        expect![[r#"
        exit code: 0
        --- stdout
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
           }},

          {"kafka-consumer", "analytics",
           %{
             rootfs: "rootfs-worker.ext4",
             kernel: "vmlinux",
             cmd: ["/app/bin/consumer"],
             env: %{KAFKA_BROKERS: "broker1:9092"},
             resources: %{vcpu: 1, mem_mb: 256},
             lifecycle: "daemon",
             warm_pool: %{min: 1, max: 3}
           }},

          {"image-resizer", "media",
           %{
             rootfs: "rootfs-lambda.ext4",
             kernel: "vmlinux",
             cmd: ["/app/bin/resize"],
             env: %{S3_BUCKET: "uploads"},
             resources: %{vcpu: 1, mem_mb: 128},
             lifecycle: "job"
           }}
        ]
        --- stderr
    "#]],
    );
    check(
        &home,
        &["convert", "vms.yaml", "--into", "vms.toml"],
        "",
        expect![[r#"
        exit code: 1
        --- stdout
        --- stderr
        hearth: vms.toml is there already: remove it first, or name another file
    "#]],
    );
    check(
        &home,
        &["convert", "vms.yaml", "--into", "vms.conf"],
        "",
        expect![[r#"
        exit code: 1
        --- stdout
        --- stderr
        hearth: cannot tell the format of vms.conf by its name: a desired-state file ends in .exs, .toml, .yaml (or .yml) or .json; --to names another's
    "#]],
    );
    check(
        &home,
        &["convert", "vms.yaml"],
        "",
        expect![[r#"
        exit code: 2
        --- stdout
        --- stderr
        error: the following required arguments were not provided:
          --to <FORMAT>

        Usage: hearth convert --to <FORMAT> <FILE>

        For more information, try '--help'.
    "#]],
    );
    check(
        &home,
        &["convert", "none.yaml", "--to", "json"],
        "",
        expect![[r#"
        exit code: 2
        --- stdout
        --- stderr
        hearth: cannot read none.yaml: No such file or directory (os error 2)
    "#]],
    );
    let bad = finished(home.hearth(["convert", "bad.toml", "--to", "json"]));
    assert_eq!(bad.status.code(), Some(1));
    assert!(bad.stdout.is_empty(), "{}", shown(&bad));
    check(
        &home,
        &["convert", "-", "--input-format", "json", "--to", "toml"],
        "[]",
        expect![[r#"
            exit code: 0
            --- stdout
            vm = []
            --- stderr
        "#]],
    );
}
