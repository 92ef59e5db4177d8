//! Sockets: domain, state and addresses.

use alloc::vec::Vec;

use protocol::SOCKET_OPTIONS;

use crate::Errno;
use crate::raw::{nr, syscall, syscall3};

pub(super) const SOL_SOCKET: usize = 1;
pub(super) const IPPROTO_TCP: usize = 6;
/// `struct sockaddr_storage`
const ADDRESS_BYTES: usize = 128;

/// `AF_UNIX`
pub const UNIX: u32 = 1;
/// `AF_INET`
pub const INET: u32 = 2;
/// `AF_INET6`
pub const INET6: u32 = 10;
/// `SOCK_STREAM`
pub const STREAM: u32 = 1;
/// `IPPROTO_TCP`
pub const TCP: u32 = 6;

/// What a socket is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Kind {
    /// `SO_DOMAIN`
    pub domain: u32,
    /// `SO_TYPE`
    pub kind: u32,
    /// `SO_PROTOCOL`
    pub protocol: u32,
    /// `SO_ACCEPTCONN`
    pub listening: bool,
}

/// What kind of socket `fd` is.
///
/// # Errors
/// `ENOTSOCK`, `EBADF`
pub fn kind(fd: u32) -> Result<Kind, Errno> {
    const SO_TYPE: usize = 3;
    const SO_ACCEPTCONN: usize = 30;
    const SO_PROTOCOL: usize = 38;
    const SO_DOMAIN: usize = 39;
    let option = |name| integer(fd, SOL_SOCKET, name);
    Ok(Kind {
        domain: option(SO_DOMAIN)?,
        kind: option(SO_TYPE)?,
        protocol: option(SO_PROTOCOL)?,
        listening: option(SO_ACCEPTCONN)? != 0,
    })
}

/// Every option of [`SOCKET_OPTIONS`] that `fd` has: place in the table, length, value, one behind the other.
#[must_use]
pub fn options(fd: u32) -> Vec<u8> {
    let mut found = Vec::new();
    for (place, (level, name)) in (0_u8..).zip(SOCKET_OPTIONS) {
        let mut value = [0; 64];
        let len = option(fd, usize::from(*level), usize::from(*name), &mut value).unwrap_or(0);
        if let (Some(value), Ok(short @ 1..)) = (value.get(..len), u8::try_from(len)) {
            found.extend_from_slice(&[place, short]);
            found.extend_from_slice(value);
        }
    }
    found
}

/// `SO_SNDTIMEO` or `SO_RCVTIMEO` in nanoseconds; `None` if there is no such time-out, or `fd` is no socket.
#[must_use]
pub fn timeout_ns(fd: u32, sending: bool) -> Option<u64> {
    const SO_RCVTIMEO: usize = 20;
    const SO_SNDTIMEO: usize = 21;
    let mut value = [0; 16];
    option(fd, SOL_SOCKET, if sending { SO_SNDTIMEO } else { SO_RCVTIMEO }, &mut value).ok()?;
    // struct timeval: seconds and microseconds.
    let (words, _) = value.as_chunks::<8>();
    let [seconds, microseconds] = words else { return None };
    let [seconds, microseconds] = [seconds, microseconds].map(|word| u64::from_ne_bytes(*word));
    let total = seconds.saturating_mul(1_000_000_000).saturating_add(microseconds.saturating_mul(1000));
    (total != 0).then_some(total)
}

/// `SO_GET_FILTER`: the instructions of the classic BPF program, 8 bytes each; empty without one.
#[must_use]
pub fn filter(fd: u32) -> Vec<u8> {
    const SO_GET_FILTER: usize = 26;
    /// `BPF_MAXINSNS`; the length is given and returned in instructions.
    const MOST: usize = 4096;
    const INSTRUCTION_BYTES: usize = 8;
    let mut bytes = alloc::vec![0; MOST * INSTRUCTION_BYTES];
    let mut len = MOST;
    let pointers = (bytes.as_mut_ptr().expose_provenance(), (&raw mut len).expose_provenance());
    let arguments = [fd as usize, SOL_SOCKET, SO_GET_FILTER, pointers.0, pointers.1, 0];
    // SAFETY: the kernel writes at most `len` instructions of 8 bytes, and four bytes of length.
    if unsafe { syscall(nr::GETSOCKOPT, arguments) }.is_err() {
        len = 0;
    }
    bytes.truncate(len.saturating_mul(INSTRUCTION_BYTES));
    bytes
}

/// The process at the other end of a connected Unix socket as it was at connect(2) or socketpair(2); 0 if it
/// is in another PID namespace.
///
/// # Errors
/// Those of getsockopt(2).
pub fn peer_process(fd: u32) -> Result<u32, Errno> {
    const SO_PEERCRED: usize = 17;
    let mut credentials = [0; 12];
    option(fd, SOL_SOCKET, SO_PEERCRED, &mut credentials)?;
    let [a, b, c, d, ..] = credentials;
    Ok(u32::from_ne_bytes([a, b, c, d]))
}

/// State of a TCP socket.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TcpState {
    /// Neither connected nor listening.
    Closed,
    /// Waits for connections; the number is listen(2)'s backlog.
    Listening(u32),
    /// Anything with another side: being opened, open, being closed.
    Connected,
}

/// The state of TCP socket `fd` (`TCP_INFO`).
///
/// # Errors
/// Those of getsockopt(2).
pub fn tcp_state(fd: u32) -> Result<TcpState, Errno> {
    const TCP_INFO: usize = 11;
    const TCP_CLOSE: u8 = 7;
    const TCP_LISTEN: u8 = 10;
    // tcpi_state is the first byte; for a listener tcpi_sacked, at 28, is the backlog.
    let mut info = [0; 32];
    option(fd, IPPROTO_TCP, TCP_INFO, &mut info)?;
    let [state, .., b0, b1, b2, b3] = info;
    Ok(match state {
        TCP_CLOSE => TcpState::Closed,
        TCP_LISTEN => TcpState::Listening(u32::from_ne_bytes([b0, b1, b2, b3])),
        _ => TcpState::Connected,
    })
}

/// getsockname(2), as the kernel writes it.
///
/// # Errors
/// Those of getsockname(2).
pub fn own_address(fd: u32) -> Result<Vec<u8>, Errno> {
    address(nr::GETSOCKNAME, fd)
}

/// Who was at the other side of a connection, also when it has ended (`SO_PEERNAME`), in `len` bytes, as long as the own
/// address; empty if nobody ever was.
#[must_use]
pub fn peer_name(fd: u32, len: usize) -> Vec<u8> {
    const SO_PEERNAME: usize = 28;
    // For more than the name the kernel has an error.
    let mut name = alloc::vec![0; len];
    let len = option(fd, SOL_SOCKET, SO_PEERNAME, &mut name).unwrap_or(0);
    name.truncate(len);
    name
}

/// getpeername(2), as the kernel writes it; `None` where there is no other side.
///
/// # Errors
/// Those of getpeername(2), `ENOTCONN` and what says that this kind of socket never has one excepted.
pub fn peer_address(fd: u32) -> Result<Option<Vec<u8>>, Errno> {
    match address(nr::GETPEERNAME, fd) {
        Ok(address) => Ok(Some(address)),
        Err(Errno::ENOTCONN | Errno::EOPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn address(call: usize, fd: u32) -> Result<Vec<u8>, Errno> {
    let mut bytes = alloc::vec![0; ADDRESS_BYTES];
    let mut len = 128_u32;
    let pointers = (bytes.as_mut_ptr().expose_provenance(), (&raw mut len).expose_provenance());
    // SAFETY: the kernel writes at most `len` bytes of address, and the length.
    unsafe { syscall3(call, fd as usize, pointers.0, pointers.1) }?;
    bytes.truncate(len as usize);
    Ok(bytes)
}

pub(super) fn integer(fd: u32, level: usize, name: usize) -> Result<u32, Errno> {
    let mut value = [0; 4];
    option(fd, level, name, &mut value)?;
    Ok(u32::from_ne_bytes(value))
}

pub(super) fn option(fd: u32, level: usize, name: usize, value: &mut [u8]) -> Result<usize, Errno> {
    let mut len = value.len();
    let pointers = (value.as_mut_ptr().expose_provenance(), (&raw mut len).expose_provenance());
    // SAFETY: the kernel writes at most `len` bytes of value, and four bytes of length.
    unsafe { syscall(nr::GETSOCKOPT, [fd as usize, level, name, pointers.0, pointers.1, 0]) }?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;

    fn number(socket: &impl AsRawFd) -> u32 {
        socket.as_raw_fd().cast_unsigned()
    }

    #[test]
    fn a_listener_tells_its_address_and_backlog() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let fd = number(&listener);
        let expected = Kind { domain: INET, kind: STREAM, protocol: TCP, listening: true };
        assert_eq!(kind(fd), Ok(expected));
        assert_eq!(tcp_state(fd), Ok(TcpState::Listening(128)));
        let port = listener.local_addr().expect("bound").port().to_be_bytes();
        let address = own_address(fd).expect("bound");
        assert_eq!(address.get(2..8), Some([port[0], port[1], 127, 0, 0, 1].as_slice()));
        let reuses_address =
            protocol::socket_options(&options(fd)).next().map(|(level, name, _)| (level, name));
        assert_eq!(reuses_address, Some((1, 2)));
        assert_eq!(peer_address(fd), Ok(None));
        assert!(filter(fd).is_empty());
    }

    #[test]
    fn a_connection_has_another_side() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
        let stream = TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
        assert_eq!(tcp_state(number(&stream)), Ok(TcpState::Connected));
        let other = listener.local_addr().expect("bound").port().to_be_bytes();
        let peer = peer_address(number(&stream)).expect("connected");
        assert_eq!(peer.expect("connected").get(2..4), Some(other.as_slice()));
    }

    #[test]
    fn a_datagram_socket_is_not_connected() {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).expect("a free port");
        assert_eq!(peer_address(number(&socket)), Ok(None));
        assert!(!kind(number(&socket)).expect("a socket").listening);
    }

    #[test]
    fn a_socket_pair_has_this_process_at_its_other_end() {
        let (one, _other) = std::os::unix::net::UnixStream::pair().expect("a pair");
        assert_eq!(peer_process(number(&one)), Ok(std::process::id()));
    }
}
