//! Measures the daemon as its users meet it, each figure as a ratio to a floor that is measured in
//! the same run: a bare commit, a server without logic, a program that only makes Firecracker's calls.
//!
//! It knows the daemon as a process with an HTTP API, and nothing of its insides. `cargo xtask bench`
//! builds both for release and runs it; docs/performance.md says what came out.

mod claims;
mod compare;
mod fleet;
mod floor;
mod http;
mod posts;
mod reads;
mod server;
mod starts;
mod statistics;

use anyhow::Result;
use clap::{Parser, Subcommand};
use compare::compare;
use statistics::{Figure, tell};
use std::path::PathBuf;

/// The daemon's, so that the server without logic gains what the daemon gains.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "hearth-bench")]
struct Arguments {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// POST that claims a warm microVM (201), against a bare commit of the same rows
    Claims(Run),
    /// POST of 64 clients that is accepted (202), against a server with the same writer and no logic
    Posts(Run),
    /// `GET /vms/{id}` at 2,000 a second, alone and beside 5,000 POSTs a second
    Reads(Run),
    /// POST to InstanceStart with a raw guest, against only the spawn and the calls of Firecracker
    Starts {
        #[command(flatten)]
        run: Run,
        /// The Firecracker binary
        #[arg(long)]
        firecracker: PathBuf,
        /// A kernel for bare guests
        #[arg(long)]
        kernel: PathBuf,
    },
    /// The daemon with many jobs: memory, idle CPU, one change, start, `/stats`
    Fleet {
        #[command(flatten)]
        run: Run,
        /// How many jobs
        #[arg(long, default_value_t = 10_000)]
        jobs: usize,
    },
    /// The server without logic that `posts` compares with
    #[command(hide = true)]
    Floor {
        /// Its database
        db: PathBuf,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct Run {
    /// The daemon's binary
    #[arg(long)]
    hearth: PathBuf,
    /// Another daemon's binary: both are measured by turns, and compared
    #[arg(long)]
    baseline: Option<PathBuf>,
    /// How many turns each gets in a comparison
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Where states are kept; on a disk, not in memory
    #[arg(long)]
    dir: PathBuf,
    /// How often each is measured
    #[arg(long, default_value_t = 300)]
    samples: usize,
}

impl Bench {
    fn run(&mut self) -> Option<&mut Run> {
        match self {
            Bench::Claims(run) | Bench::Posts(run) | Bench::Reads(run) => Some(run),
            Bench::Starts { run, .. } | Bench::Fleet { run, .. } => Some(run),
            Bench::Floor { .. } => None,
        }
    }

    async fn measure(&self) -> Result<Vec<Figure>> {
        match self {
            Bench::Claims(run) => claims::measure(run).await,
            Bench::Posts(run) => posts::measure(run).await,
            Bench::Reads(run) => reads::measure(run).await,
            Bench::Starts { run, firecracker, kernel } => {
                starts::measure(run, firecracker, kernel).await
            }
            Bench::Fleet { run, jobs } => fleet::measure(run, *jobs).await,
            Bench::Floor { db } => floor::serve(db).await.map(|()| Vec::new()),
        }
    }
}

fn main() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut bench = Arguments::parse().bench;
    let run = bench.run().cloned();
    runtime.block_on(async {
        if let Some(Run { baseline: Some(baseline), hearth, rounds, .. }) = run {
            return compare(&mut bench, &baseline, &hearth, rounds).await;
        }
        bench.measure().await?.iter().for_each(tell);
        Ok(())
    })
}
