//! What is written down of a shadow that runs here, or is about to.

use serde::{Deserialize, Serialize};

use super::{boot_id, started};

/// What runs of a shadow.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Promotion {
    /// Which epoch; [`NONE_YET`] until the tree may run.
    pub(crate) epoch: u64,
    /// The process: `promote` itself, then who takes the tree in, which ends with the tree, then the tree's root.
    pub(crate) pid: u32,
    /// When that was started, in clock ticks since the boot.
    pub(crate) started: u64,
    /// That boot.
    pub(crate) boot: String,
}

/// The epoch of a promotion that has begun, and of which nothing runs.
pub(crate) const NONE_YET: u64 = 0;

impl Promotion {
    /// Whether the process that it names is still there.
    pub(crate) fn is_alive(&self) -> bool {
        boot_id().is_ok_and(|boot| boot == self.boot)
            && started(self.pid).is_ok_and(|since| since == self.started)
            && !crate::members::is_zombie(self.pid).unwrap_or(true)
    }
}
