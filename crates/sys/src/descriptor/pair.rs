//! Sockets that talk to each other: which one is at the other end, and what is in flight, without taking it out.

use alloc::vec::Vec;

use crate::raw::{nr, syscall, syscall3};
use crate::{Errno, Fd};

const AF_NETLINK: usize = 16;
const SOCK_RAW_CLOEXEC: usize = 3 | 0o2_000_000;
const NETLINK_SOCK_DIAG: usize = 4;
/// Bytes of `struct nlmsghdr` and `struct unix_diag_msg`, behind which attributes follow.
const ANSWER_BYTES: usize = 16 + 16;
/// Bytes of `struct nlmsghdr` and `struct inet_diag_msg`.
const DATAGRAM_ANSWER_BYTES: usize = 16 + 72;
const SOL_SOCKET: usize = 1;
const MSG_PEEK: usize = 0x2;
const MSG_CTRUNC: usize = 0x8;
const MSG_TRUNC: usize = 0x20;
const MSG_DONTWAIT: usize = 0x40;
const MSG_CMSG_CLOEXEC: usize = 0x4000_0000;

/// What `sock_diag(7)` says of the Unix socket with `inode`: message header, fixed part, attributes. Empty if it does not
/// know it, or if the kernel lacks `CONFIG_UNIX_DIAG`.
#[must_use]
pub fn diagnosis(inode: u64) -> Vec<u8> {
    /// `UDIAG_SHOW_VFS | UDIAG_SHOW_PEER | UDIAG_SHOW_ICONS`
    const SHOW: u32 = 2 | 4 | 8;
    const UNIX: u32 = 1;
    let Ok(inode) = u32::try_from(inode) else { return Vec::new() };
    // sequence, port; then family, states, inode, what to show, and the cookie that says "whatever it is".
    ask(&mut [0, BY_FAMILY, 0, 0, UNIX, ANY, inode, SHOW, ANY, ANY])
}

/// What `sock_diag(7)` says of the connected UDP socket with these addresses, as getsockname(2) and getpeername(2) have
/// them.
#[must_use]
pub fn datagram_diagnosis(own: &[u8], peer: &[u8]) -> Vec<u8> {
    const UDP: u32 = 17;
    // The other side comes first here.
    inet_diagnosis(UDP, peer, own)
}

/// Whose the connected TCP socket of this network namespace with these addresses is, as getsockname(2) and getpeername(2)
/// would have them: user and inode. `None` if nobody has it open, and if the kernel does not tell: without
/// `CONFIG_INET_DIAG`, or of a socket that is bound to a device.
#[must_use]
pub fn tcp_owner(own: &[u8], peer: &[u8]) -> Option<(u32, u64)> {
    const TCP: u32 = 6;
    /// Behind `struct nlmsghdr` and four short fields.
    const PORTS: usize = 16 + 4;
    /// Behind the addresses, two counts and a time.
    const USER: usize = PORTS + 48 + 12;
    let answer = inet_diagnosis(TCP, own, peer);
    let word = |at: usize| answer.get(at..)?.first_chunk().copied().map(u32::from_ne_bytes);
    // Where no connection is found, the kernel tells of a socket that listens at `own`, whoever's that is.
    let is_it = is_answer(&answer) && word(PORTS)? == ports(own, peer);
    let (user, inode) = (word(USER)?, word(USER + 4)?);
    (is_it && inode != 0).then_some((user, inode.into()))
}

/// Of two addresses, as `struct inet_diag_sockid` begins.
fn ports(first: &[u8], second: &[u8]) -> u32 {
    word_at(first, 0) >> 16 | word_at(second, 0) & 0xffff_0000
}

fn word_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_ne_bytes(bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default())
}

fn inet_diagnosis(protocol: u32, first: &[u8], second: &[u8]) -> Vec<u8> {
    const INET6: u32 = 10;
    let family = word_at(first, 0) & 0xffff;
    let (start, words) = if family == INET6 { (8, 4) } else { (4, 1) };
    let mut request = [0; 18];
    let [_, kind, _, _, what, states, both, id @ ..] = &mut request;
    *kind = BY_FAMILY;
    *what = family | protocol << 8;
    *states = ANY;
    *both = ports(first, second);
    for (at, slot) in id.iter_mut().enumerate() {
        *slot = match at {
            0..4 if at < words => word_at(first, start + at * 4),
            4..8 if at - 4 < words => word_at(second, start + (at - 4) * 4),
            8 => 0,
            9.. => ANY,
            _ => 0,
        };
    }
    ask(&mut request)
}

/// `SOCK_DIAG_BY_FAMILY`, with `NLM_F_REQUEST` in the upper half.
const BY_FAMILY: u32 = 20 | 1 << 16;
const ANY: u32 = u32::MAX;

/// The answer to a request, whose first word becomes its length.
fn ask(request: &mut [u32]) -> Vec<u8> {
    let bytes = size_of_val(request);
    if let (Some(length), Ok(bytes)) = (request.first_mut(), u32::try_from(bytes)) {
        *length = bytes;
    }
    let mut answer = alloc::vec![0; 4096];
    let mut exchange = || {
        // SAFETY: plain numbers.
        let raw = unsafe { syscall3(nr::SOCKET, AF_NETLINK, SOCK_RAW_CLOEXEC, NETLINK_SOCK_DIAG) }.ok()?;
        let socket = Fd::from_result(raw).ok()?;
        let pointer = request.as_ptr().expose_provenance();
        // SAFETY: the request is valid for reads of its length.
        unsafe { syscall3(nr::WRITE, socket.arg(), pointer, bytes) }.ok()?;
        // The kernel has answered before the write returned.
        crate::file::read(&socket, &mut answer).ok()
    };
    let got = exchange().unwrap_or(0);
    answer.truncate(got);
    answer
}

/// The inode of the socket that a Unix socket is connected to, by its [`diagnosis`].
#[must_use]
pub fn peer_inode(diagnosis: &[u8]) -> Option<u64> {
    const UNIX_DIAG_PEER: u16 = 2;
    let peer = u32::from_ne_bytes(*attribute(diagnosis, UNIX_DIAG_PEER)?.first_chunk()?);
    (peer != 0).then_some(u64::from(peer))
}

/// `UNIX_DIAG_VFS`: inode, then device, of the name in the file system.
pub const VFS: u16 = 1;

/// `UNIX_DIAG_ICONS`: inodes of the sockets whose connections wait to be accepted, 32 bits each.
pub const CLIENTS: u16 = 3;

/// The value of the attribute `wanted` of a [`diagnosis`].
#[must_use]
pub fn attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    attribute_behind(answer, ANSWER_BYTES, wanted)
}

/// The value of the attribute `wanted` of a [`datagram_diagnosis`].
#[must_use]
pub fn datagram_attribute(answer: &[u8], wanted: u16) -> Option<&[u8]> {
    attribute_behind(answer, DATAGRAM_ANSWER_BYTES, wanted)
}

/// Whether the kernel knows the socket: else it says why not.
fn is_answer(answer: &[u8]) -> bool {
    const SOCK_DIAG_BY_FAMILY: [u8; 2] = 20_u16.to_ne_bytes();
    answer.get(4..6) == Some(&SOCK_DIAG_BY_FAMILY)
}

fn attribute_behind(answer: &[u8], head: usize, wanted: u16) -> Option<&[u8]> {
    if !is_answer(answer) {
        return None;
    }
    let half = |bytes: &[u8], at: usize| Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let mut attributes = answer.get(head..)?;
    loop {
        let (length, kind) = (usize::from(half(attributes, 0)?), half(attributes, 2)?);
        if kind == wanted {
            return attributes.get(4..length);
        }
        attributes = attributes.get(length.max(4).next_multiple_of(4)..)?;
    }
}

/// A message that waits in a socket.
#[derive(Debug)]
pub struct Message {
    /// Its bytes.
    pub content: Vec<u8>,
    /// Who sent it.
    pub sender: Vec<u8>,
    /// Duplicates of the descriptors that travel with it.
    pub descriptors: Vec<Fd>,
}

/// What socket `fd` has received and not yet read; it stays there. Duplicates of descriptors in flight get the lowest
/// free numbers, and the socket's own position for looking is used: only for a process that stands still.
///
/// # Errors
/// Those of recvmsg(2); `EOVERFLOW` for more than `limit` bytes.
///
/// `has_end` tells that no bytes mean the end, as they do but for datagrams.
pub fn messages(fd: u32, has_end: bool, limit: usize) -> Result<Vec<Message>, Errno> {
    // Sockets of a kind that has no such position are not looked into.
    let Ok(before) = peek_offset(fd, None) else { return Ok(Vec::new()) };
    peek_offset(fd, Some(0))?;
    /// Messages without a byte; others are bounded by their bytes.
    const MOST_MESSAGES: usize = 1 << 16;
    let mut messages = Vec::new();
    let mut left = limit;
    let outcome = loop {
        match peek(fd, left) {
            Ok(message) if message.content.is_empty() && (has_end || messages.len() > MOST_MESSAGES) => {
                break Ok(());
            }
            Ok(message) => {
                left -= message.content.len();
                messages.push(message);
            }
            // The last two: a connection that there is not, or not yet.
            Err(Errno::EAGAIN | Errno::EINVAL | Errno::ENOTCONN) => break Ok(()),
            Err(errno) => break Err(errno),
        }
    };
    peek_offset(fd, Some(before))?;
    outcome.map(|()| messages)
}

/// `SO_PEEK_OFF`: reads it, or sets it.
fn peek_offset(fd: u32, new: Option<i32>) -> Result<i32, Errno> {
    const SO_PEEK_OFF: usize = 42;
    let mut value = new.unwrap_or(-1);
    let mut len = size_of::<i32>();
    let value_at = (&raw mut value).expose_provenance();
    let (call, len) = match new {
        Some(_) => (nr::SETSOCKOPT, len),
        None => (nr::GETSOCKOPT, (&raw mut len).expose_provenance()),
    };
    // SAFETY: the kernel reads or writes four bytes of value, and writes four bytes of length if it is asked.
    unsafe { syscall(call, [fd as usize, SOL_SOCKET, SO_PEEK_OFF, value_at, len, 0]) }?;
    Ok(value)
}

/// Looks at the next message, without waiting.
fn peek(fd: u32, limit: usize) -> Result<Message, Errno> {
    /// More than a socket takes in one piece unless its buffer was raised.
    const BUFFER_BYTES: usize = 256 << 10;
    const ADDRESS_BYTES: usize = 128;
    /// Room for 253 descriptors, which is the most, and for credentials and time stamps.
    const CONTROL_WORDS: usize = 160;
    let mut content = alloc::vec![0_u8; BUFFER_BYTES];
    let mut sender = alloc::vec![0_u8; ADDRESS_BYTES];
    let mut control = [0_u64; CONTROL_WORDS];
    let vector = [content.as_mut_ptr().expose_provenance(), content.len()];
    // struct msghdr: name, its length, vectors, their count, control, its length, flags.
    let mut message = [
        sender.as_mut_ptr().expose_provenance(),
        sender.len(),
        vector.as_ptr().expose_provenance(),
        1,
        control.as_mut_ptr().expose_provenance(),
        size_of_val(&control),
        0,
    ];
    let pointer = message.as_mut_ptr().expose_provenance();
    let flags = MSG_PEEK | MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    // SAFETY: the message's one vector, its name and its control part are valid for writes of their lengths; the kernel
    // writes the message's lengths and flags.
    let got = unsafe { syscall(nr::RECVMSG, [fd as usize, pointer, flags, 0, 0, 0]) }?;
    let [_, sender_len, .., control_len, flags] = message;
    let descriptors = descriptors_in(&control, control_len);
    if got > limit || flags & (MSG_CTRUNC | MSG_TRUNC) != 0 {
        return Err(Errno::EOVERFLOW);
    }
    content.truncate(got);
    content.shrink_to_fit();
    sender.truncate(sender_len & 0xffff_ffff);
    Ok(Message { content, sender, descriptors })
}

/// Takes the descriptors out of a control part of `len` bytes (`SCM_RIGHTS`).
fn descriptors_in(control: &[u64], len: usize) -> Vec<Fd> {
    /// `SOL_SOCKET` and, in the upper half, `SCM_RIGHTS`.
    const RIGHTS: u64 = 1 | 1 << 32;
    const HEADER_WORDS: usize = 2;
    let mut found = Vec::new();
    let mut rest = control.get(..len / 8).unwrap_or_default();
    while let Some(&[length, kind]) = rest.first_chunk() {
        let words = usize::try_from(length).unwrap_or(0).div_ceil(8).max(HEADER_WORDS);
        let count = usize::try_from(length).unwrap_or(0).saturating_sub(16) / 4;
        let numbers = rest.get(HEADER_WORDS..words).unwrap_or_default();
        if kind == RIGHTS {
            for index in 0..count {
                let pair = numbers.get(index / 2).copied().unwrap_or(0);
                let number = if index % 2 == 0 { pair & 0xffff_ffff } else { pair >> 32 };
                // A number that is none at all is not there.
                found.extend(usize::try_from(number).ok().and_then(|number| Fd::from_result(number).ok()));
            }
        }
        rest = rest.get(words..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;
    use crate::status;

    fn number(stream: &impl AsRawFd) -> u32 {
        stream.as_raw_fd().cast_unsigned()
    }

    fn inode(stream: &UnixStream) -> u64 {
        status::of_number(number(stream)).expect("open").inode
    }

    #[test]
    fn the_ends_of_a_pair_know_each_other() {
        let (one, two) = UnixStream::pair().expect("a pair");
        let diagnosis_of_one = diagnosis(inode(&one));
        if diagnosis_of_one.is_empty() {
            std::println!("skipped: this kernel does not tell peers (CONFIG_UNIX_DIAG)");
            return;
        }
        assert_eq!(peer_inode(&diagnosis_of_one), Some(inode(&two)));
        assert_eq!(peer_inode(&diagnosis(inode(&two))), Some(inode(&one)));
        let known = inode(&one);
        drop(two);
        assert_eq!(peer_inode(&diagnosis(known)), None);
    }

    #[test]
    fn bytes_in_flight_are_seen_and_stay() {
        let (mut one, two) = UnixStream::pair().expect("a pair");
        assert!(messages(number(&two), true, 100).expect("a socket").is_empty());
        one.write_all(b"some bytes").expect("room");
        for _ in 0..2 {
            let seen = messages(number(&two), true, 100).expect("a socket");
            let all: Vec<u8> = seen.iter().flat_map(|message| message.content.clone()).collect();
            assert_eq!(all, b"some bytes");
        }
        assert_eq!(messages(number(&two), true, 9).map(|_| ()), Err(Errno::EOVERFLOW));
        drop(one);
        assert_eq!(
            messages(number(&two), true, 100).expect("a socket").len(),
            1,
            "and the end is no message"
        );
    }

    #[test]
    fn messages_keep_their_bounds_and_bring_their_descriptors() {
        let (one, two) = UnixDatagram::pair().expect("a pair");
        for text in [b"first".as_slice(), b"second"] {
            one.send(text).expect("room");
        }
        let seen = messages(number(&two), false, 100).expect("a socket");
        let texts: Vec<&[u8]> = seen.iter().map(|message| message.content.as_slice()).collect();
        assert_eq!(texts, [b"first".as_slice(), b"second"]);
        assert!(seen.iter().all(|message| message.descriptors.is_empty()));
    }

    #[test]
    fn descriptors_are_taken_from_every_part_of_the_control_bytes() {
        // Two descriptors that are open, in a message of 24 bytes behind one of another kind.
        let open = [(); 2].map(|()| crate::file::open(c"/dev/null", crate::file::READ_ONLY).expect("exists"));
        let [low, high] = open.map(|fd| u64::from(fd.into_raw().cast_unsigned()));
        let control = [20, 1 | 2 << 32, 7, 24, 1 | 1 << 32, low | high << 32, 0, 0];
        let found: Vec<_> = descriptors_in(&control, 48).iter().map(|fd| fd.arg() as u64).collect();
        assert_eq!(found, [low, high]);
        assert!(descriptors_in(&control, 24).is_empty());
        assert!(descriptors_in(&[0, 0, 0], 24).is_empty());
    }

    #[test]
    fn a_connected_datagram_socket_tells_how_it_is_shut_down() {
        const INET_DIAG_SHUTDOWN: u16 = 8;
        for host in ["127.0.0.1", "::1"] {
            let Ok(one) = std::net::UdpSocket::bind((host, 0)) else { continue };
            let two = std::net::UdpSocket::bind((host, 0)).expect("a port");
            one.connect(two.local_addr().expect("bound")).expect("loopback");
            let fd = number(&one);
            let own = super::super::socket::own_address(fd).expect("bound");
            let peer = super::super::socket::peer_address(fd).expect("a socket").expect("connected");
            let answer = datagram_diagnosis(&own, &peer);
            if answer.len() < DATAGRAM_ANSWER_BYTES {
                std::println!("skipped: this kernel does not tell of UDP sockets (CONFIG_INET_UDP_DIAG)");
                return;
            }
            assert_eq!(datagram_attribute(&answer, INET_DIAG_SHUTDOWN), Some(&[0][..]), "{host}");
        }
    }

    #[test]
    fn a_connection_tells_whose_it_is() {
        use super::super::socket::{own_address, peer_address};
        use std::os::linux::fs::MetadataExt;
        for host in ["127.0.0.1", "::1"] {
            let Ok(listener) = std::net::TcpListener::bind((host, 0)) else { continue };
            let client =
                std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("loopback");
            let (accepted, _) = listener.accept().expect("a connection");
            let fd = number(&accepted);
            let theirs = peer_address(fd).expect("a socket").expect("connected");
            let ours = own_address(fd).expect("bound");
            let opened = std::fs::metadata(std::format!("/proc/self/fd/{}", number(&client))).expect("open");
            let found = tcp_owner(&theirs, &ours);
            if found.is_none() {
                std::println!("skipped: this kernel does not tell of TCP sockets (CONFIG_INET_DIAG)");
                return;
            }
            let own = std::fs::metadata("/proc/self").expect("proc").st_uid();
            assert_eq!(found, Some((own, opened.st_ino())), "{host}");
            assert_ne!(tcp_owner(&ours, &theirs), found, "that is the other end");
            let mut strange = theirs.clone();
            strange[2] ^= 0x55;
            assert_eq!(tcp_owner(&ours, &strange), None, "the listener is not the connection");
            drop((client, listener));
            assert_eq!(tcp_owner(&theirs, &ours), None, "nobody has it any more");
        }
    }

    #[test]
    fn an_answer_that_is_an_error_or_cut_names_no_peer() {
        assert_eq!(peer_inode(&[0; 64]), None);
        let mut answer = [0_u8; 40];
        answer[4] = 20;
        answer[32] = 8;
        answer[34] = 2;
        answer[36] = 7;
        assert_eq!(peer_inode(&answer), Some(7));
        assert_eq!(peer_inode(&answer[..38]), None);
        answer[32] = 0;
        answer[34] = 9;
        assert_eq!(peer_inode(&answer), None);
    }
}
