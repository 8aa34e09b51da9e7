//! The jail of a Firecracker: what it may see and do, entered between fork and exec.
//!
//! ```text
//!   fork into cgroup and namespaces (mount, pid, network, IPC, UTS)
//!     └─ mounts follow the host's, and none goes back      MS_SLAVE
//!        └─ its directory, a mount of itself: no programs, no devices, no set-user-id
//!           └─ files from outside, read-only; dev with kvm, net/tun and urandom
//!              └─ pivot_root, the old root let go
//!                 └─ limits, no new privileges, no capabilities, its own user
//! ```
//!
//! The program has to be linked statically, as Firecracker's releases are: no library is in there. All
//! mounts are those of its namespace, and so gone with the process.

use crate::child::{call, done, fork, limit};
use crate::names;
use crate::process::{self, ProcessExit};
use rustix::process::WaitId;
use std::ffi::{CStr, CString, c_char, c_int, c_ulong};
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::ptr;

/// The namespaces that a jailed program is born in (namespaces(7)).
pub(crate) const NAMESPACES: c_int = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS;

/// How many threads its user may have. Firecracker has one for each vCPU, of at most 32, and three more.
const THREADS_MAX: u64 = 64;

/// The device files of a jail: name, numbers (admin-guide/devices.txt of Linux), mode.
const DEVICES: [(&CStr, u32, u32, libc::mode_t); 3] =
    [(c"dev/kvm", 10, 232, 0o600), (c"dev/net/tun", 10, 200, 0o600), (c"dev/urandom", 1, 9, 0o400)];

/// What a program sees and may do.
#[derive(Debug)]
pub(crate) struct Jail {
    /// Its user and its group.
    pub(crate) user: u32,
    /// Its root, by an absolute path.
    pub(crate) root: CString,
    /// Files outside, shown read-only in place of files in its root.
    pub(crate) files: Vec<Shown>,
    /// No file that it writes grows beyond so many bytes.
    pub(crate) file_bytes_max: u64,
}

/// A file that a jail shows.
#[derive(Debug)]
pub(crate) struct Shown {
    /// Its absolute path outside.
    pub(crate) outside: CString,
    /// The name of the file in the root that it hides.
    pub(crate) name: CString,
    /// Whether it can be executed. Nothing else can.
    pub(crate) is_program: bool,
}

impl Jail {
    /// Enters it, for good. Async-signal-safe, for a child between fork and exec that was born in
    /// [`NAMESPACES`].
    ///
    /// # Errors
    /// That of the first system call that failed.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.see_only_the_root()?;
        limit(libc::RLIMIT_FSIZE, self.file_bytes_max)?;
        limit(libc::RLIMIT_NPROC, THREADS_MAX)?;
        self.become_user()
    }

    #[allow(unsafe_code)]
    fn see_only_the_root(&self) -> io::Result<()> {
        let root = self.root.as_c_str();
        let bare = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
        mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC, None)?;
        mount(Some(root), root, None, libc::MS_BIND | libc::MS_REC, None)?;
        // SAFETY: plain system calls on strings that end with a zero and outlive them.
        unsafe {
            done(libc::chdir(root.as_ptr()))?;
        }
        mount(None, c".", None, libc::MS_REMOUNT | libc::MS_BIND | bare, None)?;
        for Shown { outside, name, is_program } in &self.files {
            mount(Some(outside), name, None, libc::MS_BIND, None)?;
            let bare = if *is_program { bare & !libc::MS_NOEXEC } else { bare };
            let flags = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY | bare;
            mount(None, name, None, flags, None)?;
        }
        self.make_devices()?;
        // SAFETY: as above. With both names the same, the old root is mounted over the new one
        // (pivot_root(2), NOTES), and is what is let go.
        unsafe {
            let dot = c".".as_ptr();
            call(libc::syscall(libc::SYS_pivot_root, dot, dot))?;
            done(libc::umount2(dot, libc::MNT_DETACH))?;
            done(libc::chdir(c"/".as_ptr()))?;
        }
        Ok(())
    }

    /// A file system of its own for the device files, which is then read-only: the root allows none.
    #[allow(unsafe_code)]
    fn make_devices(&self) -> io::Result<()> {
        let flags = libc::MS_NOSUID | libc::MS_NOEXEC;
        let size = c"size=4k,nr_inodes=8,mode=755";
        mount(Some(c"dev"), c"dev", Some(c"tmpfs"), flags, Some(size))?;
        // SAFETY: plain system calls on strings that end with a zero.
        unsafe {
            // The modes are these, whatever the daemon's umask is.
            let umask = libc::umask(0);
            done(libc::mkdir(c"dev/net".as_ptr(), 0o755))?;
            for (name, major, minor, mode) in DEVICES {
                let device = libc::makedev(major, minor);
                done(libc::mknod(name.as_ptr(), libc::S_IFCHR | mode, device))?;
                done(libc::chown(name.as_ptr(), self.user, self.user))?;
            }
            libc::umask(umask);
        }
        mount(None, c"dev", None, libc::MS_REMOUNT | libc::MS_RDONLY | flags, None)
    }

    /// Gives up all privileges. By the system calls themselves: libc's functions would do the same in
    /// each thread of the process that this one was forked from.
    #[allow(unsafe_code)]
    fn become_user(&self) -> io::Result<()> {
        let (zero, user) = (0 as c_ulong, self.user);
        // SAFETY: plain system calls on numbers.
        unsafe {
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1 as c_ulong, zero, zero, zero))?;
            for capability in 0..c_ulong::from(u64::BITS) {
                // The kernel refuses the first number that it has no capability for.
                if libc::prctl(libc::PR_CAPBSET_DROP, capability, zero, zero, zero) == -1 {
                    break;
                }
            }
            call(libc::syscall(libc::SYS_setgroups, 0 as c_ulong, ptr::null::<libc::gid_t>()))?;
            call(libc::syscall(libc::SYS_setresgid, user, user, user))?;
            // From 0 to another user: with it go all capabilities (capabilities(7)).
            call(libc::syscall(libc::SYS_setresuid, user, user, user))
        }
    }
}

/// Whether a process can be confined: one is, to an empty directory that is made for it, as this user, and
/// ends at once.
///
/// # Errors
/// Why not.
pub fn try_jail(directory: &Path, user: u32) -> io::Result<()> {
    std::fs::create_dir_all(directory.join(names::DEVICES))?;
    let root = std::path::absolute(directory)?.into_os_string().into_vec();
    let jail = Jail { user, root: CString::new(root)?, files: Vec::new(), file_bytes_max: 0 };
    #[allow(unsafe_code)]
    // SAFETY: the child does only what is async-signal-safe, and ends here.
    let Some(child) = unsafe { fork(None, NAMESPACES) }? else {
        let errno =
            jail.enter().err().map_or(0, |error| error.raw_os_error().unwrap_or(libc::EINVAL));
        unsafe { libc::_exit(errno) }
    };
    match process::reap(WaitId::Pid(child)) {
        ProcessExit::Code(0) => Ok(()),
        ProcessExit::Code(errno) => Err(io::Error::from_raw_os_error(errno)),
        other => Err(io::Error::other(other.to_string())),
    }
}

#[allow(unsafe_code)]
fn mount(
    source: Option<&CStr>,
    target: &CStr,
    kind: Option<&CStr>,
    flags: c_ulong,
    options: Option<&CStr>,
) -> io::Result<()> {
    let pointer = |text: Option<&CStr>| text.map_or(ptr::null::<c_char>(), CStr::as_ptr);
    // SAFETY: the strings end with a zero and outlive the call; null is what the call takes for none.
    done(unsafe {
        let (source, kind, options) = (pointer(source), pointer(kind), pointer(options));
        libc::mount(source, target.as_ptr(), kind, flags, options.cast())
    })
    .map(drop)
}
