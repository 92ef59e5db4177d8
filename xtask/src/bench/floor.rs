//! What the machine can do without any promise: the limits that every figure stands beside.
//!
//! ```text
//! send     a process that has memory, sends it from its beginning to its end if it is to, and any page that it is asked for
//! receive  a process that takes it, installs it if it is to, and lets a thread of its own touch it in random order if it is to
//! install  memory filled by one thread, without anybody to receive it from
//! ```
//!
//! Both processes are this program, started anew (`xtask floor …`). They check nothing, recover from nothing, keep
//! nothing: what they lack is what a migration costs.

mod install;
mod receive;
mod send;

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use memory::PAGE_SIZE;
use serde_json::Value;

pub(super) use self::install::{gigabytes, install_gb_per_s};
use super::place::Place;
use super::programs::Running;

/// Bytes that are sent and installed in one go.
const BLOCK: usize = 256 << 10;
const PAGE: usize = 4096;
const _: () = assert!(PAGE as u64 == PAGE_SIZE, "the kernel's page");
/// Every wait of one process for the other.
const SILENCE: Duration = Duration::from_secs(60);

/// The processes of a floor.
#[derive(clap::Subcommand, Clone, Copy, Debug)]
pub(crate) enum Floor {
    /// Has memory and sends it
    Send(send::Send),
    /// Takes it
    Receive(receive::Receive),
}

impl Floor {
    /// Does what it says.
    ///
    /// # Errors
    /// A connection that breaks, memory that cannot be served.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Send(send) => send.run(),
            Self::Receive(receive) => receive.run(),
        }
    }
}

/// What passes between the two processes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passage {
    /// Memory in MiB.
    pub(super) mib: u64,
    /// Whether it is sent without being asked for.
    pub(super) push: bool,
    /// Whether it is installed, or read into a buffer and forgotten.
    pub(super) install: bool,
    /// Whether a thread touches it meanwhile.
    pub(super) reader: bool,
    /// Who runs where.
    pub(super) place: Place,
}

impl Passage {
    /// Starts both processes; what the receiving one has measured.
    ///
    /// # Errors
    /// One of them has failed.
    pub(super) fn carry_out(self) -> anyhow::Result<Value> {
        let this = std::env::current_exe().context("this program's own file")?;
        let mut receive = Running::start(&mut self.receive(&this), self.place.of_receiver())?;
        let (_, listening) = receive.event("listening")?;
        let port = listening["port"].as_u64().context("it says its port")?;
        let mut send = Running::start(&mut self.send(&this, port), self.place.of_program())?;
        let (_, done) = receive.event("done").context("a floor")?;
        anyhow::ensure!(receive.wait()? && send.wait()?, "a process of a floor has failed");
        Ok(done)
    }

    fn receive(self, this: &Path) -> Command {
        let mut command = Command::new(this);
        command.args(["floor", "receive", "--mib", &self.mib.to_string()]);
        let flags = [(self.push, "--push"), (self.install, "--install"), (self.reader, "--reader")];
        command.args(flags.into_iter().filter_map(|(wanted, flag)| wanted.then_some(flag)));
        if let Some(processor) = self.place.of_program() {
            command.args(["--reader-on", &processor.to_string()]);
        }
        command
    }

    fn send(self, this: &Path, port: u64) -> Command {
        let mut command = Command::new(this);
        command.args(["floor", "send", "--mib", &self.mib.to_string(), "--port", &port.to_string()]);
        if self.push {
            command.arg("--push");
        }
        command
    }
}

/// Makes a connection that [was unpaced from its beginning](sys::net::unpace_if_local) as quick as it can be.
fn hurry(stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true).context("preparing a connection")?;
    stream.set_read_timeout(Some(SILENCE)).context("preparing a connection")?;
    stream.set_write_timeout(Some(SILENCE)).context("preparing a connection")
}
