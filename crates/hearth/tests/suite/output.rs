//! What becomes of a command whose output can't be written or is not wanted any more, and what of it
//! reaches a terminal.

use crate::support::{DEADLINE, Home, body, finished, shown, sim};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

/// What a stream is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    /// A disk without room.
    Full,
    /// A pipe without a reader.
    ClosedPipe,
}

impl To {
    fn stdio(self) -> Stdio {
        match self {
            To::Full => {
                OpenOptions::new().write(true).open("/dev/full").expect("a full device").into()
            }
            To::ClosedPipe => {
                let (reader, writer) = std::io::pipe().expect("a pipe");
                drop(reader);
                writer.into()
            }
        }
    }
}

/// Runs a command whose stdout is this, and returns its exit code and what it said on stderr.
fn run(mut command: Command, stdout: To) -> (Option<i32>, String) {
    let mut child =
        command.stdout(stdout.stdio()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut said = String::new();
    let stderr = child.stderr.take().expect("a pipe");
    BufReader::new(stderr).read_to_string(&mut said).expect("text");
    (wait(&mut child).code(), said)
}

fn wait(child: &mut std::process::Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("it can be waited for") {
            return status;
        }
        if begin.elapsed() > DEADLINE {
            child.kill().expect("it can be killed");
            panic!("it does not end");
        }
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
}

const FILE: &str = r#"
- job_id: web
  spec: {rootfs: r.ext4, kernel: vmlinux, cmd: [/app], resources: {vcpu: 1, mem_mb: 64}, lifecycle: service}
"#;

const FULL: &str = "hearth: cannot write to stdout: No space left on device (os error 28)\n";

#[test]
fn lost_output_is_an_error_of_every_command() {
    let sim = sim();
    sim.home.write("f.yaml", FILE);
    sim.post("/vms", &body("once", "job", ""));
    sim.until_job("once", "completed");
    for args in [
        &["--help"][..],
        &["--version"],
        &["help", "run"],
        &["completions", "zsh"],
        &["man", "pages"],
        &["validate", "f.yaml"],
        &["convert", "f.yaml", "--to", "toml"],
        &["plan", "f.yaml"],
        &["apply", "-f", "f.yaml", "--dry-run"],
        &["ps", "-o", "json"],
        &["ps", "-o", "yaml"],
        &["get", "once"],
        &["stats"],
        &["status"],
        &["events"],
        &["logs", "once"],
        &["logs", "-f", "once"],
        &["events", "-f"],
        &["config", "show"],
        &["version"],
        &["doctor", "--state-dir", "state"],
        &["backup", "copy.db", "--state-dir", "state"],
        &["run", "--rootfs", "r.ext4", "--wait", "sh", "-c", "exit 7"],
        &["rm", "once"],
    ] {
        let (code, said) = run(sim.hearth(args), To::Full);
        let said = said.replace("{\"error\":\"", "hearth: ").replace("\",\"help\":null}", "");
        assert_eq!((code, said.as_str()), (Some(1), FULL), "{args:?}");
    }
}

#[test]
fn closed_pipe_leaves_the_exit_code_alone() {
    let sim = sim();
    sim.home.write("f.yaml", FILE);
    sim.home.write("bad.yaml", "- 1\n");
    sim.home.write("bad.toml", "nothing = 1\n");
    let job = |line| {
        let args = ["run", "--wait", "--rm", "--name", "once", "--rootfs", "r.ext4", "sh", "-c"];
        [&args[..], &[line]].concat()
    };
    for (args, expected) in [
        (vec!["--help"], 0),
        (vec!["completions", "zsh"], 0),
        (vec!["validate", "f.yaml"], 0),
        (vec!["validate", "bad.yaml", "-o", "json"], 1),
        (vec!["convert", "f.yaml", "--to", "json"], 0),
        (vec!["plan", "f.yaml"], 2),
        (vec!["plan", "f.yaml", "-o", "json"], 2),
        (vec!["status"], 0),
        (vec!["config", "check", "bad.toml", "-o", "json"], 1),
        (vec!["apply", "-f", "f.yaml", "--wait"], 0),
        (vec!["plan", "f.yaml"], 0),
        (job("exit 7"), 7),
        (job("exit 0"), 0),
        (vec!["logs", "-f", "web"], 0),
        (vec!["events", "-f"], 0),
    ] {
        let (code, said) = run(sim.hearth(&args), To::ClosedPipe);
        assert_eq!((code, said.as_str()), (Some(expected), ""), "{args:?}");
    }
    assert_eq!(sim.jobs(), ["web"], "--rm deletes it whether or not its output is read");
}

#[test]
fn follower_ends_when_its_reader_goes_while_nothing_happens() {
    let sim = sim();
    sim.post("/vms", &body("web", "service", ""));
    sim.until_job("web", "running");
    for args in [&["logs", "-f", "web"][..], &["events", "-f"]] {
        let mut follower = sim.hearth(args).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut stdout = BufReader::new(follower.stdout.take().expect("a pipe"));
        stdout.read_line(&mut String::new()).expect("a line");
        drop(stdout);
        assert!(wait(&mut follower).success(), "{args:?}");
    }
}

#[test]
fn stderr_that_fails_changes_no_exit_code() {
    let home = Home::new();
    home.write("f.yaml", FILE);
    home.write("bad.yaml", "- 1\n");
    for to in [To::Full, To::ClosedPipe] {
        for (args, expected) in [
            (&["validate", "f.yaml"][..], 0),
            (&["validate", "bad.yaml"], 1),
            (&["validate", "none.yaml"], 2),
            (&["pss"], 2),
            (&["ps", "--url", "http://127.0.0.1:1"], 1),
        ] {
            let mut command = home.hearth(args);
            command.stdout(Stdio::null()).stderr(to.stdio());
            let status = command.status().expect("it ran");
            assert_eq!((status.code(), status.signal()), (Some(expected), None), "{to:?} {args:?}");
        }
    }
}

/// A daemon that says by a supervisor's socket that it serves, whatever its streams are.
struct Supervised {
    child: std::process::Child,
    socket: UnixDatagram,
}

impl Supervised {
    fn start(home: &Home, stdout: Stdio, stderr: Stdio) -> Supervised {
        let path = home.path("notify");
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut command = home.serve(&[]);
        command.env("NOTIFY_SOCKET", &path).stdout(stdout).stderr(stderr);
        Supervised { child: command.spawn().expect("it starts"), socket }
    }

    /// Waits until it serves, for the first time or again.
    fn until_ready(&self) {
        let mut bytes = [0; 256];
        loop {
            let count = self.socket.recv(&mut bytes).expect("a word in time");
            if String::from_utf8_lossy(&bytes[..count]).contains("READY=1") {
                return;
            }
        }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).expect("a signal");
    }

    fn terminate(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        wait(&mut self.child).code()
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn daemon_serves_whatever_becomes_of_its_streams() {
    for to in [To::Full, To::ClosedPipe] {
        let home = Home::new();
        let daemon = Supervised::start(&home, to.stdio(), to.stdio());
        daemon.until_ready();
        // Started again within the same process, it says its line again.
        daemon.signal(rustix::process::Signal::USR2);
        daemon.until_ready();
        for args in [["backup", "copy.db"], ["restore", "copy.db"]] {
            let output = finished(home.hearth(args.into_iter().chain(["--state-dir", "state"])));
            assert!(output.status.success(), "{}", shown(&output));
        }
        daemon.until_ready();
        assert_eq!(daemon.terminate(), Some(0), "{to:?}");
    }
}

#[test]
fn daemon_does_not_wait_for_a_reader_of_stdout() {
    let home = Home::new();
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    // There is no reader, and no room left.
    let flags = rustix::fs::fcntl_getfl(&writer).expect("flags");
    rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).expect("flags");
    while std::io::Write::write(&mut writer, &[0; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, flags).expect("flags");
    let daemon = Supervised::start(&home, writer.into(), Stdio::null());
    daemon.until_ready();
    daemon.signal(rustix::process::Signal::USR2);
    daemon.until_ready();
    assert_eq!(daemon.terminate(), Some(0));
    drop(reader);
}

#[test]
fn closed_descriptors_are_those_of_dev_null() {
    let home = Home::new();
    home.write("f.yaml", FILE);
    let shell = |line: &str| {
        let mut shell = Command::new("sh");
        crate::support::place_as(&mut shell, &home.hearth([""; 0]));
        shell.args(["-c", line, "sh", env!("CARGO_BIN_EXE_hearth")]);
        finished(shell)
    };
    let plan = shell(r#""$1" validate f.yaml >&- 2>&- <&-; echo $?"#);
    assert_eq!(String::from_utf8_lossy(&plan.stdout), "0\n");
    let daemon = shell(
        r#"url=unix://$PWD/h.sock
        "$1" serve --host sim --listen $url --state-dir closed >&- 2>&- <&- & pid=$!
        until "$1" status --url $url >/dev/null 2>&1 || ! kill -0 $pid; do sleep 0.05; done
        kill $pid; wait $pid; echo $?"#,
    );
    assert_eq!(String::from_utf8_lossy(&daemon.stdout), "0\n", "{}", shown(&daemon));
}

#[test]
fn names_from_the_command_line_do_not_drive_the_terminal() {
    let sim = sim();
    let bad = "\u{1b}[31mweb\u{202e}\u{200b}\u{9b}2J";
    let escaped = "\\u{1b}[31mweb\\u{202e}\\u{200b}\\u{9b}2J";
    let file = format!("{bad}.yaml");
    let strange = format!("strange{bad}.yaml");
    sim.home.write(&strange, &format!("- job_id: \"a{bad}\"\n"));
    sim.home.write("key.toml", "\"\\u001b[31mlisten\\u200b\" = \"x\"\n");
    for args in [
        &["get", bad][..],
        &[bad],
        &["ps", bad],
        &["logs", bad],
        &["rm", bad],
        &["ps", "--status", bad],
        &["--url", bad, "ps"],
        &["validate", &file],
        &["validate", &strange],
        &["run", "--rootfs", "r.ext4", "--name", bad, "x"],
        &["run", "--rootfs", bad, "x"],
        &["run", "--rootfs", "r.ext4", "--env", bad, "x"],
        &["run", "--rootfs", "r.ext4", "--env-file", bad, "x"],
        &["port-forward", bad, "1:2"],
        &["port-forward", "web", bad],
        &["config", "check", bad],
        &["config", "check", "key.toml"],
        &["backup", bad, "--state-dir", bad],
        &["restore", bad],
    ] {
        for colour in ["never", "always"] {
            for format in ["table", "json"] {
                let mut command = sim.hearth(args);
                command.args(["--color", colour, "-o", format]);
                let output = finished(command);
                let all = [&output.stdout[..], &output.stderr[..]].concat();
                let text = String::from_utf8(all).expect("UTF-8");
                let context = format!("{args:?} {colour} {format}: {text:?}");
                assert!(!output.status.success(), "{context}");
                assert!(
                    !text.contains("\u{1b}[31mweb") && !text.contains("\u{1b}[31ml"),
                    "{context}"
                );
                for c in ['\u{202e}', '\u{200b}', '\u{9b}'] {
                    assert!(!text.contains(c), "{context}");
                }
                if colour == "never" {
                    assert!(!text.contains('\u{1b}'), "{context}");
                }
            }
        }
    }
    let refused = finished(sim.hearth(&["get", bad]));
    assert!(shown(&refused).contains(escaped), "{}", shown(&refused));
    let usage = finished(sim.hearth(&[bad]));
    assert!(shown(&usage).contains(escaped), "{}", shown(&usage));
}

#[test]
fn what_a_user_names_is_read_in_time_or_refused() {
    let home = Home::new();
    let file = home.write("f.yaml", FILE);
    let fifo = home.path("fifo.yaml");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    File::create(home.path("large.yaml")).and_then(|file| file.set_len(9 << 20)).expect("a file");
    for (args, expected, message) in [
        (
            &["validate", "fifo.yaml"][..],
            2,
            "cannot read fifo.yaml: no process writes to this FIFO",
        ),
        (&["validate", "large.yaml"], 2, "cannot read large.yaml: it has more than 8 MiB"),
        (&["convert", "large.yaml", "--to", "json"], 2, "it has more than 8 MiB"),
        (&["plan", "large.yaml"], 1, "it has more than 8 MiB"),
        (&["validate", "/dev/zero", "--input-format", "yaml"], 2, "it is a device, not a file"),
        (&["validate", "/", "--input-format", "yaml"], 2, "it is a directory, not a file"),
        (&["config", "check", "fifo.yaml"], 1, "no process writes to this FIFO"),
        (&["run", "--rootfs", "r", "--env-file", "fifo.yaml", "x"], 1, "no process writes"),
        (&["run", "--rootfs", "r", "--env-file", "/dev/zero", "x"], 1, "it is a device"),
        (&["restore", "fifo.yaml", "--state-dir", "s"], 1, "it is a FIFO, not a file"),
        (&["kernel", "import", "--from-deb", "fifo.yaml", "--images", "i"], 1, "it is a FIFO"),
    ] {
        let output = finished(home.hearth(args));
        let text = shown(&output);
        assert_eq!(output.status.code(), Some(expected), "{args:?}: {text}");
        assert!(text.contains(message), "{args:?}: {text}");
    }
    let mut substitution = Command::new("bash");
    crate::support::place_as(&mut substitution, &home.hearth([""; 0]));
    let line =
        r#"cd "$(dirname "$2")"; exec "$1" validate <(sleep 0.1; cat "$2") --input-format yaml"#;
    substitution.args(["-c", line, "bash", env!("CARGO_BIN_EXE_hearth")]).arg(file);
    let output = finished(substitution);
    assert!(shown(&output).contains("1 job, no problems"), "{}", shown(&output));
}

#[test]
fn apply_of_a_pipe_deletes_nothing() {
    let sim = sim();
    for job in ["first", "second"] {
        let mut apply = Command::new("bash");
        crate::support::place_as(&mut apply, &sim.hearth(&[]));
        let line = r#"exec "$1" apply -f <(echo "$2") --input-format yaml"#;
        let file = FILE.replace("web", job);
        apply.args(["-c", line, "bash", env!("CARGO_BIN_EXE_hearth"), &file]);
        let output = finished(apply);
        assert!(output.status.success(), "{}", shown(&output));
    }
    assert_eq!(sim.jobs(), ["first", "second"]);
}

mod system {
    use super::*;

    #[test]
    fn convert_into_a_full_disk_leaves_nothing() {
        let home = Home::new();
        std::fs::create_dir(home.path("small")).expect("a directory");
        let entries: String =
            (0..2000).map(|at| FILE.replace("web", &format!("web-{at}"))).collect();
        home.write("f.yaml", &entries);
        let mut command = Command::new("unshare");
        crate::support::place_as(&mut command, &home.hearth([""; 0]));
        let line = r#"mount -t tmpfs -o size=256k tmpfs small
            "$1" convert f.yaml --into small/out.json; echo "into: $?"; ls -A small
            "$1" convert f.yaml --to json > small/out.json; echo "to: $?"
            "$1" convert f.yaml --into small/out.json; echo "again: $?""#;
        command.args(["--mount", "sh", "-c", line, "sh", env!("CARGO_BIN_EXE_hearth")]);
        let output = finished(command);
        let stderr = String::from_utf8_lossy(&output.stderr);
        let stdout = String::from_utf8_lossy(&output.stdout);
        assert_eq!(stdout, "into: 1\nto: 1\nagain: 1\n", "{stderr}");
        assert!(stderr.contains("cannot write small/out.json: No space left"), "{stderr}");
        assert!(stderr.contains("cannot write to stdout: No space left"), "{stderr}");
        assert!(stderr.contains("small/out.json is there already"), "{stderr}");
    }
}

/// The log of a daemon, which a user sees on a terminal.
#[test]
fn daemon_that_is_told_a_strange_name_logs_it_escaped() {
    let home = Home::new();
    let strange = home.path("desired\u{200b}\u{9b}.yaml");
    std::fs::write(&strange, "- 1\n").expect("a file");
    for format in ["text", "json"] {
        let mut command = home.serve(&["--log-format", format, "--desired"]);
        command.arg(&strange).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut daemon = command.spawn().expect("it starts");
        let stderr = BufReader::new(daemon.stderr.take().expect("a pipe"));
        let line =
            stderr.lines().map(|line| line.expect("text")).find(|line| line.contains(".yaml"));
        daemon.kill().expect("it can be killed");
        daemon.wait().expect("it can be reaped");
        let line = line.expect("it is logged");
        let escaped = ["desired\\u{200b}\\u{9b}.yaml", "desired\\u200b\\u009b.yaml"];
        assert!(escaped.iter().any(|name| line.contains(name)), "{line:?}");
    }
}
