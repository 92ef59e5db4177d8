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
    /// Measure the programs in bin/; exits with 1 when a promise is broken
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Whether the time for which a program stands still grows with its memory
    Downtime(bench::Downtime),
    /// The same programs moved by us and by CRIU's lazy pages, in turn
    Peers(bench::Peers),
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
        Task::Bench(Bench::Downtime(what)) => Ok(exit_code(bench::downtime(root, *what)?)),
        Task::Bench(Bench::Peers(what)) => bench::peers(root, what).map(|()| ExitCode::SUCCESS),
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
