//! `hearth kernel`.

use crate::config;
use crate::input;
use crate::output::Output;
use crate::settings::ServeArgs;
use anyhow::Context;
use clap::{Args as ClapArgs, Subcommand};
use hearth_kernel::{Imported, Source};
use serde_json::json;
use std::path::PathBuf;

/// What is done about kernels.
#[derive(Debug, Subcommand)]
pub(crate) enum KernelCommand {
    /// Import a distribution's kernel: the ELF image and the modules that guests need
    Import(ImportArgs),
}

/// The command line of `hearth kernel import`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ImportArgs {
    /// From a Debian package [default: Debian's current kernel, by apt]
    #[arg(long, value_name = "FILE", conflicts_with = "vmlinuz")]
    from_deb: Option<PathBuf>,
    /// From a kernel file
    #[arg(long, value_name = "FILE", requires = "modules")]
    vmlinuz: Option<PathBuf>,
    /// Its modules: a directory such as /lib/modules/VERSION
    #[arg(long, value_name = "DIR", requires = "vmlinuz")]
    modules: Option<PathBuf>,
    /// Output directory [default: the daemon's images directory, as hearth config show says]
    #[arg(long, value_name = "DIR")]
    images: Option<PathBuf>,
    /// Its name there
    #[arg(long, default_value = "vmlinux")]
    name: String,
}

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
    print_imported(&imported, output);
    Ok(0)
}

fn print_imported(imported: &Imported, output: &Output) {
    let Imported { kernel, modules, version } = imported;
    if !output.printed(&json!({ "version": version, "kernel": kernel, "modules": modules })) {
        output.line(format_args!(
            "imported Linux {version} as {} with its modules in {}",
            kernel.display(),
            modules.display()
        ));
    }
}
