//! One move of a workload of `target` by CRIU, the restored program in a PID namespace of its own: by lazy pages (dump,
//! page server, lazy-pages daemon and restore on this machine), or whole (dump into files, then restore). The daemon in
//! the middle is CRIU's or ours; `criu-bridge send` and `receive` are a move by CRIU as well.

mod sent;
mod steps;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use self::steps::{Killed, free_port, is_listening, wait_for};
use super::moving::{LINES_AFTER, Look, WARM_LINES};
use super::programs::{Foreign, Line, Workload};
use super::waits::Waits;
use super::watch;

/// Written by CRIU into its images when the restored program goes on.
const RESTORED: &str = "stats-restore";

/// How CRIU moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// Memory follows as it is touched, and by itself, as this daemon serves it.
    LazyPages(Daemon),
    /// All of it into files and out of them.
    Whole,
    /// By `criu-bridge send` and `receive`, which have CRIU dump and restore.
    Sent,
}

/// Who serves missing memory between CRIU's dump and CRIU's restore.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Daemon {
    /// `criu lazy-pages`
    Criu,
    /// `criu-bridge lazy-pages`
    Ours,
}

/// What a move by CRIU was like.
#[derive(Clone, Debug)]
pub(super) struct Carried {
    /// The gap in the first line after the move, which the program does not see: CRIU gives it a clock that has stood still
    /// between dump and restore (time_namespaces(7)), which is added here.
    pub(super) downtime: Duration,
    /// The longest gap in that line and all that follow, up to [`LINES_AFTER`] lines behind the last page.
    pub(super) longest: Duration,
    /// From the beginning of the dump until every page was there.
    pub(super) total: Duration,
    /// How much of the restored program's memory was there, in KiB, since the beginning.
    pub(super) resident: Vec<(Duration, u64)>,
    /// How long it has waited for memory meanwhile, if it tells.
    pub(super) waits: Waits,
}

/// The program.
#[derive(Debug)]
pub(super) struct Criu {
    path: PathBuf,
}

impl Criu {
    /// The one that `make criu` has left.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn find() -> anyhow::Result<Self> {
        let prefix = std::env::var_os("CRIU_PREFIX").unwrap_or_else(|| "/usr/local/lib/posthaste".into());
        let path = Path::new(&prefix).join("criu");
        ensure!(path.exists(), "there is no {}: run make criu first", path.display());
        Ok(Self { path })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts the program, moves it, ends it. `directory` is made for this and removed.
    ///
    /// # Errors
    /// A step that fails; what CRIU says of it is its [`complaint`].
    pub(super) fn move_once(
        &self,
        bin: &Path,
        workload: &Workload,
        method: Method,
        look: Look,
        directory: &Path,
    ) -> anyhow::Result<Carried> {
        let images = directory.join("images");
        fs::create_dir_all(&images).context("making a directory for images")?;
        let out = directory.join("out");
        let stdout = File::create(&out).context("making the program's output")?;
        // CRIU wants the leader of its session; this one does not fork for that, because it leads no group.
        let mut command = Command::new("setsid");
        command.arg(bin.join("target")).args(workload.arguments());
        command.stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
        let mut program = Killed::start(&mut command).context("starting the program")?;
        wait_for(|| Ok(lines(&out)?.len() >= WARM_LINES)).context("waiting for the program to be warm")?;
        let pid = program.id();
        let course = Course { begin: Instant::now(), pid, images: &images, out: &out, bin, look };
        let mut restored = match method {
            Method::LazyPages(daemon) => self.carry_lazily(&course, daemon)?,
            Method::Whole => self.carry_whole(&course)?,
            Method::Sent => sent::carry(&course)?,
        };
        let total = course.begin.elapsed();
        let arrived = lines(&out)?.len();
        let hidden = match method {
            Method::Sent => Duration::ZERO,
            Method::LazyPages(_) | Method::Whole => course.hidden(&restored.process)?,
        };
        wait_for(|| Ok(lines(&out)?.len() >= arrived + LINES_AFTER)).context("waiting for its next lines")?;
        let gaps =
            lines(&out)?.into_iter().map(|line| line.gap).take(arrived + LINES_AFTER).skip(restored.said);
        let mut gaps: Vec<Duration> = gaps.collect();
        let waits = Waits::between(&text(&out)?, restored.said, arrived);
        drop(restored.root);
        restored.process.end();
        program.end();
        fs::remove_dir_all(directory).context("removing the images")?;
        let first = gaps.first_mut().context("the program has printed nothing since")?;
        *first += hidden;
        let downtime = *first;
        let longest = gaps.into_iter().max().unwrap_or(downtime);
        Ok(Carried { downtime, longest, total, resident: restored.resident, waits })
    }

    /// Returns when every page has been carried over, with what keeps the restored program alive.
    fn carry_lazily(&self, course: &Course<'_>, daemon: Daemon) -> anyhow::Result<Restored> {
        let port = free_port()?.to_string();
        let (pid, directory) = (course.pid.to_string(), course.directory()?);
        let place = ["--images-dir", directory, "--address", "127.0.0.1", "--port", &port];
        let dump = [&["dump", "--tree", &pid, "--lazy-pages", "-o", "dump.log"], &place[..]].concat();
        let mut dump = Killed::start(&mut self.command(&dump)).context("starting criu dump")?;
        // The last image that it writes before it listens.
        wait_for(|| {
            ensure!(!dump.has_ended()?, "criu dump has ended");
            Ok(course.images.join("inventory.img").exists() && is_listening(&port)?)
        })
        .context("waiting for criu dump")?;
        let said = lines(course.out)?.len();
        let mut serve = self.serve(course, daemon, &place)?;
        wait_for(|| {
            ensure!(!serve.has_ended()?, "{} has ended", daemon.name());
            Ok(course.images.join("lazy-pages.socket").exists())
        })
        .with_context(|| format!("waiting for {}", daemon.name()))?;
        let mut process = self.restore(&["--lazy-pages", "--images-dir", directory])?;
        let resident = course.look_at_memory(&mut process, &mut serve)?;
        serve.expect_success(daemon.name())?;
        dump.expect_success("criu dump")?;
        Ok(Restored { process, root: None, said, resident })
    }

    /// Starts the daemon that gets pages at `place`.
    fn serve(&self, course: &Course<'_>, daemon: Daemon, place: &[&str]) -> anyhow::Result<Killed> {
        let serve = [&["lazy-pages", "--page-server"], place].concat();
        let mut command = match daemon {
            Daemon::Criu => self.command(&[&serve[..], &["-o", "lazy.log"]].concat()),
            Daemon::Ours => course.bridge(&serve, "lazy.log")?,
        };
        Killed::start(&mut command).with_context(|| format!("starting {}", daemon.name()))
    }

    /// Returns when the restored program goes on.
    fn carry_whole(&self, course: &Course<'_>) -> anyhow::Result<Restored> {
        let (pid, directory) = (course.pid.to_string(), course.directory()?);
        let dump = ["dump", "--tree", &pid, "--images-dir", directory, "-o", "dump.log"];
        let mut dump = Killed::start(&mut self.command(&dump)).context("starting criu dump")?;
        dump.expect_success("criu dump")?;
        let said = lines(course.out)?.len();
        let mut process = self.restore(&["--images-dir", directory])?;
        wait_for(|| {
            ensure!(!process.has_ended()?, "criu restore has ended");
            Ok(course.images.join(RESTORED).exists())
        })
        .context("waiting for the restored program")?;
        Ok(Restored { process, root: None, said, resident: Vec::new() })
    }

    fn restore(&self, arguments: &[&str]) -> anyhow::Result<Killed> {
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--mount-proc", "--kill-child"]).arg(&self.path).arg("restore");
        command.args(arguments).args(["-o", "restore.log"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Killed::start(&mut command).context("starting criu restore")
    }
}

/// A program that CRIU has let go on.
struct Restored {
    /// What keeps it alive.
    process: Killed,
    /// Itself, if it does not end with that.
    root: Option<Foreign>,
    /// Its lines before that.
    said: usize,
    resident: Vec<(Duration, u64)>,
}

/// One move on its way.
struct Course<'a> {
    begin: Instant,
    pid: u32,
    images: &'a Path,
    out: &'a Path,
    bin: &'a Path,
    look: Look,
}

impl Course<'_> {
    fn directory(&self) -> anyhow::Result<&str> {
        self.images.to_str().context("a path of text")
    }

    /// A command of ours, whose words go to a file among the images.
    fn bridge(&self, arguments: &[&str], log: &str) -> anyhow::Result<Command> {
        let log = File::create(self.images.join(log)).context("making a log")?;
        let mut command = Command::new(self.bin.join("criu-bridge"));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        Ok(command)
    }

    /// By how much the restored program's clock is behind the machine's.
    fn hidden(&self, restored: &Killed) -> anyhow::Result<Duration> {
        let program = fs::canonicalize(self.bin.join("target")).context("the program is there")?;
        let pid = watch::newcomer(&program, restored.id()).context("the restored program is not there")?;
        let offsets = fs::read_to_string(format!("/proc/{pid}/timens_offsets"))
            .context("reading the restored program's clock")?;
        behind(&offsets)
            .context("the restored program's clock is not behind: how long it was away is not known")
    }

    /// How much of the restored program's memory is there until `serve` ends.
    fn look_at_memory(
        &self,
        restored: &mut Killed,
        serve: &mut Killed,
    ) -> anyhow::Result<Vec<(Duration, u64)>> {
        let program = fs::canonicalize(self.bin.join("target")).context("the program is there")?;
        let (mut pid, mut found) = (None, Vec::new());
        wait_for(|| {
            ensure!(!restored.has_ended()?, "criu restore has ended");
            if self.look == Look::Resident {
                pid = pid.or_else(|| watch::newcomer(&program, restored.id()));
                found.extend(pid.and_then(watch::resident_kib).map(|kib| (self.begin.elapsed(), kib)));
            }
            serve.has_ended()
        })
        .context("waiting for every page")?;
        Ok(found)
    }
}

impl Daemon {
    /// What it is called.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Criu => "criu lazy-pages",
            Self::Ours => "criu-bridge lazy-pages",
        }
    }
}

/// The first error in the logs of a move, CRIU's own or ours.
pub(super) fn complaint(directory: &Path) -> String {
    let logs = ["dump.log", "lazy.log", "restore.log", "send.log", "receive.log"]
        .map(|log| directory.join("images").join(log));
    let is_error = |line: &&str| line.contains("Error") || line.starts_with("criu-bridge: ");
    let texts = logs.iter().filter_map(|log| fs::read_to_string(log).ok());
    let errors = texts.filter_map(|text| text.lines().find(is_error).map(str::to_owned));
    errors.into_iter().next().unwrap_or_else(|| "nothing".to_owned())
}

/// The program's lines so far; when they came is not known.
fn lines(out: &Path) -> anyhow::Result<Vec<Line>> {
    let at = Instant::now();
    Ok(text(out)?.lines().filter_map(|line| Line::read(line, at)).collect())
}

/// Its whole lines.
fn text(out: &Path) -> anyhow::Result<String> {
    let mut text = fs::read_to_string(out).context("reading the program's output")?;
    text.truncate(text.rfind('\n').unwrap_or(0));
    Ok(text)
}

/// By how much the monotonic clock is behind, out of `/proc/PID/timens_offsets`; none if it is not.
fn behind(offsets: &str) -> Option<Duration> {
    let line = offsets.lines().find_map(|line| line.strip_prefix("monotonic"))?;
    let mut fields = line.split_whitespace().map(str::parse::<i64>);
    // The nanoseconds are never negative.
    let (seconds, nanoseconds) = (fields.next()?.ok()?, fields.next()?.ok()?);
    let behind = -(i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds));
    u64::try_from(behind).ok().filter(|behind| *behind > 0).map(Duration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_stood_still_is_behind() {
        let behind = |line: &str| behind(&format!("{line}\nboottime           -1 810298531\n"));
        assert_eq!(behind("monotonic          -1 812616317"), Some(Duration::from_nanos(187_383_683)));
        assert_eq!((behind("monotonic          0         0"), behind("monotonic 3 5")), (None, None));
    }
}
