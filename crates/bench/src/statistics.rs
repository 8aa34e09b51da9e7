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

    pub(crate) fn append(&mut self, mut others: Self) {
        self.0.append(&mut others.0);
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

/// The middle of some values, of which there is at least one.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// What was measured.
#[derive(Debug, Clone)]
pub(crate) struct Figure {
    pub(crate) name: &'static str,
    pub(crate) value: f64,
    pub(crate) unit: &'static str,
    pub(crate) limit: Limit,
}

/// What a figure is held to.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// Nothing: it is the machine's as much as the daemon's, and only noted. Less is better.
    Note,
}

/// A figure beside its limit, as one line of the report.
impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { name, value, unit, limit } = self;
        match limit {
            Limit::Note => write!(f, "note  {name}: {value:.3} {unit}"),
            Limit::AtMost(limit) => {
                let word = if value <= limit { "met  " } else { "SHORT" };
                write!(f, "{word} {name}: {value:.3} {unit} (figure: ≤ {limit} {unit})")
            }
            Limit::AtLeast(limit) => {
                let word = if value >= limit { "met  " } else { "SHORT" };
                write!(f, "{word} {name}: {value:.3} {unit} (figure: ≥ {limit} {unit})")
            }
        }
    }
}

/// A line of the report.
#[expect(clippy::print_stdout, reason = "the report is this program's output")]
pub(crate) fn tell(line: impl fmt::Display) {
    println!("{line}");
}
