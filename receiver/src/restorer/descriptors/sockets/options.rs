//! Options of sockets: set where a new socket does not have them already.

use std::io;
use std::os::fd::BorrowedFd;

use protocol::{SocketRecord, socket_options};
use sys::socket;

const SOCKET: u16 = 1;
const SO_SNDBUF: u8 = 7;
const SO_RCVBUF: u8 = 8;
const SO_SNDBUFFORCE: u8 = 32;
const SO_RCVBUFFORCE: u8 = 33;
const SO_BUF_LOCK: u8 = 72;
const SO_LOCK_FILTER: u8 = 44;
/// `IPPROTO_IPV6`, `IPV6_V6ONLY`
const ONLY_V6: (u16, u8) = (41, 26);
const STREAM: u32 = 1;
/// `IP_MULTICAST_IF`, `_TTL`, `_LOOP`, `_ALL`, and those of IPv6.
const MULTICAST: [(u16, u8); 8] =
    [(0, 32), (0, 33), (0, 34), (0, 49), (41, 17), (41, 18), (41, 19), (41, 29)];

/// Whether `record` is a UDP socket that holds back what is written to it: nobody can look at that.
pub(super) fn is_corked(record: &SocketRecord) -> bool {
    const UDP: u16 = 17;
    const UDP_CORK: u8 = 1;
    socket_options(&record.options)
        .any(|(level, name, value)| (level, name) == (UDP, UDP_CORK) && value.iter().any(|byte| *byte != 0))
}

/// Gives `made` the options of `record`.
pub(super) fn set(made: BorrowedFd<'_>, record: &SocketRecord) -> io::Result<()> {
    for (level, name, value) in socket_options(&record.options) {
        let option = (level, name);
        // The kernel sets a stream's multicast options itself and lets nobody else do so.
        if option == (SOCKET, SO_LOCK_FILTER) || record.kind == STREAM && MULTICAST.contains(&option) {
            continue;
        }
        // A connection has its own address, which the kernel does not take back.
        if option == ONLY_V6 && !record.connection.is_empty() {
            continue;
        }
        if socket::option(made, level, name).as_deref() == Ok(value) {
            continue;
        }
        set_one(made, level, name, value).map_err(|error| {
            io::Error::new(error.kind(), format!("option {name} of level {level}: {error}"))
        })?;
    }
    Ok(())
}

fn set_one(made: BorrowedFd<'_>, level: u16, name: u8, value: &[u8]) -> io::Result<()> {
    let halved = |value: &[u8]| -> Option<[u8; 4]> {
        Some((u32::from_ne_bytes(*value.first_chunk()?) / 2).to_ne_bytes())
    };
    match (level, name, halved(value)) {
        // The kernel counts its own use on top; the first name keeps to the system's limit, the second needs a right.
        (SOCKET, SO_SNDBUF, Some(half)) => socket::set_option(made, SOCKET, SO_SNDBUFFORCE, &half)
            .or_else(|_| socket::set_option(made, SOCKET, SO_SNDBUF, &half)),
        (SOCKET, SO_RCVBUF, Some(half)) => socket::set_option(made, SOCKET, SO_RCVBUFFORCE, &half)
            .or_else(|_| socket::set_option(made, SOCKET, SO_RCVBUF, &half)),
        // Older kernels keep it to themselves.
        (SOCKET, SO_BUF_LOCK, _) => socket::set_option(made, level, name, value).or(Ok(())),
        _ => socket::set_option(made, level, name, value),
    }?;
    Ok(())
}

/// Lets `made` be bound to an address that is not here, as at the source, where it may have been or may have gone since;
/// or says again whether the program may do so.
pub(in super::super) fn set_free_bind(made: BorrowedFd<'_>, record: &SocketRecord, on: bool) {
    const IP: u16 = 0;
    const IP_FREEBIND: u8 = 15;
    const IPV6: u16 = 41;
    const IPV6_FREEBIND: u8 = 78;
    for option in [(IP, IP_FREEBIND), (IPV6, IPV6_FREEBIND)] {
        lend(made, record, option, on);
    }
}

/// Lets `made` be bound to an address that others have too, or says again whether the program may do so.
pub(in super::super) fn set_reuse(made: BorrowedFd<'_>, record: &SocketRecord, on: bool) {
    const SO_REUSEADDR: u8 = 2;
    lend(made, record, (SOCKET, SO_REUSEADDR), on);
}

/// The same for all sockets that have one address at the same time.
pub(in super::super) fn set_reuse_port(made: BorrowedFd<'_>, record: &SocketRecord, on: bool) {
    const SO_REUSEPORT: u8 = 15;
    lend(made, record, (SOCKET, SO_REUSEPORT), on);
}

/// Switches an option on for a while, or to what it was.
fn lend(made: BorrowedFd<'_>, record: &SocketRecord, option: (u16, u8), on: bool) {
    let found = socket_options(&record.options).find(|(level, name, _)| (*level, *name) == option);
    if let Some((level, name, value)) = found {
        let value = if on { &1_u32.to_ne_bytes() } else { value };
        // Where it cannot be had, bind(2) says what is wrong.
        let _ = socket::set_option(made, level, name, value);
    }
}

/// Attaches the filter of `record`: once everything has come in.
pub(super) fn set_filter(made: BorrowedFd<'_>, record: &SocketRecord) -> io::Result<()> {
    if !record.filter.is_empty() {
        socket::attach_filter(made, &record.filter)?;
    }
    let lock = socket_options(&record.options).find(|(level, name, value)| {
        (*level, *name) == (SOCKET, SO_LOCK_FILTER) && value.iter().any(|byte| *byte != 0)
    });
    if let Some((level, name, value)) = lock {
        socket::set_option(made, level, name, value)?;
    }
    Ok(())
}

/// Room in a sender for all that it is to send, whatever its own limit is.
pub(super) struct Room<'a> {
    sender: BorrowedFd<'a>,
    before: Option<[Vec<u8>; 2]>,
}

impl<'a> Room<'a> {
    /// Makes room for the messages of `record`.
    pub(super) fn make(sender: BorrowedFd<'a>, record: &SocketRecord) -> Self {
        if record.messages.is_empty() {
            return Self { sender, before: None };
        }
        let bytes: usize = record.messages.iter().map(|message| message.content.len() + 4096).sum();
        let before =
            [SO_SNDBUF, SO_BUF_LOCK].map(|name| socket::option(sender, SOCKET, name).unwrap_or_default());
        let wanted =
            u32::try_from(bytes).unwrap_or(u32::MAX).saturating_mul(2).min(i32::MAX.unsigned_abs() / 2);
        // Without it the sender's own limit must do: it did at the source.
        let _ = socket::set_option(sender, SOCKET, SO_SNDBUFFORCE, &wanted.to_ne_bytes());
        Self { sender, before: Some(before) }
    }

    /// Sets the sender's own limit again.
    pub(super) fn give_back(self) {
        if let Some([size, lock]) = self.before {
            let _ = set_one(self.sender, SOCKET, SO_SNDBUF, &size);
            let _ = set_one(self.sender, SOCKET, SO_BUF_LOCK, &lock);
        }
    }
}
