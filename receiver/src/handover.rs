//! The channels of a source that connects again, on their way from the daemon to the session.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, sendmsg,
    socketpair,
};

/// Both ends of a line, the daemon's first.
///
/// # Errors
/// Those of socketpair(2).
pub fn line() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?)
}

/// Three channels, and the pipe that says what to seal them with.
pub type HandedOver = ([OwnedFd; 3], Option<OwnedFd>);

/// Hands the three channels over: control, fault, push; behind them the pipe that says what to seal them with, if any.
///
/// # Errors
/// The session has ended, or does not take what came before.
pub fn send(line: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    sendmsg::<()>(line.as_raw_fd(), &[IoSlice::new(b"R")], &rights, flags, None)?;
    Ok(())
}

/// Takes what has been handed over, if there is anything.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(line: &OwnedFd) -> io::Result<Option<HandedOver>> {
    let mut byte = [0];
    let mut control = nix::cmsg_space!([i32; 4]);
    let mut vector = [IoSliceMut::new(&mut byte)];
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
    let message = match recvmsg::<()>(line.as_fd().as_raw_fd(), &mut vector, Some(&mut control), flags) {
        Ok(message) => message,
        Err(Errno::EAGAIN) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let mut received = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            for number in numbers {
                received.push(sys::fd::received(number)?);
            }
        }
    }
    let mut received = received.into_iter();
    Ok(match (received.next(), received.next(), received.next()) {
        (Some(control), Some(fault), Some(push)) => Some(([control, fault, push], received.next())),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_descriptors_arrive_in_their_order() {
        let (ours, theirs) = line().expect("a pair of sockets");
        assert!(receive(&theirs).expect("an open line").is_none());
        let (reader, writer) = io::pipe().expect("a pipe");
        send(ours.as_fd(), &[reader.as_fd(), writer.as_fd(), ours.as_fd()]).expect("an open line");
        let ([first, second, _], none) = receive(&theirs).expect("an open line").expect("three descriptors");
        assert!(none.is_none());
        assert!(io::Read::read(&mut std::fs::File::from(first), &mut []).is_ok());
        assert_eq!(io::Write::write(&mut std::fs::File::from(second), b"x").expect("the writing end"), 1);
    }
}
