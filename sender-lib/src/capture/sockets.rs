//! Sockets: what can be bound again, what is lost, and pairs inside the process.

use alloc::vec::Vec;

use protocol::{DescriptionKind, Listener, SocketPairRecord};
use sys::descriptor::socket::{self, Kind, TcpState};

use super::descriptors::{Context, Facts, stream_for};
use super::refusal::{DescriptorTrait, Doing, Note, Refusal};

/// `AF_NETLINK`
const NETLINK: u32 = 16;

/// The manifest's socket pairs.
#[derive(Default)]
pub(crate) struct Pairs {
    records: Vec<SocketPairRecord>,
}

impl Pairs {
    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<SocketPairRecord> {
        self.records
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
    if let Some(stream) = stream_for(facts, context.all).filter(|_| kind.domain == socket::UNIX) {
        return Ok(stream);
    }
    context.notes.push(Note::LostConnection(facts.fd));
    Ok(DescriptionKind::LostConnection { domain: kind.domain })
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
    if sys::descriptor::readiness(fd).map_err(&failed)?.input {
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
