//! From the kernel's hand-over to a root file system with a config in hand: mounts, modules,
//! drives, overlay. Every step runs once, in PID 1, before there is any other thread.

use hearth_guest::{
    CONFIG_DRIVE_BYTES_MAX, Config, DriveError, GuestDrive, assigned_device, decode_config,
};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_move};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::console::say;
use crate::scratch::{self, ScratchError};

/// Where the kernel modules and their order are in the initramfs.
const MODULES: &str = "/lib/hearth/modules";
/// Where the kernel shows its command line.
const COMMAND_LINE: &str = "/proc/cmdline";
/// How long the drives may take to appear once the modules are loaded. Emulated machines need
/// the better part of a second.
const DRIVES_LIMIT: Duration = Duration::from_secs(10);
/// Longest path of a directory that is renamed to another one; 256 bytes by default.
const REDIRECT_MAX: &str = "/sys/module/overlay/parameters/redirect_max";
/// Open files that a process may have: the kernel's 1024 would end a server at as many clients.
const OPEN_FILES: u64 = 65_536;
/// How far a process may raise that.
const OPEN_FILES_MAX: u64 = 524_288;
/// Pause between two looks for a drive.
const DRIVES_PAUSE: Duration = Duration::from_millis(2);

/// Why a guest could not be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BootError {
    /// A mount was refused.
    #[error("cannot mount {what}")]
    Mount {
        /// What was to be mounted.
        what: String,
        /// Why it was refused.
        source: Errno,
    },
    /// The host has assigned no device to a drive.
    #[error("the kernel's command line assigns no device to {what}")]
    Unassigned {
        /// What it is for.
        what: String,
    },
    /// A drive did not appear.
    #[error("{drive} did not appear within {} s", DRIVES_LIMIT.as_secs())]
    NoDrive {
        /// The device and what it is for.
        drive: String,
    },
    /// A drive can't be opened or read.
    #[error("cannot read {drive}")]
    Drive {
        /// The device and what it is for.
        drive: String,
        /// Why.
        source: std::io::Error,
    },
    /// The config drive is not one.
    #[error("cannot use the config drive")]
    Config(#[source] DriveError),
    /// The scratch disk is not one for this root file system.
    #[error(transparent)]
    Scratch(ScratchError),
    /// Something of the new root can't be prepared.
    #[error("cannot {what}")]
    Root {
        /// What was to be done.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// The devices of the drives, as the host has assigned them.
pub(crate) struct Devices {
    command_line: String,
}

impl Devices {
    fn read() -> Result<Devices, BootError> {
        let command_line = std::fs::read_to_string(COMMAND_LINE)
            .map_err(|source| BootError::Root { what: format!("read {COMMAND_LINE}"), source })?;
        Ok(Devices { command_line })
    }

    /// Waits for the device of a drive.
    fn wait_for(&self, role: GuestDrive, what: &str) -> Result<&str, BootError> {
        let device = assigned_device(&self.command_line, role)
            .ok_or_else(|| BootError::Unassigned { what: what.to_owned() })?;
        let deadline = Instant::now() + DRIVES_LIMIT;
        while !Path::new(device).exists() {
            if Instant::now() >= deadline {
                return Err(BootError::NoDrive { drive: named(device, what) });
            }
            std::thread::sleep(DRIVES_PAUSE);
        }
        Ok(device)
    }
}

/// Mounts what the kernel offers, loads the modules and opens the status drive: from here on a
/// failure can be reported.
///
/// # Errors
/// [`BootError`] where even the status drive can't be had.
pub(crate) fn open_status_drive() -> Result<(Devices, File), BootError> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        make_dir(target)?;
        // The kernel mounts devtmpfs itself where it is built to.
        match mount(kind, target, kind, MountFlags::NOSUID, None::<&CStr>) {
            Ok(()) | Err(Errno::BUSY) => {}
            Err(source) => return Err(BootError::Mount { what: kind.to_owned(), source }),
        }
    }
    load_modules(Path::new(MODULES));
    let devices = Devices::read()?;
    let device = devices.wait_for(GuestDrive::Status, "the status drive")?;
    let opened = File::options().read(true).write(true).open(device);
    let drive = opened
        .map_err(|source| BootError::Drive { drive: named(device, "the status drive"), source })?;
    Ok((devices, drive))
}

/// Reads the config drive.
///
/// # Errors
/// [`BootError`] if it is absent or damaged.
pub(crate) fn read_config(devices: &Devices) -> Result<Config, BootError> {
    let device = devices.wait_for(GuestDrive::Config, "the config drive")?;
    let mut content = Vec::new();
    let read = File::open(device)
        .and_then(|file| file.take(CONFIG_DRIVE_BYTES_MAX as u64).read_to_end(&mut content));
    read.map_err(|source| BootError::Drive { drive: named(device, "the config drive"), source })?;
    decode_config(&content).map_err(BootError::Config)
}

/// Puts the root file system under an overlay and makes it `/`.
///
/// # Errors
/// [`BootError`] naming the step.
pub(crate) fn enter_root(
    devices: &Devices,
    rootfs: &str,
    digest: Option<&str>,
) -> Result<(), BootError> {
    let rom = devices.wait_for(GuestDrive::Rootfs, &format!("root filesystem {rootfs}"))?;
    let scratch = devices.wait_for(GuestDrive::Scratch, "the scratch drive")?;
    // A drive that is read-only can't replay a journal, so one that was left is not looked at.
    let flags = MountFlags::RDONLY;
    mount_at(rom, "/rom", "ext4", flags, c"noload", &format!("root filesystem {rootfs}"))?;
    let flags = MountFlags::NOATIME;
    mount_at(scratch, "/rw", "ext4", flags, c"", "the scratch drive")?;
    if let Some(digest) = digest {
        scratch::claim(Path::new("/rw"), rootfs, digest).map_err(BootError::Scratch)?;
    }
    make_dir(Path::new("/rw").join(scratch::UPPER))?;
    make_dir("/rw/work")?;
    // A longer path is a rename that fails as between file systems, which programs copy for.
    let _ = std::fs::write(REDIRECT_MAX, "4096");
    // With `redirect_dir` a directory of the image can be renamed. Neither of the other two, whose
    // default the kernel's configuration decides: both refuse or misread what another kernel wrote.
    let layers =
        c"lowerdir=/rom,upperdir=/rw/upper,workdir=/rw/work,redirect_dir=on,index=off,metacopy=off";
    mount_at("overlay", "/root", "overlay", MountFlags::empty(), layers, "the overlay")?;
    for dir in ["dev", "proc", "sys"] {
        let target = format!("/root/{dir}");
        make_dir(&target)?;
        mount_move(format!("/{dir}"), &target)
            .map_err(|source| BootError::Mount { what: target.clone(), source })?;
    }
    std::env::set_current_dir("/root")
        .and_then(|()| Ok(mount_move(".", "/")?))
        .and_then(|()| Ok(rustix::process::chroot(".")?))
        .and_then(|()| std::env::set_current_dir("/"))
        .map_err(|source| BootError::Root { what: "switch the root".to_owned(), source })
}

/// Mounts what programs expect of a Linux system, and brings up the loopback.
///
/// # Errors
/// [`BootError`] where a file system that the init itself needs is refused.
pub(crate) fn mount_runtime(run_dir: &Path) -> Result<(), BootError> {
    let safe = MountFlags::NOSUID | MountFlags::NODEV;
    mount_at("tmpfs", "/run", "tmpfs", safe, c"mode=755", "/run")?;
    mount_at("tmpfs", "/tmp", "tmpfs", safe, c"mode=1777", "/tmp")?;
    make_dir(run_dir)?;
    let extras = [
        ("devpts", "/dev/pts", MountFlags::NOSUID, c"mode=620,ptmxmode=666"),
        ("tmpfs", "/dev/shm", safe, c"mode=1777"),
        ("cgroup2", "/sys/fs/cgroup", safe, c""),
    ];
    for (kind, target, flags, options) in extras {
        // A kernel without one of these still runs most commands.
        if let Err(error) = mount_at(kind, target, kind, flags, options, target) {
            say(format_args!("{}", crate::console::chain(&error)));
        }
    }
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        let _ = std::os::unix::fs::symlink(target, link);
    }
    if let Err(error) = raise_loopback() {
        say(format_args!("cannot bring up the loopback: {error}"));
    }
    let limit = Rlimit { current: Some(OPEN_FILES), maximum: Some(OPEN_FILES_MAX) };
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        say(format_args!("cannot raise the limit of open files: {error}"));
    }
    Ok(())
}

/// Loads the modules that are listed, in order. One that fails is told and passed over: what
/// needed it will fail with its own words. Their files are deleted, for they take memory.
fn load_modules(dir: &Path) {
    let order = std::fs::read_to_string(dir.join("order")).unwrap_or_default();
    for name in order.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let loaded =
            File::open(dir.join(name)).and_then(|module| {
                match rustix::system::finit_module(&module, c"", 0) {
                    Ok(()) | Err(Errno::EXIST) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            });
        if let Err(error) = loaded {
            say(format_args!("cannot load module {name}: {error}"));
        }
    }
    let _ = std::fs::remove_dir_all(dir);
}

fn named(drive: &str, what: &str) -> String {
    format!("{what} ({drive})")
}

fn mount_at(
    source: &str,
    target: &str,
    kind: &str,
    flags: MountFlags,
    options: &CStr,
    what: &str,
) -> Result<(), BootError> {
    make_dir(target)?;
    mount(source, target, kind, flags, options)
        .map_err(|source| BootError::Mount { what: what.to_owned(), source })
}

fn make_dir(dir: impl AsRef<Path>) -> Result<(), BootError> {
    let dir = dir.as_ref();
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)
        .map_err(|source| BootError::Root { what: format!("make {}", dir.display()), source })
}

/// Sets the loopback up; the kernel gives it its addresses.
#[allow(unsafe_code)]
fn raise_loopback() -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use std::os::fd::AsRawFd;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: an ifreq of zeroes is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads the name and the flags of the ifreq, which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
