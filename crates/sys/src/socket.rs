//! Sockets made from bytes that another kernel wrote: any domain, any address, any option.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd};

const SOCK_NONBLOCK: usize = 0o4000;
const SOCK_CLOEXEC: usize = 0o2_000_000;
const SOL_SOCKET: usize = 1;

/// `socket(2)`, close-on-exec and non-blocking.
///
/// # Errors
/// Those of socket(2).
pub fn make(domain: u32, kind: u32, protocol: u32) -> Result<OwnedFd, Errno> {
    let kind = kind as usize | SOCK_NONBLOCK | SOCK_CLOEXEC;
    // SAFETY: plain numbers.
    let raw = unsafe { syscall3(nr::SOCKET, domain as usize, kind, protocol as usize) }?;
    Fd::from_result(raw).map(Into::into)
}

/// `bind(2)`
///
/// # Errors
/// Those of bind(2).
pub fn bind(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    name(nr::BIND, socket, address)
}

/// `connect(2)`
///
/// # Errors
/// Those of connect(2).
pub fn connect(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    name(nr::CONNECT, socket, address)
}

fn name(call: usize, socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    // SAFETY: the address is valid for reads of its length.
    unsafe { syscall3(call, number(socket), address.as_ptr().expose_provenance(), address.len()) }.map(|_| ())
}

/// `getsockopt(2)`, at most 64 bytes.
///
/// # Errors
/// Those of getsockopt(2).
pub fn option(socket: BorrowedFd<'_>, level: u16, option: u8) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 64];
    let mut len = value.len();
    let pointers = (value.as_mut_ptr().expose_provenance(), (&raw mut len).expose_provenance());
    let arguments = [number(socket), usize::from(level), usize::from(option), pointers.0, pointers.1, 0];
    // SAFETY: the kernel writes at most `len` bytes of value, and four bytes of length.
    unsafe { syscall(nr::GETSOCKOPT, arguments) }?;
    value.truncate(len);
    Ok(value)
}

/// `setsockopt(2)`
///
/// # Errors
/// Those of setsockopt(2).
pub fn set_option(socket: BorrowedFd<'_>, level: u16, option: u8, value: &[u8]) -> Result<(), Errno> {
    let arguments = [
        number(socket),
        usize::from(level),
        usize::from(option),
        value.as_ptr().expose_provenance(),
        value.len(),
        0,
    ];
    // SAFETY: the value is valid for reads of its length; no option of the manifest's table holds a pointer.
    unsafe { syscall(nr::SETSOCKOPT, arguments) }.map(|_| ())
}

/// `SO_ATTACH_FILTER`: classic BPF instructions of 8 bytes each.
///
/// # Errors
/// Those of setsockopt(2).
pub fn attach_filter(socket: BorrowedFd<'_>, instructions: &[u8]) -> Result<(), Errno> {
    const SO_ATTACH_FILTER: usize = 26;
    /// `struct sock_fprog`: a 16-bit count, then, aligned, a pointer.
    const PROGRAM_BYTES: usize = 16;
    let program = [instructions.len() / 8, instructions.as_ptr().expose_provenance()];
    let pointer = program.as_ptr().expose_provenance();
    let arguments = [number(socket), SOL_SOCKET, SO_ATTACH_FILTER, pointer, PROGRAM_BYTES, 0];
    // SAFETY: the structure counts whole instructions, which are valid for reads; the kernel checks and copies them.
    unsafe { syscall(nr::SETSOCKOPT, arguments) }.map(|_| ())
}

/// Sends one message without waiting: `content` and duplicates of `rights`, to `to` unless that is empty.
///
/// # Errors
/// Those of sendmsg(2); `EIO` if not all was taken.
pub fn send(
    socket: BorrowedFd<'_>,
    content: &[u8],
    to: &[u8],
    rights: &[BorrowedFd<'_>],
) -> Result<(), Errno> {
    const MSG_DONTWAIT: usize = 0x40;
    const MSG_NOSIGNAL: usize = 0x4000;
    /// `SOL_SOCKET` and, in the upper half, `SCM_RIGHTS`.
    const RIGHTS: u64 = 1 | 1 << 32;
    const HEADER_BYTES: usize = 16;
    let control_len = HEADER_BYTES + rights.len() * 4;
    let mut control = vec![control_len as u64, RIGHTS];
    for pair in rights.chunks(2) {
        let word = |index: usize| pair.get(index).map_or(0, |fd| u64::from(fd.as_raw_fd().cast_unsigned()));
        control.push(word(0) | word(1) << 32);
    }
    let vector = [content.as_ptr().expose_provenance(), content.len()];
    let with_control = !rights.is_empty();
    // struct msghdr: name, its length, vectors, their count, control, its length, flags.
    let message = [
        if to.is_empty() { 0 } else { to.as_ptr().expose_provenance() },
        to.len(),
        vector.as_ptr().expose_provenance(),
        1,
        if with_control { control.as_ptr().expose_provenance() } else { 0 },
        if with_control { control_len } else { 0 },
        0,
    ];
    let pointer = message.as_ptr().expose_provenance();
    // SAFETY: name, vector and control part are valid for reads of their lengths.
    let sent = unsafe { syscall3(nr::SENDMSG, number(socket), pointer, MSG_DONTWAIT | MSG_NOSIGNAL) }?;
    if sent == content.len() { Ok(()) } else { Err(Errno::EIO) }
}

fn number(socket: BorrowedFd<'_>) -> usize {
    socket.as_raw_fd().cast_unsigned() as usize
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn options_addresses_and_filters_are_set_as_they_are_read() {
        let socket = make(2, 2, 0).expect("a socket");
        let socket = socket.as_fd();
        set_option(socket, 1, 6, &1_u32.to_ne_bytes()).expect("SO_BROADCAST");
        assert_eq!(option(socket, 1, 6), Ok(1_u32.to_ne_bytes().to_vec()));
        bind(socket, &[2, 0, 0, 0, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]).expect("a free port");
        let accept_all = [6, 0, 0, 0, 0xff, 0xff, 0, 0];
        attach_filter(socket, &accept_all).expect("one instruction");
        assert_eq!(crate::descriptor::socket::filter(socket.as_raw_fd().cast_unsigned()), accept_all);
    }

    #[test]
    fn descriptors_arrive_with_the_message_that_they_were_sent_with() {
        let (one, two) = UnixDatagram::pair().expect("a pair");
        let three = UnixDatagram::unbound().expect("a socket");
        send(one.as_fd(), b"rights", &[], &[three.as_fd(), one.as_fd(), two.as_fd()]).expect("room");
        let seen = crate::descriptor::pair::messages(two.as_raw_fd().cast_unsigned(), false, 100);
        let seen = seen.expect("a socket");
        assert_eq!(
            (seen.len(), seen[0].content.as_slice(), seen[0].descriptors.len()),
            (1, &b"rights"[..], 3)
        );
    }
}
