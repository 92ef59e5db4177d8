//! `target`: programs that know whether they survived being moved.
//!
//! Each workload keeps state of one sort (memory, registers, signals, descriptors …), changes it all the time and
//! compares every byte with what it must be. It knows nothing of the programs that move it, and needs none of them:
//! run alone it passes.
//!
//! The entry is `c/main.c`, which runs the workloads written in C and leaves everything else to [`main`].
#![forbid(unsafe_code)]

mod gaps;
mod options;
mod pattern;
mod progress;
mod random;
mod waits;
mod workloads;

use std::process::ExitCode;

use clap::Parser as _;

use crate::options::Options;
use crate::progress::Progress;
use crate::workloads::{WORKLOADS, Workload};

fn main() -> ExitCode {
    let options = Options::parse();
    if options.list {
        return list();
    }
    let Some(workload) = WORKLOADS.iter().find(|workload| workload.name == options.workload) else {
        return complain(&format!("no workload is called {:?}: see target --list", options.workload));
    };
    match workload.run {
        Some(run) => run_to_the_end(workload, run, options),
        None => complain(&format!("{} takes --count and --threads only", workload.name)),
    }
}

fn run_to_the_end(workload: &Workload, run: workloads::Run, options: Options) -> ExitCode {
    let outcome = Progress::start(workload.name, options).and_then(|mut progress| {
        run(&mut progress)?;
        progress.say(&format!("{}: PASS", workload.name))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            // Nobody is left to tell if standard output itself is gone.
            let _ = progress::say(&format!("{}: FAIL {fault:#}", workload.name));
            ExitCode::FAILURE
        }
    }
}

fn list() -> ExitCode {
    for workload in WORKLOADS {
        if progress::say(&format!("{:14} {}", workload.name, workload.about)).is_err() {
            return ExitCode::FAILURE;
        }
    }
    ExitCode::SUCCESS
}

fn complain(text: &str) -> ExitCode {
    use std::io::Write as _;
    // A closed standard error leaves the exit status to say it.
    let _ = writeln!(std::io::stderr(), "target: {text}");
    ExitCode::from(2)
}
