//! The relaying process, as the session sees it.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg, socketpair,
};
use protocol::SocketRecord;
use sys::socket;

use super::{Order, RELAY_OPTION};
use crate::confinement;
use crate::guardian::wait_for;

/// How long it may take to make a pair.
const DEADLINE: Duration = Duration::from_secs(5);

/// See the module. It ends when this is dropped, unless the program has been let go by then.
#[derive(Debug)]
pub struct Companion {
    orders: OwnedFd,
}

impl Companion {
    /// Starts the process and hands it the link; `sealing` says what to seal that with.
    ///
    /// # Errors
    /// There can be no process.
    pub fn start(link: &OwnedFd, sealing: Option<&OwnedFd>) -> io::Result<Self> {
        let (orders, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let mut command = Command::new("/proc/self/exe");
        command.arg0("receiver").arg(RELAY_OPTION).process_group(0);
        for fd in [link, &theirs].into_iter().chain(sealing) {
            fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
            command.arg(fd.as_raw_fd().to_string());
        }
        // The program's streams are not its own, and it may outlive everybody who could read its words.
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        confinement::outside(|| command.spawn())?;
        Ok(Self { orders })
    }

    /// The program's end of connection `name`, as it was but for its options.
    ///
    /// # Errors
    /// It cannot be made, or the process has ended.
    pub fn make(&self, name: u32, record: &SocketRecord) -> io::Result<OwnedFd> {
        let (own, other) = (record.address.clone(), record.peer_address.clone());
        self.order(&Order::Make { name, domain: record.domain, own, other })?;
        if !wait_for(self.orders.as_fd(), DEADLINE)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        receive(&self.orders)
    }

    /// Lets it begin: the program runs.
    ///
    /// # Errors
    /// The process has ended.
    pub fn go(&self) -> io::Result<()> {
        self.order(&Order::Go)
    }

    /// Becomes readable when the last connection has ended.
    #[must_use]
    pub fn readiness(&self) -> BorrowedFd<'_> {
        self.orders.as_fd()
    }

    fn order(&self, order: &Order) -> io::Result<()> {
        let bytes = protocol::encode(order).map_err(io::Error::other)?;
        Ok(socket::send(self.orders.as_fd(), &bytes, &[], &[])?)
    }
}

/// The descriptor that answers an order.
fn receive(orders: &OwnedFd) -> io::Result<OwnedFd> {
    let mut words = [0; 256];
    let mut control = nix::cmsg_space!([i32; 1]);
    let mut vector = [IoSliceMut::new(&mut words)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(orders.as_raw_fd(), &mut vector, Some(&mut control), flags)?;
    let mut passed = None;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            passed = numbers.first().copied();
        }
    }
    let count = message.bytes;
    match passed {
        Some(number) => Ok(sys::fd::received(number)?),
        None if count == 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        None => {
            let words = words.get(..count).unwrap_or_default();
            Err(io::Error::other(String::from_utf8_lossy(words).into_owned()))
        }
    }
}
