//! `hearth plan FILE` and `hearth apply -f FILE`. The file is read and checked here; what it comes to
//! is the daemon's to say.

use crate::exit;
use crate::output::{Output, Tone};
use crate::source::{FileFormat, Source, SourceArgs, print_problems};
use crate::tally::Tally;
use crate::wait::{Goal, Limit, WaitArgs, until};
use anyhow::{Context, anyhow, bail};
use clap::Args as ClapArgs;
use hearth_api::{ChangedJob, Client, CreateVm, Declared, Plan, SpecChange};
use hearth_daemon::limits;
use hearth_desired_file::Format;
use std::path::PathBuf;

/// The command line of `hearth apply`.
#[derive(Debug, ClapArgs)]
pub(crate) struct ApplyArgs {
    /// The file; - reads stdin, which deletes nothing
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Its format [default: by its extension]
    #[arg(long, value_enum, value_name = "FORMAT", required_if_eq("file", "-"))]
    pub(crate) input_format: Option<FileFormat>,
    /// Delete even more than half of the file's jobs
    #[arg(long)]
    pub(crate) allow_delete: bool,
    /// Only show what would be done, as hearth plan does
    #[arg(long, conflicts_with = "wait")]
    pub(crate) dry_run: bool,
    #[command(flatten)]
    pub(crate) wait: WaitArgs,
}

/// Shows what applying a file would do. Returns the exit code: whether there is something to do.
///
/// # Errors
/// Where the file cannot be read, or the daemon cannot be asked or refuses.
pub(crate) async fn plan(
    args: &SourceArgs,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let Some(declared) = declared(args, output)? else { return Ok(exit::ERROR) };
    let plan = client.plan(&declared).await?;
    print_plan(&plan, Tense::Ahead, output);
    Ok(match refused(&plan) {
        Some(error) => {
            output.error(&error);
            exit::ERROR
        }
        None if is_empty(&plan) => exit::DONE,
        None => exit::TO_DO,
    })
}

/// Applies a file, and waits if `--wait` was given. Returns the exit code.
///
/// # Errors
/// Where the file cannot be read, or the daemon cannot be asked or refuses.
pub(crate) async fn apply(args: ApplyArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let limit = Limit::new(args.wait.timeout);
    let source = SourceArgs { file: args.file, input_format: args.input_format };
    let Some(mut declared) = declared(&source, output)? else { return Ok(exit::ERROR) };
    declared.allow_delete = args.allow_delete;
    let mut tally = Tally::new();
    if args.dry_run {
        let plan = client.plan(&declared).await?;
        print_plan(&plan, Tense::Ahead, output);
        refused(&plan).map(|error| tally.count::<()>(Err(error), output));
        return Ok(tally.code());
    }
    let plan = client.apply(&declared).await?;
    print_plan(&plan, Tense::Done, output);
    refused(&plan).map(|error| tally.count::<()>(Err(error), output));
    held(&plan, &source).map(|error| tally.count::<()>(Err(error), output));
    if args.wait.wait {
        let refused = |job: &str| plan.refused.iter().any(|entry| entry.job_id == job);
        let jobs = declared.entries.iter().filter_map(|entry| entry.job_id.as_deref());
        for job in jobs.filter(|job| !refused(job)) {
            tally.count(until(job, Goal::Fulfilled, limit, client, output).await, output);
        }
        for job in &plan.delete {
            tally.count(until(job, Goal::Gone, limit, client, output).await, output);
        }
    }
    Ok(tally.code())
}

/// What a file declares; `None` where it has problems, which are shown.
fn declared(args: &SourceArgs, output: &Output) -> anyhow::Result<Option<Declared>> {
    let source = Source::read(args)?;
    let file = match source.parse() {
        Ok(file) => file,
        Err(diagnostics) => {
            print_problems(&diagnostics, output);
            return Ok(None);
        }
    };
    let entries: Vec<CreateVm> =
        serde_json::from_str(&hearth_desired_file::write(Format::Json, &file.jobs))
            .with_context(|| format!("cannot write {} as JSON", source.label()))?;
    let path = match source.is_stream() {
        true => None,
        false => Some(hearth_daemon::source_of(&args.file)),
    };
    let name = |path: PathBuf| {
        path.into_os_string().into_string().map_err(|path| {
            anyhow!("cannot declare jobs by {}: its path is not UTF-8", path.display())
        })
    };
    let source = path.map(name).transpose()?;
    let declared = Declared { source, entries, allow_delete: false };
    // The daemon would refuse it before it is sent whole, and its answer would be lost.
    let bytes = serde_json::to_vec(&declared)?.len();
    if bytes > limits::DECLARED_BYTES_MAX {
        bail!(
            "cannot send {}: its jobs take {bytes} bytes as JSON, and the daemon takes {}; \
             declare them in several files",
            args.file.display(),
            limits::DECLARED_BYTES_MAX
        );
    }
    Ok(Some(declared))
}

fn is_empty(plan: &Plan) -> bool {
    plan.create.is_empty()
        && plan.replace.is_empty()
        && plan.update.is_empty()
        && plan.delete.is_empty()
        && plan.held.is_empty()
}

fn refused(plan: &Plan) -> Option<anyhow::Error> {
    match plan.refused.len() {
        0 => None,
        1 => Some(anyhow!("an entry is refused")),
        count => Some(anyhow!("{count} entries are refused")),
    }
}

fn held(plan: &Plan, source: &SourceArgs) -> Option<anyhow::Error> {
    let count = plan.held.len();
    let file = source.file.display();
    (count > 0).then(|| {
        anyhow!(
            "{count} jobs are not deleted, since they are more than half of the file's; \
             hearth apply -f {file} --allow-delete deletes them"
        )
    })
}

/// Whether a plan is still to be carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tense {
    /// It says what would be done.
    Ahead,
    /// It says what was done.
    Done,
}

/// Shows what is done, or would be.
fn print_plan(plan: &Plan, tense: Tense, output: &Output) {
    if output.printed(plan) {
        return;
    }
    for job in &plan.create {
        print_marked('+', job, "", Tone::Good, output);
    }
    for change in &plan.replace {
        print_changed_job(change, None, output);
    }
    for change in &plan.update {
        print_changed_job(change, Some("policy only, its microVM stays"), output);
    }
    for job in &plan.delete {
        print_marked('-', job, "", Tone::Bad, output);
    }
    for job in &plan.held {
        print_marked(
            '!',
            job,
            " (no longer declared; --allow-delete deletes it)",
            Tone::Bad,
            output,
        );
    }
    for job in &plan.kept {
        let why = " (no longer declared; it stays, since it was changed otherwise)";
        print_marked('=', job, why, Tone::Plain, output);
    }
    for entry in &plan.refused {
        print_marked('!', &entry.job_id, &format!(": {}", entry.reason), Tone::Bad, output);
    }
    for pool in &plan.pools {
        let noun = if pool.drained == 1 { "microVM" } else { "microVMs" };
        let drains = match tense {
            Tense::Ahead => "would drain",
            Tense::Done => "drains",
        };
        output.line(format_args!("pool {} {drains}: {} {noun}", pool.spec_hash, pool.drained));
    }
    output.line(counts(plan, tense));
}

fn print_changed_job(change: &ChangedJob, note: Option<&str>, output: &Output) {
    let why = change.reason.as_deref().or(note);
    let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
    print_marked('~', &change.job_id, &why, Tone::Busy, output);
    for SpecChange { path, from, to } in &change.changes {
        let (from, to) = (value(from), value(to));
        output.line(format_args!("  {}: {from} -> {to}", dotted(path)));
    }
}

fn print_marked(mark: char, job: &str, more: &str, tone: Tone, output: &Output) {
    output.print(&output.begin().toned(format_args!("{mark} {job}"), tone).text(more));
}

/// A JSON pointer as people write paths.
fn dotted(pointer: &str) -> String {
    let path = pointer.strip_prefix('/').unwrap_or(pointer).replace('/', ".");
    path.replace("~1", "/").replace("~0", "~")
}

fn value(value: &serde_json::Value) -> String {
    if value.is_null() { "(none)".to_owned() } else { value.to_string() }
}

fn counts(plan: &Plan, tense: Tense) -> String {
    let counted = [
        (plan.create.len(), "to create", "created"),
        (plan.replace.len(), "to replace", "replaced"),
        (plan.update.len(), "to update", "updated"),
        (plan.delete.len(), "to delete", "deleted"),
        (plan.held.len(), "held", "held"),
        (plan.refused.len(), "refused", "refused"),
    ];
    let mut words: Vec<String> = counted
        .into_iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, ahead, done)| match tense {
            Tense::Ahead => format!("{count} {ahead}"),
            Tense::Done => format!("{count} {done}"),
        })
        .collect();
    if words.is_empty() {
        words.push("nothing to do".to_owned());
    }
    words.push(format!("{} unchanged", plan.unchanged));
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::dotted;

    #[test]
    fn a_pointer_is_told_as_a_path() {
        assert_eq!(dotted("/warm_pool/min"), "warm_pool.min");
        assert_eq!(dotted("/env/a~1b~0c.d"), "env.a/b~c.d");
    }
}
