//! Whether pages are packed: what that saves on the link is weighed against what it takes.
//!
//! ```text
//!            link refuses, twice within measure      saves less than it costs
//! unknown ──────────────────────────────────► known ◄───────────────────────► waits, for some frames more each time
//!    ▲                                          │
//!    └──── for two seconds nobody has waited ────┘
//! ```
//!
//! How fast the link is, is known only while it is what everybody waits for: from one refusal of a socket to a later
//! one, with something to send all the time. What it takes to pack is measured at each attempt.

use crate::Instant;

/// Below so many bytes a second, a little more than a link of 1 Gbit/s carries, an attempt is worth its time: packing for a
/// faster link takes about as long as it saves there.
const SLOW: u64 = 128 << 20;
/// Below so many bytes a second no attempt takes long enough to be noticed.
const VERY_SLOW: u64 = 32 << 20;
/// A rate is measured over so many nanoseconds at least.
const MEASURED_NS: u64 = 20_000_000;
/// For so many nanoseconds nobody has had to wait: the link is faster than was thought. Not told by frames: the better they
/// pack, the less the link has to carry.
const REMEMBERED_NS: u64 = 2_000_000_000;
/// Frames that go as they are, behind one that was not worth packing, at most.
const LONGEST_WAIT: u32 = 31;
/// Pages that a frame carries over a slow link: as much as one block holds.
const PAGES_WHEN_SLOW: u32 = 16;

/// How fast the link is, and whether packing has paid.
#[derive(Clone, Copy, Debug, Default)]
pub struct Packing {
    is_wanted: bool,
    /// Bytes a second; 0 while it is not known.
    rate: u64,
    /// When a socket first refused, and how many bytes had been taken by then; there has been something to send ever since.
    since: Option<(Instant, u64)>,
    /// When the link last refused anything, and how many bytes it had taken by then.
    last: (Instant, u64),
    /// Frames that go as they are before the next attempt.
    skips: u32,
    /// How many there are after the next that does not pay.
    wait: u32,
}

impl Packing {
    /// Nothing is known of the link, and nothing is packed unless it `is_wanted`.
    #[must_use]
    pub fn new(is_wanted: bool) -> Self {
        Self { is_wanted, ..Self::default() }
    }

    /// The link takes no more for now; `taken` bytes is what it has taken in all. Said again before it has taken anything, it
    /// is the same refusal.
    pub fn refused(&mut self, now: Instant, taken: u64) {
        let is_same = self.since.is_some() && self.last.1 == taken;
        self.last = (now, taken);
        if is_same {
            return;
        }
        let Some((since, before)) = self.since else {
            self.since = Some((now, taken));
            return;
        };
        let took_ns = now.0.saturating_sub(since.0);
        if took_ns >= MEASURED_NS {
            let moved = taken.saturating_sub(before);
            // Not zero: that would say that nothing is known.
            self.rate = (moved.saturating_mul(1_000_000) / (took_ns / 1000)).max(1);
            self.since = Some((now, taken));
        }
    }

    /// Nothing waits for the link.
    pub fn rested(&mut self) {
        self.since = None;
    }

    /// Pages that a frame carries at most.
    #[must_use]
    pub fn frame_pages(&self) -> u32 {
        if self.is_slow() { PAGES_WHEN_SLOW } else { 64 }
    }

    /// Pages that the first frame of an answer carries at most, if a thread waits for the first of them.
    #[must_use]
    pub fn first_pages(&self, is_awaited: bool) -> u32 {
        if is_awaited && self.is_slow() { 1 } else { self.frame_pages() }
    }

    /// Whether to try and pack the next frame.
    pub fn is_tried(&mut self, now: Instant) -> bool {
        if self.is_slow() && now.0 > self.last.0.0.saturating_add(REMEMBERED_NS) {
            *self = Self::new(self.is_wanted);
        }
        if !self.is_wanted || !self.is_slow() {
            return false;
        }
        let is_due = self.skips == 0 || self.rate < VERY_SLOW;
        self.skips = self.skips.saturating_sub(1);
        is_due
    }

    /// A frame could be made `saved` bytes shorter, in `took_ns` nanoseconds; returns whether it goes like that.
    pub fn tried(&mut self, saved: u64, took_ns: u64) -> bool {
        // The other side has to unpack it; and it is to be a gain, not a draw.
        let pays = saved.saturating_mul(1_000_000_000) / self.rate.max(1) > took_ns.saturating_mul(2);
        self.wait = if pays { 0 } else { (2 * self.wait + 1).min(LONGEST_WAIT) };
        self.skips = self.wait;
        pays
    }

    /// Whether the link is known to be slow.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        (1..SLOW).contains(&self.rate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const FRAME: u64 = 64 << 10;
    const SOON: Instant = Instant(106 * MS);

    /// A link of so many bytes a second that has been the bottleneck for 100 ms.
    fn over(rate: u64) -> Packing {
        let mut packing = Packing::new(true);
        packing.refused(Instant(5 * MS), 1 << 20);
        packing.refused(Instant(105 * MS), (1 << 20) + rate / 10);
        packing
    }

    /// How many of so many frames are packed if half of each can be saved in `took_ns`.
    fn packed(packing: &mut Packing, frames: usize, saved: u64, took_ns: u64) -> usize {
        (0..frames).filter(|_| packing.is_tried(SOON) && packing.tried(saved, took_ns)).count()
    }

    #[test]
    fn over_a_slow_link_what_can_be_packed_is() {
        let mut packing = over(2_500_000);
        assert_eq!(
            (packing.frame_pages(), packing.first_pages(false), packing.first_pages(true)),
            (16, 16, 1)
        );
        assert_eq!(packed(&mut packing, 100, FRAME / 2, 200_000), 100);
    }

    #[test]
    fn over_a_fast_link_or_an_unknown_one_nothing_is_tried() {
        for mut packing in [over(2 << 30), Packing::new(true), Packing::default()] {
            assert!(!packing.is_tried(SOON));
            assert_eq!((packing.frame_pages(), packing.first_pages(true)), (64, 64));
        }
    }

    #[test]
    fn nothing_is_tried_that_nobody_wants() {
        let mut packing = Packing::new(false);
        packing.refused(Instant(0), 0);
        packing.refused(Instant(100 * MS), 1000);
        assert!(!packing.is_tried(SOON));
        assert_eq!(
            (packing.frame_pages(), packing.first_pages(true)),
            (16, 1),
            "frames are short all the same"
        );
    }

    #[test]
    fn what_cannot_be_packed_is_tried_ever_more_rarely_and_never_given_up() {
        let mut packing = over(100_000_000);
        let tries = (0..320).filter(|_| packing.is_tried(SOON) && !packing.tried(0, 20_000));
        assert!((10..=16).contains(&tries.count()));
        assert!(packed(&mut packing, 33, FRAME / 2, 100_000) >= 1);
        assert_eq!(packed(&mut packing, 10, FRAME / 2, 100_000), 10);
    }

    #[test]
    fn over_a_very_slow_link_every_frame_is_tried() {
        let mut packing = over(2_500_000);
        assert_eq!(packed(&mut packing, 100, 0, 20_000), 0);
        assert_eq!(packed(&mut packing, 1, FRAME / 2, 200_000), 1);
    }

    #[test]
    fn it_pays_only_while_it_saves_more_time_than_both_sides_take() {
        // 32 KiB at 100 MB/s are 328 us.
        assert_eq!(packed(&mut over(100_000_000), 10, FRAME / 2, 150_000), 10);
        assert_eq!(packed(&mut over(100_000_000), 10, FRAME / 2, 170_000), 0);
    }

    #[test]
    fn a_link_that_nobody_waits_for_any_more_is_not_known_any_more() {
        let mut packing = over(2_500_000);
        assert_eq!(packed(&mut packing, 10_000, FRAME - 256, 1000), 10_000);
        assert!(!packing.is_tried(Instant(2106 * MS)) && !packing.is_slow());
    }

    #[test]
    fn a_link_that_has_taken_nothing_since_has_not_refused_anew() {
        let mut packing = Packing::new(true);
        packing.refused(Instant(0), 1 << 20);
        packing.refused(Instant(50 * MS), 1 << 20);
        assert!(!packing.is_slow(), "it may take a lot in the next moment");
        packing.refused(Instant(60 * MS), 61 << 20);
        assert!(!packing.is_slow());
    }

    #[test]
    fn a_pause_of_the_sender_is_not_taken_for_a_slow_link() {
        let mut packing = Packing::new(true);
        packing.refused(Instant(0), 1 << 20);
        packing.rested();
        packing.refused(Instant(1000 * MS), 2 << 20);
        assert!(!packing.is_tried(SOON));
        packing.refused(Instant(1010 * MS), 3 << 20);
        assert!(!packing.is_tried(SOON), "ten milliseconds are too short to tell");
        packing.refused(Instant(1020 * MS), (2 << 20) + 100_000);
        assert!(packing.is_tried(SOON));
    }
}
