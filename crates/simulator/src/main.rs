//! Runs many worlds and prints what they covered, or one world and what happened in it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is a command-line program")]

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use simulator::{Counters, PlantedFault, Violation};

const USAGE: &str =
    "usage: simulator [--seeds COUNT] [--first SEED] [--threads COUNT] [--planted FAULT] | --seed SEED";

struct Arguments {
    seeds: u64,
    first: u64,
    threads: usize,
    one: Option<u64>,
    planted: Option<PlantedFault>,
}

fn arguments() -> Result<Arguments, String> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut arguments = Arguments { seeds: 10_000, first: 0, threads, one: None, planted: None };
    let mut words = std::env::args().skip(1);
    while let Some(option) = words.next() {
        let value = words.next().ok_or(USAGE)?;
        let number = || value.parse::<u64>().map_err(|error| format!("{option} {value}: {error}"));
        match option.as_str() {
            "--seeds" => arguments.seeds = number()?,
            "--first" => arguments.first = number()?,
            "--threads" => arguments.threads = usize::try_from(number()?).unwrap_or(1).max(1),
            "--seed" => arguments.one = Some(number()?),
            "--planted" => arguments.planted = Some(value.parse()?),
            _ => return Err(USAGE.into()),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(arguments) => arguments,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::from(2);
        }
    };
    match arguments.one {
        Some(seed) => replay(seed, arguments.planted),
        None => run_many(&arguments),
    }
}

/// One world, told line by line.
fn replay(seed: u64, planted: Option<PlantedFault>) -> ExitCode {
    let (lines, result) = simulator::trace(seed, planted);
    lines.iter().for_each(|line| println!("{line}"));
    match result {
        Ok(counters) => {
            print!("seed {seed} holds every invariant\n{counters}");
            ExitCode::SUCCESS
        }
        Err(violation) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

fn run_many(arguments: &Arguments) -> ExitCode {
    let started = Instant::now();
    let end = arguments.first.saturating_add(arguments.seeds);
    let next = AtomicU64::new(arguments.first);
    let work = || run_share(&next, end, arguments.planted);
    let shares: Vec<_> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..arguments.threads).map(|_| scope.spawn(work)).collect();
        workers.into_iter().map(|worker| worker.join().expect("a panic ends the program")).collect()
    });
    let mut total = Counters::default();
    let mut first_failure: Option<(u64, Violation)> = None;
    for (counters, failure) in shares {
        total += counters;
        let earlier =
            failure.filter(|(seed, _)| first_failure.as_ref().is_none_or(|(first, _)| seed < first));
        first_failure = earlier.or(first_failure);
    }
    println!(
        "{} seeds from {} in {:.1} s",
        arguments.seeds,
        arguments.first,
        started.elapsed().as_secs_f64()
    );
    print!("{total}");
    match first_failure {
        None => {
            println!("every invariant holds");
            ExitCode::SUCCESS
        }
        Some((seed, violation)) => {
            println!("seed {seed}: {violation}");
            ExitCode::FAILURE
        }
    }
}

/// Takes seeds until none is left, or one fails.
fn run_share(
    next: &AtomicU64,
    end: u64,
    planted: Option<PlantedFault>,
) -> (Counters, Option<(u64, Violation)>) {
    let mut total = Counters::default();
    loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= end {
            return (total, None);
        }
        match simulator::run(seed, planted) {
            Ok(counters) => total += counters,
            Err(violation) => return (total, Some((seed, violation))),
        }
    }
}
