//! The first moments after `Run`: what the process needs first has the processors and the link to itself.

use crate::{Config, Instant};

/// Whether pages go out that nobody has asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum HeadStart {
    /// They do.
    #[default]
    Over,
    /// Not before it is known that the process runs.
    Awaited,
    /// Not before `due`, which every request puts off, up to `end`.
    Until { due: Instant, end: Instant },
}

impl HeadStart {
    /// When `Run` leaves.
    pub(super) const fn new(config: &Config) -> Self {
        if config.head_start.is_zero() { Self::Over } else { Self::Awaited }
    }

    /// The process runs.
    pub(super) fn begin(&mut self, now: Instant, config: &Config) {
        if matches!(self, Self::Awaited) {
            let end = now + config.head_start;
            *self = Self::Until { due: end.min(now + config.head_start_pause), end };
        }
    }

    /// The process needs something.
    pub(super) fn prolong(&mut self, now: Instant, config: &Config) {
        if let Self::Until { due, end } = self {
            *due = (*end).min(now + config.head_start_pause);
        }
    }

    /// Whether it is over by now.
    pub(super) fn is_over(&mut self, now: Instant) -> bool {
        if self.due().is_some_and(|due| due <= now) {
            *self = Self::Over;
        }
        matches!(self, Self::Over)
    }

    /// When it will be over, if that is known.
    pub(super) const fn due(self) -> Option<Instant> {
        match self {
            Self::Over | Self::Awaited => None,
            Self::Until { due, .. } => Some(due),
        }
    }
}
