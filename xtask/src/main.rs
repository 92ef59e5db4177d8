//! `cargo xtask`: what this repository does to itself. Not part of any installation.
#![forbid(unsafe_code)]

mod bench;
mod tidy;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "What this repository does to itself")]
enum Task {
    /// Check the rules of the house; prints what breaks them as path:line and exits with 1
    Tidy,
    /// Measure the programs in bin/ beside CRIU and what the machine can do; exits with 1 when a promise is broken
    Bench(bench::Options),
    /// One process of what the benchmark measures of the machine; for its own use
    #[command(subcommand, hide = true)]
    Floor(bench::Floor),
}

fn main() -> ExitCode {
    perform(&Task::parse()).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "xtask: {error:#}");
        ExitCode::FAILURE
    })
}

fn perform(task: &Task) -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match task {
        Task::Tidy => tidy_main(root),
        Task::Bench(options) => Ok(exit_code(bench::run(root, options)?)),
        Task::Floor(floor) => floor.run().map(|()| ExitCode::SUCCESS),
    }
}

fn tidy_main(root: &Path) -> anyhow::Result<ExitCode> {
    let report = tidy::check(root)?;
    let mut out = io::stdout().lock();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    writeln!(out, "tidy: {} files, {} findings", report.files, report.findings.len())?;
    Ok(exit_code(report.findings.is_empty()))
}

fn exit_code(good: bool) -> ExitCode {
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
