//! The files of an instance, laid out as its [`Machine`] says, before there is a process.

use super::instance_record::InstanceRecord;
use super::layout::{create_file, drive_file, names as files, replace};
use super::sparse::copy_sparse;
use super::store::ImageStore;
use super::{Shared, errors, initramfs, scratch, workload};
use crate::HostError;
use hearth_guest::{STATUS_DRIVE_BYTES, encode_config};
use hearth_model::machine::{Drive, DriveContent, Initrd, Origin};
use hearth_model::{Create, Delivery, Digest};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;

/// Everything on disk. Blocks.
pub(super) fn lay_out(
    shared: &Shared,
    create: &Create,
    record: &InstanceRecord,
) -> Result<(), HostError> {
    let dir = shared.layout.instance(&create.instance);
    record.write(&dir).map_err(errors::file("write the instance record in", &dir))?;
    let Origin::Boot { kernel, modules, initrd } = &create.machine.origin;
    link(shared, kernel, &dir.join(files::KERNEL))?;
    if let Some(Initrd::Init) = initrd {
        let initrd = initramfs::for_modules(&shared.images, modules.as_ref())?;
        ImageStore::link(&initrd, &dir.join(files::INITRD))?;
    }
    create.machine.drives.iter().try_for_each(|drive| fill(shared, create, drive, &dir))
}

/// Makes the file of a drive.
fn fill(shared: &Shared, create: &Create, drive: &Drive, dir: &Path) -> Result<(), HostError> {
    let file = dir.join(drive_file(drive.role));
    match &drive.content {
        DriveContent::Image(digest) => link(shared, digest, &file),
        DriveContent::CopyOf(digest) => {
            let image = stored(shared, digest)?;
            copy_sparse(&image, &file).map_err(errors::file("copy the rootfs to", &file))
        }
        DriveContent::Empty { mib } => scratch::make(&shared.images, *mib, &file),
        // With blocks of its own: where the disk is full the guest can say how it ended all the same.
        DriveContent::Status => create_file(&file)
            .and_then(|mut file| file.write_all(&[0; STATUS_DRIVE_BYTES]))
            .map_err(errors::file("make", &file)),
        DriveContent::Config => write_config(shared, create, &file),
    }
}

/// The config drive may hold secrets, so it is on a tmpfs, and `link` leads there.
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
    symlink(&drive, link).map_err(errors::file("make", link))
}

fn link(shared: &Shared, digest: &Digest, name: &Path) -> Result<(), HostError> {
    ImageStore::link(&stored(shared, digest)?, name)
}

/// The copy of an image.
fn stored(shared: &Shared, digest: &Digest) -> Result<std::path::PathBuf, HostError> {
    let image = shared.images.path(digest);
    if image.exists() {
        return Ok(image);
    }
    Err(HostError::permanent(format!("image {digest} is not in the store any more")))
}
