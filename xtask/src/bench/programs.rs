//! The programs that are moved, the lines that they print, and processes that end with their owner.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::place;

/// Filling and moving the largest program on a busy machine takes a fraction of this.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// Milliseconds between two lines; long against the stop, short against what comes after it.
const INTERVAL_MS: u32 = 10;

/// The same of a program whose steps are counted up to the last page. A program that has nearly all of its memory takes some
/// twenty thousand of them in ten milliseconds, and what follows the last line before that page counts as none.
const COUNTED_INTERVAL_MS: u32 = 2;

/// A workload of `target`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Workload {
    /// Its name.
    pub(super) name: &'static str,
    /// Its memory in MiB.
    pub(super) resident_mib: u64,
    /// Milliseconds between two of its lines.
    interval_ms: u32,
    /// What else it is told.
    pub(super) more: Vec<String>,
}

impl Workload {
    /// The workload with so much memory.
    pub(super) fn new(name: &'static str, resident_mib: u64) -> Self {
        Self { name, resident_mib, interval_ms: INTERVAL_MS, more: Vec::new() }
    }

    /// A program that sleeps: a hundred times a second it looks at the clock.
    pub(super) fn asleep(resident_mib: u64) -> Self {
        Self::new("ticks", resident_mib).with("--rest-ms", &INTERVAL_MS)
    }

    /// A program that goes through its memory at random and counts its steps.
    pub(super) fn counted_reader(resident_mib: u64) -> Self {
        Self { interval_ms: COUNTED_INTERVAL_MS, ..Self::new("chase", resident_mib) }
    }

    /// With an option.
    pub(super) fn with(mut self, option: &str, value: &impl ToString) -> Self {
        self.more.extend([option.to_owned(), value.to_string()]);
        self
    }

    /// With an option that has no value.
    pub(super) fn telling(mut self, option: &str) -> Self {
        self.more.push(option.to_owned());
        self
    }

    /// What follows `target`.
    pub(super) fn arguments(&self) -> Vec<String> {
        let resident = self.resident_mib.to_string();
        let interval = self.interval_ms.to_string();
        let own = [self.name, "--interval-ms", &interval, "--resident-mib", &resident];
        own.into_iter().map(str::to_owned).chain(self.more.iter().cloned()).collect()
    }

    /// How it is started.
    pub(super) fn command(&self, bin: &Path) -> Command {
        let mut command = Command::new(bin.join("target"));
        command.args(self.arguments());
        command
    }
}

/// What a line of a workload says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Line {
    /// When it came.
    pub(super) at: Instant,
    /// The longest gap since the line before.
    pub(super) gap: Duration,
    /// Steps, or KiB written, in all.
    pub(super) count: u64,
}

impl Line {
    /// Reads `NAME N [WORD COUNT] largest_gap_us GAP`; none for any other line.
    pub(super) fn read(line: &str, at: Instant) -> Option<Self> {
        let (before, gap) = line.split_once(" largest_gap_us ")?;
        let count = before.rsplit(' ').next()?.parse().ok()?;
        Some(Self { at, gap: Duration::from_micros(gap.parse().ok()?), count })
    }
}

/// A process and the lines that come from it; killed with its owner.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    output: Receiver<(Instant, String)>,
    /// What a workload has said so far.
    pub(super) lines: Vec<Line>,
    /// Lines of any kind.
    printed: usize,
    events: Vec<(Instant, Value)>,
}

impl Running {
    /// Starts it on `processor`, if one is named.
    ///
    /// # Errors
    /// It cannot be started.
    pub(super) fn start(command: &mut Command, processor: Option<usize>) -> anyhow::Result<Self> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = place::spawn(command, processor)?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (sender, output) = channel();
        thread::Builder::new().name("lines".to_owned()).spawn(move || {
            let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.try_for_each(|line| sender.send((Instant::now(), line)))
        })?;
        Ok(Self { child, output, lines: Vec::new(), printed: 0, events: Vec::new() })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// Those of kill(2).
    pub(super) fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal}"))
    }

    /// The next event of this name, and when it came.
    ///
    /// # Errors
    /// The move has failed, or nothing comes.
    pub(super) fn event(&mut self, name: &str) -> anyhow::Result<(Instant, Value)> {
        loop {
            if let Some(at) = position(self.events.iter().map(|(_, event)| event), name)? {
                return Ok(self.events.remove(at));
            }
            self.read_line(PATIENCE).with_context(|| format!("waiting for the event '{name}'"))?;
        }
    }

    /// Waits until it has printed so many lines.
    ///
    /// # Errors
    /// Nothing comes.
    pub(super) fn wait_printed(&mut self, count: usize) -> anyhow::Result<()> {
        while self.printed < count {
            self.read_line(PATIENCE).context("waiting for the program's next line")?;
        }
        Ok(())
    }

    /// Takes in what comes for so long.
    ///
    /// # Errors
    /// It has ended.
    pub(super) fn listen(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while let Some(rest) = end.checked_duration_since(Instant::now()) {
            match self.read_line(rest) {
                Err(error) if error.downcast_ref() == Some(&RecvTimeoutError::Timeout) => return Ok(()),
                other => other?,
            }
        }
        Ok(())
    }

    /// Takes in what it still says until its end; whether it ended well.
    ///
    /// # Errors
    /// It goes on printing.
    pub(super) fn wait(&mut self) -> anyhow::Result<bool> {
        loop {
            match self.read_line(PATIENCE) {
                Err(error) if error.downcast_ref() == Some(&RecvTimeoutError::Disconnected) => break,
                other => other.context("waiting for its end")?,
            }
        }
        Ok(self.child.wait().context("waiting for its end")?.success())
    }

    fn read_line(&mut self, time: Duration) -> anyhow::Result<()> {
        let (at, line) = self.output.recv_timeout(time)?;
        if line.starts_with('{') {
            self.events.push((at, serde_json::from_str(&line).context("reading what it prints")?));
        } else {
            self.printed += 1;
            self.lines.extend(Line::read(&line, at));
        }
        Ok(())
    }
}

/// Which of a receiver's events is the first of this name; `None` if it has not come.
///
/// # Errors
/// The move has failed.
pub(super) fn position<'a>(
    mut events: impl Iterator<Item = &'a Value> + Clone,
    name: &str,
) -> anyhow::Result<Option<usize>> {
    let is_bad = |event: &&Value| event["event"] == "failed" || event["event"] == "refused";
    let found = events.clone().position(|event| event["event"] == name);
    match events.find(is_bad).filter(|_| found.is_none()) {
        Some(failed) => bail!("the move has failed: {}", failed["reason"]),
        None => Ok(found),
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What the receiver has taken in ends with it, if its memory is not all there yet.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process that is no child of ours; killed with its owner.
#[derive(Debug)]
pub(super) struct Foreign(Pid);

impl Foreign {
    /// The process that an event names.
    ///
    /// # Errors
    /// It names none.
    pub(super) fn of(resumed: &Value) -> anyhow::Result<Self> {
        let pid = resumed["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.map(|pid| Self(Pid::from_raw(pid))).context("the event names a process id")
    }

    /// Its process id.
    pub(super) fn pid(&self) -> u32 {
        self.0.as_raw().unsigned_abs()
    }

    /// Asks it to end, after which it is nobody's to kill.
    ///
    /// # Errors
    /// Those of kill(2).
    pub(super) fn ask_to_end(self) -> anyhow::Result<()> {
        kill(self.0, Signal::SIGTERM).context("ending the moved program")?;
        std::mem::forget(self);
        Ok(())
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_count_and_its_gap() {
        let at = Instant::now();
        let read = |line| Line::read(line, at).map(|line| (line.count, line.gap.as_micros()));
        assert_eq!(read("ticks 7 largest_gap_us 12"), Some((7, 12)));
        assert_eq!(read("chase 3 steps 4096 largest_gap_us 250"), Some((4096, 250)));
        assert_eq!(read("writer 1 written_kib 12 largest_gap_us 0"), Some((12, 0)));
        assert_eq!([read("17"), read("ticks: PASS"), read("x largest_gap_us y")], [None; 3]);
    }

    #[test]
    fn a_workload_is_started_with_all_that_it_is_told() {
        let workload = Workload::new("writer", 256).with("--rate-mb", &200);
        let arguments = workload.arguments().join(" ");
        assert_eq!(arguments, "writer --interval-ms 10 --resident-mib 256 --rate-mb 200");
    }
}
