//! Open connections of a tree whose CRIU was killed in the middle of a dump: they stay cut off, by rules for packets and by
//! the repair mode of their sockets, unless somebody undoes it in CRIU's place.

use std::fs;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};

use sys::birth::fetch_descriptor;
use sys::descriptor::tcp;

use crate::images::Connection;
use crate::inside;
use crate::members::Member;
use crate::quiet;

/// Undoes it for all connections of `members`, the tree below `root`. Whether they may run is not its business.
pub(crate) fn unlock<'members>(members: impl Iterator<Item = &'members Member>, root: u32) {
    let mut ends: Vec<Connection> =
        members.flat_map(sockets).filter_map(|socket| connection(&socket)).collect();
    // Several processes may have the same one.
    ends.sort_unstable_by_key(|end| (end.from, end.to));
    ends.dedup();
    // One that has ended needs none.
    let wrapper = inside::standpoint(root).map(|standpoint| standpoint.wrapper).unwrap_or_default();
    quiet::unlock(&ends, &wrapper);
    // Where the tree's own network is dumped, all packets are kept from it instead.
    let network = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
    if network(&root.to_string()).is_some_and(|network_of_root| network("self") != Some(network_of_root)) {
        quiet::unlock_namespace(&inside::network_of(root));
    }
}

/// Duplicates of a process's TCP sockets, none of them in repair mode any more.
fn sockets(member: &Member) -> Vec<TcpStream> {
    let entries = fs::read_dir(format!("/proc/{}/fd", member.pid())).into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| {
        let is_socket =
            fs::read_link(entry.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:"));
        entry.file_name().to_str().filter(|_| is_socket)?.parse().ok()
    });
    let fetched = numbers.filter_map(|number: u32| fetch_descriptor(member.as_fd(), number).ok());
    fetched.filter_map(ended_repair).collect()
}

/// `None` if it is no TCP socket.
fn ended_repair(socket: OwnedFd) -> Option<TcpStream> {
    let number = u32::try_from(socket.as_raw_fd()).ok()?;
    tcp::end_repair(number).ok().map(|()| TcpStream::from(socket))
}

/// `None` if it is not connected.
fn connection(socket: &TcpStream) -> Option<Connection> {
    Some(Connection { from: socket.local_addr().ok()?, to: socket.peer_addr().ok()? })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn connections_of_another_process_are_found() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("a connection");
        let (its, _) = listener.accept().expect("its other end");
        let end = connection(&its).expect("it is connected");
        let mut command = Command::new("cat");
        let mut child = command.stdin(OwnedFd::from(its)).stdout(Stdio::null()).spawn().expect("cat");
        drop(command);
        let member = Member::hold(child.id()).expect("it runs");
        let found: Vec<_> = sockets(&member).iter().filter_map(connection).collect();
        assert_eq!(found, [end]);
        drop(ours);
        assert!(child.wait().expect("it ends").success());
    }
}
