//! The sending process of a floor.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::{Context as _, anyhow, ensure};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sys::net::connect_within;

use super::{BLOCK, PAGE, SILENCE, hurry};

/// Has memory and sends it: first over one connection, and what it is asked for over another.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Send {
    #[arg(long)]
    mib: usize,
    #[arg(long)]
    port: u16,
    #[arg(long)]
    push: bool,
}

impl Send {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let memory = filled(self.mib << 20);
        let (mut requests, mut bulk) = (self.connect()?, self.connect()?);
        hurry(&requests)?;
        hurry(&bulk)?;
        requests.read_exact(&mut [0]).context("waiting for the start")?;
        bulk.set_nonblocking(true).context("preparing a connection")?;
        let mut sent = if self.push { 0 } else { memory.len() };
        loop {
            let [asked, room] = wait(&requests, &bulk, sent < memory.len())?;
            if asked && !answer(&mut requests, &memory)? {
                return Ok(());
            }
            if room {
                let block = memory.get(sent..memory.len().min(sent + BLOCK)).unwrap_or_default();
                match bulk.write(block) {
                    Ok(written) => sent += written,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error).context("sending"),
                }
            }
        }
    }

    fn connect(self) -> anyhow::Result<TcpStream> {
        let address = (Ipv4Addr::LOCALHOST, self.port).into();
        let socket = connect_within(address, SILENCE).map_err(|errno| anyhow!("connecting: {errno}"))?;
        let stream = TcpStream::from(OwnedFd::from(socket));
        stream.set_nonblocking(false).context("preparing a connection")?;
        Ok(stream)
    }
}

/// Memory that no page of is like another, and none is zero.
fn filled(bytes: usize) -> Vec<u8> {
    let word = |index: u64| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..bytes as u64 / 8).flat_map(|index| word(index).to_ne_bytes()).collect()
}

/// Whether something is asked, and whether there is room to push, if that is wanted.
fn wait(requests: &TcpStream, bulk: &TcpStream, wanted: bool) -> anyhow::Result<[bool; 2]> {
    let silence = PollTimeout::try_from(SILENCE).context("a timeout")?;
    let push = if wanted { PollFlags::POLLOUT } else { PollFlags::empty() };
    let mut fds = [PollFd::new(requests.as_fd(), PollFlags::POLLIN), PollFd::new(bulk.as_fd(), push)];
    ensure!(poll(&mut fds, silence).context("waiting")? > 0, "nobody asks for anything");
    Ok(fds.map(|fd| fd.any().unwrap_or(false)))
}

/// Sends the page that is asked for; false when nothing will be asked any more.
fn answer(requests: &mut TcpStream, memory: &[u8]) -> anyhow::Result<bool> {
    let mut number = [0; 8];
    match requests.read_exact(&mut number) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error).context("reading a request"),
    }
    let page = usize::try_from(u64::from_ne_bytes(number)).context("a page number")?;
    let bytes = memory.get(page * PAGE..(page + 1) * PAGE).context("a page that there is")?;
    let message = [&number[..], bytes].concat();
    requests.write_all(&message).context("sending a page")?;
    Ok(true)
}
