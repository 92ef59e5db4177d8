//! The program `criu`: where it is, and what it answers.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;

use crate::config::{CRIU_DEADLINE, OUTPUT_BYTES};

/// Where `make criu` leaves one, unless `CRIU_PREFIX` names another place.
const PREFIX: &str = "/usr/local/lib/posthaste";

/// A `criu` that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Criu {
    path: PathBuf,
}

/// What criu has said to a question.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Whether it exited with success.
    pub(crate) yes: bool,
    /// Both its outputs.
    pub(crate) text: String,
}

impl Answer {
    /// The line that says most about a failure.
    pub(crate) fn complaint(&self) -> &str {
        let is_error = |line: &&str| line.contains("Error") || line.contains("rror:");
        let line = self.text.lines().find(is_error).or_else(|| self.text.lines().last());
        line.unwrap_or("it says nothing").trim()
    }
}

impl Criu {
    /// The given one; else the one that `make criu` has left in `prefix`, or the first on `search`, which is a list like
    /// `PATH`.
    pub(crate) fn find(given: Option<&Path>, prefix: &Path, search: Option<&OsStr>) -> Option<Self> {
        let found = match given {
            Some(path) => Some(path.to_owned()).filter(|path| is_program(path)),
            None => std::iter::once(prefix.to_owned())
                .chain(search.into_iter().flat_map(std::env::split_paths))
                .map(|directory| directory.join("criu"))
                .find(|path| is_program(path)),
        };
        found.map(|path| Self { path })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its version, such as `4.1.1`.
    pub(crate) fn version(&self) -> Option<String> {
        let answer = self.ask(&["--version"]).ok()?;
        answer.text.lines().find_map(|line| line.strip_prefix("Version:")).map(|text| text.trim().to_owned())
    }

    /// Starts it with `arguments` and waits for its answer.
    ///
    /// # Errors
    /// It cannot be started, or does not answer in time.
    pub(crate) fn ask(&self, arguments: &[&str]) -> io::Result<Answer> {
        let mut child = Command::new(&self.path)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let (sender, answers) = mpsc::channel();
        let mut readers = 0;
        for stream in outputs(&mut child) {
            let sender = sender.clone();
            thread::Builder::new().name("criu-output".to_owned()).spawn(move || {
                let mut text = Vec::new();
                let read = stream.take(OUTPUT_BYTES).read_to_end(&mut text);
                // The receiver is gone when the deadline has passed.
                let _ = sender.send(read.map(|_| text));
            })?;
            readers += 1;
        }
        let mut text = String::new();
        for _ in 0..readers {
            let Ok(part) = answers.recv_timeout(CRIU_DEADLINE) else {
                child.kill()?;
                child.wait()?;
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it does not answer"));
            };
            text.push_str(&String::from_utf8_lossy(&part?));
        }
        // It has closed its outputs, so that it is about to end.
        let status: ExitStatus = child.wait()?;
        Ok(Answer { yes: status.success(), text })
    }
}

/// Where a criu of our own may be.
pub(crate) fn prefix() -> PathBuf {
    std::env::var_os("CRIU_PREFIX").map_or_else(|| PathBuf::from(PREFIX), PathBuf::from)
}

fn outputs(child: &mut Child) -> Vec<Box<dyn Read + Send>> {
    let mut streams: Vec<Box<dyn Read + Send>> = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        streams.push(Box::new(stdout));
    }
    if let Some(stderr) = child.stderr.take() {
        streams.push(Box::new(stderr));
    }
    streams
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}
