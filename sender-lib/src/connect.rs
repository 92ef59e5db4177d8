//! Three connections to a receiver, opened side by side.

use alloc::string::String;
use core::net::SocketAddr;

use protocol::text;
use sys::poll::{Interest, poll};
use sys::{Errno, Fd, clock, net};

use crate::config::{CONNECT_DEADLINE, LOWEST_DESCRIPTOR};
use crate::settings::Receiver;

/// Control, fault and push, connected and non-blocking, their numbers out of the host's way.
///
/// # Errors
/// Who could not be reached, and why.
pub(crate) fn three(receiver: &Receiver) -> Result<[Fd; 3], String> {
    let unreachable = |errno: Errno| {
        let hint = if errno == Errno::ECONNREFUSED { "; no receiver listens there" } else { "" };
        text!["connecting to ", receiver.name, ": ", errno, hint]
    };
    let sockets = [begin(receiver.address), begin(receiver.address), begin(receiver.address)];
    let [control, fault, push] = sockets;
    let sockets = [control.map_err(unreachable)?, fault.map_err(unreachable)?, push.map_err(unreachable)?];
    let deadline = clock::monotonic_ns() + u64::try_from(CONNECT_DEADLINE.as_nanos()).unwrap_or(0);
    for socket in &sockets {
        finish(socket, deadline).map_err(unreachable)?;
    }
    Ok(sockets)
}

fn begin(address: SocketAddr) -> Result<Fd, Errno> {
    let socket = net::connect(address)?;
    // A low limit of descriptors forbids high numbers; then any number does.
    Ok(socket.duplicate_from(LOWEST_DESCRIPTOR).unwrap_or(socket))
}

fn finish(socket: &Fd, deadline: u64) -> Result<(), Errno> {
    loop {
        let mut interest = [Interest::new(socket, true)];
        let left_ns = deadline.saturating_sub(clock::monotonic_ns());
        poll(&mut interest, Some(u32::try_from(left_ns.div_ceil(1_000_000)).unwrap_or(u32::MAX)))?;
        if interest.iter().any(Interest::is_writable) {
            net::connect_result(socket)?;
            return net::set_no_delay(socket);
        }
        if left_ns == 0 {
            return Err(Errno::ETIMEDOUT);
        }
    }
}
