//! The command line against a real daemon over a simulated host.

mod support;

use expect_test::{Expect, expect};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use support::{Daemon, Home, body, finished, shown};

/// Runs a command against a daemon and compares what it did.
fn check(home: &Home, daemon: &Daemon, args: &[&str], expected: Expect) {
    let mut command = home.hearth(args);
    command.env("HEARTH_URL", &daemon.url);
    let output = finished(command);
    expected.assert_eq(&shown(&output).replace(&daemon.url, "URL"));
}

const RUN: [&str; 4] = ["run", "--rootfs", "r.ext4", "--name"];

#[test]
fn a_job_is_run_waited_for_and_removed() {
    let home = Home::new();
    let daemon = home.start(&[]);
    let args = [&RUN[..], &["once", "--wait", "--", "/bin/true"]].concat();
    check(
        &home,
        &daemon,
        &args,
        expect![[r#"
            exit code: 0
            --- stdout
            simulated: /bin/true
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["ps"],
        expect![[r#"
            exit code: 0
            --- stdout
            JOB   TENANT  LIFECYCLE  STATUS     VM  REASON
            once  once    job        completed  -
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["rm", "once", "nope", "--wait"],
        expect![[r#"
            exit code: 1
            --- stdout
            once deleted
            --- stderr
            hearth: cannot delete job nope: there is no job nope
        "#]],
    );
    check(
        &home,
        &daemon,
        &["ps"],
        expect![[r#"
            exit code: 0
            --- stdout
            --- stderr
            hearth: there are no jobs
        "#]],
    );
}

#[test]
fn a_service_is_shown_in_short_and_in_full() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    check(
        &home,
        &daemon,
        &["ps", "-o", "wide"],
        expect![[r#"
            exit code: 0
            --- stdout
            JOB  TENANT  LIFECYCLE  STATUS   VM             GEN  SINCE                     ROOTFS  KERNEL   VCPU  MEM  REASON
            web  web     service    running  vm-xxxxxxxxxx  1    2026-01-01T00:00:00.000Z  r.ext4  vmlinux  1     128
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["get", "web"],
        expect![[r#"
            exit code: 0
            --- stdout
            job         web
            tenant      web
            status      running
            reason      -
            since       2026-01-01T00:00:00.000Z
            vm          vm-xxxxxxxxxx
            generation  1
            exit code   -
            spec        {
                          "rootfs": "r.ext4",
                          "kernel": "vmlinux",
                          "cmd": [
                            "/app"
                          ],
                          "resources": {
                            "vcpu": 1,
                            "mem_mb": 128
                          },
                          "lifecycle": "service"
                        }
            events
              2026-01-01T00:00:00.000Z  generation 1 accepted
              2026-01-01T00:00:00.000Z  creating vm-xxxxxxxxxx
              2026-01-01T00:00:00.000Z  starting: being created
              2026-01-01T00:00:00.000Z  running
            --- stderr
        "#]],
    );
}

#[test]
fn a_service_is_stopped_started_and_removed() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    check(
        &home,
        &daemon,
        &["get", "web", "-o", "json"],
        expect![[r#"
            exit code: 0
            --- stdout
            {"job_id":"web","vm_id":"vm-xxxxxxxxxx","tenant":"web","status":"running","reason":null,"since":"2026-01-01T00:00:00.000Z","generation":1,"exit_code":null,"spec":{"rootfs":"r.ext4","kernel":"vmlinux","cmd":["/app"],"resources":{"vcpu":1,"mem_mb":128},"lifecycle":"service"}}
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["logs", "web"],
        expect![[r#"
            exit code: 0
            --- stdout
            simulated: /app
            --- stderr
        "#]],
    );
    home.hearth(["stop", "web"]).env("HEARTH_URL", &daemon.url).output().expect("it ran");
    daemon.until_job("web", "stopped");
    check(
        &home,
        &daemon,
        &["start", "web"],
        expect![[r#"
            exit code: 0
            --- stdout
            web pending: about to start
            --- stderr
        "#]],
    );
    daemon.until_job("web", "running");
    check(
        &home,
        &daemon,
        &["rm", "--all", "--wait"],
        expect![[r#"
            exit code: 0
            --- stdout
            web deleted
            --- stderr
        "#]],
    );
}

#[test]
fn the_pools_are_shown() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", r#","warm_pool":{"min":1}"#));
    daemon.until_job("web", "running");
    daemon.until_warm(1);
    check(
        &home,
        &daemon,
        &["stats"],
        expect![[r#"
            exit code: 0
            --- stdout
            1 job, 1 warm

            JOB  TENANT  LIFECYCLE  STATUS   VM             REASON
            web  web     service    running  vm-xxxxxxxxxx

            SPEC              VM               STATUS  ROOTFS  REASON
            86A80B8C30045837  warm-xxxxxxxxxx  warm    r.ext4
            --- stderr
        "#]],
    );
}

#[test]
fn errors_name_the_cause_and_the_mend() {
    let home = Home::new();
    let daemon = home.start(&[]);
    check(
        &home,
        &daemon,
        &["get", "nope"],
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            hearth: cannot show job nope: there is no job nope
        "#]],
    );
    check(
        &home,
        &daemon,
        &["run", "--rootfs", "/x", "--mem", "0", "--", "/x"],
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            hearth: cannot create a job: the body has 2 problems; nothing was changed
              /spec/rootfs: "/x" is a path; images are named by their file name in the images directory
              /spec/resources/mem_mb: 0 is out of range: 1 to 1048576
        "#]],
    );
    check(
        &home,
        &daemon,
        &["run", "--rootfs", "r", "-e", "NOT_SET_HERE", "--", "/x"],
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            hearth: cannot pass NOT_SET_HERE on: it is not set here; write NOT_SET_HERE=VALUE
        "#]],
    );
}

#[test]
fn wrong_addresses_are_told_with_right_ones() {
    let home = Home::new();
    let daemon = home.start(&[]);
    check(
        &home,
        &daemon,
        &["--url", "unix:///nowhere/h.sock", "ps"],
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            hearth: cannot reach the daemon at unix:///nowhere/h.sock: No such file or directory (os error 2)
            is it running? start it with `hearth serve`, or name another by --url or HEARTH_URL
        "#]],
    );
    check(
        &home,
        &daemon,
        &["--url", "ftp://x", "ps"],
        expect![[r#"
            exit code: 2
            --- stdout
            --- stderr
            error: invalid value 'ftp://x' for '--url <URL>': "ftp://x" is not the address of a daemon: it begins with neither http:// nor unix://; write http://127.0.0.1:8088 or unix:///run/hearth.sock

            For more information, try '--help'.
        "#]],
    );
    check(
        &home,
        &daemon,
        &["serve", "--listen", "0.0.0.0:80"],
        expect![[r#"
            exit code: 2
            --- stdout
            --- stderr
            error: invalid value '0.0.0.0:80' for '--listen <LISTEN>': cannot listen on 0.0.0.0:80: it is not the loopback, and Hearth has no tokens and no TLS yet; use 127.0.0.1:8088 or unix:///run/hearth.sock, and ssh -L from elsewhere

            For more information, try '--help'.
        "#]],
    );
}

#[test]
fn a_file_is_validated_with_every_problem_at_its_place() {
    let home = Home::new();
    let daemon = home.start(&[]);
    home.write("good.exs", "[]");
    home.write("bad.exs", "[\n  {\"a\", \"t\", %{rootfs: \"/r\", cmd: []}}\n]\n");
    check(
        &home,
        &daemon,
        &["validate", "good.exs"],
        expect![[r#"
            exit code: 0
            --- stdout
            good.exs: 0 jobs, no problems
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["validate", "bad.exs", "-o", "json"],
        expect![[r#"
            exit code: 1
            --- stdout
            {"file":"bad.exs","problems":[{"line":2,"column":14,"message":"job `a`: missing field `kernel`","help":null},{"line":2,"column":14,"message":"job `a`: missing field `resources`","help":null},{"line":2,"column":14,"message":"job `a`: missing field `lifecycle`","help":null},{"line":2,"column":24,"message":"job `a`: `rootfs`: \"/r\" is a path; images are named by their file name in the images directory","help":null},{"line":2,"column":35,"message":"job `a`: `cmd`: has 0 elements; 1 to 256 are allowed","help":null}],"omitted":0}
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["validate", "none.exs"],
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            hearth: cannot read none.exs: No such file or directory (os error 2)
        "#]],
    );
    let bad = home.hearth(["validate", "bad.exs"]).output().expect("it ran");
    assert_eq!(bad.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&bad.stderr).contains("bad.exs:2"), "{}", shown(&bad));
}

#[test]
fn the_example_is_valid() {
    let home = Home::new();
    let example = support::example();
    let output = home.hearth([std::ffi::OsStr::new("validate"), example.as_os_str()]).output();
    let output = output.expect("it ran");
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn a_port_is_forwarded_both_ways() {
    let home = Home::new();
    let daemon = home.start(&[]);
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let mut forward = home
        .hearth(["port-forward", "web", "0:4000"])
        .env("HEARTH_URL", &daemon.url)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = String::new();
    let mut stdout = BufReader::new(forward.stdout.take().expect("a pipe"));
    stdout.read_line(&mut said).expect("it says where");
    let address = said.split(' ').nth(1).expect("an address");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).expect("it accepts");
        stream.set_read_timeout(Some(support::DEADLINE)).expect("a deadline");
        stream.write_all(b"ping").expect("it takes bytes");
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).expect("the simulated guest echoes");
        assert_eq!(&echo, b"ping");
    }
    forward.kill().expect("it can be killed");
    forward.wait().expect("it can be reaped");
}
