//! One move of a workload of `target` to a receiver of its own, measured from both sides.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;

use super::place::Place;
use super::programs::{Foreign, Line, Running, Workload};
use super::relay::{Link, Relay};
use super::watch::{Footprint, Watch};

/// Lines of the program before it is moved: its memory is filled and it is at its pace.
pub(super) const WARM_LINES: usize = 5;
/// Lines of a moved program behind the last page that count.
pub(super) const LINES_AFTER: usize = 3;
/// How long it is listened to when all of its memory is there.
const AFTERWARDS: Duration = Duration::from_millis(200);

/// How a program is moved.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// The program.
    pub(super) workload: Workload,
    /// The receiver's `--mode`.
    pub(super) mode: &'static str,
    /// What else the receiver is told.
    pub(super) receiver: Vec<String>,
    /// The way that it takes, if not the shortest.
    pub(super) link: Option<Link>,
    /// Who runs where.
    pub(super) place: Place,
    /// Lines before the move.
    pub(super) warm_lines: usize,
    /// What is looked at meanwhile, which costs a little.
    pub(super) look: Look,
}

/// What is looked at while a program moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Look {
    /// Nothing.
    Away,
    /// How much of the moved program's memory is there.
    Resident,
    /// What receiver and parasite take.
    Footprint,
}

impl Plan {
    /// A move after which memory follows, without anything special.
    pub(super) fn of(workload: Workload) -> Self {
        Self {
            workload,
            mode: "postcopy",
            receiver: Vec::new(),
            link: None,
            place: Place::Free,
            warm_lines: WARM_LINES,
            look: Look::Away,
        }
    }

    /// With another `--mode`.
    pub(super) fn mode(mut self, mode: &'static str) -> Self {
        self.mode = mode;
        self
    }

    /// Starts receiver and program, moves the program, ends it and checks that it ended well.
    ///
    /// # Errors
    /// A move that fails, a program that finds a mistake.
    pub(super) fn carry_out(&self, bin: &Path) -> anyhow::Result<Moved> {
        let mut receiver = self.start_receiver(bin)?;
        let port = receiver.event("listening")?.1["port"].as_u64().context("the event names a port")?;
        let port = u16::try_from(port).context("the event names a port")?;
        let relay = self.link.map(|link| Relay::start(link, port)).transpose()?;
        let port = relay.as_ref().map_or(port, Relay::port);
        let mut program = self.start_program(bin, port)?;
        program.wait_printed(self.warm_lines)?;
        let footprint = (self.look == Look::Footprint)
            .then(|| Watch::footprint(receiver.pid(), program.pid()))
            .transpose()?;
        let signalled = Instant::now();
        program.signal(Signal::SIGUSR2)?;
        let (resumed, event) = receiver.event("resumed")?;
        let moved = Foreign::of(&event)?;
        let resident =
            (self.look == Look::Resident).then(|| Watch::resident(moved.pid(), signalled)).transpose()?;
        let reported = event["downtime_us"].as_u64().context("the event names a downtime")?;
        let (completed, complete) = receiver.event("complete")?;
        receiver.listen(AFTERWARDS)?;
        moved.ask_to_end()?;
        let (_, exited) = receiver.event("exited")?;
        ensure!(exited["exit_code"] == 0, "the moved program found a mistake: {exited}");
        // What it still said at the source may not have been read.
        program.wait()?;
        Ok(Moved {
            signalled,
            resumed,
            completed,
            reported: Duration::from_micros(reported),
            report: complete["report"].clone(),
            before: std::mem::take(&mut program.lines),
            after: std::mem::take(&mut receiver.lines),
            resident: resident.map(Watch::end).unwrap_or_default(),
            footprint: footprint.map(Watch::end).unwrap_or_default(),
        })
    }

    fn start_receiver(&self, bin: &Path) -> anyhow::Result<Running> {
        let mut command = Command::new(bin.join("receiver"));
        command.args(["0", "--once", "--events", "-", "--mode", self.mode]).args(&self.receiver);
        Running::start(&mut command, self.place.of_receiver())
    }

    fn start_program(&self, bin: &Path, port: u16) -> anyhow::Result<Running> {
        let mut command = self.workload.command(bin);
        command
            .env("LD_PRELOAD", bin.join("libsender.so"))
            .env("POSTHASTE_RECEIVER", format!("127.0.0.1:{port}"))
            .env_remove("POSTHASTE_SIGNAL")
            .env_remove("POSTHASTE_KEY_FILE");
        Running::start(&mut command, self.place.of_program())
    }
}

/// What one move was like.
#[derive(Debug)]
pub(super) struct Moved {
    /// The program was told to move.
    pub(super) signalled: Instant,
    /// It goes on at the destination.
    pub(super) resumed: Instant,
    /// All of its memory is there.
    pub(super) completed: Instant,
    /// How long it stood still, as the receiver says.
    pub(super) reported: Duration,
    /// The receiver's report.
    pub(super) report: Value,
    /// What it said at the source.
    pub(super) before: Vec<Line>,
    /// What it said at the destination; the first line began at the source.
    pub(super) after: Vec<Line>,
    /// How much of its memory was there, if that was looked at.
    pub(super) resident: Vec<(Duration, u64)>,
    /// What receiver and parasite took, if that was looked at.
    pub(super) footprint: Footprint,
}

impl Moved {
    /// How long it stood still, as it saw it itself: the gap in the line that it began at the source.
    pub(super) fn downtime(&self) -> Option<Duration> {
        self.after.first().map(|line| line.gap)
    }

    /// The longest gap in any of its lines at the destination, up to [`LINES_AFTER`] lines behind the last page.
    pub(super) fn longest_gap(&self) -> Option<Duration> {
        let until = self.after.partition_point(|line| line.at <= self.completed) + LINES_AFTER;
        self.after.iter().take(until).map(|line| line.gap).max()
    }

    /// The longest gap of all that began so long after it went on and ended before the last page was there; none if the
    /// move was too short for that.
    pub(super) fn longest_gap_later(&self, than: Duration) -> Option<Duration> {
        longest_gap_within(&self.after, self.resumed + than, self.completed)
    }

    /// When its last page was there, as the receiver measured it: it says so only when both sides have taken leave of each other.
    pub(super) fn last_page(&self) -> Instant {
        let us = self.reported_number("/phases/postcopy_us").unwrap_or(f64::MAX);
        let took = Duration::try_from_secs_f64(us / 1e6).unwrap_or(Duration::MAX);
        self.resumed.checked_add(took).map_or(self.completed, |at| at.min(self.completed))
    }

    /// From the signal to the last page.
    pub(super) fn total(&self) -> Duration {
        self.completed - self.signalled
    }

    /// A number of the report, by its path.
    pub(super) fn reported_number(&self, path: &str) -> Option<f64> {
        self.report.pointer(path).and_then(Value::as_f64)
    }

    /// What it counted in a second, from the first of its lines between two moments to the last.
    pub(super) fn rate(lines: &[Line], from: Instant, to: Instant) -> Option<f64> {
        let mut within = lines.iter().filter(|line| line.at >= from && line.at <= to);
        let first = within.next()?;
        let last = within.next_back()?;
        let counted = u32::try_from(last.count.saturating_sub(first.count)).ok()?;
        Some(f64::from(counted) / (last.at - first.at).as_secs_f64().max(f64::MIN_POSITIVE))
    }
}

/// The longest gap of the lines that began and ended between two moments.
fn longest_gap_within(lines: &[Line], from: Instant, to: Instant) -> Option<Duration> {
    let within = lines.windows(2).filter_map(|lines| {
        let [before, line] = lines else { return None };
        (before.at >= from && line.at <= to).then_some(line.gap)
    });
    within.max()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_counts_if_its_line_began_and_ended_between_the_moments() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let line = |ms, gap| Line { at: at(ms), gap: Duration::from_millis(gap), count: 0 };
        let lines = [line(0, 9), line(100, 8), line(110, 2), line(120, 3), line(130, 7)];
        assert_eq!(longest_gap_within(&lines, at(90), at(125)), Some(Duration::from_millis(3)));
        assert_eq!(longest_gap_within(&lines, at(90), at(105)), None);
    }

    #[test]
    fn a_rate_is_what_was_counted_between_the_lines_within() {
        let start = Instant::now();
        let line = |ms, count| Line { at: start + Duration::from_millis(ms), gap: Duration::ZERO, count };
        let lines = [line(0, 0), line(100, 50), line(200, 150), line(300, 1000)];
        let rate = |from, to| Moved::rate(&lines, line(from, 0).at, line(to, 0).at);
        assert_eq!(rate(50, 250), Some(1000.0));
        assert_eq!((rate(50, 150), rate(400, 500)), (None, None));
    }
}
