//! The bridge to CRIU. In this version it says whether CRIU can be used here; moving instances with it comes
//! with a later one.
#![forbid(unsafe_code)]

mod check;
mod criu;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

use check::Report;

/// Exit status when CRIU cannot be used; 2 is for a command line that makes no sense.
const NOT_USABLE: u8 = 1;

/// The bridge to CRIU.
#[derive(Parser, Debug)]
#[command(name = "criu-bridge", version)]
enum Command {
    /// Say whether CRIU can be used here, and what to do about each problem
    ///
    /// Exits with 0 if it can, with 1 if it cannot. Moving instances with CRIU comes with a later version.
    Check {
        /// Use this criu instead of the one from make criu, or that on PATH
        #[arg(long, value_name = "PATH")]
        criu: Option<PathBuf>,
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    let Command::Check { criu, json } = Command::parse();
    let report = check::run(criu.as_deref());
    // A reader that has seen enough changes nothing about the answer.
    let _ = print(&report, json);
    if report.usable { ExitCode::SUCCESS } else { ExitCode::from(NOT_USABLE) }
}

fn print(report: &Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)
    } else {
        write!(out, "{report}")
    }
}
