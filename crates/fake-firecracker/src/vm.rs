//! The microVM: its configuration, its start, and what is refused on the way, in Firecracker's words.

use crate::cpu::{self, Halt};
use crate::guest;
use crate::loader::{self, Loaded};
use crate::output::Console;
use crate::shared::{Shared, before, for_ever, lock};
use hearth_guest::{GuestDrive, assigned_device};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A virtual address has 47 bits for a process, so that more can't be mapped.
const MEMORY_MIB_MAX: u64 = 1 << 27;
/// Bytes of a kernel's command line, its closing zero included.
const COMMAND_LINE_BYTES_MAX: usize = 2048;
/// The keyboard's buffer, and what a press of Ctrl-Alt-Del puts into it.
const KEYBOARD_BYTES_MAX: usize = 16;
const CTRL_ALT_DEL_BYTES: usize = 4;

const AFTER_START: &str = "The requested operation is not supported after starting the microVM.";
const BEFORE_START: &str = "The requested operation is not supported before starting the microVM.";

/// One microVM.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) id: String,
    pub(crate) machine: MachineConfig,
    boot: Option<BootSource>,
    drives: Vec<Drive>,
    vsock: Option<(UnixListener, PathBuf)>,
    pub(crate) started: bool,
    /// Bytes that the guest has not read from its keyboard: a bare guest never does.
    keys: usize,
    /// A bare guest that is started and does not run yet.
    loaded: Option<Loaded>,
    /// Hearth's init, if any.
    guest: Option<Arc<guest::Guest>>,
}

/// `/machine-config`.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u64,
    #[serde(default)]
    smt: bool,
    #[serde(default, rename = "cpu_template", skip_serializing)]
    _cpu_template: Option<String>,
    #[serde(default)]
    track_dirty_pages: bool,
    #[serde(default)]
    huge_pages: HugePages,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize)]
enum HugePages {
    #[default]
    None,
    #[serde(rename = "2M")]
    TwoMebibytes,
}

/// `/boot-source`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BootSource {
    kernel_image_path: PathBuf,
    initrd_path: Option<PathBuf>,
    boot_args: Option<String>,
}

/// `/drives/{drive_id}`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Drive {
    pub(crate) drive_id: String,
    #[serde(default)]
    path_on_host: Option<PathBuf>,
    is_root_device: bool,
    #[serde(default)]
    is_read_only: bool,
    #[serde(default, rename = "rate_limiter")]
    _rate_limiter: Option<RateLimiter>,
}

/// The limits of a device.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RateLimiter {
    #[serde(default, rename = "bandwidth")]
    _bandwidth: Option<TokenBucket>,
    #[serde(default, rename = "ops")]
    _ops: Option<TokenBucket>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenBucket {
    #[serde(rename = "size")]
    _size: u64,
    #[serde(default, rename = "one_time_burst")]
    _one_time_burst: Option<u64>,
    #[serde(rename = "refill_time")]
    _refill_time: u64,
}

/// `/vsock`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Vsock {
    #[serde(rename = "guest_cid")]
    _guest_cid: u32,
    uds_path: PathBuf,
}

/// `/entropy`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entropy {
    #[serde(rename = "rate_limiter")]
    _rate_limiter: Option<serde_json::Value>,
}

/// The word of a refusal.
pub(crate) type Refused = String;

impl Vm {
    pub(crate) fn new(id: &str) -> Vm {
        let machine = MachineConfig {
            vcpu_count: 1,
            mem_size_mib: 128,
            smt: false,
            _cpu_template: None,
            track_dirty_pages: false,
            huge_pages: HugePages::None,
        };
        Vm {
            id: id.to_owned(),
            machine,
            boot: None,
            drives: Vec::new(),
            vsock: None,
            started: false,
            keys: 0,
            loaded: None,
            guest: None,
        }
    }

    fn configurable(&self) -> Result<(), Refused> {
        if self.started { Err(AFTER_START.to_owned()) } else { Ok(()) }
    }

    pub(crate) fn set_machine(&mut self, machine: MachineConfig) -> Result<(), Refused> {
        self.configurable()?;
        if !(1..=32).contains(&machine.vcpu_count) {
            return Err(
                "Machine config error: The number of vCPUs must be greater than 0, less than \
                        32 and must be 1 or an even number if SMT is enabled."
                    .to_owned(),
            );
        }
        if machine.mem_size_mib == 0 {
            return Err(
                "Machine config error: The memory size (MiB) is either 0, or not a multiple \
                        of the configured page size."
                    .to_owned(),
            );
        }
        self.machine = machine;
        Ok(())
    }

    pub(crate) fn set_boot(&mut self, boot: BootSource) -> Result<(), Refused> {
        self.configurable()?;
        File::open(&boot.kernel_image_path).map_err(|error| {
            format!("Boot source error: The kernel file cannot be opened: {error}")
        })?;
        if let Some(initrd) = &boot.initrd_path {
            File::open(initrd).map_err(|error| {
                format!(
                    "Boot source error: The initrd file cannot be opened due to invalid path or \
                     invalid permissions. {error}"
                )
            })?;
        }
        if boot.boot_args.as_ref().is_some_and(|args| args.len() >= COMMAND_LINE_BYTES_MAX) {
            return Err("Boot source error: The kernel command line is invalid: Invalid cmdline \
                        capacity provided."
                .to_owned());
        }
        self.boot = Some(boot);
        Ok(())
    }

    pub(crate) fn set_drive(&mut self, drive: Drive) -> Result<(), Refused> {
        self.configurable()?;
        let others = self.drives.iter().filter(|other| other.drive_id != drive.drive_id);
        if drive.is_root_device && others.into_iter().any(|other| other.is_root_device) {
            return Err("Drive config error: A root block device already exists!".to_owned());
        }
        const BLOCK: &str = "Drive config error: Unable to create the virtio block device:";
        let Some(path) = &drive.path_on_host else {
            return Err(format!("{BLOCK} Invalid block config."));
        };
        let opened = File::options().read(true).write(!drive.is_read_only).open(path);
        opened.map_err(|error| {
            format!(
                "{BLOCK} Virtio backend error: Error manipulating the backing file: {error} {}",
                path.display()
            )
        })?;
        match self.drives.iter_mut().find(|other| other.drive_id == drive.drive_id) {
            Some(other) => *other = drive,
            None => self.drives.push(drive),
        }
        Ok(())
    }

    pub(crate) fn set_vsock(&mut self, vsock: Vsock) -> Result<(), Refused> {
        self.configurable()?;
        // The previous one goes first, and its socket with it.
        if let Some((_listener, path)) = self.vsock.take() {
            let _ = std::fs::remove_file(path);
        }
        let listener = UnixListener::bind(&vsock.uds_path).map_err(|error| {
            let error = match error.kind() {
                io::ErrorKind::AddrInUse => "Address in use (os error 98)".to_owned(),
                _ => error.to_string(),
            };
            format!(
                "Vsock config error: Cannot create backend for vsock device: Error binding to the \
                 host-side Unix socket: {error}"
            )
        })?;
        self.vsock = Some((listener, vsock.uds_path));
        Ok(())
    }

    pub(crate) fn set_entropy(&mut self, _entropy: Entropy) -> Result<(), Refused> {
        self.configurable()
    }

    pub(crate) fn press_ctrl_alt_del(&mut self) -> Result<(), Refused> {
        if !self.started {
            return Err(BEFORE_START.to_owned());
        }
        if let Some(guest) = &self.guest {
            guest.ctrl_alt_del();
            return Ok(());
        }
        if self.keys + CTRL_ALT_DEL_BYTES > KEYBOARD_BYTES_MAX {
            return Err("Internal VMM error: I8042 error: i8042 internal buffer full.".to_owned());
        }
        self.keys += CTRL_ALT_DEL_BYTES;
        Ok(())
    }

    pub(crate) fn flush_metrics(&self) -> Result<(), Refused> {
        if self.started { Ok(()) } else { Err(BEFORE_START.to_owned()) }
    }

    /// Boots the guest.
    pub(crate) fn start(&mut self, shared: &Arc<Shared>) -> Result<(), Refused> {
        self.configurable()?;
        let Some(boot) = &self.boot else {
            return Err(refused_start("Cannot start microvm without kernel configuration."));
        };
        let memory_mib = self.machine.mem_size_mib;
        if memory_mib >= MEMORY_MIB_MAX {
            let error = io::Error::from_raw_os_error(rustix::io::Errno::NOMEM.raw_os_error());
            let error = error.to_string().replace("Cannot allocate memory", "Out of memory");
            return Err(refused_start(&format!(
                "Invalid Memory Configuration: Cannot create mmap region: {error}"
            )));
        }
        let loaded = loader::load(&boot.kernel_image_path, memory_mib)
            .map_err(|what| refused_start(&format!("{LOADER} {what}")))?;
        if let Some(initrd) = &boot.initrd_path {
            let bytes = std::fs::metadata(initrd).map(|meta| meta.len()).unwrap_or_default();
            if bytes > memory_mib << 20 {
                return Err(refused_start(
                    "Error with initrd initialization: Failed to compute the initrd address..",
                ));
            }
            let guest =
                guest::Guest::boot(|role| self.drive_file(boot, role)).map_err(|error| {
                    refused_start(&format!("the fake knows no guest but Hearth's: {error}"))
                })?;
            self.guest = Some(guest);
        } else {
            self.loaded = Some(loaded);
        }
        if let Some((listener, _)) = &self.vsock {
            let listener = listener.try_clone().map_err(|error| error.to_string())?;
            guest::listen(shared, listener, self.guest.clone());
        }
        self.started = true;
        let faults = lock(&shared.script).after_boot();
        for (after_ms, does) in faults {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(after_ms));
                before(&shared, &does);
            });
        }
        Ok(())
    }

    /// Lets a bare guest run that was started. Not by the start itself: a guest that ends its process at
    /// once would be faster than the answer.
    pub(crate) fn let_run(&mut self) {
        if let Some(loaded) = self.loaded.take() {
            std::thread::spawn(move || run_bare(&loaded));
        }
    }

    /// The file behind the drive whose device the command line assigns to a role. The kernel names the
    /// drives in the order in which they were attached.
    fn drive_file(&self, boot: &BootSource, role: GuestDrive) -> Option<&Path> {
        let device = assigned_device(boot.boot_args.as_deref()?, role)?;
        let letter = device.strip_prefix("/dev/vd")?.bytes().next()?;
        self.drives.get(usize::from(letter.checked_sub(b'a')?))?.path_on_host.as_deref()
    }
}

const LOADER: &str = "System configuration error: Cannot load kernel due to invalid memory \
                      configuration or invalid kernel image: Kernel Loader: failed to load ELF \
                      kernel image: Kernel Loader:";

fn refused_start(why: &str) -> Refused {
    format!("Start microvm error: {why}")
}

fn run_bare(loaded: &Loaded) {
    let mut console = Console::default();
    match cpu::run(&loaded.code, loaded.entry, &mut console) {
        Halt::ForEver => {
            console.flush();
            for_ever();
        }
        Halt::Reset => {
            console.flush();
            std::process::exit(0);
        }
    }
}
