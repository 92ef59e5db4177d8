//! One move of a workload of `target` by CRIU, the restored program in a PID namespace of its own: by lazy pages (dump,
//! page server, lazy-pages daemon and restore on this machine), or whole (dump into files, then restore).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::interruption;
use super::moving::{LINES_AFTER, Look, WARM_LINES};
use super::programs::{Line, PATIENCE, Workload};
use super::watch;

/// CRIU keeps pages in pipes of this size, which root may ask for.
const PIPE_BYTES: u64 = 16 << 20;
const PIPE_LIMIT: &str = "/proc/sys/fs/pipe-max-size";
/// How often something that comes as a file is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// Written by CRIU into its images when the restored program goes on.
const RESTORED: &str = "stats-restore";

/// How CRIU moves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// Memory follows as it is touched, and by itself.
    LazyPages,
    /// All of it into files and out of them.
    Whole,
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
}

/// The program, and what it needs of the machine for as long as this lives.
#[derive(Debug)]
pub(super) struct Criu {
    path: PathBuf,
    limit: PipeLimit,
}

/// Pipes may be large enough for CRIU for as long as this lives.
#[derive(Clone, Debug)]
pub(super) struct PipeLimit {
    /// The machine's own limit, to be put back.
    before: Option<String>,
}

impl Criu {
    /// The one that `make criu` has left.
    ///
    /// # Errors
    /// There is none, or pipes may not be large enough for it.
    pub(super) fn find() -> anyhow::Result<Self> {
        let prefix = std::env::var_os("CRIU_PREFIX").unwrap_or_else(|| "/usr/local/lib/posthaste".into());
        let path = Path::new(&prefix).join("criu");
        ensure!(path.exists(), "there is no {}: run make criu first", path.display());
        Ok(Self { path, limit: PipeLimit::raise()? })
    }

    /// The limit that is raised, for who has to put it back as well.
    pub(super) fn limit(&self) -> PipeLimit {
        self.limit.clone()
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
        let pid = program.0.id();
        let course = Course { begin: Instant::now(), pid, images: &images, out: &out, bin, look };
        let mut restored = match method {
            Method::LazyPages => self.carry_lazily(&course)?,
            Method::Whole => self.carry_whole(&course)?,
        };
        let total = course.begin.elapsed();
        let arrived = lines(&out)?.len();
        let hidden = course.hidden(&restored.process)?;
        wait_for(|| Ok(lines(&out)?.len() >= arrived + LINES_AFTER)).context("waiting for its next lines")?;
        let gaps =
            lines(&out)?.into_iter().map(|line| line.gap).take(arrived + LINES_AFTER).skip(restored.said);
        let mut gaps: Vec<Duration> = gaps.collect();
        restored.process.end();
        program.end();
        fs::remove_dir_all(directory).context("removing the images")?;
        let first = gaps.first_mut().context("the program has printed nothing since")?;
        *first += hidden;
        let downtime = *first;
        let longest = gaps.into_iter().max().unwrap_or(downtime);
        Ok(Carried { downtime, longest, total, resident: restored.resident })
    }

    /// Returns when every page has been carried over, with what keeps the restored program alive.
    fn carry_lazily(&self, course: &Course<'_>) -> anyhow::Result<Restored> {
        let port = free_port()?.to_string();
        let (pid, directory) = (course.pid.to_string(), course.directory()?);
        let place = ["--images-dir", directory, "--address", "127.0.0.1", "--port", &port];
        let dump = [&["dump", "--tree", &pid, "--lazy-pages", "-o", "dump.log"], &place[..]].concat();
        let mut dump = Killed::start(&mut self.command(&dump)).context("starting criu dump")?;
        // The last image that it writes before it listens.
        wait_for(|| {
            ensure!(dump.0.try_wait()?.is_none(), "criu dump has ended");
            Ok(course.images.join("inventory.img").exists() && is_listening(&port)?)
        })
        .context("waiting for criu dump")?;
        let said = lines(course.out)?.len();
        let serve = [&["lazy-pages", "--page-server", "-o", "lazy.log"], &place[..]].concat();
        let mut serve = Killed::start(&mut self.command(&serve)).context("starting criu lazy-pages")?;
        wait_for(|| Ok(course.images.join("lazy-pages.socket").exists()))
            .context("waiting for criu lazy-pages")?;
        let mut process = self.restore(&["--lazy-pages", "--images-dir", directory])?;
        let resident = course.look_at_memory(&mut process, &mut serve)?;
        ensure!(serve.0.wait()?.success(), "criu lazy-pages has failed");
        let dumped = dump.0.wait().context("waiting for criu dump")?;
        ensure!(dumped.success(), "criu dump has failed");
        Ok(Restored { process, said, resident })
    }

    /// Returns when the restored program goes on.
    fn carry_whole(&self, course: &Course<'_>) -> anyhow::Result<Restored> {
        let (pid, directory) = (course.pid.to_string(), course.directory()?);
        let dump = ["dump", "--tree", &pid, "--images-dir", directory, "-o", "dump.log"];
        let mut dump = Killed::start(&mut self.command(&dump)).context("starting criu dump")?;
        ensure!(dump.0.wait().context("waiting for criu dump")?.success(), "criu dump has failed");
        let said = lines(course.out)?.len();
        let mut process = self.restore(&["--images-dir", directory])?;
        wait_for(|| {
            ensure!(process.0.try_wait()?.is_none(), "criu restore has ended");
            Ok(course.images.join(RESTORED).exists())
        })
        .context("waiting for the restored program")?;
        Ok(Restored { process, said, resident: Vec::new() })
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

    /// By how much the restored program's clock is behind the machine's.
    fn hidden(&self, restored: &Killed) -> anyhow::Result<Duration> {
        let program = fs::canonicalize(self.bin.join("target")).context("the program is there")?;
        let pid = watch::newcomer(&program, restored.0.id()).context("the restored program is not there")?;
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
        if self.look == Look::Away {
            serve.0.wait().context("waiting for criu lazy-pages")?;
            return Ok(Vec::new());
        }
        let program = fs::canonicalize(self.bin.join("target")).context("the program is there")?;
        let (mut pid, mut found) = (None, Vec::new());
        wait_for(|| {
            ensure!(restored.0.try_wait()?.is_none(), "criu restore has ended");
            pid = pid.or_else(|| watch::newcomer(&program, restored.0.id()));
            found.extend(pid.and_then(watch::resident_kib).map(|kib| (self.begin.elapsed(), kib)));
            Ok(serve.0.try_wait()?.is_some())
        })
        .context("waiting for criu lazy-pages")?;
        Ok(found)
    }
}

impl PipeLimit {
    fn raise() -> anyhow::Result<Self> {
        let limit = fs::read_to_string(PIPE_LIMIT).with_context(|| format!("reading {PIPE_LIMIT}"))?;
        let is_low = limit.trim().parse().is_ok_and(|bytes: u64| bytes < PIPE_BYTES);
        if is_low {
            fs::write(PIPE_LIMIT, PIPE_BYTES.to_string())
                .with_context(|| format!("raising {PIPE_LIMIT}, which takes root"))?;
        }
        Ok(Self { before: is_low.then_some(limit) })
    }
}

impl Drop for PipeLimit {
    fn drop(&mut self) {
        if let Some(limit) = &self.before {
            let _ = fs::write(PIPE_LIMIT, limit);
        }
    }
}

/// A process of ours; killed with its owner.
struct Killed(Child);

impl Killed {
    fn start(command: &mut Command) -> io::Result<Self> {
        interruption::spawn(command).map(Self)
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.end();
    }
}

/// The first error in CRIU's own logs of a move.
pub(super) fn complaint(directory: &Path) -> String {
    let logs = ["dump.log", "lazy.log", "restore.log"].map(|log| directory.join("images").join(log));
    let texts = logs.iter().filter_map(|log| fs::read_to_string(log).ok());
    let errors = texts.filter_map(|text| text.lines().find(|line| line.contains("Error")).map(str::to_owned));
    errors.into_iter().next().unwrap_or_else(|| "nothing".to_owned())
}

/// The program's lines so far; when they came is not known.
fn lines(out: &Path) -> anyhow::Result<Vec<Line>> {
    let text = fs::read_to_string(out).context("reading the program's output")?;
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    let at = Instant::now();
    Ok(whole.lines().filter_map(|line| Line::read(line, at)).collect())
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

fn wait_for(mut holds: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !holds()? {
        if Instant::now() > deadline {
            bail!("nothing more comes");
        }
        thread::park_timeout(LOOK);
    }
    Ok(())
}

fn free_port() -> anyhow::Result<u16> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

/// Whether somebody listens on the port: connecting would use up the page server's only connection.
fn is_listening(port: &str) -> anyhow::Result<bool> {
    const LISTEN: &str = "0A";
    let port = format!(":{:04X}", port.parse::<u16>()?);
    let table = fs::read_to_string("/proc/net/tcp").context("reading /proc/net/tcp")?;
    Ok(table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some(LISTEN)
    }))
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
