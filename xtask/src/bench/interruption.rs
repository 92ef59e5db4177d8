//! What happens when somebody ends the benchmark in the middle: nothing of it stays.

use std::io;
use std::path::PathBuf;
use std::process::{self, Child, Command};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::setting::Setting;
use super::watch::descendants;

/// What a shell makes of a death by SIGINT.
const INTERRUPTED: i32 = 130;
/// What is killed may still write, and may have started something; after this many times nothing is left to do either.
const TIMES: usize = 3;
/// Between two of them: what is killed is gone by then.
const PAUSE: Duration = Duration::from_millis(20);

/// Held by whoever starts a process, and for good by who ends them all. One for the process, as signals are.
static STARTING: Mutex<()> = Mutex::new(());

/// Starts a process, unless all are being ended: then this does not return.
///
/// # Errors
/// Those of [`Command::spawn`].
pub(super) fn spawn(command: &mut Command) -> io::Result<Child> {
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Returns at once, unless all are being ended: then what has come of them is nothing to be told, and this does not return.
pub(super) fn wait_if_ended() {
    drop(STARTING.lock().unwrap_or_else(PoisonError::into_inner));
}

/// From here on a signal that ends this process ends all that it has started as well, puts `settings` back and removes
/// `images`.
///
/// # Errors
/// No handler, no thread.
pub(super) fn clean_up_after(settings: Vec<Setting>, images: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("handling signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            let _for_good = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
            // Whose parent is killed first is still found.
            let _ = set_child_subreaper(true);
            for _ in 0..TIMES {
                for pid in descendants(process::id()).into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                    let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
                }
                thread::park_timeout(PAUSE);
                let _ = std::fs::remove_dir_all(&images);
            }
            drop(settings);
            process::exit(INTERRUPTED);
        }
    })?;
    Ok(())
}
