//! What only a person can know: whether a tree runs at a destination that does not answer any more.
//!
//! Between the word to run it and the answer that it runs, nobody here can tell. The tree stands still and the destination
//! is asked again, for as long as it takes; if it is gone for good, or can be reached and says nothing all the same, its user
//! may say so by a signal.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use receiver::guardian::wait_for;

/// By it the user says that the tree does not run there.
const NOT_THERE: Signal = Signal::SIGUSR1;

/// Why the user has been asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Question {
    /// The destination cannot be reached.
    Unreachable,
    /// It can, and has not answered for a while.
    Unanswered,
}

/// Waits for the user's word, from before the word to run is given.
#[derive(Debug)]
pub(crate) struct Doubt {
    words: SignalFd,
    /// Readable when the answer takes too long.
    timer: TimerFd,
    patience: Duration,
    /// The user has been told how to end it.
    asked: Option<Question>,
    is_ended: bool,
}

impl Doubt {
    /// From here on the signal is the user's word, who is asked after `patience` at the latest.
    pub(crate) fn begin(patience: Duration) -> nix::Result<Self> {
        let signals = SigSet::from(NOT_THERE);
        signals.thread_block()?;
        let words = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
        let doubt = Self { words, timer, patience, asked: None, is_ended: false };
        doubt.wind()?;
        Ok(doubt)
    }

    /// Readable when there is something to [`look`](Self::look) at.
    pub(crate) fn readiness(&self) -> [BorrowedFd<'_>; 2] {
        [self.words.as_fd(), self.timer.as_fd()]
    }

    /// The user says that the tree does not run there.
    pub(crate) const fn is_ended(&self) -> bool {
        self.is_ended
    }

    /// Takes in what has come, and asks the user when the destination at `name` has not answered for too long. Whether the
    /// doubt has ended by that.
    pub(crate) fn look(&mut self, name: &str) -> bool {
        if wait_for(self.timer.as_fd(), Duration::ZERO).unwrap_or(false) {
            let _ = self.timer.wait();
            self.ask(name, Question::Unanswered);
        }
        // What was said before the question is no answer to it.
        let has_spoken = matches!(self.words.read_signal(), Ok(Some(_))) && self.asked.is_some();
        has_spoken && !std::mem::replace(&mut self.is_ended, true)
    }

    /// The destination can be reached again. What the user has said of its silence does not hold for the next one.
    pub(crate) fn is_put_off(&mut self) {
        if self.asked == Some(Question::Unreachable) {
            let _ = self.words.read_signal();
            self.asked = None;
            // Without it the user is asked when the link is lost the next time.
            let _ = self.wind();
        }
    }

    /// The destination at `name` cannot be reached. Whether the user says that the tree does not run there.
    pub(crate) fn is_ended_by_user(&mut self, name: &str) -> bool {
        self.ask(name, Question::Unreachable);
        self.look(name);
        self.is_ended
    }

    fn ask(&mut self, name: &str, question: Question) {
        if self.asked.is_some() {
            return;
        }
        self.asked = Some(question);
        // The signal is pending once at most.
        let _ = self.words.read_signal();
        let here = std::process::id();
        crate::tell(format_args!(
            "whether the tree runs at {name} is not known, and it stands still here until {name} says so; if you know \
             that it does not run there and never will: kill -USR1 {here} lets it go on here, kill -KILL {here} ends it"
        ));
    }

    fn wind(&self) -> nix::Result<()> {
        self.timer.set(Expiration::OneShot(self.patience.into()), TimerSetTimeFlags::empty())
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::raise;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn speak() {
        raise(NOT_THERE).expect("it is blocked");
    }

    #[test]
    fn a_destination_that_can_be_reached_and_says_nothing_is_asked_about_and_the_word_holds() {
        let mut doubt = Doubt::begin(Duration::from_nanos(1)).expect("descriptors");
        let [_, timer] = doubt.readiness();
        assert!(wait_for(timer, Duration::from_secs(60)).expect("a timer"));
        speak();
        assert!(!doubt.look("north"), "a word before the question is taken for an answer");
        doubt.is_put_off();
        speak();
        assert!(doubt.look("north") && doubt.is_ended());
        assert!(!doubt.look("north"), "it ends twice");
    }

    #[test]
    fn a_word_on_one_silence_is_none_on_the_next() {
        let mut doubt = Doubt::begin(LONG).expect("descriptors");
        speak();
        assert!(!doubt.is_ended_by_user("north"));
        speak();
        doubt.is_put_off();
        assert!(!doubt.is_ended_by_user("north"));
        speak();
        assert!(doubt.is_ended_by_user("north"));
    }
}
