//! How long 1,000 entries take to validate, in each format: medians with their spread.
//! `cargo xtask bench validate` runs it for release.
#![allow(clippy::print_stdout, reason = "the report is this program's output")]

use hearth_desired_file::{Declared, Format, parse_as, write};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ENTRIES: usize = 1000;
const RUNS: usize = 200;

const EXAMPLE: &str = include_str!("../../../config/desired_vms.exs");

fn main() {
    println!("{ENTRIES} entries, {RUNS} runs each");
    let jobs = entries();
    for format in Format::ALL {
        let text = write(format, &jobs);
        let mut times: Vec<Duration> = (0..RUNS).map(|_| time(format, &text)).collect();
        times.sort_unstable();
        let at = |percent: usize| times[(RUNS - 1) * percent / 100].as_secs_f64() * 1e3;
        let [p10, p50, p90, p99] = [10, 50, 90, 99].map(at);
        let size = text.len() / 1024;
        let name = format.to_string();
        println!(
            "note  {name:<6} {size} KiB: p50 {p50:.2} ms (p10 {p10:.2}, p90 {p90:.2}, p99 {p99:.2})"
        );
    }
}

/// The example's jobs over and over, under names of their own.
fn entries() -> Vec<Declared> {
    let example = parse_as(Format::Elixir, "example", EXAMPLE).map(|file| file.jobs);
    let example = example.unwrap_or_else(|problems| panic!("{problems}"));
    let named = |(at, job): (usize, &Declared)| {
        let name = format!("{}-{at}", job.job_id);
        Declared {
            job_id: hearth_model::JobId::parse(&name).unwrap_or_else(|error| panic!("{error}")),
            ..job.clone()
        }
    };
    example.iter().cycle().take(ENTRIES).enumerate().map(named).collect()
}

fn time(format: Format, text: &str) -> Duration {
    let started = Instant::now();
    let file = parse_as(format, "bench", black_box(text));
    let took = started.elapsed();
    assert!(black_box(file).is_ok_and(|file| file.jobs.len() == ENTRIES));
    took
}
