//! The daemon is killed once at every step of a run, on each side of its commit; and again in the
//! recovery from that. `HEARTH_PAIRS=all` kills it at every point of every recovery.

use hearth_simulation::{CrashPoint, Database, Schedule, Side, run, run_with_crashes};

/// Steps within which a recovery has come to rest.
const RECOVERY_STEPS: u64 = 40;

fn pass(seed: u64, database: Database, points: &[CrashPoint]) {
    if let Err(failure) = run_with_crashes(&Schedule::calm(seed), database, points) {
        panic!("seed {seed}, killed at {points:?}: {failure}");
    }
}

fn steps(seed: u64) -> u64 {
    run(&Schedule::calm(seed), Database::Sqlite, None).expect("a calm run").steps
}

fn pass_every_point(seed: u64) {
    let steps = steps(seed);
    assert!(steps > 100, "seed {seed} has {steps} steps");
    for step in 0..steps {
        for side in Side::ALL {
            pass(seed, Database::Sqlite, &[CrashPoint { step, side }]);
        }
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
    let steps = steps(SEED);
    let all = std::env::var("HEARTH_PAIRS").is_ok_and(|pairs| pairs == "all");
    // Those of all are too many for SQLite.
    let (database, every, within) = match all {
        true => (Database::Memory, 1, RECOVERY_STEPS),
        false => (Database::Sqlite, 40, 8),
    };
    std::thread::scope(|scope| {
        for first in Side::ALL {
            scope.spawn(move || {
                for step in (0..steps).step_by(every) {
                    for behind in 1..within {
                        for second in Side::ALL {
                            let again = CrashPoint { step: step + behind, side: second };
                            pass(SEED, database, &[CrashPoint { step, side: first }, again]);
                        }
                    }
                }
            });
        }
    });
}
