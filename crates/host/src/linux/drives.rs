//! The files of an instance, laid out as its [`Machine`] says, before there is a process.

use super::instance_record::InstanceRecord;
use super::layout::{create_file, drive_file, names as files, replace};
use super::sparse::copy_sparse;
use super::store::ImageStore;
use super::{Shared, errors, initramfs, jail, scratch, workload};
use crate::HostError;
use hearth_firecracker::Confinement;
use hearth_guest::{STATUS_DRIVE_BYTES, encode_config};
use hearth_model::machine::{Access, Drive, DriveContent, Initrd, Origin};
use hearth_model::{Create, Delivery, Digest};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Room for the files in memory that Firecracker makes for its queues (4 KiB each in 1.12).
const MEMFD_BYTES: u64 = 1 << 20;

/// Everything on disk. Blocks.
pub(super) fn lay_out(
    shared: &Shared,
    create: &Create,
    record: &InstanceRecord,
) -> Result<(), HostError> {
    let dir = shared.layout.instance(&create.instance);
    record.write(&dir).map_err(errors::file("write the instance record in", &dir))?;
    let Origin::Boot { kernel, modules, initrd } = &create.machine.origin;
    link(shared, &stored(shared, kernel)?, &dir.join(files::KERNEL))?;
    if let Some(Initrd::Init) = initrd {
        let initrd = initramfs::for_modules(&shared.images, modules.as_ref())?;
        link(shared, &initrd, &dir.join(files::INITRD))?;
    }
    create.machine.drives.iter().try_for_each(|drive| fill(shared, create, drive, &dir))
}

/// How the process is confined that works in a directory that was laid out. Blocks.
pub(super) fn confinement(
    shared: &Shared,
    create: &Create,
) -> Result<Option<Confinement>, HostError> {
    let Some(jails) = &shared.jails else { return Ok(None) };
    let dir = shared.layout.instance(&create.instance);
    let (mut shown, mut file_bytes_max) = (Vec::new(), MEMFD_BYTES);
    for drive in &create.machine.drives {
        let name = drive_file(drive.role);
        let path = dir.join(name);
        match (&drive.content, drive.access) {
            (DriveContent::Config, _) => {
                shown.push((shared.layout.config_drive(&create.instance), name.to_owned()));
            }
            (_, Access::ReadWrite) => {
                let found = path.symlink_metadata().map_err(errors::file("look at", &path))?;
                file_bytes_max = file_bytes_max.max(found.len());
            }
            (_, Access::ReadOnly) => {}
        }
    }
    Ok(Some(Confinement { user: jails.user(create.slot), shown, file_bytes_max }))
}

/// Makes the file of a drive.
fn fill(shared: &Shared, create: &Create, drive: &Drive, dir: &Path) -> Result<(), HostError> {
    let file = dir.join(drive_file(drive.role));
    match &drive.content {
        DriveContent::Image(digest) => link(shared, &stored(shared, digest)?, &file),
        DriveContent::CopyOf(digest) => {
            let image = stored(shared, digest)?;
            copy_sparse(&image, &file).map_err(errors::file("copy the rootfs to", &file))
        }
        DriveContent::Empty { mib } => scratch::make(&shared.images, *mib, &file),
        // With blocks of its own: where the disk is full the guest can say how it ended all the same.
        DriveContent::Status => create_file(&file)
            .and_then(|mut file| file.write_all(&[0; STATUS_DRIVE_BYTES]))
            .map_err(errors::file("make", &file)),
        DriveContent::Config => return write_config(shared, create, &file),
    }?;
    match (&shared.jails, drive.access) {
        (Some(jails), Access::ReadWrite) => {
            jails.give(&file, create.slot).map_err(errors::file("give to its user", &file))
        }
        _ => Ok(()),
    }
}

/// The config drive may hold secrets, so it is on a tmpfs. `link` leads there, or a jail shows it there.
fn write_config(shared: &Shared, create: &Create, link: &Path) -> Result<(), HostError> {
    // A workload that comes late has the same bound, and is refused now rather than at each claim.
    let whole = encode_config(&workload::config(create, Delivery::Inline));
    let bytes = match create.workload {
        Delivery::Inline => whole,
        Delivery::Late => {
            whole.and_then(|_| encode_config(&workload::config(create, Delivery::Late)))
        }
    };
    let bytes = bytes.map_err(|error| {
        let message = format!("cannot make the config drive of instance {}", create.instance);
        HostError::permanent(message).because(error)
    })?;
    let drive = shared.layout.config_drive(&create.instance);
    replace(&drive, &bytes).map_err(errors::file("write", &drive))?;
    match &shared.jails {
        None => symlink(&drive, link).map_err(errors::file("make", link)),
        Some(jails) => {
            jails.show(&drive, create.slot).map_err(errors::file("show to its user", &drive))
        }
    }
}

/// Gives a file of the store a name. A confined process has to be able to read it, and owns none of them.
fn link(shared: &Shared, stored: &Path, name: &Path) -> Result<(), HostError> {
    if shared.jails.is_some() {
        jail::let_read(stored).map_err(errors::file("let be read", stored))?;
    }
    ImageStore::link(stored, name)
}

/// The copy of an image.
fn stored(shared: &Shared, digest: &Digest) -> Result<std::path::PathBuf, HostError> {
    let image = shared.images.path(digest);
    if image.exists() {
        return Ok(image);
    }
    Err(HostError::permanent(format!("image {digest} is not in the store any more")))
}
