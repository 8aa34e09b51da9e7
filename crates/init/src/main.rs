//! `hearth-init`: PID 1 of every microVM. It prepares the guest, runs one command, tells the host
//! how it is and how it ended, and reboots, which ends the Firecracker process.
//!
//! It is synchronous: a few threads, no runtime, small enough to travel in every initramfs. It
//! never makes a network connection of its own beyond the guest's loopback, never writes to the
//! root filesystem's image, and never outlives its command.

mod board;
mod boot;
mod channel;
mod child;
mod clock;
mod console;
mod control;
mod identity;
mod kernel_log;
mod logs;
mod machine;
mod names;
mod notify;
mod program;
mod ready;
mod refusal;
mod ring;
mod scratch;
mod serve;
mod status;
mod supervisor;
mod workload;

use boot::Devices;
use child::Reaper;
use clock::SystemClock;
use console::{chain, say};
use hearth_guest::{
    CHANNEL_PORT, CONTROL_PORT, Config, Ending, Exit, LOG_PORT, LOG_RING_BYTES, NOTIFY_PATH, Phase,
    STATUS_DRIVE_BYTES,
};
use machine::MicroVm;
use ring::Ring;
use rustix::system::{RebootCommand, reboot};
use serve::Connections;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};
use supervisor::{Event, Supervisor};
use vsock::{VMADDR_CID_ANY, VsockListener};

/// How long the host may take, after the end, to fetch the last report and the last output.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Output that a host can do without fetching: it fits on the status drive.
const TAIL_BYTES: usize = 2048;

fn main() {
    if std::process::id() != 1 {
        say(format_args!("this program is the init of a microVM; it runs as PID 1 only"));
        std::process::exit(2);
    }
    block_ctrl_alt_del();
    match boot::open_status_drive() {
        Ok((devices, status_drive)) => run(&devices, &status_drive),
        Err(error) => say(format_args!("{}", chain(&error))),
    }
    rustix::fs::sync();
    if let Err(error) = reboot(RebootCommand::Restart) {
        panic!("cannot reboot: {error}");
    }
}

/// Everything from the first moment at which a failure can be told to the last.
fn run(devices: &Devices, status_drive: &File) {
    let config = match boot::read_config(devices) {
        Ok(config) => config,
        // Without a config there is no name to sign with: the host knows whose drive it is.
        Err(error) => return tell(status_drive, "", set_up(&error), &[]),
    };
    let instance = config.instance.clone();
    let run_dir = Path::new(NOTIFY_PATH).parent().unwrap_or(Path::new("/run"));
    let entered = boot::enter_root(devices, &config.rootfs, config.rootfs_digest.as_deref())
        .and_then(|()| boot::mount_runtime(run_dir));
    if let Err(error) = entered {
        return tell(status_drive, &instance, set_up(&error), &[]);
    }
    let ring = Arc::new(Ring::new(LOG_RING_BYTES));
    match start(config, run_dir, &ring) {
        Ok(guest) => end(status_drive, &instance, guest, &ring),
        Err(error) => tell(status_drive, &instance, set_up(&error), &[]),
    }
}

/// A guest whose command is started or held, or could not be.
struct Guest {
    supervisor: Supervisor<MicroVm>,
    begun: Result<(), Ending>,
    control: Arc<Connections>,
    logs: Arc<Connections>,
}

fn start(config: Config, run_dir: &Path, ring: &Arc<Ring>) -> std::io::Result<Guest> {
    let listen = |port| VsockListener::bind_with_cid_port(VMADDR_CID_ANY, port);
    let (control, logs, channels) =
        (listen(CONTROL_PORT)?, listen(LOG_PORT)?, listen(CHANNEL_PORT)?);
    let reaper = Reaper::start()?;
    let run_dir = run_dir.to_owned();
    let machine = MicroVm::new(Arc::clone(ring));
    let mut supervisor = Supervisor::new(config, machine, run_dir, reaper, Arc::clone(ring));
    watch_ctrl_alt_del(supervisor.sender())?;
    // Started before anything is served, so that the first report is already true.
    let begun = supervisor.begin();
    let (board, events) = (supervisor.board(), supervisor.sender());
    let control = serve::serve(control, control::CONTROL_STREAMS_MAX, move |conn| {
        control::serve(conn, &board, &events, &SystemClock);
    })?;
    let read = Arc::clone(ring);
    let logs = serve::serve(logs, logs::LOG_READERS_MAX, move |conn| logs::serve(conn, &read))?;
    serve::serve(channels, channel::CHANNELS_MAX, channel::serve)?;
    Ok(Guest { supervisor, begun, control, logs })
}

/// Follows the command to its end and tells it: the drive first, since it is what lasts, then
/// those who are connected.
fn end(status_drive: &File, instance: &str, guest: Guest, ring: &Ring) {
    let board = guest.supervisor.board();
    let exit = match guest.begun {
        Ok(()) => guest.supervisor.run(),
        Err(ending) => Exit::of(ending),
    };
    ring.close();
    tell(status_drive, instance, exit, &ring.tail(STATUS_DRIVE_BYTES));
    board.update(|report| report.phase = Phase::Ended);
    let deadline = Instant::now() + DRAIN_TIMEOUT;
    ring.wait_delivered(TAIL_BYTES as u64, deadline);
    guest.logs.wait_idle(deadline);
    guest.control.wait_idle(deadline);
}

fn set_up(error: &dyn std::error::Error) -> Exit {
    Exit::of(Ending::SetUp(chain(error)))
}

/// Writes the status drive; what went wrong with the guest is said on the console as well.
fn tell(drive: &File, instance: &str, exit: Exit, tail: &[u8]) {
    if let Ending::SetUp(text) | Ending::NotStarted(text) = &exit.ending {
        say(format_args!("{text}"));
    }
    let status = status::of(instance, exit, status::uptime(), tail);
    if let Err(error) = status::write(drive, &status) {
        say(format_args!("cannot write the status drive: {error}"));
    }
}

/// Ctrl-Alt-Del becomes SIGINT to PID 1 instead of a restart, and waits there for
/// [`watch_ctrl_alt_del`]. Called while there is one thread, so that all inherit the mask.
#[allow(unsafe_code)]
fn block_ctrl_alt_del() {
    // SAFETY: the set is ours alone, and both calls only read it after it was filled.
    unsafe {
        let set = interrupt();
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
    }
    if let Err(error) = reboot(RebootCommand::CadOff) {
        say(format_args!("cannot take over Ctrl-Alt-Del: {error}"));
    }
}

#[allow(unsafe_code)]
fn interrupt() -> libc::sigset_t {
    // SAFETY: a set of zeroes is valid to be filled.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGINT);
        set
    }
}

#[allow(unsafe_code)]
fn watch_ctrl_alt_del(events: SyncSender<Event>) -> std::io::Result<()> {
    let watch = move || {
        let set = interrupt();
        loop {
            // SAFETY: a siginfo_t of zeroes is valid; the call fills it in.
            let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
            // SAFETY: both pointers are to values that outlive the call.
            let signal = unsafe { libc::sigwaitinfo(&set, &mut info) };
            // A process of the guest that sends SIGINT is not the host: only the kernel's counts.
            let from_kernel = signal == libc::SIGINT && info.si_code > 0;
            if from_kernel && events.send(Event::CtrlAltDel).is_err() {
                return;
            }
        }
    };
    let thread = std::thread::Builder::new().name("ctrl-alt-del".to_owned());
    thread.stack_size(serve::STACK_BYTES).spawn(watch).map(drop)
}
