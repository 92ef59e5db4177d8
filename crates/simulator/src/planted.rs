//! Nine faults that a careless loop or engine could have, to be planted on purpose: a simulator that does not
//! find them would find nothing.

use std::str::FromStr;

/// Which fault is planted in the loops of a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedFault {
    /// `mremap` events are read and not acted upon.
    RemapIgnored,
    /// Pages dropped by `MADV_DONTNEED` are installed again when they arrive.
    DroppedPageReinstalled,
    /// `Ready` is sent although an eager page is not in place.
    ReadyTooEarly,
    /// The process is let go at the source when the link breaks after `Run`.
    ReleasedAfterRun,
    /// A thread that waits for a page on its way is forgotten when the page comes by the push channel.
    WaiterForgotten,
    /// A destination that cannot be reached in doubt is taken for one that has promised never to run the process.
    DoubtTakenForAbort,
    /// Events that a dead loop had read are not told to its successor.
    EventsDieWithTheLoop,
    /// A page that was sent ahead and written since is said to hold still.
    DirtyPageKept,
    /// A page that was sent ahead and does not hold is left in place.
    StalePageStays,
}

impl PlantedFault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::RemapIgnored,
        Self::DroppedPageReinstalled,
        Self::ReadyTooEarly,
        Self::ReleasedAfterRun,
        Self::WaiterForgotten,
        Self::DoubtTakenForAbort,
        Self::EventsDieWithTheLoop,
        Self::DirtyPageKept,
        Self::StalePageStays,
    ];
}

impl FromStr for PlantedFault {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let wanted = Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name);
        wanted.ok_or_else(|| format!("{name} is none of {:?}", Self::ALL))
    }
}
