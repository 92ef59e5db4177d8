//! One move of a workload of `target` by CRIU's lazy pages: dump, page server, lazy-pages daemon and restore on this
//! machine, the restored program in a PID namespace of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::session::{PATIENCE, Sample, WARM_LINES, Workload, gap_of};

/// CRIU keeps pages in pipes of this size, which root may ask for.
const PIPE_BYTES: u64 = 16 << 20;
const PIPE_LIMIT: &str = "/proc/sys/fs/pipe-max-size";
/// How often something that comes as a file is looked for.
const LOOK: Duration = Duration::from_millis(1);
/// Lines of the restored program behind the last page.
const LINES_AFTER: usize = 3;

/// The program, and what it needs of the machine for as long as this lives.
pub(super) struct Criu {
    path: PathBuf,
    /// The machine's own limit, to be put back.
    pipe_limit: Option<String>,
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
        let limit = fs::read_to_string(PIPE_LIMIT).with_context(|| format!("reading {PIPE_LIMIT}"))?;
        let is_low = limit.trim().parse().is_ok_and(|bytes: u64| bytes < PIPE_BYTES);
        if is_low {
            fs::write(PIPE_LIMIT, PIPE_BYTES.to_string())
                .with_context(|| format!("raising {PIPE_LIMIT}, which takes root"))?;
        }
        Ok(Self { path, pipe_limit: is_low.then_some(limit) })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts the program, moves it, ends it. `directory` is made for this and removed.
    ///
    /// # Errors
    /// A step that fails, with the place of its log.
    pub(super) fn move_once(
        &self,
        bin: &Path,
        workload: Workload,
        directory: &Path,
    ) -> anyhow::Result<Sample> {
        let images = directory.join("images");
        fs::create_dir_all(&images).context("making a directory for images")?;
        let out = directory.join("out");
        let stdout = File::create(&out).context("making the program's output")?;
        // CRIU wants the leader of its session; this one does not fork for that, because it leads no group.
        let mut program = Killed(
            Command::new("setsid")
                .arg(bin.join("target"))
                .args(workload.command(bin).get_args())
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(Stdio::null())
                .spawn()
                .context("starting the program")?,
        );
        wait_for(|| Ok(lines(&out)?.len() >= WARM_LINES)).context("waiting for the program to be warm")?;
        let pid = program.0.id();
        let before = lines(&out)?.len();
        let begin = Instant::now();
        let mut restored = self.carry_over(pid, &images)?;
        let total = begin.elapsed();
        let arrived = lines(&out)?.len();
        wait_for(|| Ok(lines(&out)?.len() >= arrived + LINES_AFTER)).context("waiting for its next lines")?;
        let gaps: Vec<Duration> = lines(&out)?.iter().skip(before).filter_map(|gap| *gap).collect();
        restored.end();
        program.end();
        fs::remove_dir_all(directory).context("removing the images")?;
        let longest = gaps.into_iter().max().context("the program has printed nothing since")?;
        Ok(Sample { longest, total, ..Sample::default() })
    }

    /// Returns when every page has been carried over, with what keeps the restored program alive.
    fn carry_over(&self, pid: u32, images: &Path) -> anyhow::Result<Killed> {
        let port = free_port()?.to_string();
        let (pid, directory) = (pid.to_string(), images.to_str().context("a path of text")?);
        let place = ["--images-dir", directory, "--address", "127.0.0.1", "--port", &port];
        let dump = [&["dump", "--tree", &pid, "--lazy-pages", "-o", "dump.log"], &place[..]].concat();
        let mut dump = Killed(self.command(&dump).spawn().context("starting criu dump")?);
        // The last image that it writes before it listens.
        wait_for(|| {
            ensure!(dump.0.try_wait()?.is_none(), "criu dump has ended: see {directory}/dump.log");
            Ok(images.join("inventory.img").exists() && is_listening(&port)?)
        })
        .context("waiting for criu dump")?;
        let serve = [&["lazy-pages", "--page-server", "-o", "lazy.log"], &place[..]].concat();
        let mut serve = Killed(self.command(&serve).spawn().context("starting criu lazy-pages")?);
        wait_for(|| Ok(images.join("lazy-pages.socket").exists())).context("waiting for criu lazy-pages")?;
        let restored = Killed(
            Command::new("unshare")
                .args(["--pid", "--fork", "--mount-proc", "--kill-child"])
                .arg(&self.path)
                .args(["restore", "--lazy-pages", "--images-dir", directory, "-o", "restore.log"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("starting criu restore")?,
        );
        let served = serve.0.wait().context("waiting for criu lazy-pages")?;
        ensure!(served.success(), "criu lazy-pages has failed: see {directory}/lazy.log");
        let dumped = dump.0.wait().context("waiting for criu dump")?;
        ensure!(dumped.success(), "criu dump has failed: see {directory}/dump.log");
        Ok(restored)
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        if let Some(limit) = &self.pipe_limit {
            let _ = fs::write(PIPE_LIMIT, limit);
        }
    }
}

/// A process of ours; killed with its owner.
struct Killed(Child);

impl Killed {
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

/// The program's lines so far, each with the gap that it names.
fn lines(out: &Path) -> anyhow::Result<Vec<Option<Duration>>> {
    let text = fs::read_to_string(out).context("reading the program's output")?;
    let whole = text.rfind('\n').map_or("", |end| text.get(..end).unwrap_or_default());
    whole.lines().map(gap_of).collect()
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
