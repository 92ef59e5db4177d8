//! `receiver check PID`: what would become of a process, found out without touching it.
//!
//! ```text
//! facts      what /proc says, and duplicates of its descriptors: no signal, no stop, no attachment
//! delivery   whether the signal would reach the parasite in it
//! findings   the rules of `capture`, the parasite's own, one thread, mapping and descriptor after the other
//! report     lines for people, or JSON
//! ```

mod delivery;
mod facts;
mod findings;
mod report;

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

use facts::Facts;
use findings::Findings;

/// Says what would become of a process if it were moved, and why, without touching it.
///
/// Looks at what the kernel tells of it: no signal is sent, nothing stops. Whether
/// the destination has its files and its processor's instructions is not looked at.
///
/// Exit status: 0 everything moves; 1 it moves, and something is lost with it;
/// 2 a command line that makes no sense, or a process that one may not look at;
/// 3 it is refused, or the signal does not reach the library in it.
#[derive(Parser, Debug, Clone, PartialEq, Eq)]
#[command(name = "receiver check", verbatim_doc_comment)]
struct Options {
    /// The process
    pid: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Print a line for each thread, mapping and descriptor, not only for those that do not simply move
    #[arg(long)]
    all: bool,
}

/// What becomes of something, the best first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, serde::Serialize)]
enum Verdict {
    /// It goes on as it is.
    #[serde(rename = "moves")]
    Moves,
    /// It goes on, and something of it is lost.
    #[serde(rename = "moves with a loss")]
    Loses,
    /// Nothing moves as long as it is there.
    #[serde(rename = "refused")]
    Refused,
}

impl Verdict {
    const fn words(self) -> &'static str {
        match self {
            Self::Moves => "moves",
            Self::Loses => "moves with a loss",
            Self::Refused => "refused",
        }
    }

    const fn exit_status(self) -> u8 {
        match self {
            Self::Moves => 0,
            Self::Loses => 1,
            Self::Refused => 3,
        }
    }
}

/// Runs the subcommand with the arguments behind its name; `usage` explains a command line that makes no sense.
pub fn main(arguments: &[OsString], usage: impl FnOnce(&clap::Error) -> ExitCode) -> ExitCode {
    const CANNOT_LOOK: u8 = 2;
    let all = std::iter::once(OsString::from("receiver check")).chain(arguments.iter().cloned());
    let options = match Options::try_parse_from(all) {
        Ok(options) => options,
        Err(error) => return usage(&error),
    };
    let facts = match Facts::look(options.pid) {
        Ok(facts) => facts,
        Err(error) => {
            let _ = writeln!(io::stderr(), "receiver: {error:#}");
            return ExitCode::from(CANNOT_LOOK);
        }
    };
    let findings = Findings::of(&facts);
    let text = if options.json { report::json(&findings) } else { report::text(&findings, options.all) };
    // A reader that has seen enough is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    ExitCode::from(findings.verdict().exit_status())
}
