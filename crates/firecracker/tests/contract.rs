//! What Hearth relies on in Firecracker, as one suite for two binaries: the fake one (module `fake`), which
//! runs anywhere, and the real one (module `native`), which needs `/dev/kvm` and is named by
//! `HEARTH_TEST_FIRECRACKER`. What holds here for both is what tests with the fake may build upon.
//!
//! Alone: `cargo nextest run -p hearth-firecracker -p hearth-fake-firecracker`.

use hearth_fake_firecracker::{Fake, kernels};
use hearth_firecracker::{
    Action, ApiError, BODY_BYTES_MAX, BootSource, Client, Console, Directory, Drive, Launched,
    MachineConfig, MicroVmState, Process, ProcessExit, Spawn, SpawnError, VERSION_MIN, Version,
    Vsock, names, vsock,
};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);
/// What the server takes at once.
const CONNECTIONS_MAX: usize = 10;

/// A binary under test, and what has to live as long as it.
struct Subject {
    binary: PathBuf,
    _dir: tempfile::TempDir,
}

fn fake() -> Subject {
    let dir = tempfile::tempdir().unwrap();
    Subject { binary: Fake::new(dir.path()).binary(), _dir: dir }
}

fn native() -> Subject {
    let binary = PathBuf::from(std::env::var_os("HEARTH_TEST_FIRECRACKER").expect(
        "HEARTH_TEST_FIRECRACKER is not set: run `cargo xtask ci`, or set it to a Firecracker binary \
         on a machine with /dev/kvm",
    ));
    Subject { binary, _dir: tempfile::tempdir().unwrap() }
}

/// A process in a directory of its own.
struct Guest {
    dir: tempfile::TempDir,
    directory: Arc<Directory>,
    launched: Launched,
}

impl Guest {
    fn client(&self) -> &Client {
        &self.launched.client
    }

    /// A file in its directory.
    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.dir.path().join(name), bytes).unwrap();
    }

    /// Bytes to the API as they are, and what it says to them at first.
    fn raw(&self, bytes: &[u8]) -> String {
        say(&mut self.connection(), bytes)
    }

    fn connection(&self) -> UnixStream {
        let stream = UnixStream::connect(self.directory.socket(names::API_SOCKET)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    async fn end(self) {
        killed(&self.launched.process).await;
    }
}

/// Bytes as they are, and what is said to them at first.
fn say(stream: &mut UnixStream, bytes: &[u8]) -> String {
    stream.write_all(bytes).unwrap();
    let mut said = vec![0; 4096];
    let count = stream.read(&mut said).unwrap();
    String::from_utf8(said[..count].to_vec()).unwrap()
}

fn spawn(subject: &Subject, directory: &Arc<Directory>, id: &str) -> Spawn {
    Spawn {
        binary: subject.binary.clone(),
        directory: Arc::clone(directory),
        id: id.to_owned(),
        cgroup: None,
        confinement: None,
        factor: 5.0,
    }
}

async fn launched(subject: &Subject) -> Guest {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory::open(dir.path()).unwrap());
    let launched = spawn(subject, &directory, "test-1").launch().await.unwrap();
    Guest { dir, directory, launched }
}

async fn started(subject: &Subject, kernel: &[u8]) -> Guest {
    let guest = launched(subject).await;
    guest.put("kernel", kernel);
    let client = guest.client();
    client.machine_config(&machine(1, 128)).await.unwrap();
    client.boot_source(&boot_source("kernel")).await.unwrap();
    client.entropy().await.unwrap();
    client.vsock(&socket(names::VSOCK_SOCKET)).await.unwrap();
    client.action(Action::InstanceStart).await.unwrap();
    guest
}

fn machine(vcpu_count: u8, mem_size_mib: u32) -> MachineConfig {
    MachineConfig { vcpu_count, mem_size_mib }
}

fn boot_source(kernel: &str) -> BootSource {
    BootSource { kernel_image_path: kernel.to_owned(), initrd_path: None, boot_args: None }
}

fn drive(drive_id: &str, path: &str) -> Drive {
    Drive {
        drive_id: drive_id.to_owned(),
        path_on_host: path.to_owned(),
        is_root_device: false,
        is_read_only: true,
        rate_limiter: None,
    }
}

fn socket(path: &str) -> Vsock {
    Vsock { guest_cid: 3, uds_path: path.to_owned() }
}

/// What a refusal says, status first.
fn refusal(result: Result<(), ApiError>) -> String {
    match result.unwrap_err() {
        ApiError::Rejected { status, fault_message, .. } => format!("{status} {fault_message}"),
        other => panic!("{other:?}"),
    }
}

async fn killed(process: &Process) -> ProcessExit {
    process.kill().unwrap();
    exited(process).await
}

async fn exited(process: &Process) -> ProcessExit {
    tokio::time::timeout(PATIENCE, process.exited()).await.unwrap().unwrap()
}

fn signal(process: &Process, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(process.identity().pid).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}

async fn says(console: &mut Console, text: &str) {
    let end = Instant::now() + PATIENCE;
    while !console.tail(10).iter().any(|line| line.contains(text)) {
        assert!(Instant::now() < end, "the console says {:?}", console.tail(10));
        tokio::time::timeout(PATIENCE, console.drain()).await.unwrap().unwrap();
    }
}

async fn the_binary_says_its_versions(subject: Subject) {
    assert!(Version::probe(&subject.binary, PATIENCE).unwrap() >= VERSION_MIN);
    let asked = |flag| Command::new(&subject.binary).arg(flag).output().unwrap();
    let version = asked("--version");
    assert!(version.status.success());
    assert!(version.stdout.starts_with(b"Firecracker v1."), "{version:?}");
    let snapshot = asked("--snapshot-version");
    assert!(snapshot.status.success() && snapshot.stdout.starts_with(b"v"), "{snapshot:?}");
}

async fn wrong_arguments_end_it_with_their_own_codes(subject: Subject) {
    let dir = tempfile::tempdir().unwrap();
    let code = |arguments: &[&str]| {
        let mut command = Command::new(&subject.binary);
        command.args(arguments).current_dir(dir.path()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().code()
    };
    assert_eq!(code(&["--nope"]), Some(153));
    assert_eq!(code(&["extra"]), Some(153));
    assert_eq!(code(&["--api-sock"]), Some(153));
    assert_eq!(code(&["--level", "Nope", "--api-sock", "s"]), Some(152));
    assert_eq!(code(&["--log-path", "absent", "--api-sock", "s"]), Some(1));
    assert_eq!(code(&["--api-sock", "absent/s"]), Some(1));
    assert_eq!(code(&["--id", "no_such_id", "--api-sock", "s"]), None, "it aborts");
}

async fn new_process_has_defaults_and_waits_for_its_configuration(subject: Subject) {
    let guest = launched(&subject).await;
    let info = guest.client().describe().await.unwrap();
    assert_eq!((info.id.as_str(), info.state), ("test-1", MicroVmState::NotStarted));
    assert_eq!(
        Version::parse(&format!("Firecracker v{}", info.vmm_version)).map(|v| v.major),
        Some(1)
    );
    let said = guest.raw(b"GET /machine-config HTTP/1.1\r\n\r\n");
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
    assert!(said.contains(r#"{"vcpu_count":1,"mem_size_mib":128,"smt":false"#), "{said}");
    guest.end().await;
}

async fn a_bare_guest_is_booted_seen_and_ended(subject: Subject) {
    let mut guest = started(&subject, &kernels::speaker("OK\n")).await;
    let info = guest.client().describe().await.unwrap();
    assert_eq!((info.id.as_str(), info.state), ("test-1", MicroVmState::Running));
    says(&mut guest.launched.console, "OK").await;
    assert_eq!(killed(&guest.launched.process).await, ProcessExit::Signal(9));
}

async fn a_bare_guest_never_takes_a_connection(subject: Subject) {
    let guest = started(&subject, &kernels::speaker("OK\n")).await;
    let uds = guest.directory.socket(names::VSOCK_SOCKET);
    let silent = vsock::connect(&uds, 1, Duration::from_millis(50)).await.unwrap_err();
    assert!(matches!(silent, vsock::ConnectError::Deadline { .. }), "{silent}");
    guest.end().await;
}

async fn the_process_owes_nothing_to_its_spawner(subject: Subject) {
    let guest = launched(&subject).await;
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
    guest.end().await;
}

async fn a_second_look_adopts_by_identity_and_by_pid_file(subject: Subject) {
    let Guest { dir, directory, launched } = started(&subject, &kernels::speaker("OK\n")).await;
    let identity = launched.process.identity().clone();
    let adopted = Process::adopt(&identity, &directory).unwrap();
    let found = Process::find(&directory, "test-1").unwrap().unwrap();
    assert_eq!(found.identity(), &identity);
    assert!(Process::find(&directory, "other").unwrap().is_none());
    // The FIFO holds what was said meanwhile for the next reader.
    drop(launched);
    let mut console = Console::open(&dir.path().join(names::CONSOLE_FIFO)).unwrap();
    says(&mut console, "OK").await;
    killed(&adopted).await;
    assert!(Process::find(&directory, "test-1").unwrap().is_none());
}

async fn a_flood_without_a_reader_blocks_nothing_and_its_end_is_kept(subject: Subject) {
    let mut guest = started(&subject, &kernels::flooder("x")).await;
    for _ in 0..50 {
        guest.client().describe().await.unwrap();
    }
    says(&mut guest.launched.console, "xxxx").await;
    guest.end().await;
}

async fn bad_configuration_is_refused_in_firecrackers_words(subject: Subject) {
    let guest = launched(&subject).await;
    let client = guest.client();
    let cpus = "400 Machine config error: The number of vCPUs must be greater than 0, less than 32 \
                and must be 1 or an even number if SMT is enabled.";
    assert_eq!(refusal(client.machine_config(&machine(0, 128)).await), cpus);
    assert_eq!(refusal(client.machine_config(&machine(255, 128)).await), cpus);
    client.machine_config(&machine(3, 127)).await.unwrap();
    assert_eq!(
        refusal(client.machine_config(&machine(1, 0)).await),
        "400 Machine config error: The memory size (MiB) is either 0, or not a multiple of the \
         configured page size."
    );
    assert_eq!(
        refusal(client.boot_source(&boot_source("absent")).await),
        "400 Boot source error: The kernel file cannot be opened: No such file or directory (os \
         error 2)"
    );
    guest.put("kernel", b"anything");
    let initrd = BootSource { initrd_path: Some("absent".to_owned()), ..boot_source("kernel") };
    assert_eq!(
        refusal(client.boot_source(&initrd).await),
        "400 Boot source error: The initrd file cannot be opened due to invalid path or invalid \
         permissions. No such file or directory (os error 2)"
    );
    let long = BootSource { boot_args: Some("a".repeat(2048)), ..boot_source("kernel") };
    assert_eq!(
        refusal(client.boot_source(&long).await),
        "400 Boot source error: The kernel command line is invalid: Invalid cmdline capacity \
         provided."
    );
    let fits = BootSource { boot_args: Some("a".repeat(2000)), ..boot_source("kernel") };
    client.boot_source(&fits).await.unwrap();
    assert_eq!(client.describe().await.unwrap().state, MicroVmState::NotStarted);
    guest.end().await;
}

async fn bad_drives_are_refused_in_firecrackers_words(subject: Subject) {
    let guest = launched(&subject).await;
    let client = guest.client();
    assert_eq!(
        refusal(client.drive(&drive("rootfs", "absent")).await),
        "400 Drive config error: Unable to create the virtio block device: Virtio backend error: \
         Error manipulating the backing file: No such file or directory (os error 2) absent"
    );
    guest.put("disk", &[0; 4096]);
    assert_eq!(
        refusal(client.drive(&drive("bad-id", "disk")).await),
        "400 API Resource IDs can only contain alphanumeric characters and underscores."
    );
    let root = |drive_id| Drive { is_root_device: true, ..drive(drive_id, "disk") };
    client.drive(&root("rootfs")).await.unwrap();
    assert_eq!(
        refusal(client.drive(&root("second")).await),
        "400 Drive config error: A root block device already exists!"
    );
    client.drive(&drive("rootfs", "disk")).await.expect("it replaces the previous drive");
    guest.end().await;
}

async fn bad_vsocks_are_refused_in_firecrackers_words(subject: Subject) {
    let guest = launched(&subject).await;
    let client = guest.client();
    const BIND: &str = "400 Vsock config error: Cannot create backend for vsock device: Error \
                        binding to the host-side Unix socket:";
    assert_eq!(
        refusal(client.vsock(&socket("absent/v.sock")).await),
        format!("{BIND} No such file or directory (os error 2)")
    );
    assert_eq!(
        refusal(client.vsock(&socket(&"w".repeat(120))).await),
        format!("{BIND} path must be shorter than SUN_LEN")
    );
    guest.put("taken", b"");
    assert_eq!(
        refusal(client.vsock(&socket("taken")).await),
        format!("{BIND} Address in use (os error 98)")
    );
    client.vsock(&socket("v.sock")).await.unwrap();
    assert!(guest.dir.path().join("v.sock").exists(), "the socket is there before the start");
    guest.end().await;
}

async fn a_start_is_refused_for_its_kernel_and_can_be_tried_again(subject: Subject) {
    let guest = launched(&subject).await;
    let client = guest.client();
    assert_eq!(
        refusal(client.action(Action::InstanceStart).await),
        "400 Start microvm error: Cannot start microvm without kernel configuration."
    );
    assert_eq!(
        refusal(client.action(Action::SendCtrlAltDel).await),
        "400 The requested operation is not supported before starting the microVM."
    );
    let good = kernels::speaker("OK\n");
    let kernels = [
        (&b"short"[..], "Unable to read elf header"),
        (&[b'x'; 4096][..], "Invalid Elf magic number"),
        (&good[..64], "Unable to read program header"),
    ];
    for (bytes, what) in kernels {
        guest.put("kernel", bytes);
        client.boot_source(&boot_source("kernel")).await.unwrap();
        for _ in 0..2 {
            let said = refusal(client.action(Action::InstanceStart).await);
            assert_eq!(said, format!("400 Start microvm error: {LOADER} {what}"));
        }
    }
    guest.put("kernel", &good);
    client.boot_source(&boot_source("kernel")).await.unwrap();
    client.machine_config(&machine(1, 16)).await.unwrap();
    assert_eq!(
        refusal(client.action(Action::InstanceStart).await),
        format!("400 Start microvm error: {LOADER} Unable to read kernel image"),
        "it does not fit"
    );
    let initrd = BootSource { initrd_path: Some("initrd".to_owned()), ..boot_source("kernel") };
    std::fs::File::create(guest.dir.path().join("initrd")).unwrap().set_len(40 << 20).unwrap();
    client.boot_source(&initrd).await.unwrap();
    client.machine_config(&machine(1, 32)).await.unwrap();
    assert_eq!(
        refusal(client.action(Action::InstanceStart).await),
        "400 Start microvm error: Error with initrd initialization: Failed to compute the initrd \
         address.."
    );
    assert_eq!(client.describe().await.unwrap().state, MicroVmState::NotStarted);
    client.boot_source(&boot_source("kernel")).await.unwrap();
    client.action(Action::InstanceStart).await.unwrap();
    guest.end().await;
}

const LOADER: &str = "System configuration error: Cannot load kernel due to invalid memory \
                      configuration or invalid kernel image: Kernel Loader: failed to load ELF \
                      kernel image: Kernel Loader:";

async fn memory_that_cannot_be_had_is_refused_at_the_start(subject: Subject) {
    let guest = launched(&subject).await;
    let client = guest.client();
    guest.put("kernel", &kernels::speaker("OK\n"));
    client.boot_source(&boot_source("kernel")).await.unwrap();
    client.machine_config(&machine(1, u32::MAX)).await.expect("it is only looked at later");
    assert_eq!(
        refusal(client.action(Action::InstanceStart).await),
        "400 Start microvm error: Invalid Memory Configuration: Cannot create mmap region: Out of \
         memory (os error 12)"
    );
    guest.end().await;
}

async fn there_is_one_start_and_no_configuration_after_it(subject: Subject) {
    let guest = started(&subject, &kernels::speaker("OK\n")).await;
    guest.put("disk", &[0; 4096]);
    let client = guest.client();
    let late = "400 The requested operation is not supported after starting the microVM.";
    assert_eq!(refusal(client.action(Action::InstanceStart).await), late);
    assert_eq!(refusal(client.machine_config(&machine(0, 128)).await), late);
    assert_eq!(refusal(client.boot_source(&boot_source("absent")).await), late);
    assert_eq!(refusal(client.drive(&drive("disk", "disk")).await), late);
    assert_eq!(refusal(client.vsock(&socket("other.sock")).await), late);
    assert_eq!(refusal(client.entropy().await), late);
    assert_eq!(client.describe().await.unwrap().state, MicroVmState::Running);
    guest.end().await;
}

async fn bare_guest_ignores_ctrl_alt_del(subject: Subject) {
    let guest = started(&subject, &kernels::speaker("OK\n")).await;
    let client = guest.client();
    client.action(Action::SendCtrlAltDel).await.unwrap();
    let mut last = Ok(());
    for _ in 0..8 {
        last = client.action(Action::SendCtrlAltDel).await;
    }
    assert_eq!(refusal(last), "400 Internal VMM error: I8042 error: i8042 internal buffer full.");
    assert!(!guest.launched.process.has_exited());
    guest.end().await;
}

async fn a_guest_that_resets_ends_its_process_with_0(subject: Subject) {
    let guest = started(&subject, &kernels::rebooter()).await;
    assert_eq!(exited(&guest.launched.process).await, ProcessExit::Code(0));
    for name in [names::API_SOCKET, names::VSOCK_SOCKET] {
        assert!(guest.dir.path().join(name).exists(), "{name} outlives its process");
    }
}

async fn signals_end_it(subject: Subject) {
    use rustix::process::Signal;
    let guest = started(&subject, &kernels::speaker("OK\n")).await;
    signal(&guest.launched.process, Signal::TERM);
    assert_eq!(exited(&guest.launched.process).await, ProcessExit::Signal(15));
    assert!(guest.dir.path().join(names::VSOCK_SOCKET).exists(), "a socket outlives its process");
    let guest = launched(&subject).await;
    signal(&guest.launched.process, Signal::HUP);
    assert_eq!(exited(&guest.launched.process).await, ProcessExit::Code(156));
}

async fn a_directory_is_used_again_after_its_process_died(subject: Subject) {
    let Guest { dir, directory, launched } = launched(&subject).await;
    killed(&launched.process).await;
    drop(launched);
    assert!(dir.path().join(names::API_SOCKET).exists(), "a socket outlives its process");
    let again = spawn(&subject, &directory, "test-2").launch().await.unwrap();
    assert_eq!(again.client.describe().await.unwrap().id, "test-2");
    killed(&again.process).await;
}

async fn a_socket_that_is_there_is_not_taken_over(subject: Subject) {
    let guest = launched(&subject).await;
    let second = || {
        let mut command = Command::new(&subject.binary);
        command.args(["--id", "second", "--api-sock", names::API_SOCKET]);
        command.current_dir(guest.dir.path()).stdin(Stdio::null()).output().unwrap()
    };
    let refused = "Failed to open the API socket at: api.sock. Check that it is not already used.";
    let output = second();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains(refused), "{output:?}");
    guest.client().describe().await.expect("the first still answers");
    killed(&guest.launched.process).await;
    assert_eq!(second().status.code(), Some(1), "not even a dead one's");
}

async fn it_is_reported_why_a_process_did_not_come_about(subject: Subject) {
    let dir = tempfile::tempdir().unwrap();
    let directory = Arc::new(Directory::open(dir.path()).unwrap());
    let error = spawn(&subject, &directory, "no_such_id").launch().await.unwrap_err();
    assert!(matches!(&error, SpawnError::Ended { exit: ProcessExit::Signal(6), .. }), "{error}");
    assert!(error.to_string().contains("Invalid instance ID"), "{error}");
}

async fn requests_that_make_no_sense_are_refused(subject: Subject) {
    let guest = launched(&subject).await;
    let body = |request: &str| {
        let said = guest.raw(request.as_bytes());
        assert!(said.starts_with("HTTP/1.1 400 "), "{said}");
        said.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let put = |path: &str, json: &str| {
        body(&format!("PUT {path} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{json}", json.len()))
    };
    let fault = |message: &str| format!(r#"{{"fault_message":"{message}"}}"#);
    let no_such = "Invalid request method and/or path: GET nope.";
    assert_eq!(body("GET /nope HTTP/1.1\r\n\r\n"), fault(no_such));
    assert_eq!(put("/vsock", ""), fault("Empty PUT request."));
    assert_eq!(
        put("/machine-config", r#"{"vcpu_count":1,"mem_size_mib":128,"x":1}"#),
        fault(
            "An error occurred when deserializing the json body of a request: unknown field `x`, \
             expected one of `vcpu_count`, `mem_size_mib`, `smt`, `cpu_template`, \
             `track_dirty_pages`, `huge_pages` at line 1 column 38."
        )
    );
    assert_eq!(
        put("/actions", r#"{"action_type":"Nope"}"#),
        fault(
            "An error occurred when deserializing the json body of a request: unknown variant \
             `Nope`, expected one of `FlushMetrics`, `InstanceStart`, `SendCtrlAltDel` at line 1 \
             column 21."
        )
    );
    assert_eq!(
        put("/drives/one", r#"{"drive_id":"two","path_on_host":"x","is_root_device":false}"#),
        fault("The id from the path does not match the id from the body!")
    );
    assert!(body("DELETE /vm HTTP/1.1\r\n\r\n").contains("Unsupported HTTP method"));
    assert!(body("nonsense\r\n\r\n").contains("Invalid request."));
    guest.client().describe().await.expect("it still answers");
    guest.end().await;
}

async fn a_body_has_51200_bytes_at_most(subject: Subject) {
    let guest = launched(&subject).await;
    let put = |stream: &mut UnixStream, bytes: usize| {
        let body = format!(r#"{{"kernel_image_path":"{}"}}"#, "k".repeat(bytes - 24));
        let head = format!("PUT /boot-source HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len());
        say(stream, format!("{head}{body}").as_bytes())
    };
    let said = put(&mut guest.connection(), BODY_BYTES_MAX);
    assert!(said.contains("too long (os error 36)"), "{said}");
    // The real one ends where a connection goes away in the middle of such a refusal (1.12.1), which
    // is why the client never sends a body that is too large.
    let mut refused = guest.connection();
    let said = put(&mut refused, BODY_BYTES_MAX + 1);
    let detail =
        "Request payload with size 51201 is larger than the limit of 51200 allowed by server";
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains(detail), "{said}");
    guest.client().describe().await.expect("it still answers");
    guest.end().await;
}

async fn an_eleventh_connection_is_turned_away_and_that_passes(subject: Subject) {
    let guest = launched(&subject).await;
    // The one by which its launch was seen may still be open on the other side.
    let admitted = || loop {
        let mut stream = guest.connection();
        let mut said = [0; 12];
        let asked = stream.write_all(b"GET / HTTP/1.1\r\n\r\n");
        if asked.and_then(|()| stream.read_exact(&mut said)).is_ok() && said.ends_with(b"200") {
            return stream;
        }
    };
    let open: Vec<UnixStream> = (0..CONNECTIONS_MAX).map(|_| admitted()).collect();
    let mut said = String::new();
    guest.connection().read_to_string(&mut said).unwrap();
    assert!(said.starts_with("HTTP/1.1 503"), "{said}");
    assert!(said.ends_with(r#"{ "error": "Too many open connections" }"#), "{said}");
    let error = guest.client().describe().await.unwrap_err();
    assert!(error.is_transient(), "the same call may succeed later: {error}");
    drop(open);
    let end = Instant::now() + PATIENCE;
    while let Err(error) = guest.client().describe().await {
        assert!(Instant::now() < end, "{error}");
    }
    guest.end().await;
}

async fn half_a_request_blocks_no_other_connection(subject: Subject) {
    let guest = launched(&subject).await;
    let mut half = guest.connection();
    half.write_all(b"PUT /actions HTTP/1.1\r\nContent-Length: 100\r\n\r\n{").unwrap();
    guest.client().describe().await.unwrap();
    guest.end().await;
}

async fn its_log_tells_of_refusals_in_one_line_each(subject: Subject) {
    let mut guest = launched(&subject).await;
    refusal(guest.client().action(Action::InstanceStart).await);
    let line = "Received Error. Status code: 400 Bad Request. Message: Start microvm error: Cannot \
                start microvm without kernel configuration.";
    says(&mut guest.launched.log, line).await;
    guest.end().await;
}

/// The suite, once for each binary.
macro_rules! contract {
    ($($test:ident),* $(,)?) => {
        mod fake {
            $(#[tokio::test] async fn $test() { super::$test(super::fake()).await; })*
        }
        mod native {
            $(#[tokio::test] async fn $test() { super::$test(super::native()).await; })*
        }
    };
}

contract! {
    the_binary_says_its_versions,
    wrong_arguments_end_it_with_their_own_codes,
    new_process_has_defaults_and_waits_for_its_configuration,
    a_bare_guest_is_booted_seen_and_ended,
    a_bare_guest_never_takes_a_connection,
    the_process_owes_nothing_to_its_spawner,
    a_second_look_adopts_by_identity_and_by_pid_file,
    a_flood_without_a_reader_blocks_nothing_and_its_end_is_kept,
    bad_configuration_is_refused_in_firecrackers_words,
    bad_drives_are_refused_in_firecrackers_words,
    bad_vsocks_are_refused_in_firecrackers_words,
    a_start_is_refused_for_its_kernel_and_can_be_tried_again,
    memory_that_cannot_be_had_is_refused_at_the_start,
    there_is_one_start_and_no_configuration_after_it,
    bare_guest_ignores_ctrl_alt_del,
    a_guest_that_resets_ends_its_process_with_0,
    signals_end_it,
    a_directory_is_used_again_after_its_process_died,
    a_socket_that_is_there_is_not_taken_over,
    it_is_reported_why_a_process_did_not_come_about,
    requests_that_make_no_sense_are_refused,
    a_body_has_51200_bytes_at_most,
    an_eleventh_connection_is_turned_away_and_that_passes,
    half_a_request_blocks_no_other_connection,
    its_log_tells_of_refusals_in_one_line_each,
}
