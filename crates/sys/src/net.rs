//! Stream sockets by raw system calls, for the parasite: connect, send, receive, all non-blocking.

use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use crate::poll::{Interest, poll};
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd, clock};

const SOCK_STREAM: usize = 1;
const SOCK_NONBLOCK: usize = 0o4000;
const SOCK_CLOEXEC: usize = 0o2_000_000;
/// `MSG_NOSIGNAL | MSG_DONTWAIT`
const QUIETLY: usize = 0x4040;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// What a non-blocking transfer came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transfer {
    /// This many bytes, at least one.
    Done(usize),
    /// Nothing now; wait for readiness.
    WouldBlock,
    /// The other side has closed.
    Closed,
}

/// A `struct sockaddr_in` or `sockaddr_in6` and its length.
fn encode(address: SocketAddr) -> ([u8; 28], usize) {
    let mut bytes = [0; 28];
    let (family, octets, at, len): (u16, &[u8], usize, usize) = match &address {
        SocketAddr::V4(v4) => (AF_INET, &v4.ip().octets(), 4, 16),
        SocketAddr::V6(v6) => (AF_INET6, &v6.ip().octets(), 8, 28),
    };
    for (slot, byte) in bytes.iter_mut().zip(family.to_ne_bytes()) {
        *slot = byte;
    }
    for (slot, byte) in bytes.iter_mut().skip(2).zip(address.port().to_be_bytes()) {
        *slot = byte;
    }
    for (slot, byte) in bytes.iter_mut().skip(at).zip(octets) {
        *slot = *byte;
    }
    (bytes, len)
}

/// Starts a non-blocking TCP connection, [unpaced](unpace_if_local) if it stays on this machine; [`finish_connecting`]
/// waits for it.
///
/// # Errors
/// Those of socket(2) and connect(2), `EINPROGRESS` excepted.
pub fn connect(address: SocketAddr) -> Result<Fd, Errno> {
    let family = if address.is_ipv4() { AF_INET } else { AF_INET6 };
    let flags = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    // SAFETY: plain numbers.
    let raw = unsafe { syscall3(nr::SOCKET, usize::from(family), flags, 0) }?;
    let socket = Fd::from_result(raw)?;
    unpace_if_local(socket.raw(), address.ip());
    let (bytes, len) = encode(address);
    // SAFETY: the address is valid for reads of `len` bytes.
    match unsafe { syscall3(nr::CONNECT, socket.arg(), bytes.as_ptr().expose_provenance(), len) } {
        Ok(_) | Err(Errno::EINPROGRESS) => Ok(socket),
        Err(errno) => Err(errno),
    }
}

/// Waits until a connection that [`connect`] began stands, and switches Nagle's algorithm off: a page request is 16 bytes
/// and must not wait. `deadline_ns` is a time of [`clock::monotonic_ns`].
///
/// # Errors
/// What `SO_ERROR` says; `ETIMEDOUT` when the deadline has passed.
pub fn finish_connecting(socket: &Fd, deadline_ns: u64) -> Result<(), Errno> {
    const SO_ERROR: usize = 4;
    loop {
        let mut interest = [Interest::new(socket, true)];
        let left_ns = deadline_ns.saturating_sub(clock::monotonic_ns());
        poll(&mut interest, Some(u32::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX)))?;
        if interest.iter().any(Interest::is_writable) {
            return match socket_option(socket, SO_ERROR)? {
                0 => set_no_delay(socket),
                number => Err(Errno(number)),
            };
        }
        if left_ns == 0 {
            return Err(Errno::ETIMEDOUT);
        }
    }
}

/// [Begins](connect) a connection and [finishes](finish_connecting) it, within `timeout`.
///
/// # Errors
/// Those of both.
pub fn connect_within(address: SocketAddr, timeout: Duration) -> Result<Fd, Errno> {
    let timeout_ns = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
    let deadline_ns = clock::monotonic_ns().saturating_add(timeout_ns);
    let socket = connect(address)?;
    finish_connecting(&socket, deadline_ns)?;
    Ok(socket)
}

/// An integer option of `SOL_SOCKET`.
///
/// # Errors
/// Those of getsockopt(2).
pub fn socket_option(socket: &Fd, option: usize) -> Result<i32, Errno> {
    const SOL_SOCKET: usize = 1;
    let mut value = 0_i32;
    let mut len = 4_u32;
    let arguments = [
        socket.arg(),
        SOL_SOCKET,
        option,
        (&raw mut value).expose_provenance(),
        (&raw mut len).expose_provenance(),
        0,
    ];
    // SAFETY: both pointers are valid for the four bytes that the kernel writes.
    unsafe { syscall(nr::GETSOCKOPT, arguments) }?;
    Ok(value)
}

fn set_no_delay(socket: &Fd) -> Result<(), Errno> {
    const TCP_NODELAY: usize = 1;
    set_tcp_option(socket.raw(), TCP_NODELAY, &1_u32.to_ne_bytes())
}

/// Has a socket send as fast as the other side takes it if `address`, of either end, is within this machine: nothing is lost
/// on the way, and congestion control that paces (BBR) costs half of the throughput. Every kernel has Reno, and lets everybody
/// use it; without it the connection is only slower. It must be chosen before the socket is connected, for accepted ones at the
/// socket that listens: one that has begun to pace goes on with it under Reno (`sk_pacing_status` of tcp_bbr.c is never taken
/// back), with a timer for each burst.
pub fn unpace_if_local(socket: i32, address: IpAddr) {
    const TCP_CONGESTION: usize = 13;
    if address.is_loopback() {
        let _ = set_tcp_option(socket, TCP_CONGESTION, b"reno");
    }
}

fn set_tcp_option(socket: i32, option: usize, value: &[u8]) -> Result<(), Errno> {
    let socket = socket.cast_unsigned() as usize;
    let arguments = [socket, IPPROTO_TCP, option, value.as_ptr().expose_provenance(), value.len(), 0];
    // SAFETY: the value is valid for reads of its length.
    unsafe { syscall(nr::SETSOCKOPT, arguments) }.map(|_| ())
}

/// Sends the parts one behind the other, as far as the socket takes them; never waits or raises SIGPIPE.
///
/// # Errors
/// Those of sendmsg(2); a connection that is gone is [`Transfer::Closed`].
pub fn send(socket: &Fd, parts: [&[u8]; 2]) -> Result<Transfer, Errno> {
    let vectors = parts.map(|part| [part.as_ptr().expose_provenance(), part.len()]);
    let message = [0, 0, vectors.as_ptr().expose_provenance(), vectors.len(), 0, 0, 0];
    // SAFETY: `message` is a struct msghdr whose two iovecs are valid for reads.
    let result =
        unsafe { syscall3(nr::SENDMSG, socket.arg(), message.as_ptr().expose_provenance(), QUIETLY) };
    outcome(result, false)
}

/// Receives into `buffer`.
///
/// # Errors
/// Those of read(2); a connection that is gone is [`Transfer::Closed`].
pub fn receive(socket: &Fd, buffer: &mut [u8]) -> Result<Transfer, Errno> {
    outcome(receive_now(socket, buffer), true)
}

/// Receives what is there, also over a socket that would wait for more; 0 at the end of the stream.
///
/// # Errors
/// Those of recv(2): `EAGAIN` when nothing is there, `ECONNRESET` for a connection that is broken.
pub fn receive_now(socket: &Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    const MSG_DONTWAIT: usize = 0x40;
    let pointer = buffer.as_mut_ptr().expose_provenance();
    // SAFETY: the buffer is valid for writes of its length; nobody is asked who sent it.
    unsafe { syscall(nr::RECVFROM, [socket.arg(), pointer, buffer.len(), MSG_DONTWAIT, 0, 0]) }
}

/// Ends the direction away from here: the other side reads what was sent before, and then the end.
pub fn end(socket: &Fd) {
    const SHUT_WR: usize = 1;
    // SAFETY: plain numbers. A connection that is gone has ended already.
    let _ = unsafe { syscall3(nr::SHUTDOWN, socket.arg(), SHUT_WR, 0) };
}

/// Has the kernels ask each other every three seconds, while nothing is said, whether the other machine is there: so
/// [`silent_for`] tells when it is not, and after half a minute the connection is broken.
pub fn keep_alive(socket: i32) {
    const SO_KEEPALIVE: usize = 9;
    /// `TCP_KEEPIDLE` and `TCP_KEEPINTVL` in seconds, `TCP_KEEPCNT`
    const PATIENCE: [(usize, u32); 3] = [(4, 3), (5, 3), (6, 9)];
    set(socket, SO_KEEPALIVE, [1, 0], 4);
    for (option, value) in PATIENCE {
        // What is no TCP connection has nothing to keep alive.
        let _ = set_tcp_option(socket, option, &value.to_ne_bytes());
    }
}

/// For how many milliseconds nothing has come over a TCP connection, not even a word of the other machine's kernel
/// (`TCP_INFO`); 0 for anything else.
#[must_use]
pub fn silent_for(socket: i32) -> u32 {
    const TCP_INFO: usize = 11;
    // struct tcp_info up to tcpi_last_data_recv and tcpi_last_ack_recv.
    let mut info = [0_u32; 15];
    let mut len = size_of_val(&info);
    let pointers = (info.as_mut_ptr().expose_provenance(), (&raw mut len).expose_provenance());
    let arguments = [socket.cast_unsigned() as usize, IPPROTO_TCP, TCP_INFO, pointers.0, pointers.1, 0];
    // SAFETY: the kernel writes at most `len` bytes of the structure, and four bytes of length.
    let _ = unsafe { syscall(nr::GETSOCKOPT, arguments) };
    let [.., last_data, last_acknowledged] = info;
    last_data.min(last_acknowledged)
}

/// Has a socket take nothing while it holds so many bytes that the kernel has not sent yet (`TCP_NOTSENT_LOWAT`), and be
/// writable when it is half of them; 0: as many as there is room for.
pub fn take_at_most(socket: &Fd, bytes: u32) {
    const TCP_NOTSENT_LOWAT: usize = 25;
    // What is no TCP connection does not hold back either.
    let _ = set_tcp_option(socket.raw(), TCP_NOTSENT_LOWAT, &bytes.to_ne_bytes());
}

/// Breaks a connection on which the other machine has not taken anything for so many milliseconds (`TCP_USER_TIMEOUT`).
pub fn give_up_after(socket: &Fd, milliseconds: u32) {
    const TCP_USER_TIMEOUT: usize = 18;
    let _ = set_tcp_option(socket.raw(), TCP_USER_TIMEOUT, &milliseconds.to_ne_bytes());
}

const IPPROTO_TCP: usize = 6;
const SO_REUSEADDR: usize = 2;

/// Whether others that want it too may have the socket's address (`SO_REUSEADDR`).
pub fn share_address(socket: &Fd, shares: bool) {
    set(socket.raw(), SO_REUSEADDR, [u32::from(shares), 0], 4);
}

/// Whether others may have the socket's address.
#[must_use]
pub fn shares_address(socket: &Fd) -> bool {
    socket_option(socket, SO_REUSEADDR).is_ok_and(|on| on != 0)
}

/// Whether the socket's close, by whomever, tells the other side that the connection broke instead of having ended.
pub fn break_on_close(socket: &Fd, breaks: bool) {
    const SO_LINGER: usize = 13;
    // struct linger: on, then for how long.
    set(socket.raw(), SO_LINGER, [u32::from(breaks), 0], 8);
}

/// Sets an option of `SOL_SOCKET` that every socket has, to the first `len` bytes of `value`, at most eight.
fn set(socket: i32, option: usize, value: [u32; 2], len: usize) {
    const SOL_SOCKET: usize = 1;
    let arguments = [
        socket.cast_unsigned() as usize,
        SOL_SOCKET,
        option,
        value.as_ptr().expose_provenance(),
        len.min(size_of_val(&value)),
        0,
    ];
    // SAFETY: the value is valid for reads of its length.
    let _ = unsafe { syscall(nr::SETSOCKOPT, arguments) };
}

fn outcome(result: Result<usize, Errno>, reading: bool) -> Result<Transfer, Errno> {
    match result {
        Ok(0) if reading => Ok(Transfer::Closed),
        Ok(count) => Ok(Transfer::Done(count)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Transfer::WouldBlock),
        Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN) => Ok(Transfer::Closed),
        Err(errno) => Err(errno),
    }
}
