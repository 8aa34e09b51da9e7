//! A state directory of an older daemon, byte for byte as that left it, and instances that it started.
//! `tests/data/state-1/README.md` says how it was made. It is never edited.

use crate::faults::{World, init, records, suffix};
use crate::support::Daemon;
use hearth_firecracker::{
    Action, BootSource, Directory, Drive, Launched, MachineConfig, Spawn, Vsock, boot_id, names,
};
use hearth_guest::{GuestDrive, drive_assignment};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What that daemon answered before it was ended.
const JOBS: &str = include_str!("../data/state-1/jobs.json");
const EVENTS: &str = include_str!("../data/state-1/events.json");

fn frozen() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/state-1/state")
}

/// Copies a directory with the modes that a daemon gives; git keeps none.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    fs::set_permissions(to, Permissions::from_mode(0o700)).expect("its mode is set");
    for entry in fs::read_dir(from).expect("a directory") {
        let entry = entry.expect("an entry");
        let to = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), &to).expect("copied");
            fs::set_permissions(&to, Permissions::from_mode(0o600)).expect("its mode is set");
        }
    }
}

/// Starts the microVM of an instance as the older daemon did, and names its process in the instance record.
/// Its guest speaks protocol 1, since its environment says so.
async fn run(world: &World, instance: &str) -> Launched {
    let dir = world.instances().join(instance);
    let kernel = fs::read(world.home.path("images/speaker")).expect("a kernel");
    for (name, bytes) in [("kernel", &kernel[..]), ("initrd", b"x"), ("rootfs", b"x")] {
        fs::write(dir.join(name), bytes).expect("written");
    }
    fs::write(dir.join("scratch.img"), "x").expect("written");
    let spawn = Spawn {
        binary: world.fake.binary(),
        directory: Arc::new(Directory::open(&dir).expect("a directory")),
        id: instance.to_owned(),
        cgroup: None,
        confinement: None,
        factor: 1.0,
    };
    let launched = spawn.launch().await.expect("it starts");
    let drives = [
        (GuestDrive::Rootfs, "rootfs", "rootfs", "/dev/vda", true),
        (GuestDrive::Scratch, "scratch", "scratch.img", "/dev/vdb", false),
        (GuestDrive::Config, "config", "config.img", "/dev/vdc", true),
        (GuestDrive::Status, "status", "status.img", "/dev/vdd", false),
    ];
    let client = &launched.client;
    let size = MachineConfig { vcpu_count: 1, mem_size_mib: 32 };
    client.machine_config(&size).await.expect("configured");
    let assignments = drives.map(|(role, _, _, device, _)| drive_assignment(role, device));
    let boot = BootSource {
        kernel_image_path: "kernel".to_owned(),
        initrd_path: Some("initrd".to_owned()),
        boot_args: Some(assignments.join(" ")),
    };
    client.boot_source(&boot).await.expect("configured");
    for (_, id, path, _, is_read_only) in drives {
        let drive = Drive {
            drive_id: id.to_owned(),
            path_on_host: path.to_owned(),
            is_root_device: false,
            is_read_only,
            rate_limiter: None,
        };
        client.drive(&drive).await.expect("configured");
    }
    let vsock = Vsock { guest_cid: 3, uds_path: names::VSOCK_SOCKET.to_owned() };
    client.vsock(&vsock).await.expect("configured");
    client.action(Action::InstanceStart).await.expect("started");
    let path = dir.join("manifest.json");
    let text = fs::read_to_string(&path).expect("a record");
    let mut record: Map<String, Value> = serde_json::from_str(&text).expect("a record");
    assert!(!record.contains_key("protocol") && !record.contains_key("machine"), "it is old");
    let identity = launched.process.identity();
    record["process"] = serde_json::to_value(identity).expect("JSON");
    record["host_boot"] = identity.boot_id.clone().into();
    fs::write(path, serde_json::to_vec_pretty(&record).expect("JSON")).expect("written");
    launched
}

/// The host has not been booted since.
fn same_boot(world: &World) {
    let database = rusqlite::Connection::open(world.home.path("state/hearth.db")).expect("open");
    let changed = database.execute(
        "UPDATE facts SET value = ?1 WHERE name = 'boot_id'",
        [boot_id().expect("the kernel says")],
    );
    assert_eq!(changed, Ok(1));
}

/// What an older answer says, a newer one says too; it may say more.
fn says(newer: &Value, older: &Value, place: &str) {
    match (newer, older) {
        (Value::Object(newer), Value::Object(older)) => {
            for (key, value) in older {
                let place = format!("{place}/{key}");
                let newer = newer.get(key).unwrap_or_else(|| panic!("{place} is gone"));
                says(newer, value, &place);
            }
        }
        (Value::Array(newer), Value::Array(older)) => {
            assert_eq!(newer.len(), older.len(), "{place}");
            for (at, (newer, older)) in newer.iter().zip(older).enumerate() {
                says(newer, older, &format!("{place}/{at}"));
            }
        }
        _ => assert_eq!(newer, older, "{place}"),
    }
}

fn job_of<'a>(jobs: &'a Value, id: &str) -> &'a Value {
    let items = jobs["items"].as_array().expect("a list");
    items.iter().find(|job| job["job_id"] == id).unwrap_or_else(|| panic!("no job {id}"))
}

/// All events up to those that the older daemon knew.
fn events(daemon: &Daemon, count: usize) -> Value {
    let mut page = daemon.get(&format!("/events?after=0&limit={count}")).json();
    page["items"].take()
}

#[test]
fn state_and_instances_of_an_older_daemon_are_taken_over() {
    let world = World::new(&[]);
    copy(&frozen(), &world.home.path("state"));
    same_boot(&world);
    let mut before: BTreeSet<String> = world.directories();
    assert_eq!(before.len(), 3, "two jobs and a warm one");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("one");
    let launched: Vec<Launched> =
        before.iter().map(|instance| runtime.block_on(run(&world, instance))).collect();
    let jobs: Value = serde_json::from_str(JOBS).expect("JSON");
    let daemon = world.start();

    let (web, spare) = (job_of(&jobs, "web"), job_of(&jobs, "spare"));
    for job in [web, spare] {
        daemon.until_job(job["job_id"].as_str().expect("an id"), "running");
    }
    let now = daemon.get("/vms").json();
    for job in jobs["items"].as_array().expect("a list") {
        let id = job["job_id"].as_str().expect("an id");
        says(job_of(&now, id), job, id);
    }
    assert_eq!(now["items"].as_array().map(Vec::len), jobs["items"].as_array().map(Vec::len));
    let older: Value = serde_json::from_str(EVENTS).expect("JSON");
    let count = older["items"].as_array().expect("a list").len();
    says(&events(&daemon, count), &older["items"], "events");
    assert_eq!(world.fake.processes().len(), launched.len(), "nothing was started again");
    assert_eq!(daemon.get("/vms/gone").status, 404);
    assert!(records(&daemon, "done", "").iter().any(|record| record["text"] == "bye"));

    // The warm one has had its workload since its boot, and is assigned an identity.
    daemon.until_warm(1);
    let warm = suffix(&daemon.get("/stats").json()["warm_pool"][0]["vm_id"]);
    assert!(before.remove(&warm), "{warm} was there before");
    let body = init("claims", "daemon", &["/fake/say", "warm"], 0);
    let body = body.replace(r#""cmd":"#, r#""env":{"FAKE_PROTOCOL":"1"},"cmd":"#);
    let claimed = daemon.post("/vms", &body).json();
    assert_eq!(suffix(&claimed["vm_id"]), warm, "{claimed:#}");
    daemon.until_job("claims", "running");
    daemon.until("it says so", || {
        records(&daemon, "claims", "").iter().any(|record| record["text"] == "warm")
    });

    assert_eq!(daemon.post("/vms/web/stop", "").status, 202);
    let stopped = daemon.until_job("web", "stopped");
    assert_eq!(stopped["generation"], web["generation"].as_u64().map_or(0, |n| n + 1));
    drop(launched);
}

#[test]
fn state_of_an_older_daemon_is_taken_over_after_a_reboot() {
    let world = World::new(&[]);
    copy(&frozen(), &world.home.path("state"));
    let jobs: Value = serde_json::from_str(JOBS).expect("JSON");
    let daemon = world.start();
    for id in ["web", "spare"] {
        let job = daemon.until_job(id, "running");
        assert_eq!(job["generation"], job_of(&jobs, id)["generation"]);
        assert_ne!(job["vm_id"], job_of(&jobs, id)["vm_id"], "nothing of before runs");
    }
    for id in ["done", "halted"] {
        says(&daemon.get(&format!("/vms/{id}")).json(), job_of(&jobs, id), id);
    }
    // A name that was deleted continues behind its last generation.
    let again = daemon.post("/vms", &init("gone", "service", &["/fake/serve"], 0)).json();
    assert_eq!(again["generation"], 3);
}
