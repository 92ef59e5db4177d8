//! The source's own measurements: when each phase began and how long it took.

use engine::Instant;
use protocol::SourceReport;

/// Fills a [`SourceReport`] as the phases pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    report: SourceReport,
    /// When the phase began that is under way.
    since: Instant,
}

impl Measure {
    pub(crate) fn new(started: Instant) -> Self {
        Self { report: SourceReport::default(), since: started }
    }

    pub(crate) fn reserved(&mut self, now: Instant) {
        self.report.setup_us = self.lap(now);
    }

    /// Pages went ahead, or none did.
    pub(crate) fn went_ahead(&mut self, now: Instant) {
        self.report.ahead_us = self.lap(now);
    }

    /// The last look at the running process is taken; the stop begins.
    pub(crate) fn prepared(&mut self, now: Instant) {
        self.report.setup_us += self.lap(now);
    }

    pub(crate) fn parked(&mut self, now: Instant) {
        self.report.park_us = self.lap(now);
    }

    pub(crate) fn captured(&mut self, now: Instant) {
        self.report.capture_us = self.lap(now);
    }

    pub(crate) fn run_sent(&mut self, now: Instant) {
        self.report.switchover_us = self.lap(now);
    }

    pub(crate) fn running(&mut self, now: Instant) {
        self.report.resume_us = self.lap(now);
    }

    pub(crate) fn scanned(&mut self, from: Instant, to: Instant) {
        self.report.scan_us += micros(from, to);
    }

    pub(crate) const fn report(&self, bytes_sent: u64) -> SourceReport {
        SourceReport { bytes_sent, ..self.report }
    }

    /// Microseconds of the phase that ends; the next one begins.
    fn lap(&mut self, now: Instant) -> u64 {
        let took = micros(self.since, now);
        self.since = now;
        took
    }
}

fn micros(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX)
}
