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

pub mod account;
mod answer;
mod construction;
mod migrant;
mod report;
mod standby;
pub mod teller;
pub mod warm;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use engine::Config;
use fault_handler::{Channels, FaultHandler};
use mio::net::TcpStream;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use transport::Connection;

use self::migrant::Migrant;
use self::teller::Teller;
use crate::confinement;
use crate::inherited::{Inherited, Purpose};
use crate::peer::{self, Peer};
use crate::sealing::connections;

/// Runs the session whose descriptors were inherited from the daemon.
///
/// # Errors
/// What made the session end early; the daemon tells its user.
pub fn run(inherited: Inherited) -> anyhow::Result<ExitCode> {
    let Inherited { migration: _, purpose, control, fault, push, line, sealing, events, policy } = inherited;
    // Who has the key may bring anything.
    let peer = if sealing.is_some() { Peer::Trusted } else { Peer::of(&control) };
    peer::serve(peer).map_err(std::io::Error::from).context("giving up what its sender may not do")?;
    let connections = connections([control, fault, push], sealing)?;
    let (on_loss, patience_s) = match purpose {
        Purpose::Tell(fate) => return answer::tell(fate, connections),
        Purpose::Receive { on_loss, patience_s } => (on_loss, patience_s),
    };
    if let Some(root) = &policy.root {
        confinement::enter(root)?;
    }
    raise_descriptor_limit();
    let channels = over(connections);
    let recovery_deadline = Duration::from_secs(patience_s.into());
    let takes_ahead = policy.takes_ahead();
    let config = Config { on_loss, recovery_deadline, takes_ahead, ..Config::default() };
    let mut migrant = Migrant::new(Teller::new(events), line, policy);
    let handler =
        FaultHandler::new(&mut migrant, channels, config).context("preparing to wait for the source")?;
    let ended = handler.run();
    migrant.conclude(ended);
    migrant.follow().context("waiting for the end of the process")?;
    Ok(ExitCode::SUCCESS)
}

/// Control, fault and push.
#[must_use]
pub fn over(connections: [Connection<TcpStream>; 3]) -> Channels {
    let [control, fault, push] = connections;
    Channels::over(control, fault, push)
}

/// Every child that the process forks before it has all its memory costs a descriptor here.
pub fn raise_descriptor_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // Without it there is room for fewer children, and the loop says so when it comes to that.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
