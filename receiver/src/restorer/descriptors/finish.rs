//! What exists once only: addresses, and connections that are made by name. Taken when the source has let go of them,
//! so what cannot be had any more is told, not refused.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory::Addr;
use nix::libc;
use nix::sys::socket::{Shutdown, shutdown};
use protocol::{Manifest, SocketRecord};
use sys::{Errno, socket};

use super::super::credentials::as_its_sender;
use super::super::{BlankChild, RestoreError, Step};
use super::anonymous;
use super::sockets::{self, Sockets};
use crate::confinement::Place;
use crate::peer;

/// How long the source, on this very machine, may take to let go of what it has.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait between two attempts: the kernel has no event for an address that becomes free.
const PAUSE: Duration = Duration::from_millis(1);

const UNIX: u32 = libc::AF_UNIX.unsigned_abs();
const DATAGRAM: u32 = libc::SOCK_DGRAM.unsigned_abs();

/// What is left to do.
#[derive(Debug)]
pub(in super::super) struct Finish {
    binds: Vec<Bind>,
    connections: Vec<Connection>,
    /// Messages to sockets that nobody was connected to: descriptor, where to, and what.
    letters: Vec<Letter>,
    sockets: Sockets,
    inotifies: Vec<OwnedFd>,
}

/// An address that a socket of the child shall be bound to.
#[derive(Debug)]
struct Bind {
    /// The socket's descriptor in the child.
    fd: u32,
    /// Its description.
    index: u32,
    record: SocketRecord,
}

/// A connection that is made by name.
#[derive(Debug)]
struct Connection {
    fd: u32,
    index: u32,
    to: Vec<u8>,
    /// The socket of the program that listens there, if that is what it waits at: a description.
    listener: Option<u32>,
    shut_down: Option<Shutdown>,
}

#[derive(Debug)]
struct Letter {
    /// Whom it waited for: a description.
    recipient: u32,
    /// Who sent it, if that is in the process: a description.
    sender: Option<u32>,
    domain: u32,
    to: Vec<u8>,
    content: Vec<u8>,
}

impl Finish {
    /// What is left to do for the descriptors of `manifest`; `first` has the first number of each description.
    pub(super) fn new(
        manifest: &Manifest,
        (sockets, inotifies): (Sockets, Vec<OwnedFd>),
        first: &BTreeMap<u32, u32>,
    ) -> Self {
        let mut binds = Vec::new();
        let mut letters = Vec::new();
        for (index, _, record) in sockets::records(manifest) {
            let Some(&fd) = first.get(&index) else { continue };
            if !sockets.has_name(index) && is_bound_at_last(manifest, index, record) {
                binds.push(Bind { fd, index, record: record.clone() });
            }
            letters.extend(letters_to(manifest, index, record));
        }
        // A path that was deleted is bound, and deleted again, before another socket takes it.
        binds.sort_by_key(|bind| bind.record.name.is_some());
        Self { connections: connections(manifest, &sockets, first), binds, letters, sockets, inotifies }
    }

    /// Lets open connections go, which are silent until then: right before the program runs.
    pub(in super::super) fn let_connections_go(&self, manifest: &Manifest) {
        self.sockets.let_go(manifest);
    }
}

/// Whether the socket is bound where the outside world may look for it. An accepted one has the name of the one that
/// listens.
fn is_bound_at_last(manifest: &Manifest, index: u32, record: &SocketRecord) -> bool {
    let is_same =
        |(other, _, found): (u32, u64, &SocketRecord)| other != index && found.address == record.address;
    let is_accepted = sockets::is_connected_stream(record)
        && (sockets::path_of(&record.address).is_some() || sockets::records(manifest).any(is_same));
    !record.address.is_empty() && !is_accepted
}

/// Connections that are made by name, those that wait to be accepted in their order.
fn connections(manifest: &Manifest, made: &Sockets, first: &BTreeMap<u32, u32>) -> Vec<Connection> {
    const UNIX_DIAG_ICONS: u16 = 3;
    let mut connections = Vec::new();
    let listeners = sockets::records(manifest).filter(|(_, _, record)| record.backlog.is_some());
    for (listening, _, listener) in listeners {
        let waiting =
            sys::descriptor::pair::attribute(&listener.diagnosis, UNIX_DIAG_ICONS).unwrap_or_default();
        for inode in waiting.chunks_exact(4) {
            let is_it = |other: u64| other.to_ne_bytes().starts_with(inode);
            let client = sockets::records(manifest).find(|(_, other, _)| is_it(*other));
            let Some((index, ..)) = client.filter(|(index, ..)| !made.is_connected(*index)) else { continue };
            if let Some(&fd) = first.get(&index) {
                let (to, listener) = (listener.address.clone(), Some(listening));
                connections.push(Connection { fd, index, to, listener, shut_down: None });
            }
        }
    }
    for (index, inode, record) in sockets::records(manifest) {
        let Some(&fd) = first.get(&index) else { continue };
        let is_mutual = sockets::records(manifest)
            .any(|(_, other, found)| other == record.peer && found.peer == inode && other != inode);
        let by_name = match record.domain {
            UNIX => record.kind == DATAGRAM && !is_mutual,
            // A netlink socket that is connected to nobody says so with zeros.
            _ => record.peer_address.iter().skip(2).any(|byte| *byte != 0),
        };
        let is_tcp = record.protocol == libc::IPPROTO_TCP.unsigned_abs();
        if by_name
            && !is_tcp
            && record.backlog.is_none()
            && record.peer_address.len() > 2
            && !made.is_connected(index)
        {
            let shut_down = sockets::how_it_is_shut_down(record).filter(|_| record.domain != UNIX);
            let to = record.peer_address.clone();
            connections.push(Connection { fd, index, to, listener: None, shut_down });
        }
    }
    connections
}

/// Messages in a datagram socket that has no mate of its own.
fn letters_to(manifest: &Manifest, recipient: u32, record: &SocketRecord) -> Vec<Letter> {
    let by_mate = record.domain == UNIX && (record.kind != DATAGRAM || record.peer != 0);
    if by_mate || record.address.is_empty() {
        return Vec::new();
    }
    let letter = |message: &protocol::MessageRecord| {
        let mut senders = sockets::records(manifest);
        let is_sender = |(_, _, found): &(u32, u64, &SocketRecord)| {
            !message.sender.is_empty() && found.address == message.sender
        };
        Letter {
            recipient,
            sender: senders.find(is_sender).map(|(index, ..)| index),
            domain: record.domain,
            to: record.address.clone(),
            content: message.content.clone(),
        }
    };
    record.messages.iter().map(letter).collect()
}

/// Takes everything, waiting a bounded time for what the source still has. Returns the descriptors that did not get what
/// they had.
pub(in super::super) fn finish(child: &BlankChild, work: &Finish) -> Result<Vec<(u32, Errno)>, RestoreError> {
    let deadline = Instant::now() + PATIENCE;
    let mut unbound = Vec::new();
    share_ports(work, true);
    until(child, deadline, &work.binds, &mut unbound, |bind| {
        // Open connections have their addresses already: a socket that listens at one must share it.
        let listener = bind.record.backlog.and(work.sockets.get(bind.index));
        let listener = listener.filter(|_| work.sockets.has_moved());
        if let Some(listener) = listener {
            sockets::set_reuse(listener.as_fd(), &bind.record, true);
        }
        let bound = attempt_bind(child, &work.sockets, bind)?;
        if let Some(listener) = listener {
            sockets::set_reuse(listener.as_fd(), &bind.record, false);
        }
        Ok((bind.fd, bound))
    })?;
    share_ports(work, false);
    let is_bound = |index: u32| {
        let bind = work.binds.iter().find(|bind| bind.index == index);
        bind.is_some_and(|bind| unbound.iter().all(|(fd, _)| *fd != bind.fd))
    };
    // A connected socket hears from nobody else: what came from outside comes before.
    deliver_all(child, work, &is_bound, false);
    let mut refused = unbound.clone();
    for connection in &work.connections {
        // Somebody else has the address, and would be connected to.
        if connection.listener.is_some_and(|listener| !is_bound(listener)) {
            refused.push((connection.fd, Errno::ECONNREFUSED));
            continue;
        }
        match (call(child, libc::SYS_connect, connection.fd, &connection.to)?, connection.shut_down) {
            (Err(errno), _) => refused.push((connection.fd, errno)),
            (Ok(_), Some(how)) => {
                let done = work.sockets.get(connection.index).map(|made| shutdown(made.as_raw_fd(), how));
                tracing::debug!(?done, "a connection by name is closed in one direction");
            }
            (Ok(_), None) => {}
        }
    }
    deliver_all(child, work, &is_bound, true);
    anonymous::forget_events(&work.inotifies);
    Ok(refused)
}

/// Lets sockets with the same address, which may have been shared when they were bound only, be bound side by side.
fn share_ports(work: &Finish, on: bool) {
    for (at, bind) in work.binds.iter().enumerate() {
        let is_same =
            |(index, other): (usize, &Bind)| index != at && other.record.address == bind.record.address;
        if let Some(made) = work.sockets.get(bind.index)
            && work.binds.iter().enumerate().any(is_same)
        {
            sockets::set_reuse_port(made.as_fd(), &bind.record, on);
        }
    }
}

/// Attempts each of `all` until it works, is refused, or time is up.
fn until<T>(
    child: &BlankChild,
    deadline: Instant,
    all: &[T],
    refused: &mut Vec<(u32, Errno)>,
    mut attempt: impl FnMut(&T) -> Result<(u32, Result<u64, Errno>), RestoreError>,
) -> Result<(), RestoreError> {
    let mut left: Vec<&T> = all.iter().collect();
    while !left.is_empty() {
        let mut again = Vec::new();
        for one in left {
            match attempt(one)? {
                (_, Ok(_)) => {}
                (_, Err(errno)) if is_taken(errno) && Instant::now() < deadline => again.push(one),
                (fd, Err(errno)) => refused.push((fd, errno)),
            }
        }
        left = again;
        if !left.is_empty() {
            child.wait_for_its_end(PAUSE)?;
        }
    }
    Ok(())
}

/// Whether somebody else has an address.
fn is_taken(errno: Errno) -> bool {
    sockets::is_in_use(errno) || io::Error::from(errno).kind() == ErrorKind::WouldBlock
}

fn attempt_bind(
    child: &BlankChild,
    sockets: &Sockets,
    bind: &Bind,
) -> Result<Result<u64, Errno>, RestoreError> {
    let Bind { fd, index, record } = bind;
    let path = sockets::path_of(&record.address);
    let place = path.and_then(|path| place_of(child, path).ok());
    if let Some(place) = &place {
        peer::with_its_rights(|| remove_stale(place));
    }
    let mut bound = call(child, libc::SYS_bind, *fd, &record.address)?;
    let is_elsewhere = bound.is_err_and(|errno| io::Error::from(errno).kind() == ErrorKind::AddrNotAvailable);
    if let Some(made) = sockets.get(*index).filter(|_| is_elsewhere) {
        sockets::set_free_bind(made.as_fd(), record, true);
        bound = call(child, libc::SYS_bind, *fd, &record.address)?;
        sockets::set_free_bind(made.as_fd(), record, false);
    }
    if bound.is_ok()
        && let Some(place) = &place
    {
        set_name(place, record.name);
    }
    let (Ok(_), Some(backlog)) = (bound, record.backlog) else { return Ok(bound) };
    // A program of its own: listening without an address would choose one.
    let mut program = child.program();
    program.step(Step::Bind(*fd));
    let listening = as_its_sender(&mut program, |program| {
        program.attempt(libc::SYS_listen, [u64::from(*fd), u64::from(backlog)])
    });
    Ok(child.run(program, &[])?.of(listening))
}

/// Gives the name in the file system its mode and owner, or deletes it.
fn set_name(place: &Place, name: Option<(u32, u32, u32)>) {
    const PERMISSIONS: u32 = 0o7777;
    let done = peer::with_its_rights(|| {
        let Some((mode, user, group)) = name else { return fs::remove_file(place.path()) };
        let held = Held::socket(place)?;
        chown(held.path(), Some(user), Some(group))?;
        fs::set_permissions(held.path(), fs::Permissions::from_mode(mode & PERMISSIONS))
    });
    if let Err(error) = done {
        tracing::warn!(%error, "the name of a socket is not as it was");
    }
}

/// Lets the child call bind(2) or connect(2), as its sender might do it.
fn call(
    child: &BlankChild,
    number: libc::c_long,
    fd: u32,
    address: &[u8],
) -> Result<Result<u64, Errno>, RestoreError> {
    let mut program = child.program();
    program.step(Step::Bind(fd));
    let place: Addr = program.data(address);
    let done = as_its_sender(&mut program, |program| {
        program.attempt(number, [u64::from(fd), place.0, address.len() as u64])
    });
    Ok(child.run(program, &[])?.of(done))
}

/// Sends the messages that waited, for sockets that have their address, whose senders are, or are not, in the process.
fn deliver_all(child: &BlankChild, work: &Finish, is_bound: &dyn Fn(u32) -> bool, from_inside: bool) {
    for letter in work.letters.iter().filter(|letter| letter.sender.is_some() == from_inside) {
        let bound = if is_bound(letter.recipient) { Ok(()) } else { Err(Errno::ECONNREFUSED) };
        if let Err(errno) = bound.and_then(|()| deliver(child, work, letter)) {
            tracing::warn!(%errno, "a datagram that waited is lost");
        }
    }
}

/// Sends a message that waited, from the socket that had sent it or from a nameless one.
fn deliver(child: &BlankChild, work: &Finish, letter: &Letter) -> Result<(), Errno> {
    let held;
    let to = match sockets::path_of(&letter.to) {
        Some(path) => {
            let io = |error: io::Error| Errno(error.raw_os_error().unwrap_or(0));
            let found =
                place_of(child, path).and_then(|place| peer::with_its_rights(|| Held::socket(&place)));
            held = found.map_err(io)?;
            [&letter.to[..2], held.path().as_os_str().as_bytes(), b"\0"].concat()
        }
        None => letter.to.clone(),
    };
    let nameless;
    let sender: &OwnedFd = if let Some(sender) = letter.sender.and_then(|index| work.sockets.get(index)) {
        sender
    } else {
        nameless = socket::make(letter.domain, DATAGRAM, 0)?;
        &nameless
    };
    peer::with_its_rights(|| socket::send(sender.as_fd(), &letter.content, &to, &[]))
}

/// Where a path of the child leads, whose working directory may be another.
fn place_of(child: &BlankChild, path: &Path) -> io::Result<Place> {
    if path.is_absolute() {
        return peer::with_its_rights(|| Place::of(path));
    }
    let directory = File::options()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(format!("/proc/{}/cwd", child.pid()))?;
    peer::with_its_rights(|| Place::below(directory, path))
}

/// A socket in the file system that is held on to: nobody can put anything else in its place.
struct Held(File);

impl Held {
    /// The socket at `place`.
    fn socket(place: &Place) -> io::Result<Self> {
        let flags = libc::O_PATH | libc::O_NOFOLLOW;
        let held = File::options().read(true).custom_flags(flags).open(place.path())?;
        let is_socket = held.metadata()?.file_type().is_socket();
        if is_socket { Ok(Self(held)) } else { Err(io::Error::other("it is no socket")) }
    }

    /// A path to it for this process.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Removes a socket that nobody listens at: the source's own, left behind when it let go of it.
fn remove_stale(place: &Place) {
    let Ok(held) = Held::socket(place) else { return };
    let path = held.path();
    let is_refused = |error: io::Error| {
        // A datagram socket is of another type, and refuses only once it has been closed.
        error.kind() == ErrorKind::ConnectionRefused || nobody_reads(&path)
    };
    if UnixStream::connect(&path).is_err_and(is_refused) {
        let _ = fs::remove_file(place.path());
    }
}

fn nobody_reads(path: &Path) -> bool {
    let probe = std::os::unix::net::UnixDatagram::unbound().and_then(|probe| probe.connect(path));
    probe.is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
}
