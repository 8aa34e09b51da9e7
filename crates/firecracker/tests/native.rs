//! Real Firecracker with bare-metal guests. Needs `/dev/kvm` and the binary in
//! `HEARTH_TEST_FIRECRACKER`.

mod native {
    use hearth_firecracker::{
        Action, ApiError, BootSource, Console, Directory, Drive, Launched, MachineConfig,
        MicroVmState, Process, ProcessExit, Spawn, VERSION_MIN, Version, Vsock, names, vsock,
    };
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const PATIENCE: Duration = Duration::from_secs(20);
    const LOAD_ADDRESS: u64 = 0x100_0000;

    fn firecracker() -> PathBuf {
        PathBuf::from(std::env::var_os("HEARTH_TEST_FIRECRACKER").expect(
            "HEARTH_TEST_FIRECRACKER is not set: run `cargo xtask ci`, or set it to a \
             Firecracker binary on a machine with /dev/kvm",
        ))
    }

    /// A 64-bit ELF executable with one segment.
    fn elf(code: &[u8]) -> Vec<u8> {
        let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let mut put = |bytes: &[u8]| elf.extend_from_slice(bytes);
        put(&2_u16.to_le_bytes());
        put(&62_u16.to_le_bytes());
        put(&1_u32.to_le_bytes());
        for number in [LOAD_ADDRESS, 64, 0] {
            put(&u64::to_le_bytes(number));
        }
        put(&0_u32.to_le_bytes());
        for number in [64_u16, 56, 1, 0, 0, 0] {
            put(&number.to_le_bytes());
        }
        put(&1_u32.to_le_bytes());
        put(&5_u32.to_le_bytes());
        let size = code.len() as u64;
        for number in [120, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 16] {
            put(&u64::to_le_bytes(number));
        }
        put(code);
        elf
    }

    /// Says `OK` and a newline on the serial port, then halts for ever.
    fn speaker() -> Vec<u8> {
        let mut code = vec![0x66, 0xba, 0xf8, 0x03];
        for byte in *b"OK\n" {
            code.extend([0xb0, byte, 0xee]);
        }
        code.extend([0xf4, 0xeb, 0xfd]);
        elf(&code)
    }

    /// Writes `x` to the serial port for ever.
    fn flooder() -> Vec<u8> {
        elf(&[0x66, 0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xeb, 0xfd])
    }

    struct Guest {
        dir: tempfile::TempDir,
        directory: Arc<Directory>,
        launched: Launched,
    }

    async fn launched() -> Guest {
        let dir = tempfile::tempdir().unwrap();
        let directory = Arc::new(Directory::open(dir.path()).unwrap());
        let spawn = Spawn {
            binary: firecracker(),
            directory: Arc::clone(&directory),
            id: "test-1".to_owned(),
            cgroup: None,
            factor: 5.0,
        };
        let launched = spawn.launch().await.unwrap();
        Guest { dir, directory, launched }
    }

    async fn started(kernel: &[u8]) -> Guest {
        let guest = launched().await;
        std::fs::write(guest.dir.path().join("kernel"), kernel).unwrap();
        let client = &guest.launched.client;
        client.machine_config(&MachineConfig { vcpu_count: 1, mem_size_mib: 128 }).await.unwrap();
        let kernel_image_path = "kernel".to_owned();
        let source = BootSource { kernel_image_path, initrd_path: None, boot_args: None };
        client.boot_source(&source).await.unwrap();
        client.entropy().await.unwrap();
        let uds_path = names::VSOCK_SOCKET.to_owned();
        client.vsock(&Vsock { guest_cid: 3, uds_path }).await.unwrap();
        client.action(Action::InstanceStart).await.unwrap();
        guest
    }

    async fn killed(process: &Process) -> ProcessExit {
        process.kill().unwrap();
        tokio::time::timeout(PATIENCE, process.exited()).await.unwrap().unwrap()
    }

    async fn says(console: &mut Console, text: &str) {
        let end = Instant::now() + PATIENCE;
        while !console.tail(10).iter().any(|line| line.contains(text)) {
            assert!(Instant::now() < end, "the console says {:?}", console.tail(10));
            tokio::time::timeout(PATIENCE, console.drain()).await.unwrap().unwrap();
        }
    }

    #[test]
    fn the_binary_is_probed() {
        assert!(Version::probe(&firecracker(), PATIENCE).unwrap() >= VERSION_MIN);
    }

    #[tokio::test]
    async fn a_bare_guest_is_booted_seen_and_ended() {
        let mut guest = started(&speaker()).await;
        let info = guest.launched.client.describe().await.unwrap();
        assert_eq!((info.id.as_str(), info.state), ("test-1", MicroVmState::Running));
        says(&mut guest.launched.console, "OK").await;
        let uds = guest.directory.socket(names::VSOCK_SOCKET);
        let silent = vsock::connect(&uds, 1, Duration::from_millis(50)).await.unwrap_err();
        assert!(matches!(silent, vsock::ConnectError::Deadline { .. }), "{silent}");
        assert_eq!(killed(&guest.launched.process).await, ProcessExit::Signal(9));
    }

    #[tokio::test]
    async fn the_process_owes_nothing_to_its_spawner() {
        let guest = launched().await;
        let pid = guest.launched.process.identity().pid;
        let written = std::fs::read_to_string(guest.dir.path().join(names::PID_FILE)).unwrap();
        assert_eq!(written, format!("{pid}\n"));
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        let session = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(3).unwrap();
        assert_eq!(session, pid.to_string());
        for fd in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            // Those of a connection come and go.
            let Ok(target) = std::fs::read_link(fd.unwrap().path()) else { continue };
            let target = target.to_string_lossy().into_owned();
            let own = target == "/dev/null"
                || target.starts_with("anon_inode:")
                || target.starts_with("socket:")
                || target == "/dev/kvm"
                || Path::new(&target).starts_with(guest.dir.path().canonicalize().unwrap());
            assert!(own, "{target} came from the spawner");
        }
        killed(&guest.launched.process).await;
    }

    #[tokio::test]
    async fn a_second_look_adopts_by_identity_and_by_pid_file() {
        let guest = started(&speaker()).await;
        let Guest { dir, directory, launched } = guest;
        let identity = launched.process.identity().clone();
        let adopted = Process::adopt(&identity, &directory).unwrap();
        let found = Process::find(&directory, "test-1").unwrap().unwrap();
        assert_eq!(found.identity(), &identity);
        assert!(Process::find(&directory, "other").unwrap().is_none());
        // The FIFO holds what was said meanwhile for whoever opens it next.
        drop(launched);
        let mut console = Console::open(&dir.path().join(names::CONSOLE_FIFO)).unwrap();
        says(&mut console, "OK").await;
        killed(&adopted).await;
        assert!(Process::find(&directory, "test-1").unwrap().is_none());
    }

    #[tokio::test]
    async fn a_flood_without_a_reader_blocks_nothing_and_its_end_is_kept() {
        let mut guest = started(&flooder()).await;
        for _ in 0..50 {
            guest.launched.client.describe().await.unwrap();
        }
        says(&mut guest.launched.console, "xxxx").await;
        killed(&guest.launched.process).await;
    }

    #[tokio::test]
    async fn bad_configuration_is_refused_in_firecrackers_words() {
        let guest = launched().await;
        let client = &guest.launched.client;
        let drive = Drive {
            drive_id: "rootfs".to_owned(),
            path_on_host: "absent".to_owned(),
            is_root_device: false,
            is_read_only: true,
        };
        let error = client.drive(&drive).await.unwrap_err();
        assert!(matches!(&error, ApiError::Rejected { status: 400, .. }), "{error}");
        let error = client.action(Action::InstanceStart).await.unwrap_err();
        assert!(!error.is_transient(), "{error}");
        assert_eq!(client.describe().await.unwrap().state, MicroVmState::NotStarted);
        killed(&guest.launched.process).await;
    }

    #[tokio::test]
    async fn a_directory_is_used_again_after_its_process_died() {
        let Guest { dir, directory, launched } = launched().await;
        killed(&launched.process).await;
        drop(launched);
        assert!(dir.path().join(names::API_SOCKET).exists(), "a socket outlives its process");
        let binary = firecracker();
        let id = "test-2".to_owned();
        let again = Spawn { binary, directory, id, cgroup: None, factor: 5.0 };
        let again = again.launch().await.unwrap();
        assert_eq!(again.client.describe().await.unwrap().id, "test-2");
        killed(&again.process).await;
    }
}
