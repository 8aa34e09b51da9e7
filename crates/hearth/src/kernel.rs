//! `hearth kernel`.

use crate::args::{ImportArgs, KernelCommand};
use crate::config;
use crate::input;
use crate::output::Output;
use crate::settings::ServeArgs;
use anyhow::Context;
use hearth_kernel::Source;

/// Carries out a command about kernels.
///
/// # Errors
/// Where the kernel cannot be imported; the images directory is as it was.
pub(crate) fn run(command: KernelCommand, output: &Output) -> anyhow::Result<u8> {
    let KernelCommand::Import(ImportArgs { from_deb, vmlinuz, modules, images, name }) = command;
    for file in [&from_deb, &vmlinuz].into_iter().flatten() {
        input::check(file).with_context(|| format!("cannot read {}", file.display()))?;
    }
    let source = match (from_deb, vmlinuz, modules) {
        (Some(deb), _, _) => Source::Deb(deb),
        (None, Some(vmlinuz), Some(modules)) => Source::Image { vmlinuz, modules },
        _ => Source::Debian,
    };
    let images = match images {
        Some(images) => images,
        None => config::resolve(&ServeArgs::default())?.settings.images(),
    };
    let imported = hearth_kernel::import(&source, &images, &name)?;
    output.imported(&imported);
    Ok(0)
}
