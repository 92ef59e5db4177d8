//! The destination's state machine.

mod action;
mod input;

use alloc::collections::VecDeque;

pub use action::DestinationAction;
pub use input::{Content, DestinationInput, InstallOutcome, SpaceId};

use crate::{Config, Instant};

/// The destination of one migration.
#[derive(Clone, Debug)]
pub struct Destination {
    config: Config,
    actions: VecDeque<DestinationAction>,
}

impl Destination {
    /// A destination that waits for [`DestinationInput::ReserveRequested`].
    #[must_use]
    pub fn new(config: Config, _now: Instant) -> Self {
        Self { config, actions: VecDeque::new() }
    }

    /// Takes one input; actions come out of [`Self::poll_action`].
    pub fn handle(&mut self, _now: Instant, _input: DestinationInput) {
        let _ = self.config;
    }

    /// The next thing to do; call until `None`.
    pub fn poll_action(&mut self) -> Option<DestinationAction> {
        self.actions.pop_front()
    }

    /// Whether page frames may be taken from the sockets: false until the mappings stand.
    #[must_use]
    pub fn takes_pages(&self) -> bool {
        true
    }

    /// When to hand in [`DestinationInput::Tick`] at the latest.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        None
    }
}
