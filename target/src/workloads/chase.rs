//! `chase`: follows pointers through all of its memory in an order that nobody can guess.
//!
//! Every page names the page that comes after it, and all of them lie on one circle. Nearly every step touches another
//! page than any before it, which is what serving pages on demand finds hardest.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::gaps::Gaps;
use crate::pattern::{PAGE_WORDS, word};
use crate::progress::Progress;
use crate::random::Random;
use crate::waits::Waits;

/// Words of the pattern that each step compares.
const COMPARED: usize = 8;

/// Prints `chase N steps S largest_gap_us G` in each interval: S is how many steps it has made in all, G the longest
/// time that one of them took since the line before. With `--waits` a second line tells of [`Waits`].
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let interval = Duration::from_millis(progress.options().interval_ms);
    let circle = Circle::new(progress.options().resident_mib.max(1), &mut Random::new(1));
    let (mut page, mut steps) = (0, 0_u64);
    let mut gaps = Gaps::new(interval);
    let mut waits = progress.options().waits.then(Waits::default);
    while progress.goes_on() {
        let touched = waits.as_ref().map(|_| Instant::now());
        page = circle.step(page)?;
        steps += 1;
        if let Some((waits, touched)) = waits.as_mut().zip(touched) {
            waits.note(touched.elapsed());
        }
        if let Some(longest) = gaps.step() {
            let number = progress.count_round();
            progress.say(&format!("chase {number} steps {steps} largest_gap_us {}", longest.as_micros()))?;
            if let Some(waits) = &mut waits {
                progress.say(&format!("chase {number} waits{}", waits.take()))?;
            }
        }
    }
    circle.walk_around()
}

/// Pages of which the first word is the number of the next page and all others follow the pattern.
struct Circle {
    words: Vec<u64>,
}

impl Circle {
    fn new(mib: usize, random: &mut Random) -> Self {
        let pages = mib * 256;
        let mut words: Vec<u64> = (0..pages * PAGE_WORDS).map(|index| word(0, index)).collect();
        // Sattolo's shuffle: a permutation with one cycle only.
        let mut next: Vec<usize> = (0..pages).collect();
        for last in (1..pages).rev() {
            next.swap(last, random.below(last));
        }
        for (page, next) in next.into_iter().enumerate() {
            words[page * PAGE_WORDS] = next as u64;
        }
        Self { words }
    }

    /// The page behind `page`, some of which is compared.
    fn step(&self, page: usize) -> Result<usize> {
        let first = page * PAGE_WORDS;
        self.compare(first + 1, COMPARED)?;
        let next = usize::try_from(self.words[first])?;
        ensure!(next < self.words.len() / PAGE_WORDS, "page {page} leads to page {next}, which there is not");
        Ok(next)
    }

    /// Compares every page once, and that the way leads back to where it began.
    fn walk_around(&self) -> Result<()> {
        let mut page = 0;
        for step in 1..=self.words.len() / PAGE_WORDS {
            self.compare(page * PAGE_WORDS + 1, PAGE_WORDS - 1)?;
            page = self.step(page)?;
            ensure!(
                (page == 0) == (step == self.words.len() / PAGE_WORDS),
                "the circle is closed after {step} pages"
            );
        }
        Ok(())
    }

    fn compare(&self, from: usize, count: usize) -> Result<()> {
        for (index, found) in self.words.iter().enumerate().skip(from).take(count) {
            let expected = word(0, index);
            ensure!(*found == expected, "word {index} is {found:#x}, not {expected:#x}");
        }
        Ok(())
    }
}
