//! A network in which every address is this machine's own, so that both ends of a connection that stays elsewhere can
//! have the names that they have there.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::libc;
use nix::sys::socket::{Backlog, MsgFlags, listen, recv};
use sys::descriptor::socket::own_address;
use sys::socket;

use crate::guardian::wait_for;

const STREAM: u32 = libc::SOCK_STREAM.unsigned_abs();
/// How long a connection from here to here may take.
const DEADLINE: Duration = Duration::from_secs(2);
/// The index of the loopback device in every network.
const LOOPBACK: u32 = 1;

/// Moves this process into such a network; sockets that it has stay where they are.
///
/// # Errors
/// It may not have one.
pub(super) fn enter() -> io::Result<()> {
    const NETLINK: u32 = libc::AF_NETLINK.unsigned_abs();
    const RAW: u32 = libc::SOCK_RAW.unsigned_abs();
    sys::birth::new_network_namespace()?;
    let netlink = socket::make(NETLINK, RAW, 0)?;
    tell(netlink.as_fd(), (libc::RTM_NEWLINK, 0), &switch_on())?;
    for family in [libc::AF_INET, libc::AF_INET6] {
        // Without one of the families there are no connections of it.
        let _ =
            tell(netlink.as_fd(), (libc::RTM_NEWROUTE, libc::NLM_F_CREATE), &everything_is_local(family)?);
    }
    Ok(())
}

/// `struct ifinfomsg`: the loopback device goes up.
fn switch_on() -> Vec<u8> {
    const UP: u32 = libc::IFF_UP.unsigned_abs();
    [0, LOOPBACK, UP, UP].into_iter().flat_map(u32::to_ne_bytes).collect()
}

/// `struct rtmsg` and the device: each address leads here.
fn everything_is_local(family: i32) -> io::Result<Vec<u8>> {
    let family = u8::try_from(family).map_err(io::Error::other)?;
    let mut message =
        vec![family, 0, 0, 0, libc::RT_TABLE_LOCAL, libc::RTPROT_BOOT, libc::RT_SCOPE_HOST, libc::RTN_LOCAL];
    message.extend(0_u32.to_ne_bytes());
    message.extend([8, 0]);
    message.extend(libc::RTA_OIF.to_ne_bytes());
    message.extend(LOOPBACK.to_ne_bytes());
    Ok(message)
}

/// Sends one netlink request of this kind, with these flags, and waits for its answer (netlink(7)).
fn tell(netlink: BorrowedFd<'_>, (kind, flags): (u16, i32), message: &[u8]) -> io::Result<()> {
    const HEADER_BYTES: usize = 16;
    let len = u32::try_from(HEADER_BYTES + message.len()).map_err(io::Error::other)?;
    let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).map_err(io::Error::other)?;
    let mut request = Vec::new();
    request.extend(len.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(flags.to_ne_bytes());
    request.extend([0; 8]);
    request.extend(message);
    socket::send(netlink, &request, &[], &[])?;
    if !wait_for(netlink, DEADLINE)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let mut answer = [0; 512];
    let count = recv(netlink.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    let answer = answer.get(..count).unwrap_or_default();
    // An acknowledgement is an error message with number 0.
    match answer.get(HEADER_BYTES..).and_then(<[u8]>::first_chunk).map(|number| i32::from_ne_bytes(*number)) {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(-number)),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// Two connected sockets of a domain with these names; if they cannot be had, or this process has not entered a network
/// where they are nobody else's, with names of the loopback device. The first is the program's.
///
/// # Errors
/// Not even that.
pub(super) fn pair(has_entered: bool, names: (u32, &[u8], &[u8])) -> io::Result<(OwnedFd, OwnedFd)> {
    match has_entered.then(|| pair_with_names(names)) {
        Some(Ok(pair)) => Ok(pair),
        Some(Err(_)) | None => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let programs = TcpStream::connect(listener.local_addr()?)?;
            let ours = accept_from(&listener, &programs)?;
            Ok((programs.into(), ours.into()))
        }
    }
}

/// The other end of `programs`, whoever else connects.
fn accept_from(listener: &TcpListener, programs: &TcpStream) -> io::Result<TcpStream> {
    let expected = programs.local_addr()?;
    loop {
        let (ours, from) = listener.accept()?;
        if (from.ip(), from.port()) == (expected.ip(), expected.port()) {
            return Ok(ours);
        }
    }
}

fn pair_with_names((domain, own, other): (u32, &[u8], &[u8])) -> io::Result<(OwnedFd, OwnedFd)> {
    let programs = bound(domain, own)?;
    // The kernel forgets who was at the other end of a connection that has ended in both directions.
    let mut any_port = own.to_vec();
    any_port.iter_mut().skip(2).take(2).for_each(|byte| *byte = 0);
    let listener = bound(domain, if other.is_empty() { &any_port } else { other })?;
    listen(&listener, Backlog::new(1)?)?;
    let other = own_address(listener.as_raw_fd().unsigned_abs())?;
    match socket::connect(programs.as_fd(), &other).map_err(io::Error::from) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    if !wait_for(listener.as_fd(), DEADLINE)? {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let programs = TcpStream::from(programs);
    let ours = accept_from(&TcpListener::from(listener), &programs)?;
    Ok((programs.into(), ours.into()))
}

/// A socket with a name that others may have too.
fn bound(domain: u32, name: &[u8]) -> io::Result<OwnedFd> {
    /// `SO_REUSEADDR`, `IP_FREEBIND`, `IPV6_FREEBIND`
    const SHARING: [(u16, u8); 3] = [(1, 2), (0, 15), (41, 78)];
    let made = socket::make(domain, STREAM, 0)?;
    for (level, option) in SHARING {
        // Each family has its own.
        let _ = socket::set_option(made.as_fd(), level, option, &1_u32.to_ne_bytes());
    }
    socket::bind(made.as_fd(), name)?;
    Ok(made)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_who_connects_first_is_not_taken_for_the_program() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let _stranger = TcpStream::connect(address).expect("listening");
        let programs = TcpStream::connect(address).expect("listening");
        let ours = accept_from(&listener, &programs).expect("connected");
        assert_eq!(ours.peer_addr().expect("connected"), programs.local_addr().expect("connected"));
    }

    #[test]
    fn names_are_not_taken_in_a_network_that_others_are_in() {
        let mut other = [0; 16];
        other[..8].copy_from_slice(&[2, 0, 0x12, 0x34, 127, 0, 0, 9]);
        let (programs, _ours) = pair(false, (2, &other, &other)).expect("the loopback device");
        let address = TcpStream::from(programs).local_addr().expect("connected");
        assert_eq!(address.ip().to_string(), "127.0.0.1");
    }
}
