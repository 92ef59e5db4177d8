//! The command line: what the user typed, and one line that says what to do when it makes no sense.

use std::ffi::OsString;
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use engine::OnLoss;
use nix::sys::signal::SigSet;

use crate::config::DEFAULT_PORT;
use crate::daemon::{Daemon, Trade};
use crate::inherited::{Inherited, SESSION_OPTION};
use crate::policy::Policy;
use crate::relaying::RELAY_OPTION;
use crate::{check, relaying, sealing, session};

/// Takes in running processes and lets them go on here.
///
/// A program that was started with LD_PRELOAD=libsender.so and gets SIGUSR2 moves
/// to this receiver: it goes on at its next instruction, with the receiver's
/// standard streams, and fetches its memory as it touches it.
///
/// The receiver listens on 127.0.0.1 unless --bind says otherwise, which needs a key:
/// receiver keygen FILE makes one. receiver check PID says beforehand what would
/// become of a process. It takes any number of processes, one after another and
/// side by side. SIGTERM ends it alone, SIGINT (Ctrl-C) is passed on to the
/// processes. A process whose memory has not all arrived ends with it.
#[derive(Parser, Debug, Clone, PartialEq, Eq)]
#[command(name = "receiver", version = VERSION, verbatim_doc_comment)]
pub struct Options {
    /// Port to listen on; 0 takes a free one and says which
    #[arg(default_value_t = DEFAULT_PORT)]
    pub port: u16,
    /// Take one process only and exit when it has ended
    ///
    /// Exits with 0 if the process had moved completely, whatever its own exit
    /// status, else with 1. A migration that is refused, or fails before the
    /// process has stopped at the source, does not count.
    #[arg(long, verbatim_doc_comment)]
    pub once: bool,
    /// Append what happens to FILE, one JSON object a line; - is standard output
    #[arg(long, value_name = "FILE")]
    pub events: Option<PathBuf>,
    /// What becomes of a process whose missing memory does not come: wait, poison, kill
    ///
    /// A link that is lost is waited for; the source connects again. If it does not:
    /// wait goes on waiting, poison answers each touch of what is lost with SIGBUS,
    /// kill ends the process.
    #[arg(long, value_name = "WHAT", default_value = "poison", value_parser = parse_on_loss, verbatim_doc_comment)]
    pub on_loss: OnLoss,
    /// How long a process waits for a lost link, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u16).range(1..))]
    pub loss_deadline: u16,
    /// Address to listen on, such as 0.0.0.0; any but a loopback address needs a key
    #[arg(long, value_name = "ADDRESS")]
    pub bind: Option<IpAddr>,
    /// Take only processes whose POSTHASTE_KEY_FILE holds the same key, over encrypted links
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// What holds for every migration that comes in
    #[command(flatten)]
    pub policy: Policy,
}

fn parse_on_loss(word: &str) -> Result<OnLoss, String> {
    match word {
        "wait" => Ok(OnLoss::Wait),
        "poison" => Ok(OnLoss::Poison),
        "kill" => Ok(OnLoss::Kill),
        _ => Err("it must be wait, poison or kill".to_owned()),
    }
}

const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), " (protocol 5)");
const _: () = assert!(protocol::PROTOCOL_VERSION == 5, "VERSION names the protocol's version");

/// Exit status for a command line that makes no sense, and for a port or file that cannot be had.
const USAGE: u8 = 2;

/// The whole program.
#[must_use]
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    if let Some((option, rest)) = arguments.get(1..).and_then(<[_]>::split_first)
        && option == SESSION_OPTION
    {
        return session_main(rest);
    }
    if let [_, word, rest @ ..] = arguments.as_slice()
        && word == RELAY_OPTION
    {
        return relay_main(rest);
    }
    if let [_, word, rest @ ..] = arguments.as_slice()
        && word == "keygen"
    {
        return keygen_main(rest);
    }
    if let [_, word, rest @ ..] = arguments.as_slice()
        && word == "check"
    {
        return check::main(rest, explain);
    }
    match Options::try_parse_from(arguments) {
        Ok(options) => daemon_main(&options),
        Err(error) => explain(&error),
    }
}

fn session_main(arguments: &[OsString]) -> ExitCode {
    let Some(inherited) = Inherited::take_over(arguments) else {
        complain(format_args!("{SESSION_OPTION} is for the receiver's own use"));
        return ExitCode::from(USAGE);
    };
    // The daemon's, who takes its signals from a descriptor; a session is to be ended by them.
    if let Err(error) = SigSet::empty().thread_set_mask() {
        complain(format_args!("clearing the signal mask: {error}"));
        return ExitCode::FAILURE;
    }
    session::run(inherited).unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

fn relay_main(arguments: &[OsString]) -> ExitCode {
    if let Err(error) = SigSet::empty().thread_set_mask() {
        complain(format_args!("clearing the signal mask: {error}"));
        return ExitCode::FAILURE;
    }
    match relaying::run(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn keygen_main(arguments: &[OsString]) -> ExitCode {
    let [file] = arguments else {
        complain(format_args!("keygen takes the name of the file to make, and nothing else"));
        return ExitCode::from(USAGE);
    };
    match sealing::make_key_file(Path::new(file)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(format_args!("{error:#}"));
            ExitCode::from(USAGE)
        }
    }
}

fn daemon_main(options: &Options) -> ExitCode {
    let mut daemon = match Daemon::start(options, Trade::default()) {
        Ok(daemon) => daemon,
        Err(error) => {
            complain(format_args!("{error:#}"));
            return ExitCode::from(USAGE);
        }
    };
    daemon.run().unwrap_or_else(|error| {
        complain(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Help and version go to standard output, anything else is one line on standard error.
fn explain(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that has seen enough (`receiver --help | head -1`) is no failure.
            let _ = write!(io::stdout(), "{}", error.render());
            ExitCode::SUCCESS
        }
        kind => {
            complain(format_args!("{}; receiver --help lists what there is", what_is_wrong(kind, error)));
            ExitCode::from(USAGE)
        }
    }
}

fn what_is_wrong(kind: ErrorKind, error: &clap::Error) -> String {
    let context = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (argument, value) = (context(ContextKind::InvalidArg), context(ContextKind::InvalidValue));
    match kind {
        ErrorKind::ValueValidation if argument.starts_with("--on-loss") => {
            format!("{argument} must be wait, poison or kill, not '{value}'")
        }
        ErrorKind::ValueValidation if argument.starts_with("--bind") => {
            format!("--bind must be an address such as 0.0.0.0 or ::, not '{value}'")
        }
        ErrorKind::ValueValidation if argument == "<PID>" => {
            format!("{argument} must be the number of a process, not '{value}'")
        }
        ErrorKind::ValueValidation => format!("{argument} must be a number from 0 to 65535, not '{value}'"),
        ErrorKind::UnknownArgument if argument.starts_with('-') => format!("unknown option '{argument}'"),
        ErrorKind::UnknownArgument => format!("one port is enough, '{argument}' is too much"),
        ErrorKind::InvalidValue if value.is_empty() => format!("{argument} needs a value"),
        ErrorKind::InvalidValue => format!("{argument} cannot be '{value}'"),
        ErrorKind::MissingRequiredArgument => "check takes the number of a process".to_owned(),
        ErrorKind::ArgumentConflict => format!("{argument} can be given once only"),
        _ => error.to_string().lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned(),
    }
}

fn complain(text: std::fmt::Arguments<'_>) {
    // Nobody may be listening; there is no better place to say so.
    let _ = writeln!(io::stderr(), "receiver: {text}");
}
