//! From a [`Machine`] to the calls that configure its Firecracker, in their order.

use super::layout::{drive_file, names as files};
use hearth_firecracker::{
    ApiError, BootSource, Client, Directory, Drive, MachineConfig, RateLimiter, TokenBucket, Vsock,
    names,
};
use hearth_guest::drive_assignment;
use hearth_model::machine::{Access, Initrd, Machine, Origin, RateLimit};
use hearth_model::{Boot, DriveRole};

/// For a kernel of a distribution in Firecracker 1.12: the devices that its drivers would not find
/// are named, and Ctrl-Alt-Del arrives (which it doesn't with `i8042.nopnp`).
const BOOT_ARGS: &str = "console=ttyS0 reboot=k panic=1 pci=off quiet loglevel=4 \
     8250.nr_uarts=1 i8042.noaux i8042.nomux i8042.dumbkbd random.trust_cpu=on";

/// Every call but the start.
pub(super) async fn configure(
    client: &Client,
    machine: &Machine,
    directory: &Directory,
) -> Result<(), ApiError> {
    client
        .machine_config(&MachineConfig {
            // Firecracker refuses what it can't have, in its own words.
            vcpu_count: u8::try_from(machine.resources.vcpu).unwrap_or(u8::MAX),
            mem_size_mib: machine.resources.mem_mib,
        })
        .await?;
    let Origin::Boot { initrd, .. } = machine.origin;
    client
        .boot_source(&BootSource {
            kernel_image_path: files::KERNEL.to_owned(),
            initrd_path: initrd.map(|Initrd::Init| files::INITRD.to_owned()),
            boot_args: Some(command_line(machine)),
        })
        .await?;
    for drive in drives(machine) {
        client.drive(&drive).await?;
    }
    let uds_path = directory.socket_name(names::VSOCK_SOCKET);
    client.vsock(&Vsock { guest_cid: machine.vsock.guest_cid, uds_path }).await?;
    if machine.entropy {
        client.entropy().await?;
    }
    Ok(())
}

/// The kernel's command line. It tells an init which device has which role.
fn command_line(machine: &Machine) -> String {
    let mut line = BOOT_ARGS.to_owned();
    if machine.guest() == Boot::Init {
        // The kernel names the drives in the order in which they are attached.
        for (letter, drive) in ('a'..='z').zip(&machine.drives) {
            line.push(' ');
            line += &drive_assignment(role_for_init(drive.role), &format!("/dev/vd{letter}"));
        }
    }
    line
}

fn role_for_init(role: DriveRole) -> hearth_guest::GuestDrive {
    match role {
        DriveRole::Rootfs => hearth_guest::GuestDrive::Rootfs,
        DriveRole::Scratch => hearth_guest::GuestDrive::Scratch,
        DriveRole::Config => hearth_guest::GuestDrive::Config,
        DriveRole::Status => hearth_guest::GuestDrive::Status,
    }
}

/// The drives, in the order in which the guest's kernel names them.
fn drives(machine: &Machine) -> impl Iterator<Item = Drive> {
    machine.drives.iter().map(|drive| Drive {
        drive_id: drive.role.as_str().to_owned(),
        path_on_host: drive_file(drive.role).to_owned(),
        // An init mounts the root filesystem itself.
        is_root_device: machine.guest() == Boot::Raw && drive.role == DriveRole::Rootfs,
        is_read_only: drive.access == Access::ReadOnly,
        rate_limiter: drive.rate_limit.map(rate_limiter),
    })
}

fn rate_limiter(limit: RateLimit) -> RateLimiter {
    RateLimiter {
        bandwidth: limit.bytes_per_s.map(TokenBucket::per_second),
        ops: limit.ops_per_s.map(TokenBucket::per_second),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hearth_model::{Digest, Images, Spec, Value};

    fn machine(boot: &str) -> Machine {
        let size = vec![("vcpu".to_owned(), 1.into()), ("mem_mb".to_owned(), 64.into())];
        let mut fields = vec![
            ("kernel".to_owned(), "k".into()),
            ("rootfs".to_owned(), "r.ext4".into()),
            ("boot".to_owned(), boot.into()),
            ("lifecycle".to_owned(), "daemon".into()),
            ("resources".to_owned(), Value::Map(size)),
        ];
        if boot == "init" {
            fields.push(("cmd".to_owned(), Value::List(vec!["/bin/web".into()])));
        }
        let spec = Spec::read(&Value::Map(fields)).expect("a spec");
        let [kernel, rootfs] = [Digest([1; 32]), Digest([2; 32])];
        Machine::boot(&spec, &Images { kernel, modules: None, rootfs: Some(rootfs) })
    }

    #[test]
    fn drives_are_attached_in_order_with_their_access() {
        let attached = |machine: &Machine| -> Vec<(String, String, bool, bool)> {
            drives(machine)
                .map(|d| (d.drive_id, d.path_on_host, d.is_root_device, d.is_read_only))
                .collect()
        };
        let drive = |id: &str, file: &str, root, read_only| {
            (id.to_owned(), file.to_owned(), root, read_only)
        };
        assert_eq!(
            attached(&machine("init")),
            [
                drive("rootfs", "rootfs", false, true),
                drive("scratch", "scratch.img", false, false),
                drive("config", "config.img", false, true),
                drive("status", "status.img", false, false),
            ]
        );
        assert_eq!(attached(&machine("raw")), [drive("rootfs", "rootfs", true, false)]);
    }

    #[test]
    fn init_gets_the_device_of_each_role_in_any_order() {
        let mut machine = machine("init");
        for _ in 0..machine.drives.len() {
            machine.drives.rotate_left(1);
            let line = command_line(&machine);
            for (device, drive) in
                ["/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd"].into_iter().zip(&machine.drives)
            {
                let found = hearth_guest::assigned_device(&line, role_for_init(drive.role));
                assert_eq!(found, Some(device), "{:?} on {line}", drive.role);
            }
        }
    }

    #[test]
    fn raw_guest_has_the_bare_command_line() {
        assert_eq!(command_line(&machine("raw")), BOOT_ARGS);
    }

    #[test]
    fn rate_limit_of_a_drive_reaches_firecracker() {
        let mut machine = machine("raw");
        machine.drives[0].rate_limit = Some(RateLimit { bytes_per_s: Some(4096), ops_per_s: None });
        let drive = drives(&machine).next().expect("a drive");
        let limiter = serde_json::to_value(&drive).expect("JSON")["rate_limiter"].take();
        let expected = serde_json::json!({"bandwidth": {"size": 4096, "refill_time": 1000}});
        assert_eq!(limiter, expected);
    }
}
