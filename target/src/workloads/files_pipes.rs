//! `files_pipes`: descriptors of every sort that stays inside the process, used round after round without being
//! opened again.
//!
//! TCP connections are made only at the end, when whatever was to happen to the process has happened: one that is open
//! during a move is reset by it.

mod conversations;
mod plumbing;
mod regular;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use anyhow::{Context as _, Result, ensure};

use crate::progress::Progress;
use crate::workloads::files_pipes::conversations::Conversations;
use crate::workloads::files_pipes::plumbing::Plumbing;
use crate::workloads::files_pipes::regular::Files;

/// Uses every descriptor in each round; connects to its own listening socket at the end.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").context("listening")?;
    let address = listener.local_addr().context("the listening socket's address")?;
    let mut files = Files::create()?;
    let mut plumbing = Plumbing::create()?;
    let mut conversations = Conversations::create()?;
    let mut round = 0;
    while progress.goes_on() {
        files.round(round).context("regular files")?;
        plumbing.round(round).context("pipes and events")?;
        conversations.round().context("sockets and timers")?;
        let at = listener.local_addr().context("the listening socket's address")?;
        ensure!(at == address, "the listening socket is at {at}, not at {address}");
        round += 1;
        progress.round_ok()?;
    }
    converse(&listener).context("the listening socket")?;
    conversations.remove()?;
    files.remove()
}

/// Connects to the own listening socket and says something both ways.
fn converse(listener: &TcpListener) -> Result<()> {
    let mut near = TcpStream::connect(listener.local_addr()?).context("connecting")?;
    let (mut far, _) = listener.accept().context("accepting")?;
    let mut said = [0; 5];
    near.write_all(b"there")?;
    far.read_exact(&mut said)?;
    ensure!(&said == b"there", "heard {said:?}");
    far.write_all(b"again")?;
    near.read_exact(&mut said)?;
    ensure!(&said == b"again", "heard {said:?}");
    Ok(())
}
