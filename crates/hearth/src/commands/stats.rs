//! `hearth stats`.

use crate::commands::ps::print_jobs;
use crate::exit;
use crate::output::{Output, Tone, Word, counted, shortened};
use hearth_api::{Client, Stats};

/// Shows the jobs and the warm pools.
///
/// # Errors
/// Where the daemon cannot be asked.
pub(crate) async fn stats(client: &Client, output: &Output) -> anyhow::Result<u8> {
    print_stats(&client.stats().await?, output);
    Ok(exit::DONE)
}

fn print_stats(stats: &Stats, output: &Output) {
    if output.printed(stats) {
        return;
    }
    let summary = stats.summary;
    output.line(format_args!(
        "{}, {} warm\n",
        counted(summary.total_jobs, "job"),
        summary.total_warm
    ));
    print_jobs(&stats.jobs, output);
    if !stats.warm_pool.is_empty() {
        output.line("");
        output.rows(
            ["SPEC", "VM", "STATUS", "ROOTFS", "REASON"],
            stats.warm_pool.iter().map(|warm| {
                let reason = warm.reason.as_deref().unwrap_or_default();
                [
                    warm.spec_hash.as_str().into(),
                    warm.vm_id.as_str().into(),
                    Word::toned(warm.status.as_str(), Tone::of_warm(&warm.status)),
                    warm.spec["rootfs"].as_str().unwrap_or("-").into(),
                    if output.is_wide() { reason.into() } else { shortened(reason).into() },
                ]
            }),
        );
    }
    for sentence in &stats.unidentified {
        output.line(format_args!("unidentified: {}", sentence));
    }
}
