//! `ticks`: looks at the monotonic clock, without pause if it is not told to rest, and prints how long it was away at most.

use std::sync::{Arc, Barrier};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::time::{ClockId, ClockNanosleepFlags, clock_nanosleep};

use crate::gaps::Gaps;
use crate::pattern::Resident;
use crate::progress::Progress;

/// Prints `ticks N largest_gap_us G` in each interval, G being the largest gap since the line before.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let interval = Duration::from_millis(progress.options().interval_ms);
    let rest = Duration::from_millis(progress.options().rest_ms);
    let resident = Resident::new(progress.options().resident_mib, progress.options().content);
    let sleepers = Sleepers::start(progress.options().sleepers)?;
    let mut gaps = Gaps::new(interval);
    while progress.goes_on() {
        if let Some(longest) = gaps.step() {
            let number = progress.count_round();
            progress.say(&format!("ticks {number} largest_gap_us {}", longest.as_micros()))?;
        }
        if !rest.is_zero() {
            // A signal ends the rest early, which does no harm.
            let _ = clock_nanosleep(ClockId::CLOCK_MONOTONIC, ClockNanosleepFlags::empty(), &rest.into());
        }
    }
    sleepers.wake()?;
    resident.verify_all()
}

/// Threads that do nothing until the end but be there.
struct Sleepers {
    end: Arc<Barrier>,
    threads: Vec<JoinHandle<usize>>,
}

impl Sleepers {
    fn start(count: u32) -> Result<Self> {
        let count = usize::try_from(count)?;
        let end = Arc::new(Barrier::new(count + 1));
        let threads = (0..count).map(|number| {
            let end = Arc::clone(&end);
            let sleep = move || {
                end.wait();
                number
            };
            thread::Builder::new().stack_size(64 << 10).spawn(sleep).context("starting a thread")
        });
        Ok(Self { threads: threads.collect::<Result<_>>()?, end })
    }

    /// Each has kept its number on its stack.
    fn wake(self) -> Result<()> {
        self.end.wait();
        for (number, thread) in self.threads.into_iter().enumerate() {
            let kept = thread.join().map_err(|_| anyhow!("a thread panicked"))?;
            ensure!(kept == number, "thread {number} wakes up as {kept}");
        }
        Ok(())
    }
}
