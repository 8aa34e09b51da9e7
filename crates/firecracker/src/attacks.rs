//! What a program tries that has taken Firecracker's place in its jail. They take the right to mount.

mod system {
    use crate::directory::Directory;
    use crate::fork::Program;
    use crate::jail::{Jail, Shown};
    use crate::process::{self, ProcessExit};
    use rustix::process::Pid;
    use rustix::process::WaitId;
    use std::ffi::{CStr, CString};
    use std::fs::{File, Permissions};
    use std::io::Read;
    use std::net::TcpListener;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    const FILE_BYTES_MAX: u64 = 1 << 20;

    /// What takes the place of Firecracker: a shell, without Firecracker's seccomp filters, in a directory
    /// that was laid out and sealed as for a guest that runs.
    struct Attacker {
        user: u32,
        dir: tempfile::TempDir,
    }

    impl Attacker {
        /// One with a user of its own.
        fn new() -> Attacker {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let count = COUNT.fetch_add(1, Ordering::Relaxed);
            let user = 1_879_200_000 + std::process::id() % 10_000 * 10 + count;
            let dir = tempfile::tempdir().unwrap();
            let make = |name: &str, mode, owner| {
                let path = dir.path().join(name);
                std::fs::write(&path, "x").unwrap();
                std::fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
                chown(&path, Some(owner), Some(owner)).unwrap();
            };
            make("kernel", 0o444, 0);
            make("manifest.json", 0o600, 0);
            make("scratch.img", 0o600, user);
            make("busybox", 0o600, 0);
            for name in ["dev", "run"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            let directory = Directory::open(dir.path()).unwrap();
            directory.let_search(".").unwrap();
            directory.seal().unwrap();
            Attacker { user, dir }
        }

        fn begin(&self, script: &str) -> (Pid, File) {
            let file = |name: &str| File::create(self.dir.path().join(name)).unwrap();
            let output = tempfile::tempfile().unwrap();
            let program = Program {
                path: c"/busybox".to_owned(),
                arguments: [c"busybox", c"sh", c"-c"]
                    .map(CStr::to_owned)
                    .into_iter()
                    .chain([CString::new(script).unwrap()])
                    .collect(),
                directory: Arc::new(Directory::open(self.dir.path()).unwrap()),
                stdin: File::open("/dev/null").unwrap(),
                output: output.try_clone().unwrap(),
                pid_file: file("pid"),
                cgroup: None,
                jail: Some(Jail {
                    user: self.user,
                    root: CString::new(self.dir.path().as_os_str().as_encoded_bytes()).unwrap(),
                    files: vec![Shown {
                        outside: c"/bin/busybox".to_owned(),
                        name: c"busybox".to_owned(),
                        is_program: true,
                    }],
                    file_bytes_max: FILE_BYTES_MAX,
                }),
            };
            (program.spawn().unwrap(), output)
        }

        /// What a script of busybox's commands says and exits with.
        fn run(&self, script: &str) -> (String, ProcessExit) {
            use std::io::Seek;
            let (child, mut output) = self.begin(script);
            let exit = process::reap(WaitId::Pid(child));
            output.rewind().unwrap();
            let mut said = String::new();
            output.read_to_string(&mut said).unwrap();
            (said, exit)
        }

        /// Checks that a script fails, and says this.
        #[track_caller]
        fn is_refused(&self, script: &str, said: &str) {
            let (found, exit) = self.run(&format!("busybox() {{ /busybox \"$@\"; }}; {script}"));
            assert_ne!(exit, ProcessExit::Code(0), "{script}: {found}");
            assert!(found.contains(said), "{script}: {found}");
        }
    }

    #[test]
    fn jailed_program_sees_its_directory_and_three_devices() {
        let attacker = Attacker::new();
        let (said, exit) = attacker.run("/busybox find /dev -type c | /busybox sort");
        assert_eq!(
            (said.as_str(), exit),
            ("/dev/kvm\n/dev/net/tun\n/dev/urandom\n", ProcessExit::Code(0))
        );
        attacker.is_refused("busybox ls /", "Permission denied");
        let (said, _) =
            attacker.run("for f in /dev/kvm /dev/urandom; do [ -r $f ] && echo $f; done; true");
        assert_eq!(said, "/dev/kvm\n/dev/urandom\n");
        let (said, _) = attacker.run("/busybox id -u; /busybox id -G; echo $$; /busybox env");
        let mut lines = said.lines();
        let user = attacker.user.to_string();
        assert_eq!(lines.next(), Some(user.as_str()));
        assert_eq!(lines.next(), Some(user.as_str()), "no other group");
        assert_eq!(lines.next(), Some("1"), "a pid namespace of its own");
    }

    #[test]
    fn jailed_program_changes_only_what_it_owns() {
        let attacker = Attacker::new();
        attacker.is_refused("echo >/new", "Permission denied");
        attacker.is_refused("echo >/run/new", "Permission denied");
        attacker.is_refused("busybox ln -s /etc/passwd /run/link", "Permission denied");
        attacker.is_refused("busybox cat /manifest.json", "Permission denied");
        attacker.is_refused("echo >/kernel", "Permission denied");
        attacker.is_refused("echo >/busybox", "Read-only file system");
        attacker.is_refused("busybox rm -f /manifest.json", "Permission denied");
        attacker.is_refused("busybox mv /manifest.json /scratch.img", "Permission denied");
        attacker.is_refused("busybox chmod 777 /", "Operation not permitted");
        attacker.is_refused("busybox chmod 777 /run", "Operation not permitted");
        attacker.is_refused("echo >/dev/new", "Read-only file system");
        let (said, exit) = attacker.run("echo own >/scratch.img && /busybox cat /scratch.img");
        assert_eq!((said.as_str(), exit), ("own\n", ProcessExit::Code(0)));
    }

    #[test]
    fn jailed_program_has_no_privileges_and_cannot_get_any() {
        let attacker = Attacker::new();
        attacker.is_refused("busybox mknod /disk b 254 0", "Permission denied");
        attacker.is_refused("busybox mount -t tmpfs x /run", "permission denied");
        attacker.is_refused("busybox umount /dev", "Operation not permitted");
        attacker.is_refused("busybox chroot / /busybox true", "Operation not permitted");
        attacker.is_refused("busybox hostname x", "Operation not permitted");
        attacker.is_refused("busybox renice -n -5 1", "ermission");
        // Neither a program of its own making nor one that would change its user.
        let plant =
            "busybox cat /busybox >/scratch.img; busybox chmod 4755 /scratch.img; /scratch.img id";
        attacker.is_refused(plant, "Permission denied");
        let (child, _) = attacker.begin("/busybox sleep 60");
        let status = loop {
            let status =
                std::fs::read_to_string(format!("/proc/{}/status", child.as_raw_nonzero()));
            let status = status.unwrap();
            if status.contains(&format!("Uid:\t{0}\t{0}\t{0}\t{0}", attacker.user)) {
                break status;
            }
            std::thread::sleep(Duration::from_millis(1));
        };
        rustix::process::kill_process(child, rustix::process::Signal::KILL).unwrap();
        process::reap(WaitId::Pid(child));
        let sets: Vec<&str> = status.lines().filter(|line| line.starts_with("Cap")).collect();
        assert_eq!(sets.len(), 5, "inheritable, permitted, effective, bounding, ambient");
        assert!(sets.iter().all(|set| set.ends_with("\t0000000000000000")), "{status}");
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
    }

    #[test]
    fn jailed_program_reaches_no_process_and_no_network() {
        let attacker = Attacker::new();
        // Pids 2 and on are its own children; this test's pid means nothing in there.
        attacker.is_refused(&format!("kill -0 {}", std::process::id()), "No such process");
        attacker.is_refused("busybox ls /proc", "No such file or directory");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        attacker.is_refused(&format!("busybox nc 127.0.0.1 {port}"), "nreachable");
        attacker.is_refused("busybox ping -c1 -W1 127.0.0.1", "denied");
    }

    #[test]
    fn jailed_program_is_bounded() {
        let attacker = Attacker::new();
        attacker.is_refused("busybox cat /dev/urandom >/scratch.img", "File size limit exceeded");
        assert_eq!(
            attacker.dir.path().join("scratch.img").metadata().unwrap().size(),
            FILE_BYTES_MAX
        );
        // Processes that each start another: as many as may be, and then none.
        let nested = "[ $2 -lt 200 ] && /busybox sh -c \"$1\" x \"$1\" $(($2+1)); echo $2";
        let (said, _) = attacker.run(&format!("s='{nested}'; /busybox sh -c \"$s\" x \"$s\" 1"));
        assert!(said.contains("can't fork"), "{said}");
    }
}
