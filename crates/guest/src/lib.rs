//! The protocol between host and guest: what is on the config drive and the status drive, and
//! what is said over vsock. Both sides are built from this crate. It does no I/O.
//!
//! ```text
//!   host                                     guest (hearth-init, PID 1)
//!   command line  --- read once at boot -->  which device is which drive
//!   config drive  --- read once at boot -->  cmd, env, ready, identity, or that they come late
//!   CONTROL_PORT  --- Hello line --------->  to an init of protocol 2 or later
//!                 <-- Hello line ----------
//!                 --- Command lines ------>
//!                 <-- Report lines --------  one at once, then one per change
//!                 <-- unsupported line ----  for a command that the init does not know
//!   LOG_PORT      --- LogCursor line ----->
//!                 <-- frames ------------->  output from the cursor on
//!   CHANNEL_PORT  --- Channel line ------->
//!                 <-- "OK\n", then bytes --  such as a TCP connection to the guest's loopback
//!   status drive  <-- written before the reboot: how the command ended
//! ```
//!
//! The guest listens and the host connects, so a daemon that was restarted simply connects again.

mod channel;
mod devices;
mod drive;
mod hello;
mod log;
mod wire;

pub use channel::{CHANNEL_LINE_BYTES_MAX, Channel, OpenError, Opened};
pub use devices::{GuestDrive, assigned_device, drive_assignment};
pub use drive::{
    CONFIG_DRIVE_BYTES_MAX, DriveError, STATUS_DRIVE_BYTES, decode_config, decode_status,
    encode_config, encode_status,
};
pub use hello::{Hello, LATE_WORKLOAD, PROTOCOL, PROTOCOL_FIRST};
pub use log::{LOG_FRAME_HEADER_BYTES, LOG_PAYLOAD_BYTES_MAX, LogCursor, LogFrameHeader, Stream};
pub use wire::{
    ClockReading, Command, Config, Delivery, Ending, Exit, Identity, LateTag, LateWorkload,
    Message, OOM_KILLS_LISTED_MAX, OomKill, OomKills, Phase, Ready, ReadyCheck, RefusedWorkload,
    Report, Stage, Status, Workload,
};

/// vsock port of the control stream: JSON lines, [`Command`] in and [`Message`] out.
pub const CONTROL_PORT: u32 = 1;
/// vsock port of the log stream: one [`LogCursor`] line in, frames out.
pub const LOG_PORT: u32 = 2;
/// vsock port that opens channels: the line of a [`Channel`] in, that of an [`Opened`] out, then bytes both
/// ways. The host must keep its side open until the guest ends
/// the connection: Firecracker takes a half-close of its Unix socket for the end of both
/// directions, and what the app was still answering is lost.
pub const CHANNEL_PORT: u32 = 3;
/// Longest line from the guest on the control stream, in bytes, the newline included.
pub const CONTROL_LINE_BYTES_MAX: usize = 64 * 1024;
/// Longest line from the host on the control stream, in bytes, the newline included: a workload that fits
/// on a config drive fits here. An older init takes [`CONTROL_LINE_BYTES_MAX`], which all other commands
/// are far below.
pub const COMMAND_LINE_BYTES_MAX: usize = CONFIG_DRIVE_BYTES_MAX + 1024;
/// Bytes of output that the init keeps for a reader that is away.
pub const LOG_RING_BYTES: usize = 256 * 1024;
/// A clock that is off by more is set; by less it is brought near slowly, so that no app sees a jump.
pub const CLOCK_STEP_OVER: std::time::Duration = std::time::Duration::from_millis(500);
/// Where a guest finds its identity; replaced atomically at a claim.
pub const IDENTITY_PATH: &str = "/run/hearth/identity.json";
/// The Unix stream socket to which a guest's app writes `ready\n` (or `READY=1\n`) when its spec
/// says `ready: {notify: true}`.
/// Its path is in the environment of the app as `HEARTH_NOTIFY`.
pub const NOTIFY_PATH: &str = "/run/hearth/notify.sock";
