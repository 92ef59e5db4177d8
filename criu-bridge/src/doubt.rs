//! What only a person can know: whether a tree runs at a destination that does not answer any more.
//!
//! Between the word to run it and the answer that it runs, nobody here can tell. The tree stands still and the destination
//! is asked again, for as long as it takes; if it is gone for good, its user may say so by a signal.

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// By it the user says that the tree does not run there.
const NOT_THERE: Signal = Signal::SIGUSR1;

/// Waits for the user's word, from before the word to run is given.
#[derive(Debug)]
pub(crate) struct Doubt {
    words: SignalFd,
    /// The user has been told that it is there, and how to end it.
    is_told: bool,
}

impl Doubt {
    /// From here on the signal is the user's word.
    pub(crate) fn begin() -> nix::Result<Self> {
        let signals = SigSet::from(NOT_THERE);
        signals.thread_block()?;
        let words = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        Ok(Self { words, is_told: false })
    }

    /// The destination answers again. What the user has said of its silence does not hold for the next one.
    pub(crate) fn is_put_off(&mut self) {
        let _ = self.words.read_signal();
        self.is_told = false;
    }

    /// The destination at `name` does not answer. Whether the user says that the tree does not run there.
    pub(crate) fn is_ended_by_user(&mut self, name: &str) -> bool {
        if !std::mem::replace(&mut self.is_told, true) {
            // What was said before the question is no answer to it; the signal is pending once at most.
            let _ = self.words.read_signal();
            let here = std::process::id();
            crate::tell(format_args!(
                "whether the tree runs at {name} is not known, and it stands still here until {name} says so; if you know \
                 that it does not run there and never will: kill -USR1 {here} lets it go on here, kill -KILL {here} ends it"
            ));
            return false;
        }
        matches!(self.words.read_signal(), Ok(Some(_)))
    }
}
