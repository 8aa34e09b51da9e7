//! Runs seeds, and prints the smallest schedule of the first that fails.

use anyhow::{Result, bail};
use clap::Parser;
use hearth_simulation::{Database, Schedule, outcome, run, smallest};
use std::time::Instant;

/// Runs simulated schedules of faults against the real engine.
#[derive(Debug, Parser)]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1000)]
    count: u64,
    /// Over SQLite rather than memory, which takes twice as long and does the same
    #[arg(long)]
    sqlite: bool,
    /// Only name the seed that fails, without its smallest schedule.
    #[arg(long)]
    brief: bool,
}

#[expect(clippy::print_stdout, reason = "its output is what it is for")]
fn main() -> Result<()> {
    let Arguments { from, count, sqlite, brief } = Arguments::parse();
    let database = if sqlite { Database::Sqlite } else { Database::Memory };
    let began = Instant::now();
    let (mut steps, mut actions) = (0, 0);
    for seed in from..from + count {
        let schedule = Schedule::of(seed);
        match outcome(&schedule, database) {
            Ok(passed) => {
                steps += passed.steps;
                actions += passed.actions;
            }
            Err(failure) => {
                println!("seed {seed} fails: {failure}");
                if brief {
                    bail!("seed {seed} fails");
                }
                if let Some((least, failure)) = smallest(&schedule, database) {
                    println!("\nthe least of it, {} items:", least.items.len());
                    let _ = std::panic::catch_unwind(|| {
                        run(&least, database, Some(&mut |line| println!("{line}")))
                    });
                    println!("\n{failure}");
                }
                bail!("seed {seed} fails");
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{count} schedules from seed {from}: {steps} steps, {actions} actions, {seconds:.1} s"
    );
    Ok(())
}
