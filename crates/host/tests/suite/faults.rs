//! The real host over a Firecracker that goes wrong. It needs neither KVM nor Linux guests; where a guest
//! has Hearth's init, the fake says what the init would.
//!
//! Alone: `cargo nextest run --workspace -E 'package(hearth-host) & test(/^faults::/)'`.

use crate::contract::Subject;
use crate::support::{Lab, image, job, raw};
use hearth_fake_firecracker::{Does, Effect, Fake, Fault, On, kernels};
use hearth_host::{Host, HostError};
use hearth_model::machine::RateLimit;
use hearth_model::{
    Action, Boot, Delivery, End, Exit, Generation, InstanceId, InstanceState, Lookup, Owner, Phase,
    PoolTenant, Signal, Spec, Stage,
};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, pidfd_open};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const PATIENCE: Duration = Duration::from_secs(30);
/// The calls that configure a bare guest, in their order; then comes the start.
const CALLS: [&str; 4] = ["PUT /machine-config", "PUT /boot-source", "PUT /vsock", "PUT /entropy"];
const START: &str = "InstanceStart";

struct Stand {
    lab: Lab,
    fake: Fake,
    /// Removed last.
    _dir: tempfile::TempDir,
}

async fn stand(faults: &[Fault]) -> Stand {
    let dir = tempfile::tempdir().expect("a directory");
    let images = dir.path().join("images");
    std::fs::create_dir(&images).expect("made");
    // A superblock's magic is what the host looks for (ext4's layout, `s_magic`).
    let mut rootfs = vec![0; 4096];
    rootfs[1024 + 0x38..][..2].copy_from_slice(&0xef53_u16.to_le_bytes());
    let files = [
        ("speaker", kernels::speaker("OK\n")),
        ("flooder", kernels::flooder("\x1b[2Jx")),
        ("rebooter", kernels::rebooter()),
        ("rootfs.ext4", rootfs),
    ];
    for (name, bytes) in files {
        std::fs::write(images.join(name), bytes).expect("written");
    }
    let fake = Fake::new(dir.path());
    fake.script(faults);
    let lab = Lab::with(images, fake.binary(), false).await;
    Stand { lab, fake, _dir: dir }
}

/// A guest with Hearth's init, whose command is one of the fake's.
fn init(cmd: &[&str]) -> Spec {
    Spec {
        boot: Boot::Init,
        rootfs: Some(image("rootfs.ext4")),
        cmd: cmd.iter().map(ToString::to_string).collect(),
        ..raw("speaker")
    }
}

fn is_up(state: &InstanceState) -> bool {
    matches!(state, InstanceState::Up { phase: Phase::Running, ready: true, .. })
}

/// Tells a guest that it is the seventh generation of `web`, with its command.
fn tell(id: &InstanceId, cmd: &[&str]) -> Action {
    let spec = std::sync::Arc::new(init(cmd));
    Action::AssignIdentity { instance: id.clone(), spec, identity: job("web", 7), release: true }
}

impl Stand {
    async fn try_create(&self, id: &str, spec: Spec) -> Result<InstanceId, HostError> {
        let create = self.lab.creation(id, spec, Stage::App, Owner::Pool(PoolTenant::Shared)).await;
        let id = create.instance.clone();
        self.lab.host.apply(Action::Create(Box::new(create))).await.map(|()| id)
    }

    /// A guest whose disk is new, of that many bytes, and nothing but a hole.
    fn unread(&self, name: &str, bytes: u64) -> Spec {
        let file = std::fs::File::create(self.lab.images.join(name)).expect("made");
        file.set_len(bytes).expect("a file system with holes");
        Spec { rootfs: Some(image(name)), ..raw("speaker") }
    }

    /// Nothing is left of an instance whose creation failed: no directory, no process, no state.
    async fn is_gone(&self, id: &str) {
        let id = InstanceId::parse(id).expect("an id");
        assert!(!self.lab.instance_dir(&id).exists());
        assert_eq!(self.lab.state_of(&id).await, None);
        assert_eq!(processes_in(&self.lab.instance_dir(&id)), [0; 0]);
    }

    fn pid(&self, id: &InstanceId) -> i32 {
        let pid = std::fs::read_to_string(self.lab.instance_dir(id).join("pid")).expect("a file");
        pid.trim().parse().expect("a pid")
    }

    fn kill(&self, id: &InstanceId) {
        let pid = rustix::process::Pid::from_raw(self.pid(id)).expect("a pid");
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("killed");
    }

    /// Ends all that runs.
    async fn clean(self) {
        let seen = self.lab.host.observe(None).await.expect("a look");
        for id in seen.instances.keys() {
            self.lab.stop(id, 0).await;
            self.lab.remove(id).await;
        }
    }
}

impl Drop for Stand {
    /// A test that fails leaves no process behind.
    fn drop(&mut self) {
        let instances = self.lab.state.path().join("state/instances");
        for entry in std::fs::read_dir(instances).into_iter().flatten().flatten() {
            for pid in processes_in(&entry.path()) {
                let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
    }
}

/// The processes that work in a directory, also one that was removed.
fn processes_in(dir: &Path) -> Vec<i32> {
    let dir = dir.display().to_string();
    let works = |pid: &i32| {
        std::fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd: PathBuf| {
            let cwd = cwd.display().to_string();
            cwd.trim_end_matches(" (deleted)").trim_end_matches(".gone") == dir
        })
    };
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(works).collect()
}

#[tokio::test]
async fn the_real_host_keeps_the_contract_with_guests_that_are_played() {
    let stand = stand(&[]).await;
    let (service, job) = (init(&["/fake/serve"]), Some(init(&["/fake/exit", "0", "hello"])));
    let unread = Some(stand.unread("unread", 256 << 20));
    let subject = Subject { host: &stand.lab.host, service, job, unread, patience: PATIENCE };
    subject.check().await;
    let subject = Subject { service: raw("speaker"), job: None, unread: None, ..subject };
    subject.check().await;
    stand.clean().await;
}

#[tokio::test]
async fn init_finds_its_drives_in_any_order() {
    let stand = stand(&[]).await;
    let owner = Owner::Pool(PoolTenant::Shared);
    let mut create =
        stand.lab.creation("a1", init(&["/fake/say", "hello"]), Stage::App, owner).await;
    create.machine.drives.reverse();
    create.machine.drives[0].rate_limit =
        Some(RateLimit { bytes_per_s: Some(1 << 20), ops_per_s: Some(100) });
    let id = create.instance.clone();
    stand.lab.host.apply(Action::Create(Box::new(create))).await.expect("created");
    stand.lab.says(&id, "hello").await;
    stand.lab.stop(&id, 1).await;
    assert_eq!(stand.lab.exit(&id).await.end, End::Signal(15), "the status drive says so");
    stand.clean().await;
}

/// Turns the record of an instance into what the first version of Hearth wrote, and checks that it has the
/// form of `frozen`, which that version wrote.
fn rewrite_as_first_version(stand: &Stand, id: &InstanceId, frozen: &str) {
    let path = stand.lab.instance_dir(id).join("manifest.json");
    let read = |text: &str| -> serde_json::Map<String, serde_json::Value> {
        serde_json::from_str(text).expect("a record")
    };
    let (mut record, frozen) = (read(&std::fs::read_to_string(&path).expect("read")), read(frozen));
    record.retain(|key, _| frozen.contains_key(key));
    assert!(record.keys().eq(frozen.keys()), "{record:?}");
    for key in ["version", "boot", "has_rootfs", "started"] {
        assert_eq!(record[key], frozen[key], "{key}");
    }
    std::fs::write(path, serde_json::to_vec_pretty(&record).expect("JSON")).expect("written");
}

/// What comes back from a port of a guest to which `hello` was written.
async fn echo(stand: &Stand, id: &InstanceId) -> String {
    let mut stream = stand.lab.host.connect(id, 80).await.expect("connected");
    stream.write_all(b"hello").await.expect("written");
    let mut answer = [0; 5];
    stream.read_exact(&mut answer).await.expect("answered");
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn guest_of_this_protocol_answers_hello_and_opens_channels() {
    let lost = Fault::new(On::before("guest hello"), Does::Close);
    let stand = stand(&[lost]).await;
    let id = stand.try_create("a1", init(&["/fake/serve"])).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    assert_eq!(echo(&stand, &id).await, "hello");
    let raw = stand.try_create("a2", raw("speaker")).await.expect("created");
    let refused = stand.lab.host.connect(&raw, 80).await.err().expect("refused");
    assert!(!refused.is_transient() && refused.sentence().contains("raw guest"));
    // That the init is greeted at all: this one exits at Hello.
    stand.fake.script(&[Fault::new(On::before("guest hello"), Does::Exit(3))]);
    let id = stand.try_create("a3", init(&["/fake/serve"])).await.expect("created");
    let exit = stand.lab.exit(&id).await;
    assert!(matches!(&exit.end, End::Vmm(why) if why.contains('3')), "{exit:?}");
    stand.clean().await;
}

#[tokio::test]
async fn instances_of_the_first_version_are_adopted() {
    let mut stand = stand(&[]).await;
    let owner = Owner::Pool(PoolTenant::Shared);
    let mut old = init(&["/fake/say", "hello"]);
    old.env.insert("FAKE_PROTOCOL".to_owned(), "1".to_owned());
    // As the first version did, which knew no other way.
    let mut create = stand.lab.creation("oldinit", old, Stage::Init, owner.clone()).await;
    create.workload = Delivery::Inline;
    let (id, spec) = (create.instance.clone(), create.spec.clone());
    stand.lab.host.apply(Action::Create(Box::new(create))).await.expect("created");
    let raw_id = stand.lab.create("oldraw", raw("speaker"), Stage::App, owner).await;
    stand.lab.host.close().await;
    rewrite_as_first_version(&stand, &id, include_str!("../data/instance-record-1-init.json"));
    rewrite_as_first_version(&stand, &raw_id, include_str!("../data/instance-record-1-raw.json"));
    stand.lab.restart().await;
    stand.lab.wait(&raw_id, is_up).await;
    let held =
        |state: &InstanceState| matches!(state, InstanceState::Up { phase: Phase::Held, .. });
    stand.lab.wait(&id, held).await;
    let identity = job("web", 3);
    let tell = Action::AssignIdentity {
        instance: id.clone(),
        spec,
        identity: identity.clone(),
        release: true,
    };
    stand.lab.host.apply(tell).await.expect("acknowledged");
    stand.lab.says(&id, "hello").await;
    let seen = stand.lab.host.observe(None).await.expect("a look");
    let owner = seen.instances[&id].created.as_ref().map(|made| made.owner.clone());
    assert_eq!(owner, Some(Owner::Job(identity)), "the old record takes the new owner");
    assert_eq!(echo(&stand, &id).await, "hello");
    stand.lab.stop(&id, 1).await;
    assert_eq!(stand.lab.exit(&id).await, Exit { end: End::Signal(15), stop_requested: true });
    stand.clean().await;
}

#[tokio::test]
async fn a_call_that_hangs_is_given_up_and_holds_up_no_other_instance() {
    let hang = |(at, call)| Fault::new(On::before(call), Does::Hang).of([at]);
    let stand = stand(&(1..).zip(CALLS).map(hang).collect::<Vec<_>>()).await;
    let hanging = async {
        let [a, b, c, d] = ["a1", "a2", "a3", "a4"].map(|id| stand.try_create(id, raw("speaker")));
        let failed = tokio::join!(a, b, c, d);
        ([failed.0, failed.1, failed.2, failed.3], Instant::now())
    };
    let other = async {
        while stand.fake.processes().len() < CALLS.len() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let id = stand.try_create("other", raw("speaker")).await.expect("created");
        stand.lab.wait(&id, is_up).await;
        Instant::now()
    };
    let ((failed, given_up), other) = tokio::join!(hanging, other);
    assert!(other < given_up);
    for failed in failed {
        let error = failed.expect_err("it hung");
        assert!(error.is_transient(), "{}", error.sentence());
        assert!(error.sentence().contains("within 2s"), "{}", error.sentence());
    }
    for id in ["a1", "a2", "a3", "a4"] {
        stand.is_gone(id).await;
    }
    stand.clean().await;
}

/// The ways in which an answer does not come.
fn losses() -> [Does; 3] {
    let message = "I/O error".to_owned();
    [Does::Close, Does::Answer { status: 500, message }, Does::Garbage("\0\x1b[31m".to_owned())]
}

fn at(call: &str, effect: Effect) -> On {
    On::Call { name: call.to_owned(), nth: 1, effect }
}

#[tokio::test]
async fn configuration_with_a_lost_answer_is_undone_and_repeated() {
    let stand = stand(&[]).await;
    for call in CALLS {
        for does in losses().into_iter().chain([Does::Exit(1), Does::Signal(9)]) {
            for effect in [Effect::Skipped, Effect::Done] {
                stand.fake.script(&[Fault::new(at(call, effect), does.clone())]);
                let error = stand.try_create("a1", raw("speaker")).await.expect_err("lost");
                let sentence = error.sentence();
                assert!(error.is_transient(), "{call} {effect:?} {does:?}: {sentence}");
                stand.is_gone("a1").await;
            }
        }
    }
    stand.fake.script(&[]);
    let id = stand.try_create("a1", raw("speaker")).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    stand.clean().await;
}

#[tokio::test]
async fn a_start_whose_answer_is_lost_is_read_back() {
    let stand = stand(&[]).await;
    for (number, does) in losses().into_iter().enumerate() {
        let id = format!("lost{number}");
        stand.fake.script(&[Fault::new(at(START, Effect::Done), does.clone())]);
        let id = stand.try_create(&id, raw("speaker")).await.expect("it runs");
        stand.lab.wait(&id, is_up).await;
        stand.lab.says(&id, "OK").await;
        let id = format!("undone{number}");
        stand.fake.script(&[Fault::new(at(START, Effect::Skipped), does)]);
        let error = stand.try_create(&id, raw("speaker")).await.expect_err("it never ran");
        assert!(error.is_transient(), "{}", error.sentence());
        stand.is_gone(&id).await;
    }
    let starts = stand.fake.calls().iter().filter(|call| call.name == START).count();
    assert_eq!(starts, 2 * losses().len(), "none was asked for twice");
    stand.clean().await;
}

#[tokio::test]
async fn start_with_unknown_outcome_is_not_reported_never_started() {
    let mut stand = stand(&[]).await;
    for (id, does) in [("a1", Does::Signal(9)), ("a2", Does::Hang)] {
        stand.fake.script(&[Fault::new(at(START, Effect::Done), does)]);
        let error = stand.try_create(id, raw("speaker")).await.expect_err("nothing is known");
        assert!(!error.is_transient(), "{}", error.sentence());
        // An observation that comes before the answer says the same.
        let id = InstanceId::parse(id).expect("an id");
        assert_eq!(stand.lab.exit(&id).await.end, End::Vmm(error.sentence()));
        // A daemon that is killed before it has recorded that learns only that it may have run.
        stand.lab.restart().await;
        assert_eq!(stand.lab.exit(&id).await.end, End::Unknown);
        assert_eq!(processes_in(&stand.lab.instance_dir(&id)), [0; 0]);
        stand.lab.remove(&id).await;
        stand.is_gone(id.as_str()).await;
    }
    stand.clean().await;
}

#[tokio::test]
async fn a_status_drive_has_its_room_whatever_becomes_of_the_disk() {
    let stand = stand(&[]).await;
    let id = stand.try_create("a1", init(&["/fake/serve"])).await.expect("created");
    let drive = stand.lab.instance_dir(&id).join("status.img");
    let drive = std::fs::metadata(drive).expect("a drive");
    assert!(drive.blocks() * 512 >= drive.len() && drive.len() > 0, "{drive:?}");
    stand.clean().await;
}

#[tokio::test]
async fn a_process_that_does_not_come_about_leaves_nothing() {
    let launch = |(at, does)| Fault::new(On::Launch, does).of([at]);
    let all = [Does::Exit(1), Does::Signal(11), Does::Hang, Does::Close];
    let stand = stand(&(1..).zip(all).map(launch).collect::<Vec<_>>()).await;
    let [a, b, c, d] = ["a1", "a2", "a3", "a4"].map(|id| stand.try_create(id, raw("speaker")));
    let failed = tokio::join!(a, b, c, d);
    for failed in [failed.0, failed.1, failed.2, failed.3] {
        let error = failed.expect_err("there is no API");
        assert!(error.is_transient(), "{}", error.sentence());
    }
    for id in ["a1", "a2", "a3", "a4"] {
        stand.is_gone(id).await;
    }
    stand.clean().await;
}

#[tokio::test]
async fn a_killed_process_is_seen_within_a_second() {
    let stand = stand(&[]).await;
    let mut seen_after = Vec::new();
    for number in 0..5 {
        let id = stand.try_create(&format!("a{number}"), raw("speaker")).await.expect("created");
        stand.lab.wait(&id, is_up).await;
        stand.kill(&id);
        let began = Instant::now();
        let exit = stand.lab.exit(&id).await;
        seen_after.push(began.elapsed());
        let end = End::Vmm("Firecracker ended by signal 9 (killed)".to_owned());
        assert_eq!(exit, Exit { end, stop_requested: false });
    }
    // A busy machine may be slow now and then; a look every some seconds always is.
    let fastest = seen_after.iter().min().expect("five");
    assert!(*fastest < Duration::from_secs(1), "{seen_after:?}");
    stand.clean().await;
}

#[tokio::test]
async fn stopped_vmm_is_silent_until_it_answers_and_its_guest_is_kept() {
    let stand = stand(&[]).await;
    let id = stand.try_create("a1", raw("speaker")).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    let silence = async || {
        let seen = stand.lab.host.observe(None).await.expect("a look");
        seen.instances[&id].silence
    };
    let until = async |holds: fn(u32) -> bool| {
        let began = Instant::now();
        while !holds(silence().await) {
            assert!(began.elapsed() < PATIENCE, "it is as silent as before");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_eq!(silence().await, 0);
    let pid = rustix::process::Pid::from_raw(stand.pid(&id)).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).expect("it lives");
    until(|silence| silence > 0).await;
    rustix::process::kill_process(pid, rustix::process::Signal::CONT).expect("it lives");
    until(|silence| silence == 0).await;
    assert!(stand.lab.host.alive(&id));
    stand.clean().await;
}

#[tokio::test(flavor = "current_thread")]
async fn dead_process_is_not_reported_alive() {
    let stand = stand(&[]).await;
    let id = stand.try_create("a1", raw("speaker")).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    assert!(stand.lab.host.alive(&id));
    let pid = rustix::process::Pid::from_raw(stand.pid(&id)).expect("a pid");
    let pidfd = pidfd_open(pid, PidfdFlags::empty()).expect("a descriptor");
    stand.kill(&id);
    // Nothing is awaited here, so that on this one thread the task that waits for the end can't run.
    let mut ended = [PollFd::new(&pidfd, PollFlags::IN)];
    assert_eq!(poll(&mut ended, None), Ok(1));
    assert!(!stand.lab.host.alive(&id));
    stand.clean().await;
}

#[tokio::test]
async fn exit_is_reported_by_its_code_and_its_sockets_are_removed() {
    let boot = |after_ms| On::Boot { after_ms };
    let stand = stand(&[
        Fault::new(boot(20), Does::Exit(148)).of([1]),
        Fault::new(boot(20), Does::Signal(6)).of([2]),
    ])
    .await;
    let ends = [
        ("a1", "Firecracker exited with 148 (its seccomp filter stopped a system call)"),
        ("a2", "Firecracker ended by signal 6"),
    ];
    for (id, sentence) in ends {
        let id = stand.try_create(id, raw("speaker")).await.expect("created");
        assert_eq!(stand.lab.exit(&id).await.end, End::Vmm(sentence.to_owned()));
        let dir = stand.lab.instance_dir(&id);
        assert!(dir.join("api.sock").exists() && dir.join("vsock.sock").exists());
        stand.lab.remove(&id).await;
        assert!(!dir.exists());
    }
    stand.clean().await;
}

#[tokio::test]
async fn an_instance_whose_api_is_busy_is_stopped_all_the_same() {
    let stand = stand(&[]).await;
    let id = stand.try_create("a1", raw("speaker")).await.expect("created");
    let socket = stand.lab.instance_dir(&id).join("api.sock");
    let held: Vec<_> = (0..12).map(|_| std::os::unix::net::UnixStream::connect(&socket)).collect();
    stand.lab.stop(&id, 1).await;
    assert!(stand.lab.exit(&id).await.stop_requested);
    drop(held);
    stand.clean().await;
}

#[tokio::test]
async fn calls_to_one_process_come_one_by_one() {
    let stand = stand(&[Fault::new(
        On::Call { name: "*".to_owned(), nth: 0, effect: Effect::Done },
        Does::Wait(5),
    )])
    .await;
    let id = stand.try_create("a1", init(&["/fake/serve"])).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    let stops = || stand.lab.stop(&id, 1);
    tokio::join!(stops(), stops(), stops(), stops());
    let calls = stand.fake.calls();
    // The connection by which the launch was seen may still be there.
    assert!(calls.iter().all(|call| call.open <= 2), "{calls:?}");
    stand.clean().await;
}

#[tokio::test]
async fn a_flood_blocks_nothing_and_is_bounded_and_escaped() {
    let flood = Does::Flood { text: "\x1b[2J\u{202e}log\n".to_owned(), bytes: 8 << 20 };
    let panic = Does::Flood {
        text: "\nKernel panic - not syncing: \x1b[31mno\n".to_owned(),
        bytes: 2 * "\nKernel panic - not syncing: \x1b[31mno\n".len(),
    };
    let stand = stand(&[
        Fault::new(On::Boot { after_ms: 0 }, flood),
        Fault::new(On::Boot { after_ms: 4000 }, panic),
        Fault::new(On::Boot { after_ms: 4200 }, Does::Exit(0)),
    ])
    .await;
    let id = stand.try_create("a1", raw("speaker")).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    let began = Instant::now();
    stand.fake.script(&[]);
    let other = stand.try_create("other", raw("speaker")).await.expect("created");
    stand.lab.says(&other, "OK").await;
    assert!(began.elapsed() < Duration::from_secs(3), "it had to wait for {:?}", began.elapsed());
    let End::Panic(shown) = stand.lab.exit(&id).await.end else { panic!("it panicked") };
    assert!(shown.contains("\\u{1b}[31mno"), "{shown}");
    assert!(!shown.contains('\x1b') && !shown.contains('\u{202e}'), "{shown:?}");
    let mut bytes = 0;
    for entry in std::fs::read_dir(stand.lab.state.path().join("state/logs")).expect("logs") {
        bytes += entry.expect("an entry").metadata().expect("its size").len();
    }
    assert!(bytes <= 3 << 20, "{bytes} bytes of logs");
    for file in std::fs::read_dir(stand.lab.instance_dir(&id)).expect("a directory") {
        let file = file.expect("an entry");
        let len = std::fs::symlink_metadata(file.path()).expect("its size").len();
        assert!(len < 1 << 20, "{file:?} has {len} bytes");
    }
    stand.clean().await;
}

#[tokio::test]
async fn a_guest_that_misses_its_identity_is_told_again() {
    let identity = "guest identity";
    let stand = stand(&[
        Fault::new(On::before(identity), Does::Nothing).of([1]),
        Fault::new(On::before(identity), Does::Close).of([2]),
        Fault::new(On::after(identity), Does::Close).of([3]),
        Fault::new(On::before(identity), Does::Garbage("{\n".to_owned())).of([4]),
    ])
    .await;
    for id in ["a1", "a2", "a3", "a4"] {
        let id = stand.try_create(id, init(&["/fake/serve"])).await.expect("created");
        stand.lab.wait(&id, is_up).await;
        let tell = tell(&id, &["/fake/serve"]);
        stand.lab.host.apply(tell).await.expect("told at last");
        let acknowledged = |state: &InstanceState| {
            matches!(state, InstanceState::Up { acknowledged: Some(Generation(7)), .. })
        };
        stand.lab.wait(&id, acknowledged).await;
    }
    stand.clean().await;
}

#[tokio::test]
async fn a_guest_that_never_takes_its_identity_is_given_up() {
    let stand = stand(&[Fault::new(On::before("guest identity"), Does::Hang)]).await;
    let id = stand.try_create("a1", init(&["/fake/serve"])).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    let tell = tell(&id, &["/fake/serve"]);
    let error = stand.lab.host.apply(tell).await.expect_err("silent");
    assert!(error.is_transient(), "{}", error.sentence());
    assert!(error.sentence().contains("does not acknowledge"), "{}", error.sentence());
    stand.clean().await;
}

/// A warm guest that has reported and holds its command, which says `hello` and which it does not have yet.
async fn warm(stand: &Stand, id: &str) -> InstanceId {
    let pool = Owner::Pool(PoolTenant::Shared);
    let mut spec = init(&["/fake/say", "hello"]);
    spec.env.insert("TOKEN".to_owned(), "s3cret".to_owned());
    let id = stand.lab.create(id, spec, Stage::Init, pool).await;
    let held =
        |state: &InstanceState| matches!(state, InstanceState::Up { phase: Phase::Held, .. });
    stand.lab.wait(&id, held).await;
    let drive = std::fs::read(stand.lab.instance_dir(&id).join("config.img")).expect("a drive");
    let has = |text: &str| drive.windows(text.len()).any(|bytes| bytes == text.as_bytes());
    assert!(has(id.as_str()) && !has("s3cret") && !has("hello"), "nothing of a job is in it");
    id
}

/// Until the fake has had a call of this name.
async fn until_called(stand: &Stand, name: &str) {
    let began = Instant::now();
    while !stand.fake.calls().iter().any(|call| call.name == name) {
        assert!(began.elapsed() < PATIENCE, "there is no {name}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

const WORKLOAD: &str = "guest workload";

#[tokio::test]
async fn late_workload_that_is_missed_is_delivered_again() {
    let stand = stand(&[
        Fault::new(On::before(WORKLOAD), Does::Nothing).of([1]),
        Fault::new(On::before(WORKLOAD), Does::Close).of([2]),
        Fault::new(On::after(WORKLOAD), Does::Close).of([3]),
        Fault::new(On::before(WORKLOAD), Does::Garbage("{\n".to_owned())).of([4]),
        Fault::new(On::before("guest hello"), Does::Close).of([5]),
    ])
    .await;
    for id in ["a1", "a2", "a3", "a4", "a5"] {
        let id = warm(&stand, id).await;
        let tell = tell(&id, &["/fake/say", "hello"]);
        stand.lab.host.apply(tell).await.expect("told at last");
        let runs = |state: &InstanceState| is_up(state) && state.serves(Generation(7));
        stand.lab.wait(&id, runs).await;
        stand.lab.says(&id, "hello").await;
        assert_eq!(stand.lab.texts(&id).await, ["hello"], "it was started once");
    }
    stand.clean().await;
}

#[tokio::test]
async fn late_workload_is_delivered_by_the_next_daemon() {
    for fault in [On::before(WORKLOAD), On::after(WORKLOAD)] {
        let mut stand = stand(&[Fault::new(fault, Does::Hang)]).await;
        let id = warm(&stand, "a1").await;
        // The daemon ends between the delivery and the acknowledgement.
        let telling = stand.lab.host.apply(tell(&id, &["/fake/say", "hello"]));
        tokio::select! {
            biased;
            () = until_called(&stand, WORKLOAD) => {}
            told = telling => panic!("{told:?}"),
        }
        stand.lab.restart().await;
        let tell = tell(&id, &["/fake/say", "hello"]);
        stand.lab.host.apply(tell).await.expect("told");
        stand.lab.says(&id, "hello").await;
        assert_eq!(stand.lab.texts(&id).await, ["hello"], "it was started once");
        stand.clean().await;
    }
}

#[tokio::test]
async fn late_workload_that_is_not_acknowledged_is_given_up() {
    let stand = stand(&[Fault::new(On::before(WORKLOAD), Does::Hang)]).await;
    let id = warm(&stand, "a1").await;
    let began = Instant::now();
    let error = stand.lab.host.apply(tell(&id, &["/fake/serve"])).await.expect_err("silent");
    assert!(error.is_transient(), "{}", error.sentence());
    assert!(error.sentence().contains("does not acknowledge its workload"), "{}", error.sentence());
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    stand.clean().await;
}

#[tokio::test]
async fn late_workload_over_the_bound_is_refused_at_creation() {
    let stand = stand(&[]).await;
    let mut spec = init(&["/fake/serve"]);
    spec.env.insert("LONG".to_owned(), "x".repeat(hearth_guest::CONFIG_DRIVE_BYTES_MAX));
    for stage in [Stage::Init, Stage::App] {
        let pool = Owner::Pool(PoolTenant::Shared);
        let create = stand.lab.creation("a1", spec.clone(), stage, pool).await;
        let refused = stand.lab.host.apply(Action::Create(Box::new(create))).await;
        let error = refused.expect_err("too long");
        assert!(!error.is_transient(), "{}", error.sentence());
        assert!(error.sentence().contains("the limit is"), "{}", error.sentence());
        stand.is_gone("a1").await;
    }
}

#[tokio::test]
async fn long_late_workload_reaches_its_guest() {
    let stand = stand(&[]).await;
    let mut spec = init(&["/fake/say", "hello"]);
    spec.env.insert("LONG".to_owned(), "x".repeat(900_000));
    let pool = Owner::Pool(PoolTenant::Shared);
    let id = stand.lab.create("a1", spec.clone(), Stage::Init, pool).await;
    let (instance, spec) = (id.clone(), std::sync::Arc::new(spec));
    let tell = Action::AssignIdentity { instance, spec, identity: job("web", 7), release: true };
    // Without a wait for the first report: the guest is told once it has come.
    stand.lab.host.apply(tell).await.expect("told");
    stand.lab.says(&id, "hello").await;
    stand.clean().await;
}

#[tokio::test]
async fn a_guest_that_hears_no_stop_is_killed() {
    let stand = stand(&[
        Fault::new(On::before("guest stop"), Does::Hang),
        Fault::new(On::before("SendCtrlAltDel"), Does::Hang),
    ])
    .await;
    let id = stand.try_create("a1", init(&["/fake/serve"])).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    stand.lab.stop(&id, 0).await;
    let exit = stand.lab.exit(&id).await;
    assert_eq!(exit.end, End::Vmm("Firecracker ended by signal 9 (killed)".to_owned()));
    assert!(exit.stop_requested);
    stand.clean().await;
}

#[tokio::test]
async fn guest_is_stopped_with_the_signal_that_was_asked_for() {
    // The second guest hears Ctrl-Alt-Del alone, which says no signal: it has that of its config.
    let deaf = Fault::new(On::before("guest stop"), Does::Nothing).of([2]);
    let stand = stand(&[deaf]).await;
    let signal = |name| Signal::parse(name).expect("a signal");
    for (id, ends_by) in [("a1", "SIGQUIT"), ("a2", "SIGINT")] {
        let spec = Spec { stop_signal: signal("SIGINT"), ..init(&["/fake/serve"]) };
        let id = stand.try_create(id, spec).await.expect("created");
        stand.lab.wait(&id, is_up).await;
        let instance = id.clone();
        let stop = Action::Stop { instance, signal: signal("SIGQUIT"), timeout_s: 30 };
        stand.lab.host.apply(stop).await.expect("stopped");
        let end = End::Signal(signal(ends_by).number());
        assert_eq!(stand.lab.exit(&id).await, Exit { end, stop_requested: true });
    }
    stand.clean().await;
}

#[tokio::test]
async fn oom_kills_are_seen_while_a_guest_runs_and_after_its_end() {
    let mut stand = stand(&[]).await;
    let id = stand.try_create("a1", init(&["/fake/oom", "6"])).await.expect("created");
    stand.lab.wait(&id, is_up).await;
    let seen = async |stand: &Stand| {
        let look = stand.lab.host.observe(None).await.expect("a look");
        let kills = look.instances[&id].oom_kills.clone();
        (kills.count, kills.last.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
    };
    let last = "process 3 (worker), process 4 (worker), process 5 (worker), process 6 (worker)";
    let expected = (6, last.to_owned());
    assert_eq!(seen(&stand).await, expected);
    stand.lab.restart().await;
    stand.lab.wait(&id, is_up).await;
    assert_eq!(seen(&stand).await, expected);
    stand.lab.stop(&id, 1).await;
    stand.lab.exit(&id).await;
    assert_eq!(seen(&stand).await, expected);
    stand.lab.restart().await;
    stand.lab.exit(&id).await;
    assert_eq!(seen(&stand).await, expected, "from the status drive");
    stand.clean().await;
}

#[tokio::test]
async fn processes_that_are_stuck_are_adopted_side_by_side() {
    const STUCK: u32 = 5;
    let mut stand = stand(&[Fault::new(On::before("GET /"), Does::Hang)]).await;
    for number in 0..STUCK {
        let id = format!("a{number}");
        stand.try_create(&id, raw("speaker")).await.expect("created");
    }
    let began = Instant::now();
    stand.lab.restart().await;
    // Each is given 2 s.
    assert!(began.elapsed() < Duration::from_secs(2) * (STUCK - 1), "{:?}", began.elapsed());
    let seen = stand.lab.host.observe(None).await.expect("a look");
    assert_eq!((seen.instances.len(), seen.unidentified.len()), (5, 0), "{seen:?}");
    assert!(seen.instances.keys().all(|id| stand.lab.host.alive(id)));
}

/// Copies of images that are not whole yet.
fn unfinished(stand: &Stand) -> usize {
    let store = stand.lab.state.path().join("state/images");
    let names = std::fs::read_dir(store).expect("a directory").flatten();
    names.filter(|entry| entry.file_name().to_string_lossy().starts_with(".new-")).count()
}

async fn until_unfinished(stand: &Stand, count: usize) {
    let end = Instant::now() + PATIENCE;
    while unfinished(stand) != count {
        assert!(Instant::now() < end, "{} copies are not whole", unfinished(stand));
        std::thread::sleep(Duration::from_millis(5));
        tokio::task::yield_now().await;
    }
}

const TB: u64 = 1 << 40;

#[tokio::test]
async fn small_image_does_not_wait_behind_large_ones() {
    let stand = stand(&[]).await;
    let host = &stand.lab.host;
    for name in ["one", "two", "three", "four"] {
        let large = stand.unread(name, TB);
        let lookup = host.resolve(&large, Duration::from_millis(200)).await.expect("a look");
        assert!(matches!(lookup, Lookup::Preparing(_)), "{lookup:?}");
    }
    until_unfinished(&stand, 4).await;
    let begin = Instant::now();
    let small = host.resolve(&stand.unread("small", 1 << 20), PATIENCE).await.expect("a look");
    assert!(matches!(small, Lookup::Known(_)), "{small:?}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(unfinished(&stand), 4, "the large ones take their time");
    stand.clean().await;
}

#[tokio::test(start_paused = true)]
async fn copy_that_no_job_requests_ends_and_leaves_nothing() {
    const STEP: Duration = Duration::from_millis(10);
    let stand = stand(&[]).await;
    let large = stand.unread("large", TB);
    // The clock stands still but for this.
    let look = async || loop {
        let time = async {
            for _ in 0..10 {
                std::thread::sleep(STEP);
                tokio::time::advance(STEP).await;
            }
        };
        match tokio::join!(stand.lab.host.resolve(&large, STEP * 5), time).0.expect("a look") {
            Lookup::Preparing(progress) if progress.total_bytes == TB => return progress,
            Lookup::Preparing(_) => {}
            Lookup::Known(_) => panic!("it is known"),
        }
    };
    // Two request it, and share a copy.
    look().await;
    look().await;
    assert_eq!(unfinished(&stand), 1);
    // It continues for as long as it is looked up now and then.
    let mut before = look().await;
    for _ in 0..4 {
        tokio::time::advance(Duration::from_secs(6)).await;
        let after = look().await;
        assert!(after.done_bytes > before.done_bytes, "{before} {after}");
        before = after;
    }
    tokio::time::advance(Duration::from_secs(11)).await;
    until_unfinished(&stand, 0).await;
    // Somebody comes again: it begins again.
    let again = look().await;
    assert!(again.done_bytes < before.done_bytes, "{before} {again}");
    stand.clean().await;
}

#[tokio::test]
async fn image_that_changes_while_it_is_copied_is_no_image() {
    type Change = fn(&Path);
    let changes: [(Change, &str); 3] = [
        (|path| std::fs::write(path, "other").expect("written"), "is being changed just now"),
        (|path| std::fs::remove_file(path).expect("removed"), "is being changed just now"),
        (
            |path| {
                let file = std::fs::File::options().append(true).open(path).expect("opened");
                std::io::Write::write_all(&mut &file, b"more").expect("written");
            },
            "is being changed just now",
        ),
    ];
    let stand = stand(&[]).await;
    for (change, said) in changes {
        let large = stand.unread("large", TB);
        let look_up = stand.lab.host.resolve(&large, PATIENCE);
        let changed = async {
            until_unfinished(&stand, 1).await;
            change(&stand.lab.images.join("large"));
        };
        let (looked, ()) = tokio::join!(look_up, changed);
        let error = looked.expect_err("it is no image");
        assert!(error.is_transient() && error.sentence().contains(said), "{}", error.sentence());
        until_unfinished(&stand, 0).await;
    }
    stand.clean().await;
}

#[tokio::test]
async fn holes_are_not_read_and_count_for_the_digest() {
    let stand = stand(&[]).await;
    let spec = stand.unread("holes", 64 << 20);
    let path = stand.lab.images.join("holes");
    let file = std::fs::File::options().write(true).open(&path).expect("opened");
    std::os::unix::fs::FileExt::write_all_at(&file, b"data", 40 << 20).expect("written");
    drop(file);
    let read = || {
        let io = std::fs::read_to_string("/proc/self/io").expect("/proc");
        let read = io.lines().find_map(|line| line.strip_prefix("rchar: ")).expect("a line");
        read.parse::<u64>().expect("a number")
    };
    let before = read();
    let lookup = stand.lab.host.resolve(&spec, PATIENCE).await.expect("a look");
    let bytes = read() - before;
    let Lookup::Known(images) = lookup else { panic!("{lookup:?}") };
    let whole = std::fs::read(&path).expect("read");
    assert_eq!(images.rootfs.expect("a rootfs").0, *blake3::hash(&whole).as_bytes());
    // Other tests read beside this one, and the kernel is read too.
    assert!(bytes < 16 << 20, "{bytes} bytes were read of {}", whole.len());
    stand.clean().await;
}
