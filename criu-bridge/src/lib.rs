//! The bridge to CRIU: whole trees of processes, for what a preloaded library cannot take.
//!
//! CRIU freezes and rebuilds; it is started and asked, never linked.
#![forbid(unsafe_code)]

mod arrival;
mod background;
mod check;
pub mod client;
pub mod complaint;
mod config;
pub mod consent;
mod criu;
mod directory;
mod doubt;
mod frozen;
mod handover;
mod hold;
mod holder;
pub mod images;
mod inherit;
mod inside;
pub mod instance;
pub mod iterations;
mod lazy_pages;
pub mod local_pages;
pub mod locks;
mod members;
mod offline;
pub mod page_server;
mod quiet;
mod receive;
mod restoration;
mod route;
pub mod rpc;
mod send;
mod served;
pub mod shadow;
mod source;
mod swrk;
mod text;
mod tracee;
mod unlock;
pub mod wire;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Arg, CommandFactory, FromArgMatches, Parser, Subcommand};

use criu::Criu;

/// Exit status when something did not work; 2 is for a command line that makes no sense.
const FAILED: u8 = 1;

/// Moves trees of processes with CRIU
#[derive(Parser, Debug)]
#[command(name = "criu-bridge", version)]
struct Line {
    /// Use this criu instead of the one from make criu, or that on PATH
    #[arg(long, value_name = "PATH", global = true)]
    criu: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Say whether CRIU can be used here, and what to do about each problem
    ///
    /// Exits with 0 if it can, with 1 if it cannot.
    Check {
        /// Print one JSON object instead of a table
        #[arg(long)]
        json: bool,
    },
    /// Take in trees of processes that criu-bridge send brings
    Receive(receive::Receive),
    /// Move a running tree of processes to where criu-bridge receive waits for it
    Send(send::Send),
    /// Keep a copy of a running tree up to date where criu-bridge receive waits for it
    Shadow(shadow::Keep),
    /// List the shadows that are kept here
    Shadows(shadow::list::Shadows),
    /// Start the newest complete epoch of a shadow that is kept here
    Promote(shadow::promote::Promote),
    /// Write a tree of processes as CRIU's images
    Dump(offline::Dump),
    /// Build a tree of processes from CRIU's images
    Restore(offline::Restore),
    /// Serve the memory of a tree that criu restore --lazy-pages rebuilds
    LazyPages(lazy_pages::LazyPages),
    /// Take the pages of a dump from elsewhere, or give those of images to who restores them elsewhere
    PageServer(page_server::PageServer),
}

/// Does what the command line says.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let done = match arguments.as_slice() {
        [_, word, rest @ ..] if word == receive::SESSION => receive::session(rest),
        [_, word, rest @ ..] if word == inside::OPTION => inside::run(rest),
        _ => run(&parse(arguments.as_slice())),
    };
    match done {
        Ok(status) => status,
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

/// The command line; ends this process if it makes no sense.
fn parse(arguments: &[OsString]) -> Line {
    let parsed = grammar().try_get_matches_from(arguments);
    parsed.and_then(|matches| Line::from_arg_matches(&matches)).unwrap_or_else(|error| error.exit())
}

/// What may be on it. A shadow refuses some of what CRIU can be permitted, and says why; nobody is to try that.
fn grammar() -> clap::Command {
    let hide = |command: clap::Command, name| command.mut_arg(name, |argument: Arg| argument.hide(true));
    Line::command().mut_subcommand("shadow", |shadow| shadow::REFUSED.into_iter().fold(shadow, hide))
}

fn run(line: &Line) -> anyhow::Result<ExitCode> {
    let status = match &line.command {
        Command::Receive(receive) => return receive.run(&line.criu()?),
        Command::Send(send) => send.run(line.criu()?),
        Command::Shadow(keep) => keep.run(&line.criu()?),
        Command::Shadows(shadows) => shadows.run(),
        Command::Promote(promote) => return promote.run(&line.criu()?),
        Command::Check { json } => Ok(check(line, *json)),
        Command::Dump(dump) => dump.run(&line.criu()?),
        Command::Restore(restore) => restore.run(&line.criu()?),
        Command::PageServer(page_server) => page_server.run(),
        Command::LazyPages(lazy_pages) => lazy_pages.run(line.criu().ok().as_ref()),
    };
    status.map(ExitCode::from)
}

impl Line {
    fn criu(&self) -> anyhow::Result<Criu> {
        Criu::find(self.criu.as_deref(), &criu::prefix(), std::env::var_os("PATH").as_deref())
            .context("there is no criu: make criu installs one that works here, or name one with --criu PATH")
    }
}

fn check(line: &Line, json: bool) -> u8 {
    let report = check::run(line.criu.as_deref());
    // A reader that has seen enough changes nothing about the answer.
    let _ = print(&report, json);
    if report.usable { 0 } else { FAILED }
}

fn print(report: &check::Report, json: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if json {
        serde_json::to_writer_pretty(&mut out, report)?;
        writeln!(out)
    } else {
        write!(out, "{report}")
    }
}

/// A line for programs.
pub(crate) fn say(text: &str) {
    // Nobody may be listening.
    let _ = writeln!(io::stdout(), "{text}");
}

/// A line for people.
pub(crate) fn tell(text: std::fmt::Arguments<'_>) {
    // Nobody may be listening; there is no better place to say so.
    let _ = writeln!(io::stderr(), "criu-bridge: {text}");
}

/// What went wrong, for people.
pub(crate) fn complain(text: &anyhow::Error) {
    // Nobody may be listening; there is no better place to say so.
    let _ = writeln!(io::stderr(), "criu-bridge: {text:#}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_lists_what_is_not_refused() {
        let mut grammar = grammar();
        grammar.build();
        let mut help = |name| {
            let command = grammar.find_subcommand_mut(name).expect("a command");
            command.render_long_help().to_string()
        };
        let (shadow, send) = (help("shadow"), help("send"));
        assert!(shadow.contains("--file-locks") && send.contains("--tcp-established"));
        assert!(!shadow.contains("--tcp-established") && !shadow.contains("--link-remap"), "{shadow}");
    }
}
