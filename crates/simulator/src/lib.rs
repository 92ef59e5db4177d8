//! Whole migrations in one thread, from a seed: both engines, three connections, a kernel with userfaultfds, and a
//! program that changes its memory while it arrives. Development only.
//!
//! ```text
//! world ── source_side ──► link ──► destination_side ── kernel ◄── program
//!   └── after every step: checker
//! ```
//!
//! The same seed gives the same migration on every machine. `cargo run -p simulator --release -- --seeds 100000` runs
//! many, `--seed N` shows one.
#![forbid(unsafe_code)]
#![allow(clippy::indexing_slicing, reason = "a simulator that indexes wrongly should stop there and then")]

mod checker;
mod counters;
mod destination_side;
mod hostile;
mod kernel;
mod link;
mod mm;
mod planted;
mod program;
mod random;
mod settings;
mod source_side;
mod world;

pub use checker::Violation;
pub use counters::Counters;
pub use hostile::run as run_hostile;
pub use planted::PlantedFault;
pub use random::{Choices, Random, Tape};

/// Runs the migration of `seed`, with a fault planted or none.
///
/// # Errors
/// The first invariant that is broken.
pub fn run(seed: u64, planted: Option<PlantedFault>) -> Result<Counters, Violation> {
    let mut counters = world::World::new(seed, planted, false).run()?;
    if seed.is_multiple_of(8) {
        hostile::run(&mut Random::new(seed ^ 0xbad));
        counters.hostile += 1;
    }
    Ok(counters)
}

/// Runs the migration of `seed` and tells what happened, line by line.
pub fn trace(seed: u64, planted: Option<PlantedFault>) -> (Vec<String>, Result<Counters, Violation>) {
    let mut world = world::World::new(seed, planted, true);
    let result = world.run();
    (world.take_trace(), result)
}
