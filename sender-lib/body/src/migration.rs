//! The helper thread's work: one migration from the settings to its end.

use alloc::string::String;

use engine::{Failure, Instant};
use page_server::{Outcome, Serving, serve};
use protocol::{Channel, Hello, MigrationId, Piece, text};
use sys::{clock, random, thread};

use crate::connect::Route;
use crate::log::log;
use crate::own_process::OwnProcess;
use crate::{dumpable, ffi, quiesce, settings};

/// Exit status of a process whose program lives elsewhere.
const MOVED: u8 = 0;
/// Exit status of a process whose program may be lost.
const LOST: u8 = 1;

/// Runs a migration. Returns only when the program goes on here, with every thread released; true if nobody needs
/// the arena any more.
pub(crate) fn run() -> bool {
    let started = Instant(clock::monotonic_ns());
    let reason = match attempt(started) {
        Ok(failure) => failure.in_words(),
        Err(reason) => reason,
    };
    let arena_is_free = restore();
    log!(reason, "; the program goes on here");
    arena_is_free
}

/// Leaves no trace on the host's side; true if nobody needs the arena any more.
fn restore() -> bool {
    dumpable::close();
    quiesce::release()
}

/// The failure behind which the program goes on here.
fn attempt(started: Instant) -> Result<Failure, String> {
    dumpable::open();
    let receiver = settings::receiver()?;
    let random = || random::sixteen_bytes().map_err(|errno| text!["no random numbers: ", errno]);
    let hello = Hello::new(MigrationId(random()?), Channel::Control).with_token(random()?);
    let route = Route::new(receiver, hello);
    let mut process = OwnProcess::look(route)?;
    let channels = process.connect()?;
    let running = process.running();
    let config = engine::Config::default();
    let status = match serve(&mut process, Serving { channels, running, config, started }) {
        Outcome::Released(failure) => return Ok(failure),
        Outcome::Moved { pid_there } => {
            log!("moved; the program is process ", pid_there, " there");
            MOVED
        }
        Outcome::Lost(failure) => {
            log!(failure, "; the program was handed over and does not run here any more");
            LOST
        }
    };
    process.stay();
    thread::exit_process(status)
}

/// Gives everything back after a panic; true if nobody needs the arena any more.
pub(crate) fn take_back() -> bool {
    if let Some(header) = ffi::header() {
        header.close_remembered();
    }
    restore()
}
