//! Everything a developer runs: `cargo xtask --help` lists it.

mod api_fuzz;
mod bench;
mod cargo;
mod ci;
mod firecracker;
mod fuzz;
mod guest_init;
mod images;
mod kernel;
mod kvm;
mod lab;
mod ledger;
mod mutants;
mod packages;
mod places;
mod process;
mod program;
mod rootfs;
mod schedules;
mod serve;
mod setup;
mod soak;
mod terminal;
mod wheel;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use lab::{Forward, Lab, Session};
use places::Places;
use terminal::{answer, say};

/// Builds, tests and runs Hearth.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Install, fetch and build what Hearth needs; a second run only looks
    Setup,
    /// Run every check and every test there is
    Ci {
        /// Only these stages: fmt, clippy, tests, schedules, doc-tests, docs, deny, typos, words, unused, fuzz, api-fuzz, elixir, system, native, lab
        stages: Vec<String>,
    },
    /// Measure the figures of docs/performance.md, as ratios in one run
    Bench {
        /// Only these: validate, claims, posts, reads, starts, fleet
        figures: Vec<String>,
        /// Another hearth binary: both are measured by turns, and compared
        #[arg(long)]
        baseline: Option<PathBuf>,
    },
    /// Run for longer than with each commit, and enter the result in docs/ledger.tsv
    Soak {
        /// What
        part: soak::Part,
        /// For about so long (pairs, planted bugs and mutants: all of them, however long it takes)
        #[arg(long, default_value_t = 10)]
        minutes: u64,
    },
    /// Build Hearth and serve config/desired_vms.exs on 127.0.0.1:8088 until Ctrl-C
    Run {
        /// Further arguments of `hearth serve`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Serve config/desired_vms.exs over the simulated host, without KVM and microVMs, until Ctrl-C
    Sim {
        /// Further arguments of `hearth serve`
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// End all of it: the daemon, its microVMs and what it keeps about them
    Down,
    /// Put the kernel and the demo's root filesystems into a directory
    Images {
        /// The directory
        dir: PathBuf,
    },
    /// Build the init of the microVM into build/hearth-init
    Init,
    /// Real Firecracker on an emulated machine, for one whose KVM can't boot Linux
    #[command(subcommand)]
    Lab(LabTask),
}

#[derive(Debug, Subcommand)]
enum LabTask {
    /// Start the lab, unless it runs, and return when it takes commands
    Up,
    /// Run a command in the lab; its streams and its exit status come through
    Run {
        /// The command and its arguments, as they are (for a shell: sh -c '…')
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Open a shell in the lab
    Shell,
    /// Make ports of the lab's 127.0.0.1 reachable here: 8088, or 9000:80 (here:there)
    ///
    /// Every local user can connect to them, and each connection is one of root in the lab: to a Hearth
    /// that runs there it is admitted.
    Forward {
        /// The ports
        #[arg(required = true)]
        ports: Vec<Forward>,
        /// End the forwarding instead
        #[arg(long)]
        cancel: bool,
    },
    /// Tell whether the lab runs
    Status,
    /// Power the lab off; its disk stays
    Down {
        /// Remove the disk with all state too
        #[arg(long)]
        wipe: bool,
    },
}

fn main() -> ExitCode {
    match perform(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn perform(task: Task) -> Result<ExitCode> {
    let places = Places::find()?;
    match task {
        Task::Setup => {
            let ready = setup::ensure(&places)?;
            say(format_args!("setup: Firecracker is {}", ready.firecracker.display()));
            say(format_args!("setup: images are in {}", ready.images.display()));
        }
        Task::Ci { stages } => {
            return Ok(if ci::run(&places, stages)? {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
        Task::Bench { figures, baseline } => {
            bench::run(&places, &figures, baseline.as_deref())?;
        }
        Task::Soak { part, minutes } => soak::run(&places, part, minutes)?,
        Task::Run { arguments } => return Ok(exit_code(serve::run(&places, &arguments)?)),
        Task::Sim { arguments } => return Ok(exit_code(serve::simulate(&places, &arguments)?)),
        Task::Down => serve::down(&places)?,
        Task::Images { dir } => {
            packages::ensure(packages::IMAGES)?;
            images::put(&places, &dir)?;
        }
        Task::Init => guest_init::ensure(&places)?,
        Task::Lab(task) => return perform_in_lab(&places, task),
    }
    Ok(ExitCode::SUCCESS)
}

fn perform_in_lab(places: &Places, task: LabTask) -> Result<ExitCode> {
    let lab = Lab::of(places)?;
    match task {
        LabTask::Up => lab.up()?,
        LabTask::Run { command } => return run_in_lab(&lab, &Session::new(command)?),
        LabTask::Shell => {
            // Without the developer's start-up files: they are written for a faster machine.
            let mut shell = Session::new(["bash", "--norc", "-i"].map(str::to_owned).to_vec())?;
            shell.variables.push(("PS1".to_owned(), "lab:\\w# ".to_owned()));
            return run_in_lab(&lab, &shell);
        }
        LabTask::Forward { ports, cancel } => {
            for forward in ports {
                if cancel { lab.unforward(forward)? } else { lab.forward(forward)? }
            }
        }
        LabTask::Status => match lab.machine()? {
            Some(machine) => answer(format_args!(
                "up: process {}, {} MiB, console in {}",
                machine.process.pid,
                machine.memory_mib,
                lab.console().display()
            )),
            None => {
                answer("down");
                return Ok(ExitCode::from(3));
            }
        },
        LabTask::Down { wipe } => {
            say(if lab.down()? { "lab: down" } else { "lab: it was down" });
            if wipe {
                lab.wipe()?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn run_in_lab(lab: &Lab, session: &Session) -> Result<ExitCode> {
    let (status, lost) = lab.run_watched(session)?;
    if let Some(why) = lost {
        anyhow::bail!("{why}");
    }
    Ok(exit_code(status))
}

fn exit_code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}
