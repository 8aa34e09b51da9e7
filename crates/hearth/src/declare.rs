//! `hearth plan FILE` and `hearth apply -f FILE`. The file is read and checked here; what it comes to
//! is the daemon's to say.

use crate::args::{ApplyArgs, SourceArgs};
use crate::commands::Tally;
use crate::exit;
use crate::output::{Output, Tense};
use crate::source::Source;
use crate::wait::{Goal, Limit, until};
use anyhow::{Context, anyhow, bail};
use hearth_api::{Client, CreateVm, Declared, Plan};
use hearth_daemon::limits;
use hearth_desired_file::Format;

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
    output.plan(&plan, Tense::Ahead);
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
        output.plan(&plan, Tense::Ahead);
        refused(&plan).map(|error| tally.count::<()>(Err(error), output));
        return Ok(tally.code());
    }
    let plan = client.apply(&declared).await?;
    output.plan(&plan, Tense::Done);
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
            output.invalid(&diagnostics);
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
    let name = |path: std::path::PathBuf| {
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
