//! The invariants hold over many seeds, and each planted fault is found.

use simulator::{Counters, PlantedFault};

/// Seeds of the ordinary test run; the command line does a hundred thousand.
const SEEDS: u64 = 2000;

#[test]
fn every_invariant_holds_over_two_thousand_migrations() {
    let mut total = Counters::default();
    for seed in 0..SEEDS {
        match simulator::run(seed, None) {
            Ok(counters) => total += counters,
            Err(violation) => panic!("seed {seed}: {violation}"),
        }
    }
    let covered = [
        total.completed,
        total.cancelled,
        total.source_lost,
        total.destination_lost,
        total.hostile,
        total.cuts,
        total.silences,
        total.reconnections,
        total.failed_reconnections,
        total.given_back,
        total.in_doubt,
        total.waiting,
        total.killed,
        total.takeovers,
        total.retries,
        total.range_gone,
        total.remaps,
        total.removes,
        total.forks,
        total.execs,
        total.sigbus,
    ];
    assert!(covered.iter().all(|count| *count > 0), "something was never met:\n{total}");
}

#[test]
fn each_planted_fault_is_found() {
    for fault in PlantedFault::ALL {
        let found = (0..SEEDS).find_map(|seed| simulator::run(seed, Some(fault)).err());
        assert!(found.is_some(), "{fault:?} was not found within {SEEDS} seeds");
    }
}

#[test]
fn a_seed_tells_the_same_story_every_time() {
    for seed in 0..20 {
        assert_eq!(simulator::trace(seed, None), simulator::trace(seed, None));
    }
}
