//! How far CRIU is with a tree that it builds, and whether it still gets anywhere.

use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use receiver::guardian::wait_for;

use crate::config::{FINISH_TICK, FINISH_TICKS, GOING_TICKS};

/// How far CRIU is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stage {
    /// It has not begun, or builds.
    Building,
    /// Everything stands.
    Stands,
    /// It gives every process the last of what it was.
    Finishing,
    /// It lets the tree go: some of it may run.
    Going,
    /// It is done, or dead.
    Over,
}

impl Stage {
    /// How many looks CRIU may take for it; none where the loop has a deadline of its own, or nobody waits for CRIU.
    const fn most_looks(self) -> Option<u32> {
        match self {
            Self::Finishing => Some(FINISH_TICKS),
            Self::Going => Some(GOING_TICKS),
            Self::Building | Self::Stands | Self::Over => None,
        }
    }

    /// How long CRIU may take for it, where that is bounded.
    pub(super) fn deadline(self) -> Option<Duration> {
        self.most_looks().map(|looks| FINISH_TICK * looks)
    }
}

/// Says when it is time to look at CRIU.
#[derive(Debug)]
pub(super) struct Pulse {
    timer: TimerFd,
    /// Looks at a stage.
    looks: Option<(Stage, u32)>,
    /// The link is lost, and CRIU may wait for pages.
    pub(super) is_paused: bool,
}

impl Pulse {
    /// One that beats.
    pub(super) fn new() -> nix::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC)?;
        let pulse = Self { timer, looks: None, is_paused: false };
        pulse.begin()?;
        Ok(pulse)
    }

    /// Beats from here on.
    pub(super) fn begin(&self) -> nix::Result<()> {
        self.timer.set(Expiration::Interval(FINISH_TICK.into()), TimerSetTimeFlags::empty())
    }

    /// There is nothing to look at.
    pub(super) fn end(&self) {
        let _ = self.timer.unset();
    }

    /// Whether it is time.
    pub(super) fn is_due(&self) -> bool {
        let is_due = wait_for(self.timer.as_fd(), Duration::ZERO).unwrap_or(false);
        if is_due {
            let _ = self.timer.wait();
        }
        is_due
    }

    /// Counts a look; whether CRIU has taken too long for this stage. It cannot help it while the link is lost.
    pub(super) fn is_too_late(&mut self, stage: Stage) -> bool {
        let before = self.looks.filter(|(looked, _)| *looked == stage).map_or(0, |(_, looks)| looks);
        let looks = if self.is_paused { before } else { before + 1 };
        self.looks = Some((stage, looks));
        stage.most_looks().is_some_and(|most| looks >= most)
    }
}

impl AsFd for Pulse {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criu_is_given_up_if_it_neither_finishes_nor_dies_and_each_stage_has_its_own_time() {
        let mut pulse = Pulse::new().expect("a timer");
        assert!((1..FINISH_TICKS).all(|_| !pulse.is_too_late(Stage::Finishing)));
        assert!((1..GOING_TICKS).all(|_| !pulse.is_too_late(Stage::Going)));
        pulse.is_paused = true;
        assert!(!pulse.is_too_late(Stage::Going), "a lost link is held against it");
        pulse.is_paused = false;
        assert!(pulse.is_too_late(Stage::Going));
        assert!((0..2 * GOING_TICKS).all(|_| !pulse.is_too_late(Stage::Building)));
        assert!(Stage::Going.deadline() > Stage::Finishing.deadline());
    }
}
