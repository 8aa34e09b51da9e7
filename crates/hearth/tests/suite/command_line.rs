//! The command line against a real daemon over a simulated host.

use crate::support::{Daemon, Home, body, finished, shown, sim};
use expect_test::{Expect, expect};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::OpenptFlags;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Runs a command against a daemon and compares what it did.
fn check(home: &Home, daemon: &Daemon, args: &[&str], expected: Expect) {
    let mut command = home.hearth(args);
    command.env("HEARTH_URL", &daemon.url);
    let output = finished(command);
    expected.assert_eq(&shown(&output).replace(&daemon.url, "URL"));
}

#[test]
fn each_command_has_a_manual_page_and_completions() {
    let home = Home::new();
    let manual = finished(home.hearth(["man", "pages"]));
    assert!(manual.status.success(), "{}", shown(&manual));
    for page in ["hearth", "hearth-run", "hearth-serve", "hearth-kernel-import"] {
        let text = std::fs::read_to_string(home.path(&format!("pages/{page}.1"))).expect(page);
        assert!(text.contains(".SH SYNOPSIS"), "{page}: {text}");
    }
    for shell in ["bash", "zsh", "fish"] {
        let script = finished(home.hearth(["completions", shell]));
        assert!(script.status.success());
        let text = String::from_utf8(script.stdout).expect("text");
        assert!(text.contains("port-forward") && text.contains("stop-timeout"), "{shell}: {text}");
    }
    let bash = finished(home.hearth(["completions", "bash"])).stdout;
    home.write("hearth.bash", std::str::from_utf8(&bash).expect("text"));
    let mut check = std::process::Command::new("bash");
    check.arg("-n").arg(home.path("hearth.bash"));
    assert!(finished(check).status.success());
}

#[test]
fn env_files_are_read_as_docker_reads_them() {
    let home = Home::new();
    let daemon = sim();
    home.write(
        "vars.env",
        "\u{FEFF}# of the app\r\nK=1\r\n  LEAD=x \r\nQ=\"q\"\r\nHERE\r\nNOT_HERE\r\n",
    );
    let args = ["run", "--name", "web", "--rootfs", "r.ext4", "--env-file"];
    let mut command = home.hearth([&args[..], &["vars.env", "-e", "K=2", "/app"]].concat());
    command.env("HEARTH_URL", &daemon.url).env("HERE", "h").env_remove("NOT_HERE");
    let output = finished(command);
    assert!(output.status.success(), "{}", shown(&output));
    let env = daemon.get("/vms/web").json()["spec"]["env"].take();
    assert_eq!(env, serde_json::json!({"HERE": "h", "K": "2", "LEAD": "x ", "Q": "\"q\""}));
    home.write("bad.env", "A=1\nexport EXP=yes\n");
    check(
        &home,
        &daemon,
        &[&args[..], &["bad.env", "/app"]].concat(),
        expect![[r#"
        exit code: 1
        --- stdout
        --- stderr
        hearth: cannot take the variables in bad.env: line 2: `export` is not part of a variable's name; write EXP=…
    "#]],
    );
    check(
        &home,
        &daemon,
        &["run", "--rootfs", "r.ext4", "-e", "A\u{1b}B=1", "/app"],
        expect![[r#"
            exit code: 1
            --- stdout
            --- stderr
            hearth: cannot create a job: the body has a problem; nothing was changed
              /spec/env/A\u{1b}B: "A\u{1b}B" can't name an environment variable: it holds a control character
        "#]],
    );
}

#[test]
fn a_closed_pipe_is_no_error() {
    let home = Home::new();
    let mut hearth =
        home.hearth(["completions", "zsh"]).stdout(Stdio::piped()).spawn().expect("it starts");
    drop(hearth.stdout.take());
    assert!(hearth.wait().expect("it ends").success());
}

#[test]
fn colours_are_for_terminals_and_can_be_forced_and_forbidden() {
    let sim = sim();
    sim.post("/vms", &body("web", "service", ""));
    let coloured = |args: &[&str], variables: &[(&str, &str)]| {
        let mut command = sim.hearth(args);
        for name in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            command.env_remove(name);
        }
        let output = finished({
            command.envs(variables.iter().copied());
            command
        });
        String::from_utf8_lossy(&output.stdout).contains('\u{1b}')
    };
    assert!(!coloured(&["ps"], &[]), "stdout is no terminal");
    assert!(coloured(&["ps"], &[("CLICOLOR_FORCE", "1")]));
    assert!(coloured(&["ps", "--color", "always"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&["ps", "--color", "never"], &[("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&["ps"], &[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")]));
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
            {"file":"bad.exs","problems":[{"line":2,"column":14,"end_column":38,"message":"job `a`: missing field `kernel`","help":null,"pointer":"/0/spec/kernel"},{"line":2,"column":14,"end_column":38,"message":"job `a`: missing field `resources`","help":null,"pointer":"/0/spec/resources"},{"line":2,"column":14,"end_column":38,"message":"job `a`: missing field `lifecycle`","help":null,"pointer":"/0/spec/lifecycle"},{"line":2,"column":24,"end_column":28,"message":"job `a`: `rootfs`: \"/r\" is a path; images are named by their file name in the images directory","help":null,"pointer":"/0/spec/rootfs"},{"line":2,"column":35,"end_column":37,"message":"job `a`: `cmd`: has 0 elements; 1 to 256 are allowed","help":null,"pointer":"/0/spec/cmd"}],"omitted":0}
            --- stderr
        "#]],
    );
    check(
        &home,
        &daemon,
        &["validate", "none.exs"],
        expect![[r#"
            exit code: 2
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
    let example = crate::support::example();
    let output = home.hearth([std::ffi::OsStr::new("validate"), example.as_os_str()]).output();
    let output = output.expect("it ran");
    assert!(output.status.success(), "{}", shown(&output));
}

#[test]
fn a_port_is_forwarded_both_ways() {
    let daemon = sim();
    daemon.post("/vms", &body("web", "service", ""));
    daemon.until_job("web", "running");
    let mut forward = daemon
        .hearth(&["port-forward", "web", "0:4000"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut said = String::new();
    let mut stdout = BufReader::new(forward.stdout.take().expect("a pipe"));
    stdout.read_line(&mut said).expect("it says where");
    let address = said.split(' ').nth(1).expect("an address");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(address).expect("it accepts");
        stream.set_read_timeout(Some(crate::support::DEADLINE)).expect("a deadline");
        stream.write_all(b"ping").expect("it takes bytes");
        let mut echo = [0; 4];
        stream.read_exact(&mut echo).expect("the simulated guest echoes");
        assert_eq!(&echo, b"ping");
    }
    forward.kill().expect("it can be killed");
    forward.wait().expect("it can be reaped");
}

#[test]
fn daemon_reads_its_settings_file_and_serves_on_a_socket() {
    let home = Home::new();
    let socket = format!("unix://{}", home.path("h.sock").display());
    let file = format!("listen = {socket:?}\nstate_dir = \"state\"\nhost = \"sim\"\n");
    let file = home.write("hearth.toml", &file);
    let mut serve = home.hearth(["serve"]);
    serve.env("HEARTH_CONFIG", file).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut serve = serve.spawn().expect("it starts");
    let mut said = String::new();
    let mut stdout = BufReader::new(serve.stdout.take().expect("a pipe"));
    stdout.read_line(&mut said).expect("it says where");
    assert!(said.starts_with(&format!("hearth: listening on {socket} ")), "{said}");
    assert!(home.path("state/hearth.db").exists(), "a relative path begins at the file");
    let mut status = home.hearth(["version"]);
    status.env("HEARTH_URL", &socket);
    let version = finished(status);
    serve.kill().expect("it can be killed");
    serve.wait().expect("it can be reaped");
    assert!(shown(&version).contains("daemon 0.1.0"), "{}", shown(&version));
}

/// Answers as a daemon does that has not looked at its host yet.
fn unready_daemon() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.expect("a connection"));
            let mut request = String::new();
            while !request.ends_with("\r\n\r\n") {
                stream.read_line(&mut request).expect("a request");
            }
            let (status, body) = match request.split(' ').nth(1).expect("a path") {
                "/healthz" => ("200 OK", r#"{"status":"ok","version":"0.1.0"}"#),
                "/readyz" => (
                    "503 Service Unavailable",
                    r#"{"type":"x","title":"x","status":503,"detail":"the host is not known yet"}"#,
                ),
                path if path.starts_with("/events") => ("200 OK", r#"{"items":[],"next":null}"#),
                _ => (
                    "200 OK",
                    r#"{"summary":{"total_jobs":0,"total_warm":0},"jobs":[],"warm_pool":[],
                        "unidentified":[],"desired_file":null}"#,
                ),
            };
            let length = body.len();
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}");
            stream.get_mut().write_all(answer.as_bytes()).expect("it is read");
        }
    });
    url
}

#[test]
fn status_of_a_daemon_that_is_not_ready_exits_with_1() {
    let home = Home::new();
    let mut status = home.hearth(["status"]);
    let url = unready_daemon();
    status.env("HEARTH_URL", &url);
    expect![[r#"
        exit code: 1
        --- stdout
        daemon   0.1.0 at URL
                 not ready: the host is not known yet
        jobs     none
        pools    none
        --- stderr
    "#]]
    .assert_eq(&shown(&finished(status)).replace(&url, "URL"));
}

#[test]
fn supervisor_is_notified_of_readiness_and_progress() {
    let home = crate::support::Home::new();
    let path = home.path("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).expect("a socket");
    socket.set_read_timeout(Some(crate::support::DEADLINE)).expect("a deadline");
    let mut command = home.serve(&[]);
    let asked = Duration::from_secs(3);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", asked.as_micros().to_string());
    let _daemon = crate::support::Daemon::spawn(command);
    let told = || {
        let mut bytes = [0; 256];
        let count = socket.recv(&mut bytes).expect("a word in time");
        String::from_utf8_lossy(&bytes[..count]).trim().to_owned()
    };
    assert_eq!(told(), "READY=1");
    // As it begins, and then of each progress, within the time that was asked for.
    assert_eq!(told(), "WATCHDOG=1");
    for _ in 0..2 {
        let begin = Instant::now();
        assert_eq!(told(), "WATCHDOG=1");
        assert!(begin.elapsed() < asked);
    }
}

#[test]
fn events_are_followed_as_they_happen() {
    let sim = sim();
    sim.post("/vms", &body("before", "job", ""));
    sim.until_job("before", "completed");
    let mut command = sim.hearth(&["events", "-f", "-o", "json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let mut until = |job: &str, kind: &str| {
        let found = lines.by_ref().map(|line| line.expect("a line")).find(|line| {
            let event: serde_json::Value = serde_json::from_str(line).expect("JSON");
            event["job_id"] == job && event["kind"] == kind
        });
        assert!(found.is_some(), "no {kind} of {job}");
    };
    until("before", "accepted");
    sim.post("/vms", &body("after", "service", ""));
    until("after", "accepted");
    child.kill().expect("it can be ended");
    child.wait().expect("it can be reaped");
}

/// Starts a command, with its streams piped.
fn spawned(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn signal(child: u32, signal: Signal) {
    let pid = Pid::from_raw(child.try_into().expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("a signal");
}

/// A daemon whose microVMs take so long to boot.
fn booting_for(home: &Home, milliseconds: &str) -> Daemon {
    let args = ["serve", "--host", "sim", "--listen", "127.0.0.1:0", "--state-dir", "state"];
    let mut command = home.hearth(args);
    command.args(["--sim-boot-ms", milliseconds]);
    Daemon::spawn(command)
}

/// One in which no job ends by itself.
fn slow(home: &Home) -> Daemon {
    booting_for(home, "3600000")
}

fn run_removed(home: &Home, daemon: &Daemon) -> Child {
    let mut command = home.hearth(["run", "--wait", "--rm", "--name", "job", "--rootfs", "r", "x"]);
    command.env("HEARTH_URL", &daemon.url);
    let child = spawned(command);
    daemon.until_job("job", "starting");
    child
}

#[test]
fn interrupted_run_stops_and_deletes_its_job() {
    let home = Home::new();
    let daemon = slow(&home);
    for (number, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let run = run_removed(&home, &daemon);
        signal(run.id(), number);
        let output = run.wait_with_output().expect("it ends");
        let expected = format!(
            "exit code: {code}\n--- stdout\n--- stderr\nhearth: stopping job job and deleting it; \
             once more leaves that to the daemon\nhearth: job job is deleted\n"
        );
        assert_eq!(shown(&output), expected);
        assert!(daemon.jobs().is_empty());
    }
}

#[test]
fn second_interrupt_leaves_the_job_to_the_daemon() {
    let home = Home::new();
    let daemon = slow(&home);
    let mut run = run_removed(&home, &daemon);
    // What is asked of it gets no answer.
    signal(daemon.pid(), Signal::STOP);
    signal(run.id(), Signal::INT);
    let mut stderr = BufReader::new(run.stderr.take().expect("a pipe"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("it says what it does");
    signal(run.id(), Signal::INT);
    stderr.read_to_string(&mut said).expect("its end");
    assert_eq!(run.wait().expect("it ends").code(), Some(130), "{said}");
    let words = "hearth: detached: the daemon deletes the job once it has finished\n";
    assert!(said.ends_with(words), "{said}");
    signal(daemon.pid(), Signal::CONT);
    assert_eq!(daemon.get("/vms/job").json()["spec"]["auto_remove"], true);
}

#[test]
fn killed_client_leaves_no_job_that_is_to_be_removed() {
    let home = Home::new();
    let daemon = booting_for(&home, "1000");
    let mut run = run_removed(&home, &daemon);
    run.kill().expect("it can be killed");
    run.wait().expect("it can be reaped");
    let detached = ["run", "--detach", "--rm", "--name", "detached", "--rootfs", "r", "x"];
    let mut detached = home.hearth(detached);
    detached.env("HEARTH_URL", &daemon.url);
    assert!(finished(detached).status.success());
    daemon.until_job("job", "completed");
    daemon.until_job("detached", "completed");
    daemon.until("both jobs are deleted", || daemon.jobs().is_empty());
    let events = daemon.get("/vms/job/events").body;
    assert!(events.contains("deleted by itself, since it has finished"), "{events}");
}

#[test]
fn interrupt_without_rm_ends_the_client_alone() {
    let home = Home::new();
    let daemon = slow(&home);
    let command = |name| {
        let mut command = home.hearth(["run", "--wait", "--name", name, "--rootfs", "r", "x"]);
        command.env("HEARTH_URL", &daemon.url);
        command
    };
    let run = spawned(command("piped"));
    daemon.until_job("piped", "starting");
    signal(run.id(), Signal::INT);
    let output = run.wait_with_output().expect("it ends");
    assert_eq!((output.status.signal(), &output.stderr[..]), (Some(2), &b""[..]));
    // On a terminal it says what becomes of the job.
    let terminal = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pty");
    rustix::pty::grantpt(&terminal).and_then(|()| rustix::pty::unlockpt(&terminal)).expect("a pty");
    let name = rustix::pty::ptsname(&terminal, Vec::new()).expect("a name");
    let name = name.to_str().expect("a name");
    let side = OpenOptions::new().read(true).write(true).open(name).expect("the other side");
    let mut run = command("shown").stdout(Stdio::null()).stderr(side).spawn().expect("it starts");
    daemon.until_job("shown", "starting");
    signal(run.id(), Signal::INT);
    assert_eq!(run.wait().expect("it ends").signal(), Some(2));
    let mut said = String::new();
    let line = BufReader::new(File::from(terminal)).read_line(&mut said);
    assert!(line.is_ok() && said.starts_with("hearth: job shown continues;"), "{said:?}");
    assert_eq!(daemon.jobs(), ["piped", "shown"]);
}
