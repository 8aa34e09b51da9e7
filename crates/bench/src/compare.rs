//! Two daemons, measured by turns in one run: whether the second is worse than the first by more than
//! the first differs from itself.

use crate::Bench;
use crate::statistics::{Figure, Limit, tell};
use anyhow::Result;
use std::fmt;
use std::path::Path;

/// A figure of both daemons, a value a round.
#[derive(Debug)]
struct Pair {
    figure: Figure,
    baseline: Vec<f64>,
    changed: Vec<f64>,
}

/// Measures `baseline` and `changed` by turns, and prints each figure of both.
pub(crate) async fn compare(
    bench: &mut Bench,
    baseline: &Path,
    changed: &Path,
    rounds: u32,
) -> Result<()> {
    let mut pairs: Vec<Pair> = Vec::new();
    for round in 0..rounds {
        for (binary, is_baseline) in [(baseline, true), (changed, false)] {
            if let Some(run) = bench.run() {
                binary.clone_into(&mut run.hearth);
            }
            tell(format_args!("round {}: {}", round + 1, binary.display()));
            let figures = bench.measure().await?;
            if pairs.is_empty() {
                let pair = |figure: &Figure| Pair {
                    figure: figure.clone(),
                    baseline: Vec::new(),
                    changed: Vec::new(),
                };
                pairs = figures.iter().map(pair).collect();
            }
            for (pair, figure) in pairs.iter_mut().zip(figures) {
                let values = if is_baseline { &mut pair.baseline } else { &mut pair.changed };
                values.push(figure.value);
            }
        }
    }
    pairs.iter().for_each(tell);
    Ok(())
}

/// Values in order.
fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

impl Pair {
    /// Whether the median of the changed one is beyond all that the baseline showed.
    fn is_worse(&self) -> bool {
        let (baseline, changed) = (sorted(&self.baseline), sorted(&self.changed));
        let median = changed[changed.len() / 2];
        match self.figure.limit {
            Limit::AtLeast(_) => median < baseline[0],
            Limit::AtMost(_) | Limit::Note => median > baseline[baseline.len() - 1],
        }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Figure { name, unit, .. } = self.figure;
        let (baseline, changed) = (sorted(&self.baseline), sorted(&self.changed));
        let median = |values: &[f64]| values[values.len() / 2];
        let shown = |values: &[f64]| {
            let (least, most) = (values[0], values[values.len() - 1]);
            format!("{:.3} ({least:.3} to {most:.3})", median(values))
        };
        write!(
            f,
            "{} {name}: {:.3} times; {} {unit} against {} of the baseline",
            if self.is_worse() { "WORSE " } else { "no worse" },
            median(&changed) / median(&baseline),
            shown(&changed),
            shown(&baseline),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Pair;
    use crate::statistics::{Figure, Limit};

    #[test]
    fn worse_is_beyond_the_spread_of_the_baseline() {
        let pair = |limit, changed: [f64; 3]| Pair {
            figure: Figure { name: "x", value: 0.0, unit: "ms", limit },
            baseline: vec![3.0, 1.0, 2.0],
            changed: changed.to_vec(),
        };
        assert!(!pair(Limit::Note, [3.0, 9.0, 1.0]).is_worse());
        assert!(pair(Limit::Note, [3.1, 9.0, 1.0]).is_worse());
        assert!(pair(Limit::AtMost(1.0), [3.1, 3.2, 3.3]).is_worse());
        assert!(!pair(Limit::AtLeast(1.0), [1.0, 9.0, 0.5]).is_worse());
        assert!(pair(Limit::AtLeast(1.0), [0.9, 9.0, 0.5]).is_worse());
        let line = pair(Limit::Note, [4.0, 5.0, 6.0]).to_string();
        assert_eq!(
            line,
            "WORSE  x: 2.500 times; 5.000 (4.000 to 6.000) ms against 2.000 (1.000 to 3.000) of the baseline"
        );
    }
}
