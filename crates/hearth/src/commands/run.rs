//! `hearth run`: a spec in flags.

use crate::commands::change::print_changed;
use crate::commands::logs;
use crate::interrupt::Interrupt;
use crate::lifecycle::Lifecycle;
use crate::output::Output;
use crate::wait::{Goal, Limit, until};
use crate::{env_file, exit, interrupt, span};
use anyhow::bail;
use clap::{Args as ClapArgs, ValueEnum};
use hearth_api::{Client, ClientError, CreateVm, Job, JobStatus};
use hearth_model::fields::STOP_TIMEOUT_S_DEFAULT;
use serde_json::{Map, Value, json};
use std::ffi::OsString;
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::oneshot;

/// What a stop may take beyond the job's own time for it: the daemon's part of it.
const STOP_SLACK: Duration = Duration::from_secs(10);

#[derive(Debug, ClapArgs)]
pub(crate) struct RunArgs {
    /// The job's id [default: generated]
    #[arg(long, value_name = "JOB")]
    name: Option<String>,
    /// Its tenant [default: the job's id]
    #[arg(long)]
    tenant: Option<String>,
    /// Root filesystem, a name in the images directory; not needed with --boot raw
    #[arg(long, value_name = "IMAGE", required_unless_present = "boot")]
    rootfs: Option<String>,
    /// Kernel, a name in the images directory
    #[arg(long, value_name = "IMAGE", default_value = "vmlinux")]
    kernel: String,
    /// Virtual CPUs
    #[arg(long, visible_alias = "cpus", value_name = "N", default_value_t = 1)]
    vcpu: u32,
    /// Memory in MiB
    #[arg(short, long, visible_alias = "memory", value_name = "MIB", default_value_t = 128)]
    mem: u32,
    /// Size of the scratch disk in MiB [default: 1024]
    #[arg(long, value_name = "MIB")]
    disk: Option<u32>,
    /// An environment variable: KEY=VALUE, or KEY alone to pass on this shell's value, hidden from other users
    #[arg(short, long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// A file of KEY=VALUE lines, by the rules of Docker's --env-file: quotes and blanks are part of a
    /// value, empty lines and those that begin with # are skipped, and KEY alone passes this shell's
    /// value on if it has one
    #[arg(long, value_name = "FILE")]
    env_file: Vec<PathBuf>,
    /// A label, by which lists select; KEY alone has an empty value. Repeatable
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Its lifecycle
    #[arg(long, value_enum, default_value_t = Lifecycle::Job)]
    lifecycle: Lifecycle,
    /// What to boot
    #[arg(long, value_enum)]
    boot: Option<Boot>,
    #[command(flatten)]
    ready: ReadyArgs,
    #[command(flatten)]
    pool: PoolArgs,
    /// How often a failed `job` is retried
    #[arg(long, value_name = "N")]
    retries: Option<u32>,
    /// How long a `job` may take, as in 30s or 5m [default: no limit]
    #[arg(long, value_name = "TIME", value_parser = span::seconds)]
    run_timeout: Option<u64>,
    /// The signal that stops the command, as in SIGINT, INT or 2 [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<String>,
    /// From the stop signal to SIGKILL [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = span::seconds)]
    stop_timeout: Option<u64>,
    /// A `job`: show its output, wait for its end and exit with its code; others: wait until it
    /// runs and is ready
    #[arg(short, long)]
    wait: bool,
    /// Don't wait, which is the default
    #[arg(short, long, conflicts_with = "wait")]
    detach: bool,
    /// With --wait: give up after so long, as in 30s or 5m, and exit with 124; the job continues
    #[arg(long, value_name = "TIME", requires = "wait", value_parser = span::span)]
    timeout: Option<Duration>,
    /// Delete the `job` after its end, by the daemon if this command has exited. With --wait,
    /// SIGINT (Ctrl-C) and SIGTERM stop the job; a second one leaves that to the daemon
    #[arg(long)]
    rm: bool,
    /// Program and arguments
    #[arg(trailing_var_arg = true, value_name = "CMD", required_unless_present = "boot")]
    cmd: Vec<String>,
}

/// How the guest tells that it is ready; without any of these, running is ready.
#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Readiness and warm pool")]
struct ReadyArgs {
    /// Ready when this port answers an HTTP request for this path with 2xx or 3xx
    #[arg(long, value_name = "PORT[/PATH]", group = "ready", value_parser = http_check)]
    ready_http: Option<HttpCheck>,
    /// Ready when this TCP port accepts a connection
    #[arg(long, value_name = "PORT", group = "ready")]
    ready_tcp: Option<u16>,
    /// Ready when this command exits with 0; split on whitespace
    #[arg(long, value_name = "CMD", group = "ready")]
    ready_exec: Option<String>,
    /// Ready when the command reports it, as with systemd's sd_notify
    #[arg(long, group = "ready")]
    ready_notify: bool,
    /// How long it may take to be ready [default: 60s]
    #[arg(long, value_name = "TIME", requires = "ready", value_parser = span::seconds)]
    ready_timeout: Option<u64>,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "Readiness and warm pool")]
struct PoolArgs {
    /// How many microVMs like this one to keep warm
    #[arg(long, value_name = "N")]
    warm_min: Option<u32>,
    /// How many of them there may be [default: --warm-min]
    #[arg(long, value_name = "N", requires = "warm_min")]
    warm_max: Option<u32>,
    /// How far they go: app (the command runs) or init (it is held back until the claim)
    #[arg(long, value_enum, requires = "warm_min")]
    warm_stage: Option<Stage>,
}

/// What to boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Boot {
    /// The kernel with Hearth's init, which runs the command in the root filesystem
    Init,
    /// The kernel alone
    Raw,
}

/// How far a warm microVM goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// The command runs and is ready
    App,
    /// The command is held back until the claim
    Init,
}

/// A port, and the path that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
struct HttpCheck {
    port: u16,
    path: String,
}

fn http_check(text: &str) -> Result<HttpCheck, String> {
    let slash = text.find('/').unwrap_or(text.len());
    let (port, path) = text.split_at(slash);
    match port.parse() {
        Ok(port) => {
            Ok(HttpCheck { port, path: if path.is_empty() { "/" } else { path }.to_owned() })
        }
        Err(_) => Err(format!("{port:?} is not a port; write 4000 or 4000/health")),
    }
}

/// Creates the job, and sees to what `--wait` and `--rm` ask for. Returns the exit code.
///
/// # Errors
/// If the daemon cannot be reached or refuses, or the wait timed out.
pub(crate) async fn run_job(args: RunArgs, client: &Client, output: &Output) -> anyhow::Result<u8> {
    let (wait, rm, is_job) = (args.wait, args.rm, args.lifecycle == Lifecycle::Job);
    if rm && !is_job {
        bail!("cannot delete what never ends: --rm goes with --lifecycle job alone");
    }
    let limit = Limit::new(args.timeout);
    let request = request(args)?;
    if wait && rm {
        return run_removed(&request, limit, client, output).await;
    }
    let name = Arc::new(request.job_id.clone().map_or_else(OnceLock::new, OnceLock::from));
    if wait && io::stderr().is_terminal() {
        tell_on_interrupt(Arc::clone(&name))?;
    }
    let (_, job) = client.create(&request).await?;
    if !wait {
        print_changed(&job, output);
        return Ok(exit::DONE);
    }
    name.get_or_init(|| job.job_id.clone());
    if !is_job {
        if let Some(job) = until(&job.job_id, Goal::Running, limit, client, output).await? {
            print_changed(&job, output);
        }
        return Ok(exit::DONE);
    }
    let ended = logs::to_the_end(&job, limit, client, output).await?;
    Ok(code_of(&ended, output))
}

/// Says what becomes of the job when the command is interrupted, which it dies of.
fn tell_on_interrupt(name: Arc<OnceLock<String>>) -> io::Result<()> {
    interrupt::listen(move |signal| {
        if let Some(job) = name.get() {
            Output::final_remark(&format!("job {job} continues; `hearth stop {job}` ends it"));
        }
        signal.die();
    })
}

/// Runs a job, waits for its end and deletes it. The first signal stops the job, the second one ends
/// this command: the daemon deletes what is left.
async fn run_removed(
    request: &CreateVm,
    limit: Limit,
    client: &Client,
    output: &Output,
) -> anyhow::Result<u8> {
    let (sender, mut first) = oneshot::channel();
    let mut sender = Some(sender);
    interrupt::listen(move |signal| {
        if let Some(sender) = sender.take() {
            // The command may be ending.
            let _ = sender.send(signal);
            return;
        }
        Output::final_remark("detached: the daemon deletes the job once it has finished");
        std::process::exit(signal.exit_code().into());
    })?;
    let (_, job) = client.create(request).await?;
    let id = &job.job_id;
    let mut ended = pin!(logs::to_the_end(&job, limit, client, output));
    let signal: Interrupt = tokio::select! {
        // Both arms are cancel safe: one continues below, the other has done all.
        biased;
        Ok(signal) = &mut first => signal,
        ended = &mut ended => {
            let code = code_of(&ended?, output);
            delete(id, client, output).await;
            return Ok(code);
        }
    };
    let patience = job.spec["stop_timeout_s"].as_u64().unwrap_or(STOP_TIMEOUT_S_DEFAULT.into());
    let patience = Duration::from_secs(patience) + STOP_SLACK;
    output.note(&format!("stopping job {id} and deleting it; once more leaves that to the daemon"));
    let stopped = async {
        client.stop(id).await?;
        // What it prints at its end is shown. Somebody else may delete it meanwhile.
        ended.await.map(drop).or_else(unless_absent)?;
        delete(id, client, output).await;
        anyhow::Ok(until(id, Goal::Gone, Limit::new(None), client, output).await?)
    };
    match tokio::time::timeout(patience, stopped).await {
        Ok(Ok(_)) => output.note(&format!("job {id} is deleted")),
        Ok(Err(error)) => output.error(&error),
        Err(_) => output.note(&format!(
            "job {id} has not stopped within {} s; the daemon deletes it once it has",
            patience.as_secs()
        )),
    }
    Ok(signal.exit_code())
}

/// The exit code for a job that has ended.
fn code_of(job: &Job, output: &Output) -> u8 {
    match (job.status, job.exit_code) {
        (JobStatus::Completed, code) => code.unwrap_or(exit::DONE),
        (JobStatus::Failed, Some(code)) if code != 0 => code,
        _ => {
            print_without_code(job, output);
            exit::NO_CODE
        }
    }
}

fn print_without_code(job: &Job, output: &Output) {
    let reason = job.reason.as_deref().unwrap_or("no reason is known");
    output.note(&format!("job {} is {}: {reason}", job.job_id, job.status));
}

fn unless_absent(error: anyhow::Error) -> anyhow::Result<()> {
    match error.downcast_ref::<ClientError>().and_then(ClientError::status) {
        Some(404) => Ok(()),
        _ => Err(error),
    }
}

/// Deletes a job whose result is known. Where the daemon is away it does that by itself.
async fn delete(job: &str, client: &Client, output: &Output) {
    match client.delete(job).await {
        Err(error) if error.status() != Some(404) && !error.may_pass() => {
            output.error(&error.into());
        }
        _ => {}
    }
}

fn request(args: RunArgs) -> anyhow::Result<CreateVm> {
    let mut spec = Map::new();
    let mut set = |field: &str, value: Option<Value>| {
        if let Some(value) = value {
            spec.insert(field.to_owned(), value);
        }
    };
    let env = environment(&args.env_file, &args.env)?;
    set("rootfs", args.rootfs.map(Value::from));
    set("kernel", Some(args.kernel.into()));
    set("cmd", Some(args.cmd).filter(|cmd| !cmd.is_empty()).map(Value::from));
    set("env", Some(env).filter(|env| !env.is_empty()).map(Value::from));
    set("resources", Some(json!({ "vcpu": args.vcpu, "mem_mb": args.mem })));
    set("lifecycle", Some(args.lifecycle.as_str().into()));
    set("boot", args.boot.map(word));
    set("ready", ready(args.ready));
    set("warm_pool", warm_pool(&args.pool));
    set("retries", args.retries.map(Value::from));
    set("timeout_s", args.run_timeout.map(Value::from));
    set("stop_signal", args.stop_signal.map(Value::from));
    set("stop_timeout_s", args.stop_timeout.map(Value::from));
    set("disk_mb", args.disk.map(Value::from));
    set("auto_remove", args.rm.then_some(true.into()));
    set("labels", Some(labels(&args.label)).filter(|labels| !labels.is_empty()).map(Value::from));
    Ok(CreateVm { job_id: args.name, tenant: args.tenant, spec: spec.into() })
}

fn labels(flags: &[String]) -> Map<String, Value> {
    let label = |flag: &String| {
        let (key, value) = flag.split_once('=').unwrap_or((flag, ""));
        (key.to_owned(), value.into())
    };
    flags.iter().map(label).collect()
}

/// The word of a choice, which is the word on the wire.
fn word(choice: impl ValueEnum) -> Value {
    choice.to_possible_value().map_or(Value::Null, |value| value.get_name().into())
}

fn ready(args: ReadyArgs) -> Option<Value> {
    let ReadyArgs { ready_http, ready_tcp, ready_exec, ready_notify, ready_timeout } = args;
    let mut ready = match (ready_http, ready_tcp, ready_exec) {
        (Some(HttpCheck { port, path }), ..) => json!({ "http": { "port": port, "path": path } }),
        (_, Some(port), _) => json!({ "tcp": { "port": port } }),
        (.., Some(cmd)) => json!({ "exec": cmd.split_whitespace().collect::<Vec<_>>() }),
        _ if ready_notify => json!({ "notify": true }),
        _ => return None,
    };
    if let Some(seconds) = ready_timeout {
        ready["timeout_s"] = seconds.into();
    }
    Some(ready)
}

fn warm_pool(args: &PoolArgs) -> Option<Value> {
    let mut pool = json!({ "min": args.warm_min? });
    if let Some(max) = args.warm_max {
        pool["max"] = max.into();
    }
    if let Some(stage) = args.warm_stage {
        pool["stage"] = word(stage);
    }
    Some(pool)
}

/// The variables of the files, then those of the flags, which win.
fn environment(files: &[PathBuf], variables: &[String]) -> anyhow::Result<Map<String, Value>> {
    let mut env = Map::new();
    for file in files {
        let variables = env_file::read(file, value_here)?;
        env.extend(variables.into_iter().map(|(name, value)| (name, value.into())));
    }
    for text in variables {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, value.to_owned()),
            None => match value_here(text) {
                Ok(Some(value)) => (text.as_str(), value),
                Ok(None) => bail!("cannot pass {text} on: it is not set here; write {text}=VALUE"),
                Err(fault) => bail!("cannot pass {text} on: {fault}"),
            },
        };
        env.insert(name.to_owned(), value.into());
    }
    Ok(env)
}

/// The value that a variable has in this process, or why it can't be passed on.
fn value_here(name: &str) -> Result<Option<String>, String> {
    let value = std::env::var_os(name).map(OsString::into_string).transpose();
    value.map_err(|_| format!("the value that {name} has here is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::{RunArgs, request};
    use clap::Parser;
    use expect_test::{Expect, expect};

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        run: RunArgs,
    }

    fn check(args: &str, expected: Expect) {
        let line = Line::try_parse_from(format!("run {args}").split(' ')).expect(args);
        let body = request(line.run).expect("a request");
        expected.assert_eq(&format!("{:#}", body.spec));
    }

    #[test]
    fn every_field_of_a_spec_is_a_flag() {
        check(
            "--rootfs r --kernel k --vcpu 2 -m 256 --disk 64 --rm -e A=1 -e B=x=y --lifecycle service \
             --ready-http 80/health --ready-timeout 5 --warm-min 1 --warm-max 3 --warm-stage init \
             --retries 0 --run-timeout 1m --stop-signal INT --stop-timeout 3s --boot init \
             --label app=web --label canary /app -x --wait",
            expect![[r#"
                {
                  "rootfs": "r",
                  "kernel": "k",
                  "cmd": [
                    "/app",
                    "-x",
                    "--wait"
                  ],
                  "env": {
                    "A": "1",
                    "B": "x=y"
                  },
                  "resources": {
                    "vcpu": 2,
                    "mem_mb": 256
                  },
                  "lifecycle": "service",
                  "boot": "init",
                  "ready": {
                    "http": {
                      "port": 80,
                      "path": "/health"
                    },
                    "timeout_s": 5
                  },
                  "warm_pool": {
                    "min": 1,
                    "max": 3,
                    "stage": "init"
                  },
                  "retries": 0,
                  "timeout_s": 60,
                  "stop_signal": "INT",
                  "stop_timeout_s": 3,
                  "disk_mb": 64,
                  "auto_remove": true,
                  "labels": {
                    "app": "web",
                    "canary": ""
                  }
                }"#]],
        );
    }

    #[test]
    fn what_is_not_said_is_left_to_the_daemon() {
        check(
            "--boot raw",
            expect![[r#"
                {
                  "kernel": "vmlinux",
                  "resources": {
                    "vcpu": 1,
                    "mem_mb": 128
                  },
                  "lifecycle": "job",
                  "boot": "raw"
                }"#]],
        );
    }

    #[test]
    fn the_other_ready_checks_have_their_flags() {
        for (flag, expected) in [
            ("--ready-tcp=80", r#"{"tcp":{"port":80}}"#),
            ("--ready-exec=/check", r#"{"exec":["/check"]}"#),
            ("--ready-notify", r#"{"notify":true}"#),
            ("--ready-http=80", r#"{"http":{"port":80,"path":"/"}}"#),
        ] {
            let line = Line::try_parse_from(["run", "--rootfs", "r", flag, "/app"]).expect(flag);
            assert_eq!(request(line.run).expect("a request").spec["ready"].to_string(), expected);
        }
    }
}
