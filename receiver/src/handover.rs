//! Connections of a source that come late, on their way from the daemon to the session: its channels when it connects
//! again, and the link over which others are relayed.

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

/// What has been handed over; the pipe, if any, says what to seal it with.
#[derive(Debug)]
pub enum HandedOver {
    /// Control, fault and push of a source that has connected again.
    Channels([OwnedFd; 3], Option<OwnedFd>),
    /// The link over which connections are relayed.
    Relay(OwnedFd, Option<OwnedFd>),
}

/// Hands connections over, three or one, and behind them the pipe that says what to seal them with, if any.
///
/// # Errors
/// The session has ended, or does not take what came before.
pub fn send(
    line: BorrowedFd<'_>,
    connections: &[BorrowedFd<'_>],
    sealing: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let numbers: Vec<_> = connections.iter().chain(&sealing).map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let word = if connections.len() == 1 { RELAY } else { CHANNELS };
    sendmsg::<()>(line.as_raw_fd(), &[IoSlice::new(&[word])], &rights, flags, None)?;
    Ok(())
}

const CHANNELS: u8 = b'C';
const RELAY: u8 = b'R';

/// Takes what has been handed over, if there is anything.
///
/// # Errors
/// Those of recvmsg(2).
pub fn receive(line: &OwnedFd) -> io::Result<Option<HandedOver>> {
    let mut word = [0];
    let mut control = nix::cmsg_space!([i32; 4]);
    let mut vector = [IoSliceMut::new(&mut word)];
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
    if word == [RELAY] {
        return Ok(received.next().map(|link| HandedOver::Relay(link, received.next())));
    }
    Ok(match (received.next(), received.next(), received.next()) {
        (Some(control), Some(fault), Some(push)) => {
            Some(HandedOver::Channels([control, fault, push], received.next()))
        }
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
        send(ours.as_fd(), &[reader.as_fd(), writer.as_fd(), ours.as_fd()], None).expect("an open line");
        let Some(HandedOver::Channels([first, second, _], None)) = receive(&theirs).expect("an open line")
        else {
            panic!("three descriptors")
        };
        assert!(io::Read::read(&mut std::fs::File::from(first), &mut []).is_ok());
        assert_eq!(io::Write::write(&mut std::fs::File::from(second), b"x").expect("the writing end"), 1);
    }
}
