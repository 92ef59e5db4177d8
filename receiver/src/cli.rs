//! The command line.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use crate::inherited::{Inherited, SESSION_OPTION};
use crate::session;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    match arguments.split_first() {
        Some((first, rest)) if first == SESSION_OPTION => session_main(rest),
        _ => ExitCode::from(2),
    }
}

fn session_main(arguments: &[OsString]) -> ExitCode {
    let Some(inherited) = Inherited::take_over(arguments) else {
        let _ = writeln!(io::stderr(), "receiver: {SESSION_OPTION} is for the receiver's own use");
        return ExitCode::from(2);
    };
    session::run(inherited).unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "receiver: {error:#}");
        ExitCode::FAILURE
    })
}
