//! One move of a workload of `target` to a receiver of its own, measured from both sides.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Filling and moving the largest program on a busy machine takes a fraction of this.
pub(super) const PATIENCE: Duration = Duration::from_secs(300);

/// Lines of the program before it is moved: its memory is filled and it is at its pace.
pub(super) const WARM_LINES: usize = 5;

/// Milliseconds between two lines; long against a move, short against what comes after it.
const INTERVAL_MS: &str = "20";

/// The program that is moved.
#[derive(Clone, Copy, Debug)]
pub(super) struct Workload {
    /// Its name: one that prints ` largest_gap_us `.
    pub(super) name: &'static str,
    /// Its memory in MiB.
    pub(super) resident_mib: u64,
}

impl Workload {
    /// How it is started.
    pub(super) fn command(self, bin: &Path) -> Command {
        let mut command = Command::new(bin.join("target"));
        let resident = self.resident_mib.to_string();
        command.args([self.name, "--interval-ms", INTERVAL_MS, "--resident-mib", &resident]);
        command
    }
}

/// What one move took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sample {
    /// The largest gap between two looks at the clock, in the line that the program began at the source and
    /// ended at the destination.
    pub(super) seen: Duration,
    /// The largest gap in any line until every page was there.
    pub(super) longest: Duration,
    /// `downtime_us` of the `resumed` event.
    pub(super) reported: Duration,
    /// From the signal to the `complete` event.
    pub(super) total: Duration,
}

/// Starts receiver and program, moves the program, ends it and checks that it ended well.
pub(super) fn move_once(bin: &Path, workload: Workload) -> anyhow::Result<Sample> {
    let mut receiver =
        Running::start(Command::new(bin.join("receiver")).args(["0", "--once", "--events", "-"]))?;
    let port = receiver.event("listening")?["port"].as_u64().context("the event names a port")?;
    let mut program = Running::start(
        workload
            .command(bin)
            .env("LD_PRELOAD", bin.join("libsender.so"))
            .env("POSTHASTE_RECEIVER", format!("127.0.0.1:{port}"))
            .env_remove("POSTHASTE_SIGNAL"),
    )?;
    for _ in 0..WARM_LINES {
        program.tick()?;
    }
    let begin = Instant::now();
    program.signal(Signal::SIGUSR2)?;
    let reported = receiver.event("resumed")?;
    let moved = Moved::of(&reported)?;
    let seen = receiver.tick()?;
    receiver.event("complete")?;
    let total = begin.elapsed();
    let longest = receiver.ticks.iter().copied().max().unwrap_or_default().max(seen);
    kill(moved.0, Signal::SIGTERM).context("ending the moved program")?;
    let exited = receiver.event("exited")?;
    std::mem::forget(moved);
    anyhow::ensure!(exited["exit_code"] == 0, "the moved program found a mistake: {exited}");
    let reported = reported["downtime_us"].as_u64().context("the event names a downtime")?;
    Ok(Sample { seen, longest, reported: Duration::from_micros(reported), total })
}

/// The program at its destination, which is no child of ours; killed with its owner.
struct Moved(Pid);

impl Moved {
    fn of(resumed: &Value) -> anyhow::Result<Self> {
        let pid = resumed["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok());
        pid.map(|pid| Self(Pid::from_raw(pid))).context("the event names a process id")
    }
}

impl Drop for Moved {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

/// A process and the lines that come from it; killed with its owner.
struct Running {
    child: Child,
    lines: Receiver<String>,
    /// Ticks that were read while an event was looked for, and the other way round.
    ticks: Vec<Duration>,
    events: Vec<Value>,
}

impl Running {
    fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().with_context(|| format!("starting {name}"))?;
        let stdout = child.stdout.take().context("its output is a pipe")?;
        let (sender, lines) = channel();
        thread::Builder::new().name("lines".to_owned()).spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        })?;
        Ok(Self { child, lines, ticks: Vec::new(), events: Vec::new() })
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).context("a process id")?;
        kill(Pid::from_raw(pid), signal).with_context(|| format!("sending {signal}"))
    }

    /// The next event of this name.
    fn event(&mut self, name: &str) -> anyhow::Result<Value> {
        loop {
            if let Some(at) = self.events.iter().position(|event| event["event"] == name) {
                return Ok(self.events.remove(at));
            }
            if let Some(failed) = self.events.iter().find(|event| event["event"] == "failed") {
                bail!("the move has failed: {}", failed["reason"]);
            }
            self.read_line().with_context(|| format!("waiting for the event '{name}'"))?;
        }
    }

    /// The largest gap that the next line of the program names.
    fn tick(&mut self) -> anyhow::Result<Duration> {
        while self.ticks.is_empty() {
            self.read_line().context("waiting for the program's next line")?;
        }
        Ok(self.ticks.remove(0))
    }

    fn read_line(&mut self) -> anyhow::Result<()> {
        let line = self.lines.recv_timeout(PATIENCE).context("nothing more comes")?;
        if line.starts_with('{') {
            self.events.push(serde_json::from_str(&line)?);
        } else {
            self.ticks.extend(gap_of(&line)?);
        }
        Ok(())
    }
}

/// The gap that a line of the program names, if it names one.
pub(super) fn gap_of(line: &str) -> anyhow::Result<Option<Duration>> {
    let Some((_, gap)) = line.split_once(" largest_gap_us ") else { return Ok(None) };
    gap.parse().map(|us| Some(Duration::from_micros(us))).with_context(|| format!("reading '{line}'"))
}

impl Drop for Running {
    fn drop(&mut self) {
        // What the receiver has taken in ends with it, if its memory is not all there yet.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
