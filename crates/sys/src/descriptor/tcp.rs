//! TCP connections that move: frozen, looked at, let go again.
//!
//! `TCP_REPAIR` and its companions have no manual page: Linux 3.5, `net/ipv4/tcp.c`. They need `CAP_NET_ADMIN`. What the
//! bytes of a record are for is `protocol::Connection`'s to know.

use alloc::vec::Vec;

use super::pipe::count;
use super::socket::{IPPROTO_TCP, SOL_SOCKET, integer, option};
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd};

/// `TCP_ESTABLISHED`: open in both directions.
pub const ESTABLISHED: u8 = 1;

const SO_REUSEADDR: usize = 2;
const SO_KEEPALIVE: usize = 9;
const SO_OOBINLINE: usize = 10;
const SO_ATTACH_FILTER: usize = 26;
const SO_DETACH_FILTER: usize = 27;
const TCP_MAXSEG: usize = 2;
const TCP_INFO: usize = 11;
const TCP_REPAIR: usize = 19;
const TCP_REPAIR_QUEUE: usize = 20;
const TCP_QUEUE_SEQ: usize = 21;
const TCP_TIMESTAMP: usize = 24;
const TCP_REPAIR_WINDOW: usize = 29;
const TCP_ULP: usize = 31;

/// The front of `TCP_INFO`, of which the first byte is the state, of a connection that was opened, may have ended, and has
/// nothing on top that the kernel keeps to itself; else `None`. A socket that never was a connection looks like one that
/// has ended.
#[must_use]
pub fn open_connection(fd: u32) -> Option<[u8; 8]> {
    /// `TCP_FIN_WAIT1`, `TCP_FIN_WAIT2`, `TCP_CLOSE`, `TCP_CLOSE_WAIT`, `TCP_LAST_ACK`, `TCP_CLOSING`
    const ENDING: [u8; 6] = [4, 5, 7, 8, 9, 11];
    let (mut info, mut name) = ([0; 8], [0; 16]);
    option(fd, IPPROTO_TCP, TCP_INFO, &mut info).ok()?;
    let state = info[0];
    let is_open = state == ESTABLISHED || ENDING.contains(&state);
    let upper = option(fd, IPPROTO_TCP, TCP_ULP, &mut name).unwrap_or(0);
    (is_open && upper == 0).then_some(info)
}

/// Whether this process may freeze connections: tried on a socket of its own.
#[must_use]
pub fn may_freeze() -> bool {
    const AF_INET: usize = 2;
    const SOCK_STREAM_CLOEXEC: usize = 1 | 0o2_000_000;
    // SAFETY: plain numbers.
    let raw = unsafe { syscall3(nr::SOCKET, AF_INET, SOCK_STREAM_CLOEXEC, 0) };
    let socket = raw.and_then(Fd::from_result);
    socket.is_ok_and(|socket| set(socket.raw().cast_unsigned(), IPPROTO_TCP, TCP_REPAIR, &1).is_ok())
}

/// What a freeze switches on or off and [`thaw`] sets again. Leaving repair mode clears the first. Probes that nobody
/// answers would end in a reset. Urgent bytes are looked at where they are.
const SWITCHES: [(usize, u32); 3] = [(SO_REUSEADDR, 1), (SO_KEEPALIVE, 0), (SO_OOBINLINE, 1)];

/// The switches as they are, as bits.
///
/// # Errors
/// Those of getsockopt(2).
pub fn switches(fd: u32) -> Result<u32, Errno> {
    let mut bits = 0;
    for (at, (name, _)) in SWITCHES.iter().enumerate() {
        bits |= u32::from(integer(fd, SOL_SOCKET, *name)? != 0) << at;
    }
    Ok(bits)
}

/// Cuts a connection off from the world: what arrives is dropped without an answer, and closing it says nothing.
///
/// # Errors
/// Those of setsockopt(2); `EPERM` without `CAP_NET_ADMIN`.
pub fn freeze(fd: u32) -> Result<(), Errno> {
    /// `BPF_RET | BPF_K` with 0: of every packet no byte is kept.
    static DROP: u64 = 6;
    // struct sock_fprog: a 16-bit count, then, aligned, a pointer.
    set(fd, SOL_SOCKET, SO_ATTACH_FILTER, &[1, (&raw const DROP).expose_provenance()])?;
    for (name, value) in SWITCHES.iter().skip(1) {
        set(fd, SOL_SOCKET, *name, value)?;
    }
    set(fd, IPPROTO_TCP, TCP_REPAIR, &1)
}

/// Waits until whoever was handling a packet when connections were frozen is done with it.
pub fn settle() {
    /// `MEMBARRIER_CMD_GLOBAL`: a grace period of RCU, under which packets are received.
    const GLOBAL: usize = 1;
    // SAFETY: plain numbers.
    let _ = unsafe { syscall3(nr::MEMBARRIER, GLOBAL, 0, 0) };
}

/// Lets a frozen connection go on; `before` is what [`switches`] said.
pub fn thaw(fd: u32, before: u32) {
    // The socket was frozen through the same calls; there is nothing to do about one that fails now.
    let _ = set(fd, SOL_SOCKET, SO_DETACH_FILTER, &0);
    let _ = set(fd, IPPROTO_TCP, TCP_REPAIR, &0);
    for (at, (name, _)) in SWITCHES.iter().enumerate() {
        let _ = set(fd, SOL_SOCKET, *name, &(before >> at & 1));
    }
}

/// Ends the repair mode of a connection, whoever has left it in that.
///
/// # Errors
/// Those of getsockopt(2) and setsockopt(2): it is no TCP socket, or `EPERM` without `CAP_NET_ADMIN`.
pub fn end_repair(fd: u32) -> Result<(), Errno> {
    if integer(fd, IPPROTO_TCP, TCP_REPAIR)? == 0 { Ok(()) } else { set(fd, IPPROTO_TCP, TCP_REPAIR, &0) }
}

/// What a frozen connection is, its bytes included.
///
/// # Errors
/// Those of getsockopt(2), ioctl(2) and recv(2); `EOPNOTSUPP` when bytes are held back that cannot be looked at.
pub fn record(fd: u32) -> Result<Vec<u8>, Errno> {
    const SIOCINQ: usize = 0x541b;
    const SIOCOUTQ: usize = 0x5411;
    const SIOCOUTQNSD: usize = 0x894b;
    /// The oldest segment to send may have been acknowledged in part and is found as a whole.
    const SEGMENT_BYTES: usize = 1 << 16;
    const SIOCATMARK: usize = 0x8905;
    if count(fd, SIOCATMARK)? != 0 {
        return Err(Errno::EOPNOTSUPP);
    }
    let mut record = Vec::new();
    for (name, len) in [(TCP_INFO, 8), (TCP_MAXSEG, 4), (TCP_TIMESTAMP, 4), (TCP_REPAIR_WINDOW, 20)] {
        append(&mut record, fd, name, len)?;
    }
    close_window(fd, &record)?;
    record.extend_from_slice(&count(fd, SIOCOUTQNSD)?.to_ne_bytes());
    for (queue, request) in [(1_u32, SIOCINQ), (2, SIOCOUTQ)] {
        set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &queue)?;
        append(&mut record, fd, TCP_QUEUE_SEQ, 4)?;
        let waiting = count(fd, request)?;
        record.extend_from_slice(&waiting.to_ne_bytes());
        if waiting == 0 {
            continue;
        }
        let waiting = waiting as usize;
        let mut buffer = alloc::vec![0; waiting + SEGMENT_BYTES];
        let got = peek(fd, &mut buffer)?;
        if got < waiting || (request == SIOCINQ && got != waiting) {
            return Err(Errno::EOPNOTSUPP);
        }
        record.extend_from_slice(buffer.get(..got).unwrap_or_default());
    }
    set(fd, IPPROTO_TCP, TCP_REPAIR_QUEUE, &0).map(|()| record)
}

/// Takes the window that the other side has opened away, which is the last thing in `record`: else the kernel goes on
/// sending what the program wrote, by its timers, and the other side acknowledges what the destination never sent. When
/// the connection is let go, the answer to a probe brings the window back.
fn close_window(fd: u32, record: &[u8]) -> Result<(), Errno> {
    // struct tcp_repair_window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
    let Some(window) = record.last_chunk::<20>() else { return Err(Errno::EINVAL) };
    let mut closed = *window;
    closed.iter_mut().skip(4).take(4).for_each(|byte| *byte = 0);
    set(fd, IPPROTO_TCP, TCP_REPAIR_WINDOW, &closed)
}

fn append(record: &mut Vec<u8>, fd: u32, name: usize, len: usize) -> Result<(), Errno> {
    let mut value = [0; 20];
    let value = value.get_mut(..len).unwrap_or_default();
    option(fd, IPPROTO_TCP, name, value)?;
    record.extend_from_slice(value);
    Ok(())
}

/// Looks at a queue of a frozen connection.
fn peek(fd: u32, buffer: &mut [u8]) -> Result<usize, Errno> {
    const MSG_PEEK_DONTWAIT: usize = 0x2 | 0x40;
    let pointer = buffer.as_mut_ptr().expose_provenance();
    // SAFETY: the buffer is valid for writes of its length; nobody is asked who sent it.
    unsafe { syscall(nr::RECVFROM, [fd as usize, pointer, buffer.len(), MSG_PEEK_DONTWAIT, 0, 0]) }
}

fn set<T: Copy>(fd: u32, level: usize, name: usize, value: &T) -> Result<(), Errno> {
    set_bytes(fd, level, name, (&raw const *value).expose_provenance(), size_of::<T>())
}

#[inline(never)]
fn set_bytes(fd: u32, level: usize, name: usize, value: usize, len: usize) -> Result<(), Errno> {
    // SAFETY: `set` is the only caller: the value is valid for reads of its length, and the one pointer in a value leads
    // to a static.
    unsafe { syscall(nr::SETSOCKOPT, [fd as usize, level, name, value, len, 0]) }.map(|_| ())
}
