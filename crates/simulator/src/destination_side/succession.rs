//! The loop is killed at any moment, and another one goes on with a copy of its engine and what was written down since.

use engine::{Destination, DestinationInput, InstallOutcome, Instant};

use crate::link::ToSource;
use crate::mm::Page;
use crate::planted::PlantedFault;
use crate::settings::Disturbance;
use crate::world::World;

/// Who goes on if the loop is killed.
#[derive(Clone, Debug)]
pub(super) struct Standby {
    engine: Destination,
    /// What has happened since the copy was made: written down before it is acted on, but behind an installation.
    journal: Vec<DestinationInput>,
}

impl World {
    /// Makes a copy that goes on from here.
    pub(super) fn stand_by(&mut self) {
        let engine = self.destination.engine.clone();
        self.destination.standby = Some(Standby { engine, journal: Vec::new() });
    }

    /// Makes a copy that goes on from here if it is told what the switchover said.
    pub(super) fn stand_by_ahead(&mut self) {
        self.destination.ahead_of_stop = Some(self.destination.engine.clone());
    }

    /// The copy that was made ahead goes on, unless pages have come since of which it does not know.
    pub(super) fn stand_by_for_the_run(&mut self) {
        let nothing_came = self.destination.ahead.is_empty() && self.source.kept.is_empty();
        match self.destination.ahead_of_stop.take().filter(|_| nothing_came) {
            None => self.stand_by(),
            Some(mut engine) => {
                engine.catch_up(Instant(self.now), self.source.eager.clone(), self.source.lazy.clone());
                self.destination.standby = Some(Standby { engine, journal: Vec::new() });
            }
        }
    }

    /// The kernel writes events down by itself; the loop adds what has been installed, and who runs.
    pub(super) fn write_down(&mut self, input: &DestinationInput) {
        let Some(standby) = &mut self.destination.standby else { return };
        let counts = match input {
            DestinationInput::Installed { outcome, .. } => *outcome == InstallOutcome::Installed,
            DestinationInput::Remapped { .. }
            | DestinationInput::Removed { .. }
            | DestinationInput::Unmapped { .. }
            | DestinationInput::Forked { .. } => self.planted != Some(PlantedFault::EventsDieWithTheLoop),
            DestinationInput::SpaceGone(_) | DestinationInput::Run { .. } | DestinationInput::Resumed => true,
            _ => false,
        };
        if counts {
            standby.journal.push(input.clone());
        }
    }

    /// Whether the loop is killed at this point, or has been before in this turn.
    pub(super) fn dies_here(&mut self) -> bool {
        if let Disturbance::PagerDies { permille } = self.settings.disturbance
            && matches!(self.destination.engine.phase(), "postcopy" | "paused")
            && self.destination.standby.is_some()
            && self.random.below(1000) < permille
        {
            self.destination.dead = true;
        }
        self.destination.dead
    }

    /// The other one goes on. Its connections are not those of the dead one; who sleeps is woken and touches again.
    pub(super) fn take_over(&mut self) {
        let Some(Standby { mut engine, journal }) = self.destination.standby.take() else { return };
        self.trace(|| format!("the loop is killed; {} inputs are handed in again", journal.len()));
        self.counters.takeovers += 1;
        let now = Instant(self.now);
        for input in journal {
            engine.handle(now, input);
        }
        engine.handle(now, DestinationInput::TakenOver);
        self.destination.engine = engine;
        self.destination.dead = false;
        self.disconnect();
        for id in 0..self.program.kernel.mms.len() {
            self.program.kernel.wake(id, &(0..Page::MAX));
        }
        self.stand_by();
        while let Some(action) = self.destination.engine.poll_action() {
            self.perform_at_destination(action);
        }
    }

    /// The destination hangs up.
    pub(super) fn disconnect(&mut self) {
        self.checker.link_lost();
        if self.destination.generation == self.generation {
            self.to_source.close(self.now, &mut self.random, &ToSource::Closed);
            self.to_destination.hang_up();
        }
    }
}
