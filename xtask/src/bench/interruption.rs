//! What happens when somebody ends the benchmark in the middle: nothing of it stays.

use std::path::PathBuf;
use std::process;
use std::thread;

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::criu::PipeLimit;
use super::watch::descendants;

/// What a shell makes of a death by SIGINT.
const INTERRUPTED: i32 = 130;

/// From here on a signal that ends this process ends all that it has started as well, puts `limit` back and removes
/// `images`.
///
/// # Errors
/// No handler, no thread.
pub(super) fn clean_up_after(limit: Option<PipeLimit>, images: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).context("handling signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if signals.forever().next().is_some() {
            for pid in descendants(process::id()).into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            drop(limit);
            let _ = std::fs::remove_dir_all(images);
            process::exit(INTERRUPTED);
        }
    })?;
    Ok(())
}
