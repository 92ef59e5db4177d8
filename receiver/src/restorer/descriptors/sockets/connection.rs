//! Open TCP connections that go on: made without a packet, and let go together with the program.
//!
//! A socket in repair mode takes the numbers and bytes that it is told instead of exchanging them with the other side;
//! the order of the calls is the kernel's (`net/ipv4/tcp.c`, Linux 3.5; there is no manual page).

use std::io::{self, ErrorKind, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::libc;
use protocol::{Connection, SocketRecord};
use sys::socket;

use super::options;

const TCP: u16 = 6;
const TCP_REPAIR: u8 = 19;
const TCP_REPAIR_QUEUE: u8 = 20;
const TCP_QUEUE_SEQ: u8 = 21;
const TCP_REPAIR_OPTIONS: u8 = 22;
const TCP_TIMESTAMP: u8 = 24;
const TCP_REPAIR_WINDOW: u8 = 29;
const RECEIVED: u32 = 1;
const SENT: u32 = 2;
const SOCKET: u16 = 1;
const SO_SNDBUFFORCE: u8 = 32;
const SO_RCVBUFFORCE: u8 = 33;
/// The kernel takes what is written to a queue in one piece as one packet.
const PIECE_BYTES: usize = 32 << 10;
/// What the kernel counts beside a piece's bytes.
const PIECE_OVERHEAD: usize = 64 << 10;

/// Whether `record` is of an open connection that moves.
pub(in super::super) fn is_connection(record: &SocketRecord) -> bool {
    record.connection.len() > Connection::RELAYED_BYTES
}

/// Whether `record` is of an open connection that stays at the source, which relays it.
pub(in super::super) fn is_relayed(record: &SocketRecord) -> bool {
    record.connection.len() == Connection::RELAYED_BYTES
}

/// Whether the program has ended the direction away from it.
pub(super) fn has_ended(record: &SocketRecord) -> bool {
    /// `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE`, `TCP_LAST_ACK`, `TCP_CLOSING`
    const ENDED: [u8; 5] = [4, 5, 7, 9, 11];
    record.connection.first().is_some_and(|state| ENDED.contains(state))
}

/// Whether this process may make connections without a packet.
///
/// # Errors
/// Why not.
pub fn check_permission() -> io::Result<()> {
    let probe = socket::make(libc::AF_INET.unsigned_abs(), libc::SOCK_STREAM.unsigned_abs(), 0)?;
    set(probe.as_fd(), TCP_REPAIR, 1)
}

/// Makes the connection of `record` in repair mode: complete but for what was never sent, and silent.
pub(super) fn make(record: &SocketRecord) -> io::Result<OwnedFd> {
    let connection = parse(record)?;
    let made = socket::make(record.domain, record.kind, record.protocol)?;
    options::set(made.as_fd(), record)?;
    let fd = made.as_fd();
    set(fd, TCP_REPAIR, 1)?;
    let doing = |what: &'static str| {
        move |errno: sys::Errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("{what}: {error}"))
        }
    };
    socket::bind(fd, &record.address)
        .map_err(doing("taking its own address, which this machine must have"))?;
    let begins =
        |end: u32, len: usize| u32::try_from(len).map(|len| end.wrapping_sub(len)).map_err(io::Error::other);
    set(fd, TCP_REPAIR_QUEUE, RECEIVED)?;
    set(fd, TCP_QUEUE_SEQ, begins(connection.received_to, connection.received.len())?)?;
    set(fd, TCP_REPAIR_QUEUE, SENT)?;
    let to_send = connection.sent.len() + connection.unsent.len();
    set(fd, TCP_QUEUE_SEQ, begins(connection.sent_to, to_send)?)?;
    socket::connect(fd, &record.peer_address).map_err(doing("taking up the connection to the other side"))?;
    agree(fd, &connection)?;
    make_room(fd, connection.received.len(), to_send)?;
    let made = TcpStream::from(made);
    for (queue, bytes) in [(RECEIVED, connection.received), (SENT, connection.sent)] {
        set(made.as_fd(), TCP_REPAIR_QUEUE, queue)?;
        bytes.chunks(PIECE_BYTES).try_for_each(|piece| (&made).write_all(piece))?;
    }
    set(made.as_fd(), TCP_REPAIR_QUEUE, 0)?;
    socket::set_option(made.as_fd(), TCP, TCP_REPAIR_WINDOW, &connection.window)?;
    Ok(made.into())
}

/// Lets the connection go: from here on it sends and answers. Then it gets what was never sent, and the sizes and rights
/// that it had.
pub(super) fn let_go(made: BorrowedFd<'_>, record: &SocketRecord) -> io::Result<()> {
    set(made, TCP_REPAIR, 0)?;
    let stream = TcpStream::from(made.try_clone_to_owned()?);
    parse(record)?.unsent.chunks(PIECE_BYTES).try_for_each(|piece| (&stream).write_all(piece))?;
    // Leaving repair mode has cleared SO_REUSEADDR.
    options::set(made, record)
}

/// Sets what both sides had agreed upon when the connection was opened.
fn agree(fd: BorrowedFd<'_>, connection: &Connection<'_>) -> io::Result<()> {
    const TIMESTAMPS: u8 = 1;
    const SELECTIVE_ACKNOWLEDGEMENTS: u8 = 2;
    const MAXSEG: u32 = 2;
    const WINDOW: u32 = 3;
    const SACK_PERMITTED: u32 = 4;
    const TIMESTAMP: u32 = 8;
    let (to_us, to_them) = connection.window_scales;
    // A connection without window scales is one that shifts by nothing.
    let mut options =
        vec![(MAXSEG, connection.largest_segment), (WINDOW, u32::from(to_us) | u32::from(to_them) << 16)];
    if connection.options & SELECTIVE_ACKNOWLEDGEMENTS != 0 {
        options.push((SACK_PERMITTED, 0));
    }
    if connection.options & TIMESTAMPS != 0 {
        options.push((TIMESTAMP, 0));
    }
    let bytes: Vec<u8> = options
        .iter()
        .flat_map(|(code, value)| [code.to_ne_bytes(), value.to_ne_bytes()])
        .flatten()
        .collect();
    socket::set_option(fd, TCP, TCP_REPAIR_OPTIONS, &bytes)?;
    if connection.options & TIMESTAMPS != 0 {
        set(fd, TCP_TIMESTAMP, connection.timestamp)?;
    }
    Ok(())
}

/// Room for all that waits, whatever the program's own limits are; these are set again when the connection is let go.
fn make_room(fd: BorrowedFd<'_>, received: usize, to_send: usize) -> io::Result<()> {
    for (name, bytes) in [(SO_RCVBUFFORCE, received), (SO_SNDBUFFORCE, to_send)] {
        let pieces = bytes.div_ceil(PIECE_BYTES) + 1;
        let wanted = (bytes + pieces * PIECE_OVERHEAD).min(1 << 29);
        let wanted = u32::try_from(wanted).map_err(io::Error::other)?;
        socket::set_option(fd, SOCKET, name, &wanted.to_ne_bytes())?;
    }
    Ok(())
}

fn parse(record: &SocketRecord) -> io::Result<Connection<'_>> {
    Connection::parse(&record.connection)
        .ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "the record of the connection makes no sense"))
}

fn set(fd: BorrowedFd<'_>, name: u8, value: u32) -> io::Result<()> {
    Ok(socket::set_option(fd, TCP, name, &value.to_ne_bytes())?)
}
