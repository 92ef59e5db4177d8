//! Sockets, made here: with their options, connected to each other where both ends are in the process, and with what
//! waited in them. Addresses in the outside world come later ([`mod@super::finish`]).

mod connection;
mod options;
mod private_name;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::fchown;

use nix::libc;
use nix::sys::socket::{AddressFamily, Shutdown, SockFlag, SockType, shutdown, socketpair};
use protocol::{DescriptionKind, Manifest, SocketRecord};
use sys::descriptor::pair;
use sys::{Errno, socket};

use super::super::error::RestoreError;
use crate::peer;
use crate::relaying::Companion;
pub use connection::check_permission;
pub(super) use options::{set_free_bind, set_reuse, set_reuse_port};
pub(in crate::restorer) use private_name::path_of;

const UNIX: u32 = libc::AF_UNIX.unsigned_abs();
const DATAGRAM: u32 = libc::SOCK_DGRAM.unsigned_abs();

/// The sockets of a process, by their index among the descriptions.
#[derive(Debug)]
pub(super) struct Sockets {
    made: BTreeMap<u32, OwnedFd>,
    /// The other ends of those whose peer has closed.
    closed_peers: BTreeMap<u32, OwnedFd>,
    /// Those that have their name, and those that are connected, already.
    named: BTreeSet<u32>,
    connected: BTreeSet<u32>,
    has_moved: bool,
}

/// Refuses what cannot be made here; tries it out where that harms nobody.
pub(super) fn prove(fd: u32, record: &SocketRecord) -> Result<(), RestoreError> {
    if options::is_corked(record) {
        return Err(RestoreError::NotMoved { fd, what: "a corked UDP socket" });
    }
    peer::with_its_rights(|| make(record)).map(|_| ()).map_err(failed(fd))
}

/// Makes every socket of `manifest`.
pub(super) fn make_all(manifest: &Manifest, companion: Option<&Companion>) -> Result<Sockets, RestoreError> {
    // What is root's looks like root itself to whoever it is connected to later.
    let mut sockets = peer::with_its_rights(|| make_each(manifest, companion))?;
    if let Some(sender) = peer::rights() {
        // Who relays is root's, and so is what it makes.
        for (index, ..) in records(manifest).filter(|(_, _, record)| connection::is_relayed(record)) {
            if let Some(made) = sockets.made.get(&index) {
                fchown(made, Some(sender.user), Some(sender.group)).map_err(failed(index))?;
            }
        }
    }
    sockets.give_private_names(manifest);
    Ok(sockets)
}

fn make_each(manifest: &Manifest, companion: Option<&Companion>) -> Result<Sockets, RestoreError> {
    let mut sockets = Sockets {
        made: BTreeMap::new(),
        closed_peers: BTreeMap::new(),
        named: BTreeSet::new(),
        connected: BTreeSet::new(),
        has_moved: false,
    };
    for (index, inode, record) in records(manifest) {
        if sockets.made.contains_key(&index) {
            continue;
        }
        let failed = failed(index);
        if let Some((mate, other)) = mate(manifest, inode, record) {
            let (one, two) = connected(record).map_err(&failed)?;
            for (end, record) in [(&one, record), (&two, other)] {
                options::set(end.as_fd(), record).map_err(&failed)?;
            }
            sockets.made.insert(index, one);
            sockets.made.insert(mate, two);
        } else if has_lost_its_peer(record) {
            let (one, two) = connected(record).map_err(&failed)?;
            options::set(one.as_fd(), record).map_err(&failed)?;
            sockets.made.insert(index, one);
            sockets.closed_peers.insert(index, two);
        } else if connection::is_relayed(record) {
            let fd = number_of(manifest, index);
            let made = relayed(fd, record, companion);
            sockets.made.insert(index, made.map_err(|source| RestoreError::Connection { fd, source })?);
            sockets.named.insert(index);
            // It may be here that it was opened, and that its source relays it.
            sockets.has_moved = true;
        } else if connection::is_connection(record) {
            let made = connection::make(record)
                .map_err(|source| RestoreError::Connection { fd: number_of(manifest, index), source })?;
            sockets.made.insert(index, made);
            sockets.named.insert(index);
            sockets.has_moved = true;
        } else {
            sockets.made.insert(index, make(record).map_err(&failed)?);
        }
    }
    Ok(sockets)
}

/// (index, inode, record) of every socket.
pub(super) fn records(manifest: &Manifest) -> impl Iterator<Item = (u32, u64, &SocketRecord)> {
    (0..).zip(&manifest.descriptions).filter_map(|(index, description)| match &description.kind {
        DescriptionKind::Socket(record) => Some((index, description.inode, record)),
        _ => None,
    })
}

/// The socket that is connected to the one with `inode`, which is connected to it.
fn mate<'a>(manifest: &'a Manifest, inode: u64, record: &SocketRecord) -> Option<(u32, &'a SocketRecord)> {
    let is_mate = |other: u64, found: &SocketRecord| {
        record.domain == UNIX
            && record.peer == other
            && found.peer == inode
            && other != inode
            && (found.domain, found.kind) == (record.domain, record.kind)
            && found.backlog.is_none()
    };
    records(manifest).find(|(_, other, found)| is_mate(*other, found)).map(|(index, _, found)| (index, found))
}

/// Whether the socket was connected to one that is gone.
fn has_lost_its_peer(record: &SocketRecord) -> bool {
    let is_connected = !record.peer_address.is_empty();
    record.domain == UNIX
        && record.backlog.is_none()
        && record.peer == 0
        && is_connected
        && pair::peer_inode(&record.diagnosis).is_none()
}

/// Whether the record is of a connected Unix socket that hears from its peer only: its name leads nobody to it.
pub(super) fn is_connected_stream(record: &SocketRecord) -> bool {
    record.domain == UNIX
        && record.kind != DATAGRAM
        && record.backlog.is_none()
        && !record.peer_address.is_empty()
}

fn make(record: &SocketRecord) -> io::Result<OwnedFd> {
    let made = socket::make(record.domain, record.kind, record.protocol)?;
    options::set(made.as_fd(), record)?;
    Ok(made)
}

/// The program's end of a connection that stays at the source.
fn relayed(fd: u32, record: &SocketRecord, companion: Option<&Companion>) -> io::Result<OwnedFd> {
    let companion = companion.ok_or_else(|| io::Error::other("its source has opened no way to relay it"))?;
    let made = companion.make(fd, record)?;
    options::set(made.as_fd(), record)?;
    if connection::has_ended(record) {
        shutdown(made.as_raw_fd(), Shutdown::Write)?;
    }
    Ok(made)
}

fn connected(record: &SocketRecord) -> io::Result<(OwnedFd, OwnedFd)> {
    let kind = match record.kind.cast_signed() {
        libc::SOCK_STREAM => SockType::Stream,
        libc::SOCK_DGRAM => SockType::Datagram,
        libc::SOCK_SEQPACKET => SockType::SeqPacket,
        other => return Err(io::Error::other(format!("socket type {other}"))),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, kind, None, flags)?)
}

impl Sockets {
    /// Whether there are open connections among them, or what holds their addresses here.
    pub(super) const fn has_moved(&self) -> bool {
        self.has_moved
    }

    /// Lets the connections of `manifest` go, which are silent until then; tells of those that are not what they were.
    pub(super) fn let_go(&self, manifest: &Manifest) {
        for (index, _, record) in records(manifest).filter(|(_, _, record)| connection::is_connection(record))
        {
            let Some(made) = self.made.get(&index) else { continue };
            if let Err(error) = connection::let_go(made.as_fd(), record) {
                let fd = number_of(manifest, index);
                tracing::warn!(fd, %error, "a connection is not what it was");
            }
        }
    }

    /// The socket of description `index`.
    pub(super) fn get(&self, index: u32) -> Option<&OwnedFd> {
        self.made.get(&index)
    }

    /// Whether the socket of description `index` has its name already.
    pub(super) fn has_name(&self, index: u32) -> bool {
        self.named.contains(&index)
    }

    /// Whether the socket of description `index` is connected already.
    pub(super) fn is_connected(&self, index: u32) -> bool {
        self.connected.contains(&index) || self.closed_peers.contains_key(&index)
    }

    /// Gives names to which no path leads: those of connected stream sockets, and of all whose path was deleted; the
    /// latter can be connected to at that moment only.
    fn give_private_names(&mut self, manifest: &Manifest) {
        for (index, inode, record) in records(manifest) {
            let is_deleted = record.name.is_none();
            let (Some(path), Some(made)) = (path_of(&record.address), self.made.get(&index)) else {
                continue;
            };
            if !is_deleted && !is_connected_stream(record) {
                continue;
            }
            let is_client = |other: u64, found: &SocketRecord| {
                is_deleted && found.peer == inode && (other == inode || record.peer != other)
            };
            let clients: Vec<u32> = records(manifest)
                .filter(|(_, other, found)| is_client(*other, found))
                .map(|(client, ..)| client)
                .collect();
            let fds: Vec<BorrowedFd<'_>> =
                clients.iter().filter_map(|client| self.made.get(client)).map(AsFd::as_fd).collect();
            match private_name::give(made, record, path, &fds) {
                Ok(()) => {
                    self.named.insert(index);
                    self.connected.extend(clients);
                }
                Err(error) => tracing::debug!(%error, "a socket has no name that nobody can find"),
            }
        }
    }

    /// Puts into connected sockets what waited in them, and closes or shuts down what was. `descriptor` is asked for the
    /// descriptors that were in flight, by description.
    pub(super) fn fill(
        &mut self,
        manifest: &Manifest,
        mut descriptor: impl FnMut(&Self, u32) -> Result<OwnedFd, RestoreError>,
    ) -> Result<(), RestoreError> {
        for (index, inode, record) in records(manifest) {
            let mate = mate(manifest, inode, record).map(|(mate, _)| mate);
            let sender = mate.and_then(|mate| self.made.get(&mate)).or(self.closed_peers.get(&index));
            let Some(sender) = sender else { continue };
            let with_room = options::Room::make(sender.as_fd(), record);
            for message in &record.messages {
                let rights: Vec<OwnedFd> = message
                    .descriptions
                    .iter()
                    .map(|index| descriptor(self, *index))
                    .collect::<Result<_, _>>()?;
                let rights: Vec<BorrowedFd<'_>> = rights.iter().map(AsFd::as_fd).collect();
                let sent = socket::send(sender.as_fd(), &message.content, &[], &rights);
                sent.map_err(|errno| failed(index)(errno.into()))?;
            }
            with_room.give_back();
        }
        let lost: Vec<u32> = core::mem::take(&mut self.closed_peers).into_keys().collect();
        self.connected.extend(lost);
        for (index, _, record) in records(manifest) {
            let Some(made) = self.made.get(&index) else { continue };
            if record.domain == UNIX
                && record.peer != 0
                && let Some(how) = how_it_is_shut_down(record)
            {
                shutdown(made.as_raw_fd(), how).map_err(|errno| failed(index)(errno.into()))?;
            }
        }
        self.made.iter().try_for_each(|(index, made)| {
            let found = records(manifest).find(|(known, ..)| known == index);
            found.map_or(Ok(()), |(_, _, record)| {
                options::set_filter(made.as_fd(), record).map_err(failed(*index))
            })
        })
    }
}

/// Which directions of a socket are closed.
pub(super) fn how_it_is_shut_down(record: &SocketRecord) -> Option<Shutdown> {
    const UNIX_DIAG_SHUTDOWN: u16 = 6;
    const INET_DIAG_SHUTDOWN: u16 = 8;
    let found = match record.domain {
        UNIX => pair::attribute(&record.diagnosis, UNIX_DIAG_SHUTDOWN),
        _ => pair::datagram_attribute(&record.diagnosis, INET_DIAG_SHUTDOWN),
    };
    match found?.first()? {
        1 => Some(Shutdown::Read),
        2 => Some(Shutdown::Write),
        3 => Some(Shutdown::Both),
        _ => None,
    }
}

/// Proves that every address of the outside world could be bound; one in use is as good if it is the source itself, on
/// this machine, that uses it.
pub(in super::super) fn check_addresses(manifest: &Manifest, same_kernel: bool) -> Result<(), RestoreError> {
    for (index, _, record) in records(manifest) {
        let is_internet = matches!(record.domain.cast_signed(), libc::AF_INET | libc::AF_INET6);
        if record.address.is_empty() || !is_internet {
            continue;
        }
        let fd = number_of(manifest, index);
        let probe = peer::with_its_rights(|| make(record)).map_err(failed(fd))?;
        // On this machine it may be an address that has gone since it was bound.
        if same_kernel {
            options::set_free_bind(probe.as_fd(), record, true);
        }
        if let Err(errno) = socket::bind(probe.as_fd(), &record.address)
            && !(same_kernel && is_in_use(errno))
        {
            return Err(RestoreError::Address { fd, errno });
        }
    }
    Ok(())
}

/// Refuses open connections, which nobody has asked for.
pub(in super::super) fn refuse_connections(manifest: &Manifest) -> Result<(), RestoreError> {
    let what = "an open connection, which was to be reset";
    let found = records(manifest).find(|(_, _, record)| !record.connection.is_empty());
    found.map_or(Ok(()), |(index, ..)| Err(RestoreError::NotMoved { fd: number_of(manifest, index), what }))
}

/// How many connections of `manifest` are relayed.
#[must_use]
pub fn count_relayed(manifest: &Manifest) -> usize {
    records(manifest).filter(|(_, _, record)| connection::is_relayed(record)).count()
}

/// The first number of description `index`.
fn number_of(manifest: &Manifest, index: u32) -> u32 {
    let first = manifest.descriptors.iter().find(|descriptor| descriptor.description == index);
    first.map_or(0, |descriptor| descriptor.fd)
}

/// Whether somebody else has the address.
pub(super) fn is_in_use(errno: Errno) -> bool {
    io::Error::from(errno).kind() == ErrorKind::AddrInUse
}

fn failed(fd: u32) -> impl Fn(io::Error) -> RestoreError {
    move |source| RestoreError::Descriptor { fd, what: "a socket", source }
}
