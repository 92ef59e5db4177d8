//! How often what happened, so that a summary shows what the seeds have covered.

use std::fmt;
use std::ops::AddAssign;

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts over one or many worlds.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct Counters { $($(#[$doc])* pub $name: u64,)* }

        impl AddAssign for Counters {
            fn add_assign(&mut self, other: Self) { $(self.$name += other.$name;)* }
        }

        impl fmt::Display for Counters {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                $(writeln!(f, "  {:<24}{:>12}", stringify!($name).replace('_', " "), self.$name)?;)*
                Ok(())
            }
        }
    };
}

counters! {
    /// Worlds run to their end.
    worlds,
    /// Migrations that completed with every page.
    completed,
    /// Migrations that ended before `Run`: the process went on at the source.
    cancelled,
    /// Migrations whose source was lost after `Run`: missing pages poisoned.
    source_lost,
    /// Migrations whose source was lost with so much never looked at that the loop stays to poison what is touched.
    poisoned_on_touch,
    /// Processes that ended with the destination.
    destination_lost,
    /// Worlds in which one side got nonsense.
    hostile,
    /// Links cut with a closing message.
    cuts,
    /// Links that went silent, until a deadline passed.
    silences,
    /// New links behind a lost one.
    reconnections,
    /// Attempts at one that failed.
    failed_reconnections,
    /// Processes that were given back to the source because `Run` was lost.
    given_back,
    /// Sources that still ask who runs the process when the world ends.
    in_doubt,
    /// Processes that wait for a source that will not come back.
    waiting,
    /// Processes killed because their source did not come back.
    killed,
    /// Loops that were killed and replaced.
    takeovers,
    /// Pages stored ahead of the switchover.
    stored_pages,
    /// Pages that were sent ahead and still held.
    kept_pages,
    /// Faults sent to the reader.
    faults,
    /// Page requests.
    requests,
    /// Push frames.
    push_frames,
    /// Pages installed with content.
    installed_pages,
    /// Zero fills.
    zero_fills,
    /// Poison calls.
    poisons,
    /// Installs and fills put off by `EAGAIN`.
    retries,
    /// Installs that found no place.
    range_gone,
    /// Installs that found the page there.
    already_present,
    /// `mremap` to another place.
    remaps,
    /// `madvise(MADV_DONTNEED)`
    removes,
    /// `munmap` and what is like it.
    unmaps,
    /// `fork`
    forks,
    /// `exec`
    execs,
    /// Exits, after SIGBUS too.
    exits,
    /// Touches of lost pages.
    sigbus,
    /// Steps of all worlds.
    steps,
}
