//! `hearth get`.

use crate::commands::ps::status;
use crate::exit;
use crate::output::{Output, Tone, or_dash};
use clap::Args as ClapArgs;
use hearth_api::{Client, Event, Job};

/// How many of a job's newest events are shown.
const EVENTS_SHOWN: usize = 10;

/// The command line of `hearth get`.
#[derive(Debug, ClapArgs)]
pub(crate) struct GetArgs {
    /// Its id
    job: String,
}

/// Shows a job and its last events.
///
/// # Errors
/// Where the daemon cannot be asked, or there is no such job.
pub(crate) async fn get(args: &GetArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let job = client.job(&args.job).await?;
    let events = client.events(Some(&args.job), EVENTS_SHOWN).await?;
    print_job(&job, &events, output);
    Ok(exit::DONE)
}

fn print_job(job: &Job, events: &[Event], output: &Output) {
    if output.printed(job) {
        return;
    }
    let spec = serde_json::to_string_pretty(&job.spec).unwrap_or_default();
    let of_status = Tone::of_status(job.status);
    let fields = [
        ("job", job.job_id.clone(), Tone::Plain),
        ("tenant", job.tenant.clone(), Tone::Plain),
        ("status", status(job), of_status),
        ("reason", or_dash(job.reason.as_deref()), Tone::Plain),
        ("since", job.since.clone(), Tone::Plain),
        ("vm", or_dash(job.vm_id.as_deref()), Tone::Plain),
        ("generation", job.generation.to_string(), Tone::Plain),
        ("exit code", job.exit_code.map_or_else(|| "-".into(), |c| c.to_string()), Tone::Plain),
        ("exit", job.exit.map_or_else(|| "-".into(), |exit| exit.to_string()), Tone::Plain),
    ];
    let unconfined = (job.confined == Some(false))
        .then(|| ("confined", "no: its Firecracker is outside of a jail".to_owned(), Tone::Bad));
    for (name, value, tone) in fields.into_iter().chain(unconfined) {
        output.print(&output.begin().text(format_args!("{name:<11} ")).toned(value, tone));
    }
    output.line(format_args!("spec        {}", spec.replace('\n', "\n            ")));
    if !events.is_empty() {
        output.line("events");
        for event in events {
            let line = output.begin().text(format_args!("  {}  ", event.at));
            output.print(&line.toned(&event.message, Tone::of_event(event.kind)));
        }
    }
}
