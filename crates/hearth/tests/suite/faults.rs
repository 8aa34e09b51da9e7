//! The real daemon over a Firecracker that goes wrong. It needs neither KVM nor Linux guests.
//!
//! Alone: `cargo nextest run --workspace -E 'package(hearth) & test(/^faults::/)'`.

use crate::support::{Daemon, Home, cgroups, finished, shown};
use hearth_fake_firecracker::{Does, Effect, Fake, Fault, On, kernels};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const START: &str = "InstanceStart";
/// The calls that configure a bare guest.
const CALLS: [&str; 4] = ["PUT /machine-config", "PUT /boot-source", "PUT /vsock", "PUT /entropy"];

/// A home with images and a fake of its own.
pub(crate) struct World {
    pub(crate) home: Home,
    pub(crate) fake: Fake,
}

impl World {
    pub(crate) fn new(faults: &[Fault]) -> World {
        let home = Home::new();
        let (images, stand) = (home.path("images"), home.path("stand"));
        fs::create_dir(&images).expect("made");
        fs::create_dir(&stand).expect("made");
        // A superblock's magic is what the host looks for (ext4's layout, `s_magic`).
        let mut rootfs = vec![0; 4096];
        rootfs[1024 + 0x38..][..2].copy_from_slice(&0xef53_u16.to_le_bytes());
        let files = [
            ("speaker", kernels::speaker("OK\n")),
            ("flooder", kernels::flooder("\x1b[2Jx\u{7}y\r\n")),
            ("rebooter", kernels::rebooter()),
            ("rootfs.ext4", rootfs),
        ];
        for (name, bytes) in files {
            fs::write(images.join(name), bytes).expect("written");
        }
        let fake = Fake::new(&stand);
        fake.script(faults);
        World { home, fake }
    }

    pub(crate) fn start(&self) -> Daemon {
        self.start_with("none.exs")
    }

    /// With a desired-state file.
    fn start_with(&self, desired: &str) -> Daemon {
        let mut command = self.home.hearth(["serve", "--listen", "127.0.0.1:0", "--host", "linux"]);
        command.arg("--state-dir").arg(self.home.path("state"));
        command.arg("--images").arg(self.home.path("images"));
        command.args(["--jail", "off", "--firecracker"]).arg(self.fake.binary());
        command.args(["--desired", desired, "--vcpus-per-cpu", "64", "--image-max-gb", "2048"]);
        Daemon::spawn(command)
    }

    pub(crate) fn instances(&self) -> PathBuf {
        self.home.path("state/instances")
    }

    /// The instances that have a directory.
    pub(crate) fn directories(&self) -> BTreeSet<String> {
        names(&self.instances())
    }

    fn processes(&self) -> Vec<(String, i32)> {
        crate::support::native::processes(&self.instances())
    }

    /// Ends the process of an instance and waits until the kernel says that it has.
    fn kill(&self, instance: &str) {
        let pid = fs::read_to_string(self.instances().join(instance).join("pid")).expect("a pid");
        let raw = pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw).expect("a pid");
        let pidfd = pidfd_open(raw, PidfdFlags::empty()).expect("a descriptor");
        pidfd_send_signal(&pidfd, Signal::KILL).expect("killed");
        assert_eq!(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None), Ok(1));
    }

    /// At rest there are so many instances: each a directory and a process, and nothing else.
    fn holds(&self, daemon: &Daemon, count: usize) {
        daemon.until(&format!("{count} instances are all there is"), || {
            let processes: Vec<String> = self.processes().into_iter().map(|(id, _)| id).collect();
            let directories: Vec<String> = self.directories().into_iter().collect();
            processes == directories && processes.len() == count
        });
    }
}

impl Drop for World {
    /// A test leaves no process behind, and no config drive in the runtime directory.
    fn drop(&mut self) {
        for (_, pid) in self.processes() {
            let pid = rustix::process::Pid::from_raw(pid).expect("a pid");
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        for instance in self.directories() {
            let drive = fs::read_link(self.instances().join(instance).join("config.img"));
            let _ = drive.map(fs::remove_file);
        }
    }
}

fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// A POST of a bare guest.
fn bare(job: &str, kernel: &str) -> String {
    let spec = json!({
        "boot": "raw", "kernel": kernel, "lifecycle": "service",
        "resources": {"vcpu": 1, "mem_mb": 32},
    });
    json!({"job_id": job, "spec": spec}).to_string()
}

/// A POST of a guest with Hearth's init, whose command is one of the fake's.
pub(crate) fn init(job: &str, lifecycle: &str, cmd: &[&str], warm: u64) -> String {
    let mut spec = json!({
        "rootfs": "rootfs.ext4", "kernel": "speaker", "lifecycle": lifecycle, "cmd": cmd,
        "resources": {"vcpu": 1, "mem_mb": 32},
    });
    if warm > 0 {
        spec["warm_pool"] = json!({"min": warm, "max": warm});
    }
    json!({"job_id": job, "spec": spec}).to_string()
}

/// The suffix by which an instance is known, warm or not.
pub(crate) fn suffix(vm: &Value) -> String {
    let id = vm.as_str().unwrap_or_else(|| panic!("{vm} is no instance"));
    id.rsplit('-').next().expect("a suffix").to_owned()
}

fn on(call: &str, effect: Effect) -> On {
    On::Call { name: call.to_owned(), nth: 1, effect }
}

#[test]
fn killed_firecracker_is_replaced_with_back_off_without_leaks() {
    let world = World::new(&[]);
    let daemon = world.start();
    daemon.post("/vms", &bare("web", "speaker"));
    let mut last = suffix(&daemon.until_job("web", "running")["vm_id"]);
    let mut waits = Vec::new();
    for _ in 0..3 {
        world.kill(&last);
        let begin = Instant::now();
        let mut new = String::new();
        daemon.until("another takes its place", || {
            let job = daemon.get("/vms/web").json();
            new = job["vm_id"].as_str().map(|_| suffix(&job["vm_id"])).unwrap_or_default();
            job["status"] == "running" && new != last
        });
        waits.push(begin.elapsed());
        last = new;
    }
    // At once, then after 1 s, then after 2 s.
    assert!(waits[1] >= Duration::from_secs(1) && waits[2] >= Duration::from_secs(2), "{waits:?}");
    world.holds(&daemon, 1);
    assert_eq!(world.fake.processes().len(), 4);
}

/// The command line's answer about this daemon.
fn said(world: &World, daemon: &Daemon, args: &[&str]) -> String {
    let mut command = world.home.hearth(args);
    command.env("HEARTH_URL", &daemon.url);
    shown(&finished(command))
}

/// The copies of images in the store.
fn copies(world: &World) -> usize {
    let digest = |name: &String| name.len() == 64 && name.bytes().all(|b| b.is_ascii_hexdigit());
    names(&world.home.path("state/images")).iter().filter(|name| digest(name)).count()
}

#[test]
fn unused_copies_of_images_are_pruned() {
    let world = World::new(&[]);
    let daemon = world.start();
    daemon.post("/vms", &init("web", "service", &["/fake/serve"], 0));
    daemon.until_job("web", "running");
    daemon.post("/vms", &bare("other", "flooder"));
    daemon.until_job("other", "running");
    assert_eq!(copies(&world), 3);
    assert!(said(&world, &daemon, &["image", "prune", "--all"]).contains("freed"));
    daemon.delete("/vms/other");
    world.holds(&daemon, 1);
    let listed = daemon.get("/images").json();
    let listed = listed["items"].as_array().expect("a list");
    assert_eq!(listed.iter().filter(|image| image["in_use"] == true).count(), 3, "{listed:?}");
    assert!(said(&world, &daemon, &["image", "ls"]).contains("IN USE"));
    let kept = said(&world, &daemon, &["image", "prune"]);
    assert!(kept.contains("freed 0 B") && copies(&world) == 3, "{kept}");
    let dry = said(&world, &daemon, &["image", "prune", "--all", "--dry-run"]);
    assert!(dry.contains("would remove") && copies(&world) == 3, "{dry}");
    let done = said(&world, &daemon, &["image", "prune", "--all"]);
    assert!(done.contains("\nremoved ") && copies(&world) == 2, "{done}");
    daemon.post("/vms", &bare("other", "flooder"));
    daemon.until_job("other", "running");
    ["web", "other"].iter().for_each(|job| drop(daemon.delete(&format!("/vms/{job}"))));
    world.holds(&daemon, 0);
    let pruned = daemon.post("/images/prune?all=true", "").json();
    assert!(pruned["freed_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{pruned}");
    assert_eq!(copies(&world), 0);
    assert_eq!(daemon.post("/images/prune?al=true", "").status, 400);
}

#[test]
fn a_copy_stays_while_an_orphan_runs_from_it() {
    let world = World::new(&[]);
    let daemon = world.start();
    daemon.post("/vms", &bare("web", "speaker"));
    daemon.until_job("web", "running");
    daemon.kill();
    for file in ["hearth.db", "hearth.db-wal", "hearth.db-shm"] {
        let _ = fs::remove_file(world.home.path("state").join(file));
    }
    let daemon = world.start();
    let pruned = daemon.post("/images/prune?all=true", "").json();
    assert_eq!((copies(&world), world.processes().len()), (1, 1), "{pruned}");
    daemon.post("/vms", &bare("web", "speaker"));
    daemon.until_job("web", "running");
    daemon.delete("/vms/web");
    world.holds(&daemon, 0);
    daemon.post("/images/prune?all=true", "");
    assert_eq!(copies(&world), 0);
}

#[test]
fn restart_ends_no_guest_before_its_first_report() {
    let world = World::new(&[]);
    let daemon = world.start();
    let jobs = [bare("bare", "speaker"), init("web", "service", &["/fake/serve"], 1)];
    jobs.iter().for_each(|job| drop(daemon.post("/vms", job)));
    let all_serve = |daemon: &Daemon| {
        ["bare", "web"].iter().for_each(|job| drop(daemon.until_job(job, "running")));
        daemon.until_warm(1);
    };
    all_serve(&daemon);
    let processes = world.processes();
    // They are older than a boot may take, and slow to answer.
    std::thread::sleep(hearth_planner::Limits::default().boot + Duration::from_millis(100));
    let signal_all = |signal| {
        for (_, pid) in &processes {
            let pid = rustix::process::Pid::from_raw(*pid).expect("a pid");
            rustix::process::kill_process(pid, signal).expect("it lives");
        }
    };
    signal_all(Signal::STOP);
    daemon.kill();
    let daemon = world.start();
    std::thread::sleep(Duration::from_secs(1));
    signal_all(Signal::CONT);
    all_serve(&daemon);
    assert_eq!(world.processes(), processes);
}

#[test]
fn a_firecracker_that_hangs_is_ended_and_no_other_waits_for_it() {
    let world = World::new(&[Fault::new(On::before("PUT /vsock"), Does::Hang).of([1])]);
    let daemon = world.start();
    daemon.post("/vms", &bare("stuck", "speaker"));
    daemon.until("it has begun", || world.fake.processes().len() == 1);
    daemon.post("/vms", &bare("other", "speaker"));
    daemon.until_job("other", "running");
    assert_ne!(daemon.get("/vms/stuck").json()["status"], "running", "the other did not wait");
    daemon.until_job("stuck", "running");
    world.holds(&daemon, 2);
}

#[test]
fn lost_answers_and_5xx_leave_one_instance_that_runs() {
    let answer = || Does::Answer { status: 500, message: "I/O error".to_owned() };
    for does in [Does::Close, answer()] {
        // Each call of the first processes in turn, so that the fifth is the one.
        let mut faults: Vec<Fault> = (1..)
            .zip(CALLS)
            .map(|(at, call)| Fault::new(on(call, Effect::Done), does.clone()).of([at]))
            .collect();
        faults.truncate(2);
        faults.push(Fault::new(on(START, Effect::Done), does).of([3]));
        let world = World::new(&faults);
        let daemon = world.start();
        daemon.post("/vms", &bare("web", "speaker"));
        daemon.until_job("web", "running");
        world.holds(&daemon, 1);
        assert_eq!(world.fake.processes().len(), 3, "the start of the third was read back");
    }
}

#[test]
fn a_job_whose_start_has_no_known_outcome_is_not_run_again() {
    let world = World::new(&[
        Fault::new(on(START, Effect::Done), Does::Close).of([1]),
        Fault::new(on(START, Effect::Done), Does::Signal(9)).of([2]),
    ]);
    let daemon = world.start();
    daemon.post("/vms", &init("read-back", "job", &["/fake/exit", "0"], 0));
    daemon.until_job("read-back", "completed");
    daemon.post("/vms", &init("unknown", "job", &["/fake/exit", "0"], 0));
    let job = daemon.until_job("unknown", "failed");
    assert!(job["reason"].as_str().is_some_and(|why| why.contains("cannot tell whether")), "{job}");
    world.holds(&daemon, 0);
    assert_eq!(world.fake.processes().len(), 2);
}

#[test]
fn a_crash_loop_is_slowed_down_and_its_neighbours_are_not() {
    const LOOPERS: usize = 5;
    let world = World::new(&[]);
    let daemon = world.start();
    let starts = |prefix: &str| {
        let mut took: Vec<Duration> = (0..9)
            .map(|number| {
                let job = format!("{prefix}-{number}");
                let begin = Instant::now();
                daemon.post("/vms", &bare(&job, "speaker"));
                daemon.until_job(&job, "running");
                begin.elapsed()
            })
            .collect();
        took.sort();
        took[took.len() / 2]
    };
    let before = starts("before");
    for number in 0..LOOPERS {
        daemon.post("/vms", &bare(&format!("loops-{number}"), "rebooter"));
    }
    let begin = Instant::now();
    let during = starts("during");
    assert!(during < before * 4 + Duration::from_millis(100), "{during:?} instead of {before:?}");
    daemon
        .until("each was started three times", || world.fake.processes().len() >= 18 + 3 * LOOPERS);
    // 0, 0, 1, 2, 4, … seconds lie between their starts.
    let bound = 3 + usize::try_from(begin.elapsed().as_secs().ilog2()).unwrap_or(0);
    let looped = world.fake.processes().len() - 18;
    assert!(looped <= LOOPERS * bound, "{looped} starts in {:?}", begin.elapsed());
}

#[test]
fn claim_is_never_answered_with_a_dead_warm_instance() {
    const POOLS: u64 = 20;
    let world = World::new(&[]);
    let daemon = world.start();
    // By its memory a pool is another.
    let post = |job: String, memory: u64| {
        let body = init(&job, "service", &["/fake/serve"], 1);
        let body = body.replace(r#""mem_mb":32"#, &format!(r#""mem_mb":{memory}"#));
        daemon.post("/vms", &body).json()
    };
    for pool in 0..POOLS {
        post(format!("first-{pool}"), 32 + pool);
    }
    daemon.until_warm(POOLS);
    let stats = daemon.get("/stats").json();
    for vm in stats["warm_pool"].as_array().expect("a pool") {
        let memory = vm["spec"]["resources"]["mem_mb"].as_u64().expect("memory");
        let warm = suffix(&vm["vm_id"]);
        world.kill(&warm);
        let job = format!("claims-{memory}");
        let answer = post(job.clone(), memory);
        assert!(answer["generation"].is_u64(), "{answer:#}");
        let claimed = answer["vm_id"].as_str().map(|_| suffix(&answer["vm_id"]));
        assert_ne!(claimed, Some(warm), "{answer:#}");
        daemon.until_job(&job, "running");
    }
}

/// The first process is a job's own and has its identity from the start; the second is warm.
fn with_a_pool(daemon: &Daemon) {
    daemon.post("/vms", &init("first", "service", &["/fake/serve"], 0));
    daemon.until_job("first", "running");
    daemon.post("/vms", &init("first", "service", &["/fake/serve"], 1));
    daemon.until_warm(1);
}

#[test]
fn claimed_guest_is_told_again_and_replaced_after_5_s() {
    let identity = "guest identity";
    let world = World::new(&[
        Fault::new(On::before(identity), Does::Nothing).of([2]),
        Fault::new(On::before(identity), Does::Hang).of([3]),
    ]);
    let daemon = world.start();
    let post = |job: &str| {
        let answer = daemon.post("/vms", &init(job, "service", &["/fake/serve"], 1));
        assert!(answer.status < 300, "{}", answer.body);
        answer.json()
    };
    with_a_pool(&daemon);
    let claimed = suffix(&post("forgetful")["vm_id"]);
    let job = daemon.until_job("forgetful", "running");
    assert_eq!(suffix(&job["vm_id"]), claimed, "it was told again");
    assert!(world.fake.calls().iter().filter(|call| call.name == identity).count() >= 2);
    daemon.until_warm(1);
    let claimed = suffix(&post("deaf")["vm_id"]);
    let begin = Instant::now();
    let job = daemon.until_job("deaf", "running");
    assert_ne!(suffix(&job["vm_id"]), claimed);
    assert!(begin.elapsed() >= Duration::from_secs(4), "it was given its time");
    daemon.until("the deaf one is gone", || !world.directories().contains(&claimed));
}

#[test]
fn a_claim_that_was_answered_is_told_after_a_kill_of_the_daemon() {
    let identity = "guest identity";
    let world = World::new(&[Fault::new(On::before(identity), Does::Nothing).of([2])]);
    let daemon = world.start();
    let post = |job: &str| daemon.post("/vms", &init(job, "service", &["/fake/serve"], 1)).json();
    with_a_pool(&daemon);
    let claimed = suffix(&post("second")["vm_id"]);
    daemon.until("the first word is said and lost", || {
        world.fake.calls().iter().any(|call| call.name == identity)
    });
    daemon.kill();
    let daemon = world.start();
    let job = daemon.until_job("second", "running");
    assert_eq!(suffix(&job["vm_id"]), claimed);
}

/// A job of its own and one warm instance, which has no command yet.
fn with_a_held_pool(daemon: &Daemon) {
    daemon.post("/vms", &init("first", "daemon", &["/fake/say", "hello"], 0));
    daemon.until_job("first", "running");
    daemon.post("/vms", &init("first", "daemon", &["/fake/say", "hello"], 1));
    daemon.until_warm(1);
}

/// The instance that a new job has claimed from that pool.
fn claim_held(daemon: &Daemon, job: &str) -> String {
    let answer = daemon.post("/vms", &init(job, "daemon", &["/fake/say", "hello"], 0)).json();
    suffix(&answer["vm_id"])
}

#[test]
fn late_workload_is_delivered_after_a_kill_of_the_daemon() {
    let workload = "guest workload";
    let world = World::new(&[Fault::new(On::before(workload), Does::Nothing).of([2])]);
    let daemon = world.start();
    with_a_held_pool(&daemon);
    let claimed = claim_held(&daemon, "second");
    daemon.until("the workload is sent and lost", || {
        world.fake.calls().iter().any(|call| call.name == workload)
    });
    daemon.kill();
    let daemon = world.start();
    let job = daemon.until_job("second", "running");
    assert_eq!(suffix(&job["vm_id"]), claimed);
    daemon.until("it runs its command", || {
        records(&daemon, "second", "").iter().any(|record| record["text"] == "hello")
    });
}

#[test]
fn instance_that_takes_no_workload_is_replaced_after_5_s() {
    let world = World::new(&[Fault::new(On::before("guest workload"), Does::Hang).of([2])]);
    let daemon = world.start();
    with_a_held_pool(&daemon);
    let claimed = claim_held(&daemon, "deaf");
    let begin = Instant::now();
    let job = daemon.until_job("deaf", "running");
    assert_ne!(suffix(&job["vm_id"]), claimed, "another takes its place");
    assert!(begin.elapsed() >= Duration::from_secs(4), "it was given its time");
    daemon.until("the deaf one is gone", || !world.directories().contains(&claimed));
    let events = daemon.get("/vms/deaf/events").json();
    let says = |text: &str| {
        let items = events["items"].as_array().expect("a list");
        items.iter().any(|event| event["message"].as_str().is_some_and(|it| it.contains(text)))
    };
    assert!(says("it does not acknowledge its workload"), "{events:#}");
    assert!(says("the guest was not assigned in time: cannot assign"), "{events:#}");
    let items = events["items"].as_array().expect("a list");
    let stopping = items.iter().find(|event| event["kind"] == "stopping");
    let reason = stopping.and_then(|event| event["reason"].as_str()).unwrap_or_default();
    assert!(reason.ends_with("it does not acknowledge its workload"), "{events:#}");
}

#[test]
fn flood_of_output_is_bounded_escaped_and_blocks_no_guest() {
    let world = World::new(&[]);
    let daemon = world.start();
    daemon.post("/vms", &bare("floods", "flooder"));
    daemon.until_job("floods", "running");
    let bounded = || {
        let bytes = bytes_in(&world.home.path("state/logs")) + bytes_in(&world.instances());
        assert!(bytes < 8 << 20, "{bytes} bytes");
    };
    let prompt = |daemon: &Daemon, job: &str| {
        let begin = Instant::now();
        daemon.post("/vms", &bare(job, "speaker"));
        daemon.until_job(job, "running");
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    };
    std::thread::sleep(Duration::from_secs(2));
    prompt(&daemon, "one");
    bounded();
    let mut logs = world.home.hearth(["logs", "floods", "--tail", "50"]);
    logs.env("HEARTH_URL", &daemon.url);
    let seen = on_a_terminal(logs);
    assert!(seen.contains("\\u{1b}[2Jx\\u{7}y") && !seen.contains(['\x1b', '\x07']), "{seen:?}");
    daemon.kill();
    std::thread::sleep(Duration::from_secs(2));
    bounded();
    let daemon = world.start();
    daemon.until_job("floods", "running");
    prompt(&daemon, "two");
    assert_eq!(world.fake.processes().len(), 3, "the flood was taken over");
}

/// The records of a job's log.
pub(crate) fn records(daemon: &Daemon, job: &str, query: &str) -> Vec<Value> {
    let accept = ["Accept: application/x-ndjson"];
    let answer = daemon.request("GET", &format!("/vms/{job}/logs{query}"), &accept, "");
    answer.body.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

#[test]
fn prompt_is_shown_while_the_app_waits_and_never_twice() {
    let world = World::new(&[]);
    let daemon = world.start();
    daemon.post("/vms", &init("asks", "service", &["/fake/print", "first\nPassword: "], 0));
    let mut follow = world.home.hearth(["logs", "-f", "asks"]);
    follow.env("HEARTH_URL", &daemon.url).stdout(Stdio::piped());
    let mut follow = follow.spawn().expect("it starts");
    let mut shown = [0; 16];
    let stdout = follow.stdout.as_mut().expect("a pipe");
    stdout.read_exact(&mut shown).expect("it is shown");
    assert_eq!(&shown, b"first\nPassword: ");
    let _ = follow.kill();
    let _ = follow.wait();
    let seen = records(&daemon, "asks", "");
    assert_eq!([&seen[0]["partial"], &seen[1]["partial"]], [false, true]);
    assert_eq!(records(&daemon, "asks", "?tail=1")[0], seen[1]);
    daemon.kill();
    let daemon = world.start();
    // What the guest says later comes behind all that it has said.
    daemon.post("/vms", &init("other", "service", &["/fake/print", "later"], 0));
    daemon.until("the other one is shown", || daemon.get("/vms/other/logs").body == "later");
    assert_eq!(records(&daemon, "asks", ""), seen);
    assert_eq!(daemon.get("/vms/asks/logs").body, "first\nPassword: ");
    let after = |record: &Value| format!("?after={}:{}", record["vm_id"], record["cursor"]);
    assert_eq!(records(&daemon, "asks", &after(&seen[0]).replace('"', ""))[..], seen[1..]);
    assert!(records(&daemon, "asks", &after(&seen[1]).replace('"', "")).is_empty());
}

#[test]
fn line_of_40_kb_is_one_record() {
    let world = World::new(&[]);
    let daemon = world.start();
    let line = "x".repeat(40_000);
    daemon.post("/vms", &init("long", "service", &["/fake/say", &line], 0));
    daemon.until("it is shown", || !records(&daemon, "long", "").is_empty());
    let seen = records(&daemon, "long", "");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0]["text"], line);
    assert_eq!(daemon.get("/vms/long/logs").body, line + "\n");
}

#[test]
fn wrong_clock_is_corrected_and_late_answers_are_not_trusted() {
    let late = Fault::new(On::before("guest clock"), Does::Wait(3000)).of([2]);
    let world = World::new(&[late]);
    let daemon = world.start();
    daemon.post("/vms", &init("late", "service", &["/fake/late", "100"], 0));
    daemon.until("the clock is set", || !daemon.get("/vms/late/logs").body.is_empty());
    daemon.post("/vms", &init("paused", "service", &["/fake/late", "0"], 0));
    let asked = || {
        let calls = world.fake.calls();
        calls.iter().filter(|call| call.process == 2 && call.name == "guest clock").count()
    };
    daemon.until("it is asked again", || asked() == 2);
    assert_eq!(daemon.get("/vms/late/logs").body, "the clock was off by -100.0 s\n");
    assert_eq!(daemon.get("/vms/paused/logs").body, "");
}

/// What a command shows to someone at a terminal.
fn on_a_terminal(mut command: Command) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a terminal");
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).expect("a terminal");
    let name = ptsname(&terminal, Vec::new()).expect("its name");
    let name = Path::new(OsStr::from_bytes(name.as_bytes())).to_owned();
    let end = fs::File::options().read(true).write(true).open(name).expect("its other end");
    let mut child = command.stdout(end).spawn().expect("it starts");
    // The command holds the other end until it is over.
    drop(command);
    let mut seen = Vec::new();
    // At the end of all writers a terminal gives an error.
    let _ = fs::File::from(terminal).read_to_end(&mut seen);
    assert!(child.wait().expect("it can be reaped").success());
    String::from_utf8_lossy(&seen).into_owned()
}

fn bytes_in(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => bytes_in(&entry.path()),
        _ => entry.metadata().map(|meta| meta.len()).unwrap_or_default(),
    };
    entries.map(bytes).sum()
}

#[test]
fn garbage_from_the_api_is_escaped_in_what_is_shown() {
    let answer = Does::Answer { status: 400, message: "\x1b[31mred\u{202e}".to_owned() };
    let each = On::Call { name: START.to_owned(), nth: 0, effect: Effect::Skipped };
    let world = World::new(&[Fault::new(each, answer)]);
    let daemon = world.start();
    daemon.post("/vms", &bare("web", "speaker"));
    daemon.until("its reason is told", || {
        daemon.get("/vms/web").json()["reason"].as_str().is_some_and(|why| why.contains("red"))
    });
    for args in [&["ps"][..], &["events", "web"], &["get", "web"], &["status"]] {
        let mut command = world.home.hearth(args);
        command.env("HEARTH_URL", &daemon.url);
        let output = finished(command);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{args:?} {}", shown(&output));
        assert!(!text.contains('\x1b') && !text.contains('\u{202e}'), "{args:?} {text:?}");
    }
}

#[test]
fn unidentified_instance_gets_no_successor_and_is_found_later() {
    let world = World::new(&[]);
    let daemon = world.start();
    daemon.post("/vms", &init("worker", "daemon", &["/fake/serve"], 0));
    let vm = daemon.until_job("worker", "running")["vm_id"].clone();
    let before = world.processes();
    daemon.kill();
    let record = world.instances().join(suffix(&vm)).join("manifest.json");
    let whole = fs::read(&record).expect("a record");
    fs::write(&record, "{").expect("written");
    let daemon = world.start();
    daemon.until("it is told of", || {
        let events = daemon.get("/vms/worker/events").json();
        events["items"].as_array().is_some_and(|events| {
            let told = |event: &Value| event["message"].as_str().map(|m| m.contains("left alone"));
            events.iter().filter_map(told).any(|told| told)
        })
    });
    daemon.post("/vms/worker/restart", "");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(world.processes(), before, "there are never two");
    fs::write(&record, whole).expect("written");
    daemon.until("its successor runs once it is known and ended", || {
        let job = daemon.get("/vms/worker").json();
        job["status"] == "running" && job["vm_id"] != vm
    });
    world.holds(&daemon, 1);
}

/// An image of so many GiB, all of it a hole: the digest of a TiB takes minutes.
fn hole(world: &World, name: &str, gib: u64) {
    let file = fs::File::create(world.home.path("images").join(name)).expect("made");
    file.set_len(gib << 30).expect("a file system with holes");
}

fn with_root(job: &str, rootfs: &str) -> String {
    let mut body: Value = serde_json::from_str(&bare(job, "speaker")).expect("JSON");
    body["spec"]["rootfs"] = rootfs.into();
    body.to_string()
}

#[test]
fn large_images_hold_up_no_request_no_other_job_and_no_end() {
    let world = World::new(&[]);
    for name in ["huge-0", "huge-1", "huge-2"] {
        hole(&world, name, 1024);
    }
    fs::write(world.home.path("images/small"), "a disk").expect("written");
    let declared = ["declared-huge", "declared-small"].map(|job| {
        let rootfs = job.trim_start_matches("declared-").replace("huge", "huge-2");
        with_root(job, &rootfs)
    });
    world.home.write("desired.json", &format!("[{}]", declared.join(",")));
    let daemon = world.start_with("desired.json");
    daemon.until_job("declared-small", "running");
    // More than there are threads for files; each has a second, and a busy machine some more.
    let begin = Instant::now();
    let answers = std::thread::scope(|scope| {
        let post = |number: usize| {
            let daemon = &daemon;
            let body = with_root(&format!("slow-{number}"), &format!("huge-{}", number % 3));
            scope.spawn(move || daemon.post("/vms", &body))
        };
        let posts: Vec<_> = (0..20).map(post).collect();
        posts.into_iter().map(|post| post.join().expect("answered")).collect::<Vec<_>>()
    });
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for answer in answers {
        assert_eq!(answer.status, 202, "{}", answer.shown());
        let job = answer.json();
        let reason = job["reason"].as_str().unwrap_or_default();
        assert!(reason.starts_with("preparing image huge-"), "{job}");
        assert!(reason.contains("of 1024 GiB)"), "{job}");
        assert_eq!(job["status"], "pending");
    }
    let plan = format!("{{\"entries\": [{}]}}", with_root("planned", "huge-0"));
    let begin = Instant::now();
    assert_eq!(daemon.post("/plan", &plan).status, 200);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    // A new image that is small.
    let begin = Instant::now();
    fs::write(world.home.path("images/late"), "another disk").expect("written");
    daemon.post("/vms", &with_root("late", "late"));
    let late = daemon.until_job("late", "running")["vm_id"].clone();
    world.kill(&suffix(&late));
    daemon.until("it is replaced", || {
        let job = daemon.get("/vms/late").json();
        job["status"] == "running" && job["vm_id"] != late
    });
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
    // The next daemon continues with it, and removes what this one left.
    daemon.kill();
    let daemon = world.start_with("desired.json");
    daemon.until("it is prepared again", || {
        let reason = daemon.get("/vms/slow-0").json()["reason"].clone();
        reason.as_str().is_some_and(|reason| reason.starts_with("preparing image huge-0 ("))
    });
    let store = names(&world.home.path("state/images"));
    let unfinished = store.iter().filter(|name| name.starts_with(".new-")).count();
    assert!(unfinished <= 3, "{store:?}");
    let begin = Instant::now();
    let (status, _) = daemon.terminate();
    assert!(status.success() && begin.elapsed() < Duration::from_secs(10), "{status}");
}

#[test]
fn image_above_image_max_gb_fails_its_job_with_the_remedy() {
    let world = World::new(&[]);
    hole(&world, "vast", 2049);
    let daemon = world.start();
    daemon.post("/vms", &with_root("web", "vast"));
    let job = daemon.until_job("web", "failed");
    let reason = "cannot use rootfs vast: it has 2049 GiB, and image_max_gb allows 2048; make it \
                  smaller (resize2fs), or raise image_max_gb";
    assert_eq!(job["reason"], reason);
    // Once it is smaller it is used.
    fs::write(world.home.path("images/vast"), "a disk").expect("written");
    daemon.until_job("web", "running");
}

#[test]
fn thousands_of_leftovers_are_removed_and_live_instances_kept() {
    let world = World::new(&[]);
    let plant = |number: u32| {
        let name = format!("left{number:06}");
        let (dir, file, text) = match number % 250 {
            0 => (name, "manifest.json", "{}"),
            1..100 => (name, "manifest.json", ""),
            100..175 => (name, "manifest.json.new", "{"),
            _ => (format!("{name}.gone"), "kernel", "x"),
        };
        let dir = world.instances().join(dir);
        fs::create_dir_all(&dir).expect("a directory");
        fs::write(dir.join(file), text).expect("a file");
    };
    (0..5000).for_each(plant);
    let state = world.home.path("state");
    let cgroups = cgroups::parent(&state);
    for number in 0..500 {
        let plant = |parent| fs::create_dir_all(Path::join(parent, format!("left{number:06}")));
        cgroups.as_deref().map_or(Ok(()), plant).expect("a cgroup");
    }
    let daemon = world.start();
    assert_eq!(daemon.get("/healthz").status, 200);
    daemon.post("/vms", &bare("web", "speaker"));
    daemon.until_job("web", "running");
    daemon.until("all are cleared away", || world.directories().len() == 20 + 1);
    daemon.until("no cgroup is left but those of what is left alone, and one that is used", || {
        cgroups::members(&state).is_none_or(|cgroups| {
            let in_use = cgroups.iter().filter(|(_, pids)| !pids.is_empty()).count();
            (cgroups.len(), in_use) == (2 + 1, 1)
        })
    });
    let stats = daemon.get("/stats").json();
    assert_eq!(stats["unidentified"].as_array().expect("a list").len(), 20, "{stats:#}");
}
