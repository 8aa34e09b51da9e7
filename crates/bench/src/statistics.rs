//! Samples, and how they are printed.

use std::fmt;
use std::time::Duration;

/// Durations that were measured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples(Vec<Duration>);

impl Samples {
    pub(crate) fn add(&mut self, sample: Duration) {
        self.0.push(sample);
    }

    /// The sample below which so many of a hundred lie, in milliseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).map_or(f64::NAN, |sample| sample.as_secs_f64() * 1e3)
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    pub(crate) fn mean(&self) -> f64 {
        let total: Duration = self.0.iter().sum();
        total.as_secs_f64() * 1e3 / self.0.len() as f64
    }
}

/// Median, mean and the spread, in milliseconds.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p10, p50, p90, p99] = [10, 50, 90, 99].map(|percent| self.percentile(percent));
        let (mean, count) = (self.mean(), self.0.len());
        write!(
            f,
            "p50 {p50:.3} ms (mean {mean:.3}, p10 {p10:.3}, p90 {p90:.3}, p99 {p99:.3}, n {count})"
        )
    }
}

/// A figure beside its limit, as one line of the report.
#[expect(clippy::print_stdout, reason = "the report is this program's output")]
pub(crate) fn report(what: &str, value: f64, unit: &str, limit: Limit) {
    let (met, sign, limit) = match limit {
        Limit::AtMost(limit) => (value <= limit, '≤', limit),
        Limit::AtLeast(limit) => (value >= limit, '≥', limit),
    };
    let word = if met { "met  " } else { "SHORT" };
    println!("{word} {what}: {value:.3} {unit} (figure: {sign} {limit} {unit})");
}

/// A line of the report without a limit.
#[expect(clippy::print_stdout, reason = "the report is this program's output")]
pub(crate) fn tell(line: impl fmt::Display) {
    println!("      {line}");
}

/// What a figure is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
}
