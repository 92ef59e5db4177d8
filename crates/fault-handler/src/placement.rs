//! On which processor the loop runs: next to the thread that waits for it.
//!
//! Whoever is woken on another processor costs the loop an interrupt there, some 10 us, and waits for whoever runs there. A
//! thread that does little but wait for pages leaves its processor to others meanwhile, so the loop goes there, and the
//! thread runs when the loop has its page. Where several threads wait, or the one that does has something to do as well,
//! the kernel knows better.

use std::fs::File;
use std::os::fd::AsFd;
use std::time::Duration;

use engine::{Instant, SpaceId};
use sys::proc::stat;
use sys::{namespace, thread};

use crate::config::PLACEMENT_INTERVAL;

/// A thread of one of the processes that are served.
pub(crate) type Waiter = (SpaceId, u32);

/// Who has waited since when.
#[derive(Debug, Default)]
pub(crate) struct Placement {
    began: Instant,
    /// Of all waits together when it began.
    waited_before: Duration,
    waiter: Option<Waiter>,
    /// Nobody else has waited.
    is_alone: bool,
}

impl Placement {
    /// `waiter` waits for a page; all waits until now have taken `waited`. Returns the thread next to which the loop
    /// should run, not more often than [`PLACEMENT_INTERVAL`].
    pub(crate) fn faulted(&mut self, now: Instant, waiter: Waiter, waited: Duration) -> Option<Waiter> {
        let Some(known) = self.waiter else {
            *self = Self { began: now, waited_before: waited, waiter: Some(waiter), is_alone: true };
            return None;
        };
        self.is_alone &= known == waiter;
        let took = now.since(self.began);
        if took < PLACEMENT_INTERVAL {
            return None;
        }
        let waits_mostly = waited.saturating_sub(self.waited_before) * 2 >= took;
        self.waiter = None;
        (self.is_alone && waits_mostly).then_some(known)
    }
}

/// Goes to the processor of a thread of process `pid`, which knows itself as `tid`.
pub(crate) fn go_next_to(pid: u32, tid: u32) {
    let ids = File::open(format!("/proc/{pid}/ns/pid"));
    // Kernels that do not say which thread that is are asked about the main one.
    let known_as = ids.ok().and_then(|ids| namespace::thread_outside(ids.as_fd(), tid).ok()).unwrap_or(pid);
    let processor = stat::processor_of(pid, known_as).filter(|there| thread::processor() != Some(*there));
    processor.into_iter().for_each(thread::go_to);
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: Waiter = (SpaceId::MAIN, 7);

    /// Who is to be the neighbour after a fault each 100 us, each of which takes `wait_us`, by these threads in turn.
    fn neighbour(waiters: &[Waiter], wait_us: u64) -> Option<Waiter> {
        let mut placement = Placement::default();
        let faults = (0..1000).zip(waiters.iter().cycle());
        let mut told = faults.filter_map(|(fault, waiter)| {
            let now = Instant(fault * 100_000);
            placement.faulted(now, *waiter, Duration::from_micros(fault * wait_us))
        });
        told.next()
    }

    #[test]
    fn the_loop_goes_to_whoever_mostly_waits() {
        assert_eq!(neighbour(&[READER], 80), Some(READER));
    }

    #[test]
    fn a_thread_that_has_something_to_do_keeps_its_processor() {
        assert_eq!(neighbour(&[READER], 20), None);
    }

    #[test]
    fn of_several_threads_none_is_preferred() {
        assert_eq!(neighbour(&[READER, (SpaceId::MAIN, 8)], 80), None);
        assert_eq!(neighbour(&[READER, (SpaceId(1), 7)], 80), None);
    }
}
