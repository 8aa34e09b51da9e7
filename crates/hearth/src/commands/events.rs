//! `hearth events`.

use crate::exit;
use crate::output::{Output, Tone, Word, or_dash};
use clap::Args as ClapArgs;
use hearth_api::{Client, ClientError, Event, FollowedEvents, News};
use std::pin::pin;

/// The command line of `hearth events`.
#[derive(Debug, ClapArgs)]
pub(crate) struct EventsArgs {
    /// The job's id
    job: Option<String>,
    /// Only the newest LIMIT events
    #[arg(long, default_value_t = 100)]
    limit: usize,
    /// Continue with each event as it happens, over restarts of the daemon
    #[arg(short, long)]
    pub(crate) follow: bool,
}

/// Shows the newest events, and those to come if that is asked for.
///
/// # Errors
/// Where the daemon refuses or stays away.
pub(crate) async fn events(
    args: EventsArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let EventsArgs { job, limit, follow: following } = args;
    match following {
        true => follow(client.follow_events(job.as_deref(), limit).await?, output).await?,
        false => print_events(&client.events(job.as_deref(), limit).await?, output),
    }
    Ok(exit::DONE)
}

/// Shows events as they happen, until their reader is gone.
///
/// # Errors
/// Where the daemon stays away.
async fn follow(mut events: FollowedEvents, output: &Output) -> Result<(), ClientError> {
    let mut gone = pin!(output.reader_gone());
    while let Some(news) = output.before(&mut gone, events.next()).await.transpose()? {
        match news {
            News::Happened(event) => print_event(&event, output),
            News::Lost(sentence) => print_lost(&sentence, output),
        }
    }
    Ok(())
}

fn print_events(events: &[Event], output: &Output) {
    if output.printed(events) {
        return;
    }
    if output.is_wide() {
        let number = |number: Option<u64>| number.map_or("-".to_owned(), |n| n.to_string());
        return output.rows(
            ["ID", "AT", "JOB", "VM", "GEN", "CALLER", "KIND", "MESSAGE"],
            events.iter().map(|event| {
                let [at, job, vm, kind, message] = event_words(event);
                [
                    event.id.to_string().into(),
                    at,
                    job,
                    vm,
                    number(event.generation).into(),
                    event.caller.map_or_else(|| "-".to_owned(), |who| who.to_string()).into(),
                    kind,
                    message,
                ]
            }),
        );
    }
    output.rows(["AT", "JOB", "VM", "KIND", "MESSAGE"], events.iter().map(event_words));
}

fn event_words(event: &Event) -> [Word; 5] {
    let tone = Tone::of_event(event.kind);
    [
        event.at.as_str().into(),
        or_dash(event.job_id.as_deref()).into(),
        or_dash(event.instance.as_deref()).into(),
        Word::toned(event.kind.as_str(), tone),
        Word::toned(event.message.as_str(), tone),
    ]
}

/// An event that has just happened: one line, since those to come are not known.
fn print_event(event: &Event, output: &Output) {
    if output.printed(event) {
        return;
    }
    let job = event.job_id.as_deref().unwrap_or("-");
    let line = output.begin().text(format_args!("{}  {job}  ", event.at));
    let line = line.toned(event.kind, Tone::of_event(event.kind));
    output.print(&line.text(format_args!("  {}", event.message)));
}

/// Events that can't be shown any more.
fn print_lost(sentence: &str, output: &Output) {
    let line = output.begin_remark().toned("hearth:", Tone::Bad);
    output.remark(&line.text(format_args!(" {sentence}")));
}
