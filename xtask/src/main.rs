//! `cargo xtask`: what this repository does to itself. Not part of any installation.
#![forbid(unsafe_code)]

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
}

fn main() -> anyhow::Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    match Task::parse() {
        Task::Tidy => tidy_main(root),
    }
}

fn tidy_main(root: &Path) -> anyhow::Result<ExitCode> {
    let report = tidy::check(root)?;
    let mut out = io::stdout().lock();
    for finding in &report.findings {
        writeln!(out, "{finding}")?;
    }
    writeln!(out, "tidy: {} files, {} findings", report.files, report.findings.len())?;
    Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
