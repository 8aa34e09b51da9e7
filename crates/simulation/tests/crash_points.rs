//! The daemon is killed once at every step of a run, on each side of its commit; and again in the
//! recovery from that.

use hearth_simulation::{CrashPoint, Database, Schedule, Side, run, run_with_crashes};

fn pass(seed: u64, points: &[CrashPoint]) {
    if let Err(failure) = run_with_crashes(&Schedule::calm(seed), points) {
        panic!("seed {seed}, killed at {points:?}: {failure}");
    }
}

fn pass_every_point(seed: u64) {
    let steps = run(&Schedule::calm(seed), Database::Sqlite, None).expect("a calm run").steps;
    assert!(steps > 100, "seed {seed} has {steps} steps");
    for step in 0..steps {
        Side::ALL.iter().for_each(|side| pass(seed, &[CrashPoint { step, side: *side }]));
    }
}

#[test]
fn every_point_of_a_first_run_may_be_the_last() {
    pass_every_point(0);
}

#[test]
fn every_point_of_a_second_run_may_be_the_last() {
    pass_every_point(1);
}

#[test]
fn every_point_of_a_third_run_may_be_the_last() {
    pass_every_point(2);
}

#[test]
fn every_point_of_a_recovery_may_be_the_last() {
    const SEED: u64 = 3;
    let steps = run(&Schedule::calm(SEED), Database::Sqlite, None).expect("a calm run").steps;
    for step in (0..steps).step_by(40) {
        for first in Side::ALL {
            for behind in 1..8 {
                for second in Side::ALL {
                    let again = CrashPoint { step: step + behind, side: second };
                    pass(SEED, &[CrashPoint { step, side: first }, again]);
                }
            }
        }
    }
}
