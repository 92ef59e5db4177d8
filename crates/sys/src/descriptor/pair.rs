//! Pairs of Unix sockets: which socket is at the other end, and the bytes in flight without taking them out.

use alloc::vec::Vec;

use super::pipe::in_flight;
use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd};

const AF_NETLINK: usize = 16;
const SOCK_RAW_CLOEXEC: usize = 3 | 0o2_000_000;
const NETLINK_SOCK_DIAG: usize = 4;
/// Bytes of `struct nlmsghdr` and `struct unix_diag_req`.
const REQUEST_BYTES: u32 = 16 + 24;
/// Bytes of `struct nlmsghdr` and `struct unix_diag_msg`, behind which attributes follow.
const ANSWER_BYTES: usize = 16 + 16;
const MSG_PEEK: usize = 0x2;
const MSG_DONTWAIT: usize = 0x40;
const MSG_CTRUNC: usize = 0x8;

/// The inode of the socket that the Unix socket with `inode` is connected to; `None` if there is none, or if the kernel
/// does not tell (`CONFIG_UNIX_DIAG`).
#[must_use]
pub fn peer_inode(inode: u64) -> Option<u64> {
    /// `SOCK_DIAG_BY_FAMILY`, with `NLM_F_REQUEST` in the upper half.
    const BY_FAMILY: u32 = 20 | 1 << 16;
    const UDIAG_SHOW_PEER: u32 = 4;
    const UNIX: u32 = 1;
    const ANY: u32 = u32::MAX;
    let inode = u32::try_from(inode).ok()?;
    // SAFETY: plain numbers.
    let raw = unsafe { syscall3(nr::SOCKET, AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG) }.ok()?;
    let socket = Fd::from_result(raw).ok()?;
    // sequence, port; then family, states, inode, what to show, and the cookie that says "whatever it is".
    let request: [u32; 10] = [REQUEST_BYTES, BY_FAMILY, 0, 0, UNIX, ANY, inode, UDIAG_SHOW_PEER, ANY, ANY];
    let pointer = request.as_ptr().expose_provenance();
    // SAFETY: the request is valid for reads of its length.
    unsafe { syscall3(nr::WRITE, socket.arg(), pointer, size_of_val(&request)) }.ok()?;
    let mut answer = [0; 256];
    // The kernel has answered before the write returned.
    let got = receive(socket.raw().cast_unsigned(), &mut answer).ok()?;
    peer_in(answer.get(..got)?)
}

/// The peer among the attributes of an answer.
fn peer_in(answer: &[u8]) -> Option<u64> {
    const SOCK_DIAG_BY_FAMILY: u16 = 20;
    const UNIX_DIAG_PEER: u16 = 2;
    let half = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    if half(answer, 4)? != SOCK_DIAG_BY_FAMILY {
        return None;
    }
    let mut attributes = answer.get(ANSWER_BYTES..)?;
    loop {
        let (length, kind) = (usize::from(half(attributes, 0)?), half(attributes, 2)?);
        if kind == UNIX_DIAG_PEER {
            let peer = u32::from_ne_bytes(*attributes.get(4..length)?.first_chunk()?);
            return (peer != 0).then_some(u64::from(peer));
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// The bytes that stream socket `fd` has received and not yet read; they stay in it.
///
/// # Errors
/// Those of recvmsg(2); `EOPNOTSUPP` when descriptors travel with them.
pub fn peek(fd: u32) -> Result<Vec<u8>, Errno> {
    let expected = in_flight(fd)? as usize;
    let mut content = alloc::vec![0; expected];
    if expected > 0 && receive(fd, &mut content)? != expected {
        return Err(Errno::EOPNOTSUPP);
    }
    Ok(content)
}

/// Looks at what a socket has received, without waiting.
fn receive(fd: u32, buffer: &mut [u8]) -> Result<usize, Errno> {
    let vector = [buffer.as_mut_ptr().expose_provenance(), buffer.len()];
    // struct msghdr: name, its length, vectors, their count, control, its length, flags.
    let mut message = [0, 0, vector.as_ptr().expose_provenance(), 1, 0, 0, 0];
    let pointer = message.as_mut_ptr().expose_provenance();
    // SAFETY: the message's one vector is the buffer, valid for writes of its length; the kernel writes the
    // message's lengths and flags.
    let got = unsafe { syscall(nr::RECVMSG, [fd as usize, pointer, MSG_PEEK | MSG_DONTWAIT, 0, 0, 0]) }?;
    let [.., flags] = message;
    if flags & MSG_CTRUNC == 0 { Ok(got) } else { Err(Errno::EOPNOTSUPP) }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::status;

    fn number(stream: &UnixStream) -> u32 {
        stream.as_raw_fd().cast_unsigned()
    }

    fn inode(stream: &UnixStream) -> u64 {
        status::of_number(number(stream)).expect("open").inode
    }

    #[test]
    fn the_ends_of_a_pair_know_each_other() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let Some(peer) = peer_inode(inode(&one)) else {
            std::println!("skipped: this kernel does not tell peers (CONFIG_UNIX_DIAG)");
            return;
        };
        assert_eq!(peer, inode(&two));
        assert_eq!(peer_inode(inode(&two)), Some(inode(&one)));
        let known = inode(&one);
        drop(two);
        assert_eq!(peer_inode(known), None);
    }

    #[test]
    fn bytes_in_flight_are_seen_and_stay() {
        let (mut one, two) = UnixStream::pair().expect("a pair");
        assert_eq!(peek(number(&two)), Ok(Vec::new()));
        one.write_all(b"some ").expect("room");
        let written = one.write_vectored(&[IoSlice::new(b"bytes")]).expect("room");
        assert_eq!(written, 5);
        for _ in 0..2 {
            assert_eq!(peek(number(&two)), Ok(b"some bytes".to_vec()));
        }
    }

    #[test]
    fn an_answer_that_is_an_error_or_cut_names_no_peer() {
        assert_eq!(peer_in(&[0; 64]), None);
        let mut answer = [0_u8; 40];
        answer[4] = 20;
        answer[32] = 8;
        answer[34] = 2;
        answer[36] = 7;
        assert_eq!(peer_in(&answer), Some(7));
        assert_eq!(peer_in(&answer[..38]), None);
        answer[32] = 0;
        answer[34] = 9;
        assert_eq!(peer_in(&answer), None);
    }
}
