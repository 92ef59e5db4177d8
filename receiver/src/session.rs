//! One migration in a process of its own: from the greeted channels to the end of the migrated program.
//!
//! ```text
//! daemon ──sockets, event pipe──► session ──► fault-handler's loop ──► migrant ──► restorer, guardian
//!    ▲                               │                                    │
//!    └────────── event lines ────────┴────────────────────────────────────┘
//! ```
//!
//! The process is the guardian's child. Until it has all its memory it lives and dies with this session, which
//! dies with the daemon; afterwards the session only waits for its end, to tell of it.

mod construction;
mod migrant;
mod report;
mod teller;

use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::process::ExitCode;

use anyhow::Context;
use engine::Config;
use fault_handler::{Channels, FaultHandler};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use self::migrant::Migrant;
use self::teller::Teller;
use crate::inherited::Inherited;

/// Runs the session whose descriptors were inherited from the daemon.
///
/// # Errors
/// What made the session end early; the daemon tells its user.
pub fn run(inherited: Inherited) -> anyhow::Result<ExitCode> {
    let Inherited { migration: _, control, fault, push, events } = inherited;
    raise_descriptor_limit();
    let channels = Channels::new(stream(control), stream(fault), stream(push));
    let mut migrant = Migrant::new(Teller::new(events));
    let handler = FaultHandler::new(&mut migrant, channels, Config::default())
        .context("preparing to wait for the source")?;
    let ended = handler.run();
    migrant.conclude(ended);
    migrant.follow().context("waiting for the end of the process")?;
    Ok(ExitCode::SUCCESS)
}

fn stream(socket: OwnedFd) -> mio::net::TcpStream {
    mio::net::TcpStream::from_std(TcpStream::from(socket))
}

/// Every child that the process forks before it has all its memory costs a descriptor here.
fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it there is room for fewer children, and the loop says so when it comes to that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
