//! The commands that ask a daemon. Each is one or two requests and their answer shown.

use crate::args::{Command, RunArgs};
use crate::output::Output;
use crate::{follow, forward};
use anyhow::bail;
use hearth_api::{Client, CreateVm, JobFilter, LogQuery};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// How often a command that waits looks again.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Carries out a command. Returns the exit code.
///
/// # Errors
/// Where the daemon cannot be asked or refuses.
pub(crate) async fn run(command: Command, client: &Client, output: &Output) -> anyhow::Result<u8> {
    match command {
        Command::Run(args) => return run_job(args, client, output).await,
        Command::Ps => output.jobs(&client.jobs(&JobFilter::default()).await?),
        Command::Get { job } => {
            let shown = client.job(&job).await?;
            let events = client.events(Some(&job), 10).await?;
            output.job(&shown, &events);
        }
        Command::Stats => output.stats(&client.stats().await?),
        Command::Logs { job, follow, tail } => {
            let query = LogQuery { tail, ..LogQuery::default() };
            match follow {
                true => follow::follow(client.follow_logs(&job, &query).await?, output).await?,
                false => follow::show(client.logs(&job, &query).await?, output).await?,
            }
        }
        Command::Rm { jobs, all, wait } => {
            let jobs = match all {
                true => client
                    .jobs(&JobFilter::default())
                    .await?
                    .into_iter()
                    .map(|job| job.job_id)
                    .collect(),
                false => jobs,
            };
            return remove(&jobs, wait, client, output).await;
        }
        Command::Stop { job } => output.changed(&client.stop(&job).await?),
        Command::Start { job } => output.changed(&client.start(&job).await?),
        Command::Events { job, limit } => {
            output.events(&client.events(job.as_deref(), limit).await?);
        }
        Command::PortForward { job, ports } => {
            forward::forward(&job, ports, client, output).await?
        }
        Command::Version => version(client, output).await,
        Command::Serve(_) | Command::Validate { .. } | Command::Kernel { .. } => {
            bail!("this command asks no daemon, which is a bug")
        }
    }
    Ok(0)
}

async fn run_job(args: RunArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let (wait, rm) = (args.wait, args.rm);
    let (_, job) = client.create(&request(args)?).await?;
    if !wait {
        output.changed(&job);
        return Ok(0);
    }
    let code = follow::to_the_end(&job, client, output).await?;
    if rm {
        client.delete(&job.job_id).await?;
    }
    Ok(code)
}

fn request(args: RunArgs) -> anyhow::Result<CreateVm> {
    let mut env = Map::new();
    for variable in &args.env {
        let (key, value) = match variable.split_once('=') {
            Some((key, value)) => (key, value.to_owned()),
            None => match std::env::var(variable) {
                Ok(value) => (variable.as_str(), value),
                Err(_) => {
                    bail!("cannot pass {variable} on: it is not set here; write {variable}=VALUE")
                }
            },
        };
        env.insert(key.to_owned(), Value::String(value));
    }
    let mut spec = json!({
        "rootfs": args.rootfs,
        "kernel": args.kernel,
        "cmd": args.cmd,
        "resources": { "vcpu": args.vcpu, "mem_mb": args.mem },
        "lifecycle": args.lifecycle,
    });
    if !env.is_empty() {
        spec["env"] = Value::Object(env);
    }
    Ok(CreateVm { job_id: args.name, tenant: args.tenant, spec })
}

/// Deletes each; goes on after one that fails, and says so in the exit code.
async fn remove(
    jobs: &[String],
    wait: bool,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let mut code = 0;
    let mut going = Vec::new();
    for job in jobs {
        match client.delete(job).await {
            Ok(None) => output.removed(job),
            Ok(Some(_)) if wait => going.push(job),
            Ok(Some(_)) => output.going(job),
            Err(error) => {
                output.error(&error.into());
                code = crate::EXIT_ERROR;
            }
        }
    }
    for job in going {
        while exists(job, client).await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        output.removed(job);
    }
    Ok(code)
}

async fn exists(job: &str, client: &Client) -> anyhow::Result<bool> {
    match client.job(job).await {
        Ok(_) => Ok(true),
        Err(error) if error.problem().is_some_and(|problem| problem.status == 404) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

async fn version(client: &Client, output: &Output) {
    let daemon = client.health().await.ok();
    let ready = client.readiness().await.ok();
    output.version(daemon.as_ref(), ready.as_ref());
}
