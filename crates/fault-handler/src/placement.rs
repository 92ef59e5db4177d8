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

use crate::config::{PLACEMENT_INTERVAL, PLACEMENT_REST};

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
    /// Not before then.
    from: Instant,
}

impl Placement {
    /// `waiter` waits for a page; all waits until now have taken `waited`. Returns the thread next to which the loop
    /// should run, not more often than [`PLACEMENT_INTERVAL`].
    pub(crate) fn faulted(&mut self, now: Instant, waiter: Waiter, waited: Duration) -> Option<Waiter> {
        if now < self.from {
            return None;
        }
        let Some(known) = self.waiter else {
            *self = Self { began: now, waited_before: waited, waiter: Some(waiter), is_alone: true, ..*self };
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

    /// The loop went somewhere. If it had to wait for its turn there for that long, somebody else has more right to that
    /// processor, and the loop stays where the kernel puts it for a while.
    pub(crate) fn went(&mut self, began: Instant, now: Instant) {
        if now.since(began) >= PLACEMENT_INTERVAL {
            self.from = now + PLACEMENT_REST;
        }
    }
}

/// Goes to the processor of a thread of process `pid`, which knows itself as `tid`. Nowhere, if the kernel cannot tell
/// which thread that is (before Linux 6.11) or it is not of that process.
pub(crate) fn go_next_to(pid: u32, tid: u32) {
    let ids = File::open(format!("/proc/{pid}/ns/pid")).ok();
    let known_as = ids.and_then(|ids| namespace::thread_outside(ids.as_fd(), tid).ok());
    let processor = known_as.and_then(|tid| stat::processor_of(pid, tid));
    processor.filter(|there| thread::processor() != Some(*there)).into_iter().for_each(thread::go_to);
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
    fn a_processor_that_others_hold_is_left_to_them() {
        let mut placement = Placement::default();
        let (began, went) = (Instant(0), Instant::default() + PLACEMENT_INTERVAL);
        placement.went(began, went);
        let mut neighbour_at = |since| {
            let (first, second) = (went + since, went + since + PLACEMENT_INTERVAL);
            assert_eq!(placement.faulted(first, READER, Duration::ZERO), None);
            placement.faulted(second, READER, PLACEMENT_INTERVAL)
        };
        assert_eq!(neighbour_at(Duration::ZERO), None);
        assert_eq!(neighbour_at(PLACEMENT_REST), Some(READER));
    }

    #[test]
    fn of_several_threads_none_is_preferred() {
        assert_eq!(neighbour(&[READER, (SpaceId::MAIN, 8)], 80), None);
        assert_eq!(neighbour(&[READER, (SpaceId(1), 7)], 80), None);
    }
}
