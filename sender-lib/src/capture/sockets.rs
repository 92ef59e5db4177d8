//! Sockets: what can be bound again, what is lost, and pairs inside the process.

use alloc::vec::Vec;

use protocol::{DescriptionKind, Listener, SocketPairRecord};
use sys::descriptor::socket::{self, Kind, TcpState};
use sys::descriptor::{self, pair, pipe};
use sys::status::FileType;

use super::descriptors::{Context, Facts, stream_for};
use super::refusal::{DescriptorTrait, Doing, Note, Refusal};

/// `AF_NETLINK`
const NETLINK: u32 = 16;

/// The manifest's socket pairs.
#[derive(Default)]
pub(crate) struct Pairs {
    records: Vec<SocketPairRecord>,
    /// Inodes of the ends, as in `records`.
    inodes: Vec<[u64; 2]>,
}

impl Pairs {
    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<SocketPairRecord> {
        self.records
    }

    /// The index of the pair that the socket with `inode` belongs to, and which end it is.
    fn find(&self, inode: u64) -> Option<(usize, u8)> {
        let index = self.inodes.iter().position(|ends| ends.contains(&inode))?;
        let [first, _] = *self.inodes.get(index)?;
        Some((index, u8::from(first != inode)))
    }
}

/// The kind of the description behind `facts`, a socket.
pub(crate) fn kind(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let failed = Refusal::kernel(Doing::Socket);
    let kind = socket::kind(facts.fd).map_err(&failed)?;
    if !matches!(kind.domain, socket::UNIX | socket::INET | socket::INET6 | NETLINK) {
        return Err(facts.refuse(DescriptorTrait::Socket(kind.domain)));
    }
    if kind.listening {
        return listener(facts.fd, kind, context);
    }
    let is_connected = match kind.protocol {
        socket::TCP => socket::tcp_state(facts.fd).map_err(&failed)? == TcpState::Connected,
        _ => socket::is_connected(facts.fd).map_err(&failed)?,
    };
    if !is_connected {
        let address = socket::own_address(facts.fd).map_err(&failed)?;
        let Kind { domain, kind, protocol, .. } = kind;
        let address = if is_bound(domain, &address) { address } else { Vec::new() };
        return Ok(DescriptionKind::Socket { domain, kind, protocol, address });
    }
    if kind.domain == socket::UNIX {
        if let Some(end) = end_of_pair(facts, kind, context)? {
            return Ok(end);
        }
        if let Some(stream) = stream_for(facts, context.all) {
            return Ok(DescriptionKind::Stream(stream));
        }
    }
    // Where the other side has hung up, nothing is lost.
    if !descriptor::readiness(facts.fd).map_err(&failed)?.hang_up {
        context.notes.push(Note::LostConnection(facts.fd));
    }
    Ok(DescriptionKind::LostConnection { domain: kind.domain })
}

/// The end of a pair that `facts` is, if its other end is in the process too.
fn end_of_pair(
    facts: &Facts,
    kind: Kind,
    context: &mut Context<'_>,
) -> Result<Option<DescriptionKind>, Refusal> {
    let inode = facts.status.inode;
    if context.pairs.find(inode).is_none() {
        let Some(peer) = pair::peer_inode(inode) else { return Ok(None) };
        let is_peer =
            |other: &&Facts| other.status.file_type == FileType::Socket && other.status.inode == peer;
        let Some(other) = context.all.iter().find(is_peer) else { return Ok(None) };
        let content = [content(facts, kind, context)?, content(other, kind, context)?];
        context.pairs.records.push(SocketPairRecord { kind: kind.kind, content });
        context.pairs.inodes.push([inode, peer]);
    }
    let found = context.pairs.find(inode);
    Ok(found.map(|(pair, end)| DescriptionKind::SocketPair {
        pair: u32::try_from(pair).unwrap_or(u32::MAX),
        end,
    }))
}

/// What one end has received: only counted while the process runs. Messages keep their bounds in a record of bytes only
/// if there are none.
fn content(end: &Facts, kind: Kind, context: &mut Context<'_>) -> Result<Vec<u8>, Refusal> {
    let failed = Refusal::kernel(Doing::Socket);
    let bytes = pipe::in_flight(end.fd).map_err(&failed)? as usize;
    context.take(bytes)?;
    if bytes == 0 || !context.is_stopped {
        return Ok(Vec::new());
    }
    if kind.kind != socket::STREAM {
        return Err(end.refuse(DescriptorTrait::InFlight));
    }
    pair::peek(end.fd).map_err(|_| end.refuse(DescriptorTrait::InFlight))
}

fn listener(fd: u32, kind: Kind, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let failed = Refusal::kernel(Doing::Socket);
    let is_internet = kind.domain != socket::UNIX;
    let backlog = if is_internet {
        match socket::tcp_state(fd).map_err(&failed)? {
            TcpState::Listening(backlog) => backlog,
            TcpState::Closed | TcpState::Connected => 0,
        }
    } else {
        // The kernel tells a Unix socket's backlog to nobody: what it allows at most by default.
        4096
    };
    if descriptor::readiness(fd).map_err(&failed)?.input {
        context.notes.push(Note::QueuedConnections(fd));
    }
    Ok(DescriptionKind::Listener(Listener {
        domain: kind.domain,
        address: socket::own_address(fd).map_err(&failed)?,
        backlog,
        reuse_address: is_internet && socket::reuses_address(fd).map_err(&failed)?,
        reuse_port: is_internet && socket::reuses_port(fd).map_err(&failed)?,
        v6_only: kind.domain == socket::INET6 && socket::is_v6_only(fd).map_err(&failed)?,
    }))
}

/// Whether `address` says more than its family: a port, or a name.
fn is_bound(domain: u32, address: &[u8]) -> bool {
    match domain {
        socket::UNIX => address.len() > 2,
        socket::INET | socket::INET6 => address.get(2..4).is_some_and(|port| port != [0, 0]),
        _ => true,
    }
}
