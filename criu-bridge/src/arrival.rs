//! What comes in to `receive`: a tree that is to run here, or an epoch of a shadow; the first word says which.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use engine::Failure;
use fault_handler::{
    Assembly, DestinationProcess, Ended, HandlerError, Mapped, Measurement, Notification, Outcome, Resumption,
};
use memory::PageRange;
use protocol::{Manifest, Reserved};
use receiver::events::SessionEvent;
use receiver::session::account::Figures;
use sys::uffd::Uffd;

use crate::instance::Instance;
use crate::restoration::Restoration;
use crate::served::{Rebuilder, Served};
use crate::shadow::storage::Storage;

/// It.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// The tree. Where an epoch comes instead it only watches over the session.
    tree: Served<Restoration>,
    epoch: Option<Storage>,
    /// Where shadows are.
    store: PathBuf,
}

impl Arrival {
    pub(crate) fn new(tree: Served<Restoration>, store: PathBuf) -> Self {
        Self { tree, epoch: None, store }
    }

    /// Tells how it ended, and sees a tree that runs to its end.
    pub(crate) fn conclude(mut self, ended: Result<Ended, HandlerError>) {
        let Some(epoch) = self.epoch else {
            let tree = &mut self.tree.rebuilder;
            tree.account.conclude(ended, tree.committed, Figures::default());
            return tree.follow();
        };
        let (reason, bytes) = match ended {
            Ok(Ended { outcome: Outcome::Completed(None), traffic, .. }) => (None, traffic.received),
            Ok(Ended {
                outcome: Outcome::Discarded(failure) | Outcome::Killed(failure), traffic, ..
            }) => (Some(failure.to_string()), traffic.received),
            Ok(Ended { outcome: Outcome::Completed(Some(failure)), traffic, .. }) => {
                (Some(failure.to_string()), traffic.received)
            }
            Err(error) => (Some(error.in_full()), 0),
        };
        self.tree.rebuilder.account.teller.tell(&epoch.conclude(reason, bytes));
    }
}

impl DestinationProcess for Arrival {
    fn reserve(&mut self, manifest: &Manifest) -> Result<Reserved, Failure> {
        let Some(epoch) = Instance::of(manifest).and_then(|instance| instance.epoch) else {
            return self.tree.reserve(manifest);
        };
        let tree = &mut self.tree.rebuilder;
        tree.discard();
        tree.account.teller.tell(&SessionEvent::Introduced);
        match Storage::reserve(epoch, &self.store) {
            Ok(storage) => {
                self.epoch = Some(storage);
                Ok(self.tree.reserved())
            }
            Err(failure) => {
                tree.account.refused = true;
                Err(failure)
            }
        }
    }

    fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure> {
        match &mut self.epoch {
            Some(epoch) => epoch.map(manifest),
            None => self.tree.map(manifest),
        }
    }

    fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.epoch {
            Some(epoch) => epoch.write(at, bytes),
            None => self.tree.write(at, bytes),
        }
    }

    fn assemble(&mut self) -> Result<Assembly, Failure> {
        match &mut self.epoch {
            Some(epoch) => epoch.assemble(),
            None => self.tree.assemble(),
        }
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        match &self.epoch {
            Some(epoch) => epoch.resume(),
            None => self.tree.resume(),
        }
    }

    fn forked(&mut self, child: &Uffd) -> Result<(), Failure> {
        self.tree.forked(child)
    }

    fn finished(&mut self) {
        if self.epoch.is_none() {
            self.tree.finished();
        }
    }

    fn discard(&mut self, reason: &Failure) {
        if self.epoch.is_none() {
            self.tree.discard(reason);
        }
    }

    fn watched(&mut self) -> Vec<BorrowedFd<'_>> {
        self.tree.watched()
    }

    fn notification(&mut self) -> Option<Notification> {
        self.tree.notification()
    }

    fn measured(&mut self, measurement: Measurement) {
        match &mut self.epoch {
            // Its source does not come back to it.
            Some(epoch) if matches!(measurement, Measurement::Paused(_)) => epoch.let_go(),
            Some(_) => {}
            None => self.tree.measured(measurement),
        }
    }
}
