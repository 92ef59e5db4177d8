//! What to ask for together with a page for which a thread waits.
//!
//! Each thread is followed on its own. Who walks on gets more with every request; who goes in equal steps gets the pages
//! that the next steps lead to; and the less anybody can guess, the less is asked for that nobody may ever touch.

use alloc::collections::BTreeMap;

use memory::{Addr, PAGE_SIZE, PageRange, PageSet};
use protocol::MAX_PAGES_PER_FRAME;

use super::input::SpaceId;
use super::space::Space;
use crate::Config;

/// Pages from where a thread was that count as its neighbourhood.
const NEAR_PAGES: u64 = 64;
/// Threads that are followed; for one more, another is forgotten.
const MOST_THREADS: usize = 256;
/// Faults in a row that lead nowhere near, after which half as much is asked for.
const STRANGERS: u32 = 4;
/// Steps ahead that are asked for at most.
const MOST_STEPS: u64 = 16;

/// A thread, which not every source of faults tells apart from the others of its address space.
pub(super) type Walker = (SpaceId, u32);

/// How threads have gone about their memory. Source addresses.
#[derive(Clone, Debug, Default)]
pub(super) struct Prefetch {
    walks: BTreeMap<Walker, Walk>,
    /// Pages to ask for behind one that nobody could expect; the configuration's figure before the first.
    beginning: Option<u64>,
    strangers: u32,
}

/// Where a thread has come to, in pages.
#[derive(Clone, Copy, Debug)]
struct Walk {
    last: u64,
    /// Behind what was asked for with it.
    end: u64,
    /// From the page before to the last one.
    step: u64,
    /// Steps that were asked for beyond the last one.
    steps: u64,
    /// Pages that were to be asked for with the last one.
    window: u64,
}

/// What else a thread may touch soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Guess {
    /// Pages directly behind.
    pub(super) behind: u64,
    /// From one page to the next that its steps lead to; wraps around.
    step: u64,
    steps: u64,
}

impl Prefetch {
    /// A thread waits for `page`.
    pub(super) fn guess(&mut self, config: &Config, thread: Walker, page: Addr) -> Guess {
        let most = if config.prefetch_pages == 0 { 0 } else { MAX_PAGES_PER_FRAME - 1 };
        let page = page.0 / PAGE_SIZE;
        let before = self.walks.get(&thread).copied();
        let mut walk = Walk { last: page, end: page + 1, step: 0, steps: 0, window: 0 };
        if let Some(before) = before {
            walk.step = page.wrapping_sub(before.last);
            if before.is_in_step(page) {
                walk.step = before.step;
                walk.steps = (2 * before.steps).clamp(1, MOST_STEPS).min(most);
            } else if before.is_near(page) {
                walk.window = (2 * before.window + 1).min(most);
            }
        }
        if walk.window > 0 || walk.steps > 0 {
            self.met(config);
        } else {
            walk.window = self.stranger(config, before.is_some());
        }
        walk.end += walk.window;
        if before.is_none() && self.walks.len() >= MOST_THREADS {
            self.walks.pop_first();
        }
        self.walks.insert(thread, walk);
        Guess { behind: walk.window, step: walk.step, steps: walk.steps }
    }

    /// Somebody has come where he was expected.
    fn met(&mut self, config: &Config) {
        self.strangers = 0;
        self.beginning = self.beginning.map(|beginning| (2 * beginning + 1).min(config.prefetch_pages));
    }

    /// Nobody was expected there; returns how much to ask for.
    fn stranger(&mut self, config: &Config, has_been_seen: bool) -> u64 {
        let beginning = self.beginning.unwrap_or(config.prefetch_pages).min(config.prefetch_pages);
        self.strangers += u32::from(has_been_seen);
        let halved = self.strangers >= STRANGERS;
        if halved {
            self.strangers = 0;
        }
        self.beginning = Some(if halved { beginning / 2 } else { beginning });
        beginning
    }
}

impl Walk {
    fn is_near(&self, page: u64) -> bool {
        (self.last.saturating_sub(NEAR_PAGES)..self.end.saturating_add(NEAR_PAGES)).contains(&page)
    }

    /// Whether `page` is where its steps lead to, behind those that were asked for. Some may have come unasked meanwhile.
    const fn is_in_step(&self, page: u64) -> bool {
        let (way, step) = (page.wrapping_sub(self.last).cast_signed(), self.step.cast_signed());
        if page == self.end || step == 0 || way.wrapping_rem(step) != 0 {
            return false;
        }
        let (made, asked) = (way.wrapping_div(step), self.steps.cast_signed());
        made > asked && made <= asked + if asked == 0 { 1 } else { MOST_STEPS.cast_signed() }
    }
}

impl Guess {
    /// Where the next steps lead from `page`.
    pub(super) fn ahead(self, page: PageRange) -> impl Iterator<Item = PageRange> {
        (1..=self.steps).filter_map(move |count| {
            let distance = self.step.wrapping_mul(count).wrapping_mul(PAGE_SIZE);
            PageRange::from_pages(Addr(page.start().0.wrapping_add(distance)), 1)
        })
    }
}

/// How many of the `most` pages directly behind `page` are worth asking for in the same frame: wanted, not on their way,
/// and behind it at the destination too, so that what is fetched is what a program that walks on will touch.
pub(super) fn pages_behind(
    most: u64,
    space: &Space,
    in_flight: &PageSet,
    (current, page): (PageRange, PageRange),
) -> u64 {
    let most = most.min(MAX_PAGES_PER_FRAME - 1);
    let extent_end = space.extent_at(current.start()).map_or(page.end(), |(_, source)| source.end());
    let mut end = page.end();
    let mut count = 0;
    while count < most && end < extent_end && space.is_wanted(end) && !in_flight.contains(end) {
        end = Addr(end.0 + PAGE_SIZE);
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// What is asked for behind each of `pages`, and how many steps ahead, when one thread touches them.
    fn guesses(pages: &[u64]) -> Vec<(u64, u64)> {
        let (config, mut prefetch) = (Config::default(), Prefetch::default());
        let guess = |page: &u64| prefetch.guess(&config, (SpaceId::MAIN, 1), Addr(page * PAGE_SIZE));
        pages.iter().map(guess).map(|guess| (guess.behind, guess.steps)).collect()
    }

    #[test]
    fn who_walks_on_gets_more_each_time() {
        assert_eq!(guesses(&[100, 116, 148, 212]), [(15, 0), (31, 0), (63, 0), (63, 0)]);
    }

    #[test]
    fn who_jumps_about_gets_less_and_less_until_he_walks() {
        let jumps: Vec<u64> = (1..=20).map(|count| count * count * count * 1000).collect();
        let behind: Vec<u64> = guesses(&jumps).into_iter().map(|(behind, _)| behind).collect();
        assert_eq!(behind[..5], [15; 5]);
        assert_eq!(behind[17..], [0; 3]);
        let walk = [jumps, [8_000_001, 8_000_003, 8_000_007].into()].concat();
        assert_eq!(guesses(&walk)[20..], [(1, 0), (3, 0), (7, 0)]);
    }

    #[test]
    fn who_goes_in_equal_steps_gets_where_they_lead() {
        let rows = |numbers: &[u64]| numbers.iter().map(|row| 10_000 + 500 * row).collect::<Vec<u64>>();
        assert_eq!(guesses(&rows(&[0, 1, 2, 4, 7, 12]))[2..], [(0, 1), (0, 2), (0, 4), (0, 8)]);
        let down: Vec<(u64, u64)> = guesses(&[900, 899, 898, 896, 893]);
        assert_eq!(down[2..], [(0, 1), (0, 2), (0, 4)]);
        let at = PageRange::from_pages(Addr(898 * PAGE_SIZE), 1).expect("a page");
        let ahead = Guess { behind: 0, step: u64::MAX, steps: 2 }.ahead(at);
        assert_eq!(ahead.map(|page| page.start().0 / PAGE_SIZE).collect::<Vec<_>>(), [897, 896]);
    }

    #[test]
    fn who_is_expected_for_ever_is_asked_for_no_more_than_fits() {
        let walk: Vec<u64> =
            [1000, 1016].into_iter().chain((0..200).map(|count| 1048 + 64 * count)).collect();
        assert_eq!(guesses(&walk)[2..], [(63, 0); 200]);
    }

    #[test]
    fn steps_that_were_pushed_meanwhile_are_no_surprise() {
        let rows: Vec<u64> = [0, 1, 2, 4, 9].iter().map(|row| 10_000 + 500 * row).collect();
        assert_eq!(guesses(&rows)[2..], [(0, 1), (0, 2), (0, 4)]);
    }

    #[test]
    fn one_thread_more_than_can_be_followed_costs_one_its_history() {
        let (config, mut prefetch) = (Config::default(), Prefetch::default());
        let mut walk = |thread, page: u64| {
            prefetch.guess(&config, (SpaceId::MAIN, thread), Addr(page * PAGE_SIZE)).behind
        };
        for thread in 0..=256 {
            walk(thread, 100);
        }
        assert_eq!([walk(256, 116), walk(255, 116), walk(0, 116)], [31, 31, 15]);
    }

    #[test]
    fn threads_of_several_processes_that_look_alike_are_told_apart() {
        let (config, mut prefetch) = (Config::default(), Prefetch::default());
        let mut steps =
            |space, page: u64| prefetch.guess(&config, (SpaceId(space), 0), Addr(page * PAGE_SIZE)).steps;
        assert_eq!([steps(4, 9000), steps(3, 6000), steps(2, 3000)], [0; 3]);
    }

    #[test]
    fn threads_do_not_disturb_each_other() {
        let (config, mut prefetch) = (Config::default(), Prefetch::default());
        let mut walk = |thread, page: u64| {
            prefetch.guess(&config, (SpaceId::MAIN, thread), Addr(page * PAGE_SIZE)).behind
        };
        assert_eq!([walk(1, 100), walk(2, 5000), walk(1, 116), walk(2, 5016)], [15, 15, 31, 31]);
    }

    #[test]
    fn where_nothing_is_to_be_fetched_ahead_nothing_is() {
        let (config, mut prefetch) = (Config { prefetch_pages: 0, ..Config::default() }, Prefetch::default());
        for page in [100, 101, 102, 104, 107] {
            let guess = prefetch.guess(&config, (SpaceId::MAIN, 1), Addr(page * PAGE_SIZE));
            assert_eq!((guess.behind, guess.steps), (0, 0));
        }
    }
}
