//! Everything that building, running and testing Hearth needs on this machine.

use std::path::PathBuf;

use anyhow::Result;

use crate::places::Places;
use crate::terminal::say;
use crate::{firecracker, guest_init, images, kvm, packages};

/// What setting up leads to.
#[derive(Debug)]
pub(crate) struct Ready {
    /// The Firecracker to use; its jailer is beside it.
    pub(crate) firecracker: PathBuf,
    /// The directory of images.
    pub(crate) images: PathBuf,
}

/// Installs, fetches and builds what is missing; a second time it only looks.
pub(crate) fn ensure(places: &Places) -> Result<Ready> {
    packages::ensure(packages::IMAGES)?;
    if let Err(reason) = kvm::usable() {
        say(format_args!("setup: Linux guests run in the lab here: {reason}"));
        packages::ensure(packages::LAB)?;
    }
    let firecracker = firecracker::ensure(places)?;
    guest_init::ensure(places)?;
    let images = places.build.join("images");
    images::put(places, &images)?;
    Ok(Ready { firecracker, images })
}
