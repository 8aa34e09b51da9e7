//! `hearth image`.

use crate::exit;
use crate::output::{Output, span};
use clap::Subcommand;
use hearth_api::{Client, Image, Images, Prune, Pruned};

/// What is done about images.
#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
    /// List the copies: size, and whether a job or a microVM uses them
    Ls,
    /// Remove copies that no job and no microVM uses
    ///
    /// Without --all those that the settings keep_image_hours and keep_images_gb no longer keep, which the
    /// daemon removes by itself once an hour. Your own files in the images directory stay.
    Prune {
        /// Remove every unused copy, whatever its age
        #[arg(long)]
        all: bool,
        /// Only show what would be removed
        #[arg(long)]
        dry_run: bool,
    },
}

/// Digits of a digest that are shown: as many as those of a spec hash.
const SHORT: usize = 16;

/// Carries out `hearth image`.
///
/// # Errors
/// Where the daemon cannot be asked or refuses.
pub(crate) async fn image(
    command: ImageCommand,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    match command {
        ImageCommand::Ls => print_images(&client.images().await?, output),
        ImageCommand::Prune { all, dry_run } => {
            print_pruned(&client.prune_images(Prune { all, dry_run }).await?, output);
        }
    }
    Ok(exit::DONE)
}

fn print_images(images: &Images, output: &Output) {
    if output.printed(images) {
        return;
    }
    output.rows(
        ["IMAGE", "SIZE", "IN USE", "LAST USED"],
        images.items.iter().map(|image| {
            let used = match image.in_use {
                true => "now".to_owned(),
                false => format!("{} ago", span(image.unused_s)),
            };
            let in_use = if image.in_use { "yes" } else { "no" };
            [name(image).into(), size(image.bytes).into(), in_use.into(), used.into()]
        }),
    );
}

fn print_pruned(pruned: &Pruned, output: &Output) {
    if output.printed(pruned) {
        return;
    }
    let (verb, freed) = match pruned.dry_run {
        true => ("would remove", "would free"),
        false => ("removed", "freed"),
    };
    for image in &pruned.removed {
        output.line(format_args!("{verb} {} ({})", name(image), size(image.bytes)));
    }
    output.line(format_args!("{freed} {}", size(pruned.freed_bytes)));
}

fn name(image: &Image) -> String {
    image.name.chars().take(SHORT).collect()
}

fn size(bytes: u64) -> String {
    const KIB: u64 = 1024;
    match bytes {
        0..KIB => format!("{bytes} B"),
        KIB..0x10_0000 => format!("{} KiB", bytes / KIB),
        0x10_0000..0x4000_0000 => format!("{} MiB", bytes >> 20),
        _ => format!("{}.{} GiB", bytes >> 30, (bytes >> 20) % 1024 * 10 / 1024),
    }
}
