//! The files of a Firecracker in its working directory.

/// The API's socket.
pub const API_SOCKET: &str = "api.sock";
/// Where the guest's serial port and Firecracker's own stdout and stderr go.
pub const CONSOLE_FIFO: &str = "console.fifo";
/// Where Firecracker's log goes.
pub const LOG_FIFO: &str = "log.fifo";
/// The pid, written before exec.
pub const PID_FILE: &str = "pid";
/// The host's end of the vsock.
pub const VSOCK_SOCKET: &str = "vsock.sock";

/// Where the sockets of a confined process are, in its directory: the only place where it can make files,
/// and that only before its guest runs.
pub const SOCKETS: &str = "run";

/// The place in a confined process's directory where its program is shown.
pub(crate) const BINARY: &str = "firecracker";

/// The place in a confined process's directory where its devices are.
pub(crate) const DEVICES: &str = "dev";
