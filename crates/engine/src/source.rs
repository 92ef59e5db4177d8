//! The source's state machine.

mod action;
mod input;

use alloc::collections::VecDeque;

pub use action::SourceAction;
pub use input::SourceInput;

use crate::{Config, Instant};

/// The source of one migration.
#[derive(Clone, Debug)]
pub struct Source {
    config: Config,
    actions: VecDeque<SourceAction>,
}

impl Source {
    /// A source that waits for [`SourceInput::Connected`].
    #[must_use]
    pub fn new(config: Config, _now: Instant) -> Self {
        Self { config, actions: VecDeque::new() }
    }

    /// Takes one input; actions come out of [`Self::poll_action`].
    pub fn handle(&mut self, _now: Instant, _input: SourceInput) {
        let _ = self.config;
    }

    /// The next thing to do; call until `None`.
    pub fn poll_action(&mut self) -> Option<SourceAction> {
        self.actions.pop_front()
    }

    /// When to hand in [`SourceInput::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// Whether the process may still run here: true until `Run` is handed out.
    #[must_use]
    pub fn may_still_run_here(&self) -> bool {
        true
    }
}
