//! The device-level description of a microVM.

use hearth_model::machine::{Access, DriveContent, Origin};
use hearth_model::{Boot, Digest, DriveRole, Images, Machine, Spec, Value};

fn spec(boot: &str, fields: &[(&str, Value)]) -> Spec {
    let size = vec![("vcpu".to_owned(), 2.into()), ("mem_mb".to_owned(), 64.into())];
    let mut all = vec![
        ("kernel".to_owned(), "k".into()),
        ("boot".to_owned(), boot.into()),
        ("lifecycle".to_owned(), "daemon".into()),
        ("resources".to_owned(), Value::Map(size)),
    ];
    all.extend(fields.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    Spec::read(&Value::Map(all)).unwrap()
}

const KERNEL: Digest = Digest([1; 32]);
const ROOTFS: Digest = Digest([2; 32]);
const MODULES: Option<Digest> = Some(Digest([3; 32]));

fn with_init() -> (Spec, Images) {
    let cmd = Value::List(vec!["/bin/web".into()]);
    let fields = [("rootfs", "r.ext4".into()), ("cmd", cmd), ("disk_mb", 96.into())];
    let images = Images { kernel: KERNEL, modules: MODULES, rootfs: Some(ROOTFS) };
    (spec("init", &fields), images)
}

fn drives(machine: &Machine) -> Vec<(&'static str, DriveContent, Access)> {
    let drive = |drive: &hearth_model::machine::Drive| {
        assert_eq!(drive.rate_limit, None);
        (drive.role.as_str(), drive.content, drive.access)
    };
    machine.drives.iter().map(drive).collect()
}

#[test]
fn machine_with_init_has_its_four_drives() {
    let (spec, images) = with_init();
    let machine = Machine::boot(&spec, &images);
    assert_eq!(machine.guest(), Boot::Init);
    assert_eq!(machine.resources, spec.resources);
    assert_eq!((machine.vsock.guest_cid, machine.entropy), (3, true));
    assert_eq!(
        drives(&machine),
        [
            ("rootfs", DriveContent::Image(ROOTFS), Access::ReadOnly),
            ("scratch", DriveContent::Empty { mib: 96 }, Access::ReadWrite),
            ("config", DriveContent::Config, Access::ReadOnly),
            ("status", DriveContent::Status, Access::ReadWrite),
        ]
    );
}

#[test]
fn raw_machine_gets_a_copy_of_its_rootfs_if_any() {
    let bare = Images { kernel: KERNEL, modules: MODULES, rootfs: None };
    let machine = Machine::boot(&spec("raw", &[]), &bare);
    assert_eq!((machine.guest(), drives(&machine)), (Boot::Raw, vec![]));
    let with_rootfs = Images { rootfs: Some(ROOTFS), ..bare };
    let machine = Machine::boot(&spec("raw", &[("rootfs", "r.ext4".into())]), &with_rootfs);
    let expected = ("rootfs", DriveContent::CopyOf(ROOTFS), Access::ReadWrite);
    assert_eq!((machine.guest(), drives(&machine)), (Boot::Raw, vec![expected]));
}

#[test]
fn machine_names_the_images_that_it_is_made_of() {
    let (init, images) = with_init();
    assert_eq!(Machine::boot(&init, &images).images(), images);
    let raw = Images { rootfs: None, ..images };
    let machine = Machine::boot(&spec("raw", &[]), &raw);
    assert_eq!(machine.images(), raw);
    let Origin::Boot { kernel, modules, initrd } = machine.origin;
    assert_eq!((kernel, modules, initrd), (KERNEL, MODULES, None));
}

#[test]
fn drive_roles_have_distinct_names() {
    let mut names = DriveRole::ALL.map(DriveRole::as_str).to_vec();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), DriveRole::ALL.len());
}
