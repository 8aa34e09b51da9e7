//! `make run` and `make down`: the demo of the README, on this machine's KVM or in the lab.
//!
//! Ctrl-C ends the daemon and leaves its microVMs, as for any daemon; `down` ends both.

use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::cargo::cargo;
use crate::lab::{Forward, Lab, SSH_FAILED, Session};
use crate::places::Places;
use crate::process::{Process, Signal};
use crate::setup::{self, Ready};
use crate::terminal::{self, say};
use crate::{guest_init, kvm, program};

const PORT: u16 = 8088;
/// Where the daemon keeps its state in the lab: the disk that outlives it.
const LAB_STATE: &str = "/var/lib/hearth";
/// The lab's kernel may die while guests run in it (docs/adr/0005-the-labs-qemu.md).
const LAB_STARTS_MAX: u32 = 5;
/// Adopting many microVMs in the lab takes a while; the daemon itself is up in a second.
const ANSWER_DEADLINE: Duration = Duration::from_secs(120);
/// A microVM gets 10 s to stop, and the lab is slow.
const REMOVE_DEADLINE: Duration = Duration::from_secs(120);

/// What to try next. The job in it is the second one of the pool that `web-api` keeps warm.
const GREETING: &str = r#"
Hearth serves config/desired_vms.exs on http://127.0.0.1:8088. In another terminal:

  build/hearth ps
  build/hearth stats
  build/hearth get image-resizer
  build/hearth logs kafka-consumer
  build/hearth port-forward web-api 4000:4000      # then: curl http://localhost:4000/

  curl http://localhost:8088/stats
  curl -X POST http://localhost:8088/vms -H 'Content-Type: application/json' -d '{
    "job_id": "web-app-2", "tenant": "production", "spec": {
      "rootfs": "rootfs-web.ext4", "kernel": "vmlinux", "cmd": ["/app/bin/server"],
      "env": {"MIX_ENV": "prod", "DATABASE_URL": "postgresql://localhost/myapp"},
      "resources": {"vcpu": 2, "mem_mb": 512}, "lifecycle": "service"}}'

Ctrl-C ends the daemon and leaves the microVMs; `make run` finds them again; `make down` ends all.
"#;

/// Serves the demo until a signal, and returns the daemon's exit status.
pub(crate) fn run(places: &Places, extra: &[String]) -> Result<i32> {
    let ready = setup::ensure(places)?;
    let hearth = build(places)?;
    if answers() {
        bail!("a daemon answers on 127.0.0.1:{PORT} already: end it first");
    }
    if kvm::usable().is_ok() {
        run_here(places, &ready, &hearth, extra)
    } else {
        run_in_lab(places, &ready, &hearth, extra)
    }
}

/// Serves the example over the simulated host, in which no microVM boots, until Ctrl-C.
pub(crate) fn simulate(places: &Places, extra: &[String]) -> Result<i32> {
    guest_init::ensure(places)?;
    let hearth = build(places)?;
    if answers() {
        bail!("a daemon answers on 127.0.0.1:{PORT} already: end it first");
    }
    let mut daemon = program::command(&hearth);
    daemon.args(["serve", "--host", "sim", "--listen", &format!("127.0.0.1:{PORT}")]);
    daemon.arg("--desired").arg(desired(places));
    daemon.arg("--state-dir").arg(places.build.join("sim")).args(extra);
    say("sim: serving over the simulated host; in another terminal: build/hearth ps");
    let status = daemon.status().with_context(|| format!("cannot run {}", hearth.display()))?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Ends the daemon, every microVM and what was kept about them.
pub(crate) fn down(places: &Places) -> Result<()> {
    let lab = Lab::of(places)?;
    if lab.down()? {
        lab.wipe()?;
        say("down: the lab is off, and with it the daemon and its microVMs");
    }
    let state = native_state(places);
    if state.exists() {
        remove_here(places, &state)?;
        say("down: the daemon and its microVMs are gone");
    }
    Ok(())
}

fn build(places: &Places) -> Result<PathBuf> {
    say("run: building Hearth");
    program::run(cargo(places).args(["build", "--quiet", "-p", "hearth"]))?;
    let built = places.target.join("debug/hearth");
    let link = places.build.join("hearth");
    let _ = fs::remove_file(&link);
    symlink(&built, &link).with_context(|| format!("cannot link {}", link.display()))?;
    Ok(built)
}

fn serve_arguments(places: &Places, ready: &Ready, state: &Path, extra: &[String]) -> Vec<String> {
    let path = |path: &Path| path.display().to_string();
    let mut arguments = vec!["serve".to_owned()];
    for (flag, value) in [
        ("--host", "linux".to_owned()),
        ("--listen", format!("127.0.0.1:{PORT}")),
        ("--desired", path(&desired(places))),
        ("--images", path(&ready.images)),
        ("--firecracker", path(&ready.firecracker)),
        ("--state-dir", path(state)),
    ] {
        // What the developer says themselves goes first.
        if !extra.iter().any(|own| own == flag || own.starts_with(&format!("{flag}="))) {
            arguments.extend([flag.to_owned(), value]);
        }
    }
    arguments.extend(extra.iter().cloned());
    arguments
}

/// The desired-state file: the one that the daemon's own variables name, or the clone's.
fn desired(places: &Places) -> PathBuf {
    let named = ["HEARTH_DESIRED", "FC_EX_CP_DESIRED_VMS_CONFIG"].into_iter().find_map(env::var_os);
    let named = named.filter(|named| !named.is_empty()).map(PathBuf::from);
    let named = named.map(|named| std::path::absolute(&named).unwrap_or(named));
    named.unwrap_or_else(|| places.repo.join("config/desired_vms.exs"))
}

fn run_in_lab(places: &Places, ready: &Ready, hearth: &Path, extra: &[String]) -> Result<i32> {
    let named = desired(places);
    if !named.starts_with(&places.repo) {
        bail!(
            "the lab sees only this clone: copy {} into {} and name it there",
            named.display(),
            places.repo.display()
        );
    }
    let lab = Lab::of(places)?;
    let forward = Forward { here: PORT, there: PORT };
    let mut command = vec![hearth.display().to_string()];
    command.extend(serve_arguments(places, ready, Path::new(LAB_STATE), extra));
    let mut starts = 0;
    let status = loop {
        starts += 1;
        lab.up()?;
        lab.forward(forward)?;
        let ended = AtomicBool::new(false);
        let status = std::thread::scope(|scope| {
            scope.spawn(|| greet_when_up(&ended));
            let status = Session::new(command.clone()).and_then(|session| lab.run(&session));
            ended.store(true, Ordering::Relaxed);
            status
        });
        if !matches!(status, Ok(SSH_FAILED)) {
            break status;
        }
        let Some(why) = lab.lost()? else { break status };
        let next = "the daemon's state is on its disk, so that services and daemons come back";
        if lab.panicked() && starts < LAB_STARTS_MAX {
            say(format_args!("run: {why}\nrun: starting the lab again: {next}"));
        } else {
            bail!("{why}\nThe lab is gone, and its microVMs with it. `make run` starts it: {next}");
        }
    };
    // The lab may be gone, and its forwardings with it.
    let _ = lab.unforward(forward);
    if lab.machine()?.is_some() {
        say("run: the daemon ended; its microVMs keep running in the lab (`make down` ends them)");
    }
    status
}

fn run_here(places: &Places, ready: &Ready, hearth: &Path, extra: &[String]) -> Result<i32> {
    let state = native_state(places);
    let mut daemon = program::command(hearth);
    daemon.args(serve_arguments(places, ready, &state, extra)).current_dir(&places.repo);
    // A terminal's Ctrl-C reaches the daemon by itself; what comes to us alone is passed on.
    let interactive = terminal::is_interactive();
    if !interactive {
        daemon.process_group(0);
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("cannot take signals")?;
    let handle = signals.handle();
    let mut child = daemon.spawn().with_context(|| format!("cannot run {}", hearth.display()))?;
    let process = Process::of(child.id())?;
    let record = serde_json::to_vec(&process).context("cannot record the daemon")?;
    fs::write(record_of(places), record).context("cannot record the daemon")?;
    let ended = AtomicBool::new(false);
    let status = std::thread::scope(|scope| {
        scope.spawn(|| greet_when_up(&ended));
        scope.spawn(|| {
            for signal in &mut signals {
                let passed = match signal {
                    SIGINT if interactive => continue,
                    SIGINT => Signal::INT,
                    _ => Signal::TERM,
                };
                if let Err(error) = process.signal(passed) {
                    say(format_args!("run: {error:#}"));
                }
            }
        });
        let status = child.wait();
        ended.store(true, Ordering::Relaxed);
        handle.close();
        status
    });
    let status = status.context("cannot wait for the daemon")?;
    say("run: the daemon ended; its microVMs keep running (`make down` ends them)");
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// Removes every job through a daemon (one is started if none runs), ends it and removes its state.
fn remove_here(places: &Places, state: &Path) -> Result<()> {
    let hearth = places.build.join("hearth");
    if !answers() {
        let mut daemon = program::command(&hearth);
        daemon.args(["serve", "--host", "linux", "--listen", &format!("127.0.0.1:{PORT}")]);
        // What runs is to end, so nothing is desired.
        let nothing = places.build.join("nothing.exs");
        fs::write(&nothing, "[]\n").context("cannot write an empty desired-state file")?;
        daemon.arg("--desired").arg(nothing).arg("--state-dir").arg(state);
        daemon.arg("--images").arg(places.build.join("images"));
        daemon.arg("--firecracker").arg(crate::firecracker::ensure(places)?);
        daemon.stdin(std::process::Stdio::null()).process_group(0);
        let child = daemon.spawn().context("cannot start the daemon that ends the microVMs")?;
        let record = serde_json::to_vec(&Process::of(child.id())?)?;
        fs::write(record_of(places), record).context("cannot record the daemon")?;
        await_answer(&AtomicBool::new(false));
    }
    program::run(program::command(&hearth).args(["rm", "--all", "--wait"]))?;
    let instances = state.join("instances");
    let deadline = Instant::now() + REMOVE_DEADLINE;
    while fs::read_dir(&instances).is_ok_and(|mut left| left.next().is_some()) {
        if Instant::now() > deadline {
            bail!("microVMs are left after {REMOVE_DEADLINE:?}: see {}", instances.display());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    if let Ok(record) = fs::read(record_of(places))
        && let Ok(process) = serde_json::from_slice::<Process>(&record)
    {
        process.signal(Signal::TERM)?;
        if !process.ended_within(Duration::from_secs(30)) {
            process.kill()?;
        }
    }
    fs::remove_dir_all(state).with_context(|| format!("cannot remove {}", state.display()))
}

/// The demo's own, so that it never meets a Hearth that is installed on this machine.
fn native_state(places: &Places) -> PathBuf {
    places.cache.join("state").join(places.clone_key())
}

fn record_of(places: &Places) -> PathBuf {
    places.build.join("daemon.json")
}

fn greet_when_up(ended: &AtomicBool) {
    if !await_answer(ended) {
        return;
    }
    say(GREETING);
}

fn await_answer(ended: &AtomicBool) -> bool {
    let deadline = Instant::now() + ANSWER_DEADLINE;
    while !ended.load(Ordering::Relaxed) && Instant::now() < deadline {
        if answers() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    false
}

/// Whether a daemon answers on the demo's port. A forwarded port takes connections without one, so
/// only an answer counts.
fn answers() -> bool {
    let ask = || -> std::io::Result<bool> {
        let address = SocketAddr::from(([127, 0, 0, 1], PORT));
        let mut connection = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
        connection.set_read_timeout(Some(Duration::from_secs(5)))?;
        let request =
            format!("GET /healthz HTTP/1.1\r\nHost: localhost:{PORT}\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes())?;
        let mut status = [0; 12];
        connection.read_exact(&mut status)?;
        Ok(&status == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
