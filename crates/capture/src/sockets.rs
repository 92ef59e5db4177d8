//! Sockets: what is known of each, what waits in it, and which of them have their other side outside.

use alloc::vec::Vec;

use protocol::{DescriptionKind, MessageRecord, SocketRecord};
use sys::descriptor::socket::{self, Kind, TcpState};
use sys::descriptor::{self, pair, pipe, tcp};
use sys::path::KernelPath;
use sys::status::{self, FileType};
use sys::{Errno, Fd};

use crate::connections;
use crate::descriptors::{self, CONTENT_LIMIT, Context, Facts, stream_for};
use crate::refusal::{DescriptorTrait, Doing, Note, Refusal};

const DATAGRAM: u32 = 2;
const NETLINK: u32 = 16;
/// Numbers of descriptors that were in flight: out of the way of the standard streams. For a table of more than 64 the
/// kernel may wait some 10 ms.
const LOWEST_IN_FLIGHT: u32 = 56;

/// What waits in the sockets of a process that stands still, by inode.
#[derive(Default)]
pub(crate) struct Queues {
    messages: Vec<(u64, Vec<MessageRecord>)>,
    /// Duplicates of the descriptors in flight, open as long as they are looked at.
    _in_flight: Vec<Fd>,
}

/// Looks into every socket; adds the descriptors that are in flight to `all`, and looks into those too.
pub(crate) fn look_into(all: &mut Vec<Facts>) -> Result<Queues, Refusal> {
    let failed = Refusal::kernel(Doing::Socket);
    let mut queues = Queues::default();
    let mut index = 0;
    while let Some(facts) = all.get(index) {
        index += 1;
        let (fd, inode) = (facts.fd, facts.status.inode);
        let is_known = queues.messages.iter().any(|(known, _)| *known == inode);
        if facts.status.file_type != FileType::Socket || facts.flags & descriptor::PATH_ONLY != 0 || is_known
        {
            continue;
        }
        let kind = socket::kind(fd).map_err(&failed)?;
        if kind.listening || kind.protocol == socket::TCP {
            continue;
        }
        let found = pair::messages(fd, kind.kind != DATAGRAM, CONTENT_LIMIT);
        let mut messages = Vec::new();
        for found in found.map_err(|_| Refusal::descriptor(fd, DescriptorTrait::InFlight))? {
            let mut descriptions = Vec::new();
            for descriptor in found.descriptors {
                let descriptor = descriptor.duplicate_from(LOWEST_IN_FLIGHT).map_err(&failed)?;
                let number = descriptor.raw().cast_unsigned();
                all.push(descriptors::look(number, number).map_err(&failed)?);
                descriptions.push(number);
                queues._in_flight.push(descriptor);
            }
            messages.push(MessageRecord { content: found.content, sender: found.sender, descriptions });
        }
        queues.messages.push((inode, messages));
    }
    Ok(queues)
}

impl Queues {
    fn take(&mut self, inode: u64) -> Vec<MessageRecord> {
        let found = self.messages.iter_mut().find(|(known, _)| *known == inode);
        found.map(|(_, messages)| core::mem::take(messages)).unwrap_or_default()
    }
}

/// The kind of the description behind `facts`, a socket.
pub(crate) fn kind(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let failed = Refusal::kernel(Doing::Socket);
    let Kind { domain, kind, protocol, listening } = socket::kind(facts.at).map_err(&failed)?;
    if !matches!(domain, socket::UNIX | socket::INET | socket::INET6 | NETLINK) {
        return Err(facts.refuse(DescriptorTrait::Socket(domain)));
    }
    let address = socket::own_address(facts.at).map_err(&failed)?;
    let mut record = SocketRecord {
        domain,
        kind,
        protocol,
        address: if is_bound(domain, &address) { address } else { Vec::new() },
        peer_address: socket::peer_address(facts.at).map_err(&failed)?.unwrap_or_default(),
        messages: context.queues.take(facts.status.inode),
        ..SocketRecord::default()
    };
    let bytes = record.messages.iter().map(|message| message.content.len()).sum();
    context.take(bytes)?;
    if listening {
        // The kernel tells a Unix socket's backlog to nobody: what it allows at most by default.
        record.backlog = Some(4096);
    }
    let is_outside = if domain == socket::UNIX {
        look_at_unix(facts, context, &mut record)?
    } else if protocol == socket::TCP {
        look_at_tcp(facts.at, &mut record).map_err(&failed)?
    } else {
        if kind == DATAGRAM && !record.peer_address.is_empty() {
            record.diagnosis = pair::datagram_diagnosis(&record.address, &record.peer_address);
        }
        false
    };
    if listening {
        let clients = pair::attribute(&record.diagnosis, pair::CLIENTS).unwrap_or_default();
        if clients.chunks_exact(4).any(|inode| inode == [0; 4]) {
            // Nor into one whose other side has closed.
            return Err(facts.refuse(DescriptorTrait::InFlight));
        }
        if descriptor::readiness(facts.at).map_err(&failed)?.input {
            context.notes.push(Note::QueuedConnections(facts.fd));
        }
    } else if is_outside {
        if domain == socket::UNIX
            && let Some(stream) = stream_for(facts, context.all)
        {
            return Ok(DescriptionKind::Stream(stream));
        }
        if protocol == socket::TCP {
            return outside_connection(facts, record, context);
        }
        // Where the other side has hung up, nothing is lost.
        if !descriptor::readiness(facts.at).map_err(&failed)?.hang_up {
            context.notes.push(Note::LostConnection(facts.fd));
        }
        return Ok(DescriptionKind::LostConnection { domain });
    }
    // A hundred calls: not for the many connections of a server, which are lost.
    record.options = socket::options(facts.at);
    record.filter = socket::filter(facts.at);
    Ok(DescriptionKind::Socket(record))
}

/// A TCP connection to the outside: frozen if it moves, left as it is if it is relayed, else lost.
fn outside_connection(
    facts: &Facts,
    mut record: SocketRecord,
    context: &mut Context<'_>,
) -> Result<DescriptionKind, Refusal> {
    let domain = record.domain;
    let open = tcp::open_connection(facts.at).filter(|_| socket::filter(facts.at).is_empty());
    let Some(info) = open else {
        if context.relays(facts) {
            return Err(facts.refuse(DescriptorTrait::Opening));
        }
        // Where the other side has hung up, nothing is lost.
        if !descriptor::readiness(facts.at).map_err(Refusal::kernel(Doing::Socket))?.hang_up {
            context.notes.push(Note::LostConnection(facts.fd));
        }
        return Ok(DescriptionKind::LostConnection { domain });
    };
    let is_whole = info[0] == tcp::ESTABLISHED;
    record.peer_address = socket::peer_name(facts.at, record.address.len());
    let relays = context.relays(facts);
    let marks = context.marks(facts).filter(|_| is_whole);
    if !relays && marks.is_none() {
        let note = if is_whole { Note::Connection } else { Note::HalfConnection };
        context.notes.push(note(facts.fd));
        return Ok(DescriptionKind::LostConnection { domain });
    }
    // Before it is frozen, which changes some.
    record.options = socket::options(facts.at);
    match marks.filter(|_| !relays) {
        Some(marks) => connections::freeze(facts.fd, marks)?,
        None => record.connection.extend_from_slice(&info),
    }
    Ok(DescriptionKind::Socket(record))
}

/// Completes the record of a Unix socket; whether it is connected to somebody outside.
fn look_at_unix(facts: &Facts, context: &Context<'_>, record: &mut SocketRecord) -> Result<bool, Refusal> {
    const PATH: usize = 2;
    record.diagnosis = pair::diagnosis(facts.status.inode);
    let path = record.address.get(PATH..).unwrap_or_default();
    let path = path.split(|byte| *byte == 0).next().unwrap_or_default();
    let reached = KernelPath::new(path).and_then(|path| status::of_path(path.as_c_str()));
    if let (Ok(found), Some(name)) = (reached, pair::attribute(&record.diagnosis, pair::VFS))
        && name.starts_with(&found.inode.to_ne_bytes()[..4])
    {
        record.name = Some((found.mode, found.owner.0, found.owner.1));
    }
    if record.peer_address.is_empty() || record.backlog.is_some() {
        return Ok(false);
    }
    let mut sockets = context.all.iter().filter(|other| other.status.file_type == FileType::Socket);
    let Some(peer) = pair::peer_inode(&record.diagnosis) else {
        let listener = sockets.find(|other| has_in_queue(other.status.inode, facts.status.inode));
        record.peer = listener.map_or(0, |listener| listener.status.inode);
        // Nobody can look into a connection that has not been accepted.
        if record.peer != 0 && pipe::unread_at_peer(facts.at) != Ok(0) {
            return Err(facts.refuse(DescriptorTrait::InFlight));
        }
        // One that waits outside, or of which this kernel tells nothing, is not closed.
        let is_open = !descriptor::readiness(facts.at).map_err(Refusal::kernel(Doing::Socket))?.hang_up;
        return Ok(record.peer == 0 && record.kind != DATAGRAM && is_open);
    };
    let is_inside = sockets.any(|other| other.status.inode == peer);
    record.peer = if is_inside { peer } else { 0 };
    // A datagram socket is connected by a name, and can be again.
    Ok(!is_inside && (record.kind != DATAGRAM || record.peer_address.len() <= PATH))
}

/// Whether a connection of the socket with inode `client` waits to be accepted by the one with inode `listener`.
fn has_in_queue(listener: u64, client: u64) -> bool {
    let diagnosis = pair::diagnosis(listener);
    let clients = pair::attribute(&diagnosis, pair::CLIENTS).unwrap_or_default();
    clients.chunks_exact(4).any(|inode| client.to_ne_bytes().starts_with(inode))
}

/// Completes the record of a TCP socket; whether it has another side.
fn look_at_tcp(fd: u32, record: &mut SocketRecord) -> Result<bool, Errno> {
    match socket::tcp_state(fd)? {
        // One that was open has an end to be read.
        TcpState::Closed => return Ok(descriptor::readiness(fd)?.input),
        TcpState::Listening(backlog) => record.backlog = Some(backlog),
        TcpState::Connected => return Ok(true),
    }
    Ok(false)
}

/// Whether `address` says more than its family: a port, or a name.
fn is_bound(domain: u32, address: &[u8]) -> bool {
    match domain {
        socket::UNIX => address.len() > 2,
        socket::INET | socket::INET6 => address.get(2..4).is_some_and(|port| port != [0, 0]),
        _ => true,
    }
}
