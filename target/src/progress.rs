//! How a workload says that it goes on, and how it learns that it is to end.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGINT, SIGTERM};

use crate::options::Options;

/// At most one line in this time, however quick the rounds are.
const LINE_INTERVAL: Duration = Duration::from_millis(20);

/// One run of one workload: its options, its rounds so far, and whether it has been asked to end.
#[derive(Debug)]
pub(crate) struct Progress {
    name: &'static str,
    options: Options,
    stop: Arc<AtomicBool>,
    rounds: u64,
    last_line: Option<Instant>,
}

impl Progress {
    /// Begins a run: from here on SIGTERM and SIGINT ask for its end.
    pub(crate) fn start(name: &'static str, options: Options) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            signal_hook::flag::register(signal, Arc::clone(&stop)).context("handling SIGTERM and SIGINT")?;
        }
        Ok(Self { name, options, stop, rounds: 0, last_line: None })
    }

    /// The options of the run.
    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    /// Whether another round is wanted.
    pub(crate) fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed) && self.options.count.is_none_or(|count| self.rounds < count)
    }

    /// Counts a round in which every check held, and says so now and then as `NAME N ok`.
    pub(crate) fn round_ok(&mut self) -> Result<()> {
        self.rounds += 1;
        if self.last_line.is_none_or(|at| at.elapsed() >= LINE_INTERVAL) {
            self.last_line = Some(Instant::now());
            self.say(&format!("{} {} ok", self.name, self.rounds))?;
        }
        Ok(())
    }

    /// Counts a round that prints its own line; the first one is number 0.
    pub(crate) fn count_round(&mut self) -> u64 {
        self.rounds += 1;
        self.rounds - 1
    }

    /// Prints one line at once.
    pub(crate) fn say(&self, line: &str) -> Result<()> {
        say(line)
    }
}

/// Prints one line at once: nothing printed is still in a buffer of the program.
pub(crate) fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").context("writing to standard output")?;
    out.flush().context("writing to standard output")
}
