//! Ten thousand schedules, in parts that run side by side. `hearth-simulation --from A --count N` runs
//! others, and tells the least story of one that fails.

use hearth_simulation::{Schedule, outcome, smallest};

fn pass(seeds: std::ops::Range<u64>) {
    for seed in seeds {
        let schedule = Schedule::of(seed);
        if let Err(failure) = outcome(&schedule) {
            let least = smallest(&schedule).map(|(least, _)| least.items);
            panic!("seed {seed}: {failure}\nthe least of it: {least:#?}");
        }
    }
}

macro_rules! parts {
    ($($name:ident: $range:expr;)*) => {
        $(#[test]
        fn $name() {
            pass($range);
        })*
    };
}

parts! {
    seeds_of_part_1_keep_every_invariant: 0..1250;
    seeds_of_part_2_keep_every_invariant: 1250..2500;
    seeds_of_part_3_keep_every_invariant: 2500..3750;
    seeds_of_part_4_keep_every_invariant: 3750..5000;
    seeds_of_part_5_keep_every_invariant: 5000..6250;
    seeds_of_part_6_keep_every_invariant: 6250..7500;
    seeds_of_part_7_keep_every_invariant: 7500..8750;
    seeds_of_part_8_keep_every_invariant: 8750..10_000;
}

#[test]
fn a_seed_repeats_its_run() {
    for seed in 0..50 {
        let schedule = Schedule::of(seed);
        assert_eq!(outcome(&schedule), outcome(&schedule), "seed {seed}");
        assert_ne!(outcome(&schedule), outcome(&Schedule::of(seed + 1)), "seed {seed}");
    }
}

#[test]
fn a_schedule_has_hundreds_of_steps_and_trouble_of_every_kind() {
    let passed: Vec<_> =
        (0..50).map(|seed| outcome(&Schedule::of(seed)).expect("no violation")).collect();
    let mut steps: Vec<u64> = passed.iter().map(|passed| passed.steps).collect();
    steps.sort_unstable();
    assert!(steps[5] >= 100 && steps[25] >= 200, "{steps:?}");
    let told: String = (0..50)
        .flat_map(|seed| Schedule::of(seed).items)
        .map(|item| format!("{item:?}\n"))
        .collect();
    let kinds = [
        "Upsert",
        "Delete",
        "Stop",
        "Start",
        "Restart",
        "Load",
        "Die",
        "Vanish",
        "Refused",
        "ReplyLost",
        "Late",
        "Twice",
        "Half",
        "Crash",
        "Reboot",
        "Jump",
        "DiskFull",
        "Blind",
        "Unready",
        "Missing",
    ];
    for kind in kinds {
        assert!(told.contains(kind), "no {kind}");
    }
}
