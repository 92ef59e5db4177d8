//! What the two sides have agreed on: which pages go ahead of the switchover, and how much of the link they may take.

use core::time::Duration;

/// How the pages of one migration travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Plan {
    /// Pages are sent while the process still runs.
    pub ahead: bool,
    /// What is left then may follow after `Run`; else it comes before it, and the process stands still meanwhile.
    pub follows: bool,
    /// How long the rest may take before `Run` if nothing may follow.
    pub max_downtime: Duration,
    /// Bytes of pages a second that may go out unasked while the process runs, here or there; 0 for as many as can.
    pub bandwidth: u64,
}
