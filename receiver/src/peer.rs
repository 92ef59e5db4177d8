//! Who is at the other end of a connection over loopback, and what may be done on that user's behalf.
//!
//! A manifest is only somebody's word. Without a key the kernel says whose: root may bring any process, anybody else
//! only one with exactly the rights of the process that holds the connection, and the files that it names are opened
//! with that user's rights. What else the kernel grants it is no more than what that process has ([`Standing`]).

mod holder;
mod standing;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::net::TcpStream;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{Gid, Uid, getegid, geteuid, getgroups, setegid, seteuid, setgroups};
use procfs::ProcError;
use procfs::process::{FDTarget, Process};
use protocol::{Credentials, ProcValue, Scheduling};
use sys::descriptor::{pair, socket};
use sys::{Errno, capability};

pub use holder::{Held, Holder};
pub use standing::Standing;

/// Whom this session serves; one session is one process.
static PEER: OnceLock<Peer> = OnceLock::new();

/// Who sends a migration.
#[derive(Debug)]
pub enum Peer {
    /// Somebody who may do here whatever the receiver may.
    Trusted,
    /// A process of somebody else, with these rights and this standing, and what it has open.
    Process(Credentials, Standing, Option<Holder>),
    /// Nobody knows.
    Unknown,
}

/// A process with rights that its sender does not have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotEntitled {
    /// The user that the process would be.
    pub user: u32,
    /// The user who sends it.
    pub sender: Option<u32>,
}

impl fmt::Display for NotEntitled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sender {
            Some(sender) => write!(
                f,
                "user {sender} sends a process of user {} with other rights than its own",
                self.user
            ),
            None => f.write_str("it cannot be told who sends this process"),
        }
    }
}

impl std::error::Error for NotEntitled {}

impl Peer {
    /// Looks who holds the other end of `connection`.
    #[must_use]
    pub fn of(connection: &OwnedFd) -> Self {
        match other_end(connection) {
            Some((0, inode)) if is_held_by_root_alone(inode) => Self::Trusted,
            Some((0, _)) | None => Self::Unknown,
            Some((user, inode)) => holder(user, inode).map_or(Self::Unknown, |(rights, standing, holder)| {
                Self::Process(rights, standing, Some(holder))
            }),
        }
    }

    /// Whether a process with these rights may come from here. In a user namespace a process may show groups, and
    /// capabilities, that mean nothing outside of it: groups count as the overflow group, capabilities do not come.
    ///
    /// # Errors
    /// It may not.
    pub fn permit(&self, wanted: &Credentials) -> Result<(), NotEntitled> {
        const OVERFLOW: u32 = 65534;
        let refuse = |sender| Err(NotEntitled { user: wanted.user, sender });
        match self {
            Self::Trusted => Ok(()),
            Self::Unknown => refuse(None),
            Self::Process(own, _, holder) => {
                let mut groups = wanted.groups.iter();
                let entitled = (own.user, own.group) == (wanted.user, wanted.group)
                    && (wanted.other_users, wanted.other_groups) == ([own.user; 3], [own.group; 3])
                    && groups.all(|group| own.groups.contains(group) || *group == OVERFLOW)
                    && wanted.capabilities == 0;
                // A thread of it may have become somebody else.
                let has_one = || holder.as_ref().is_some_and(|holder| holder.has_thread(wanted));
                if entitled || has_one() { Ok(()) } else { refuse(Some(own.user)) }
            }
        }
    }
}

/// The rights in a manifest, without what does not come: capabilities that somebody else than root could take on.
#[must_use]
pub fn brought(wanted: &Credentials) -> Credentials {
    let mut brought = wanted.clone();
    if is_restricted() {
        (brought.permitted, brought.inheritable, brought.ambient) = (brought.capabilities, 0, 0);
    }
    brought
}

/// Says once whom this session serves. For anybody but a trusted one it gives up, with all that it starts, what it
/// could otherwise do with sockets, clocks and memory and the sender could not: privileged ports and options,
/// connections in other people's names, timers that wake the machine, locked memory without a limit, memory at address 0.
///
/// # Errors
/// Those of capset(2).
pub fn serve(peer: Peer) -> Result<(), Errno> {
    /// `CAP_NET_BIND_SERVICE` to `CAP_NET_RAW`, `CAP_IPC_LOCK`, `CAP_SYS_RAWIO`, `CAP_WAKE_ALARM`, `CAP_BLOCK_SUSPEND`
    const OF_ROOT_ONLY: u64 = 0b1111 << 10 | 1 << 14 | 1 << 17 | 0b11 << 35;
    let is_trusted = matches!(peer, Peer::Trusted);
    let _ = PEER.set(peer);
    if is_trusted {
        return Ok(());
    }
    let locked = limit(Resource::RLIMIT_MEMLOCK as u32);
    // Where it may not be raised, the kernel refuses what goes beyond what there is.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, locked, locked);
    capability::give_up(OF_ROOT_ONLY)
}

/// Whether the sender may bring a process with these rights; one that was not named may.
///
/// # Errors
/// It may not.
pub fn permit(wanted: &Credentials) -> Result<(), NotEntitled> {
    PEER.get().map_or(Ok(()), |peer| peer.permit(wanted))
}

/// Whether files are opened with somebody else's rights.
#[must_use]
pub fn is_restricted() -> bool {
    PEER.get().is_some_and(|peer| !matches!(peer, Peer::Trusted))
}

/// Whether a thread gets this scheduling from the receiver; else the kernel judges by the rights of the program.
#[must_use]
pub fn grants(wanted: &Scheduling<'_>) -> bool {
    match PEER.get() {
        None | Some(Peer::Trusted) => true,
        Some(Peer::Process(_, standing, _)) => standing.covers(wanted),
        Some(Peer::Unknown) => false,
    }
}

/// The hard limit `number` at most.
#[must_use]
pub fn limit(number: u32) -> u64 {
    match PEER.get() {
        None | Some(Peer::Trusted) => u64::MAX,
        Some(Peer::Process(_, standing, _)) => standing.limit(number),
        Some(Peer::Unknown) => 0,
    }
}

/// What a file below `/proc/self` is given, if anything.
#[must_use]
pub fn proc_value(wanted: &ProcValue) -> Option<Cow<'_, [u8]>> {
    match PEER.get() {
        None | Some(Peer::Trusted) => Some(wanted.value.trim_ascii().into()),
        Some(Peer::Process(_, standing, _)) => standing.value(wanted).map(Cow::from),
        Some(Peer::Unknown) => None,
    }
}

/// With whose rights files are looked for; `None` if it is with those that this process has. A receiver that is not root
/// has the sender's rights already, or the process was refused.
#[must_use]
pub fn rights() -> Option<&'static Credentials> {
    match PEER.get() {
        Some(Peer::Process(sender, ..)) if geteuid().is_root() => Some(sender),
        _ => None,
    }
}

/// Does something as the sender might do it, which is to everybody who looks: what is made belongs to that user, what
/// is opened has no capability, whoever is at the other end of a Unix connection is told that user.
///
/// # Panics
/// Root may not become that user, as in a user namespace that does not know it.
pub fn with_its_rights<T>(work: impl FnOnce() -> T) -> T {
    let Some(sender) = rights() else { return work() };
    let (group, groups) = (getegid(), getgroups().unwrap_or_default());
    let its_groups: Vec<Gid> = sender.groups.iter().copied().map(Gid::from_raw).collect();
    let become_it = setgroups(&its_groups)
        .and_then(|()| setegid(Gid::from_raw(sender.group)))
        // The last: effective capabilities go with it, and come back with root's id.
        .and_then(|()| seteuid(Uid::from_raw(sender.user)));
    become_it.expect("root becomes who it likes, and must not go on as root");
    let result = work();
    // The real ids are root's still. If it could fail, there would be fewer rights, not more.
    let _ = seteuid(Uid::from_raw(0)).and_then(|()| setegid(group)).and_then(|()| setgroups(&groups));
    result
}

/// Whether the sender itself has `file`, which is open here, as it says.
#[must_use]
pub fn has(held: Held, file: &File) -> bool {
    matches!(PEER.get(), Some(Peer::Process(_, _, Some(holder))) if holder.has(held, file))
}

/// User and inode of the socket at the other end of `connection`, if it is of this machine.
fn other_end(connection: &OwnedFd) -> Option<(u32, u64)> {
    let number = connection.as_raw_fd().cast_unsigned();
    let names = (socket::peer_address(number), socket::own_address(number));
    if let (Ok(Some(theirs)), Ok(ours)) = names
        && let Some(owner) = pair::tcp_owner(&theirs, &ours)
    {
        return Some(owner);
    }
    // A kernel that does not answer has a table of all connections still. It takes milliseconds to walk.
    let connection = connection.try_clone().map(TcpStream::from).ok()?;
    let (theirs, ours) = (connection.peer_addr().ok()?, connection.local_addr().ok()?);
    let mut sockets = if ours.is_ipv4() { procfs::net::tcp() } else { procfs::net::tcp6() }.ok()?.into_iter();
    let found = sockets.find(|entry| entry.local_address == theirs && entry.remote_address == ours)?;
    Some((found.uid, found.inode))
}

/// Whether a process has the socket with this inode open.
fn has_socket(process: &Process, inode: u64) -> bool {
    // Whose program may not be looked at shows none of its descriptors either.
    if matches!(process.exe(), Err(ProcError::PermissionDenied(_))) {
        return false;
    }
    let mut descriptors = process.fd().ok().into_iter().flatten().flatten();
    descriptors.any(|descriptor| descriptor.target == FDTarget::Socket(inode))
}

/// Whether every process that has this socket of root's is root's: others may have been given it.
fn is_held_by_root_alone(inode: u64) -> bool {
    let processes = procfs::process::all_processes().into_iter().flatten().flatten();
    let mut holders = processes.filter(|process| has_socket(process, inode)).peekable();
    let is_of_root = |process: Process| process.status().is_ok_and(|status| status.euid == 0);
    holders.peek().is_some() && holders.all(is_of_root)
}

/// The process of `user` that has the socket with this inode open, with its rights and its standing.
fn holder(user: u32, inode: u64) -> Option<(Credentials, Standing, Holder)> {
    let mut processes = procfs::process::all_processes().ok()?.flatten();
    let holder = processes.find(|process| {
        process.uid().is_ok_and(|uid| uid == user || uid == 0) && has_socket(process, inode)
    })?;
    let directory = File::open(format!("/proc/{}", holder.pid)).ok()?;
    // It still tells, so that the number was its own until here.
    let status = holder.status().ok()?;
    let (found, group, groups) = (status.euid, status.egid, status.groups);
    let rights = Credentials { user, group, groups, ..Credentials::default() };
    let standing = Standing::of(&holder);
    (found == user).then(|| (rights, standing, Holder::new(directory, status.capprm)))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    fn who(user: u32, groups: &[u32], capabilities: u64) -> Credentials {
        let groups = groups.to_vec();
        let (other_users, other_groups) = ([user; 3], [user; 3]);
        let all = Credentials { other_users, other_groups, ..Credentials::default() };
        Credentials { user, group: user, groups, capabilities, ..all }
    }

    #[test]
    fn the_kernel_knows_who_holds_the_other_end_in_both_families() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else {
                eprintln!("skipped: no {address} here");
                continue;
            };
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
            let (accepted, _) = listener.accept().expect("a connection");
            let expected = geteuid().as_raw();
            match Peer::of(&accepted.into()) {
                Peer::Trusted => assert_eq!(expected, 0),
                Peer::Process(own, ..) => assert_eq!(own.user, expected),
                Peer::Unknown => panic!("nobody knows who is at {address}"),
            }
            drop(client);
        }
    }

    #[test]
    fn nobody_brings_more_rights_than_its_own() {
        let peer = Peer::Process(who(5, &[7, 8], 0), Standing::default(), None);
        assert!(peer.permit(&who(5, &[7, 8], 0)).is_ok());
        assert!(peer.permit(&who(5, &[65534], 0)).is_ok());
        assert!(peer.permit(&who(0, &[], 0)).is_err());
        assert!(peer.permit(&who(5, &[0], 0)).is_err());
        assert!(peer.permit(&who(5, &[], 1)).is_err());
        assert!(peer.permit(&Credentials { other_users: [5, 0, 5], ..who(5, &[], 0) }).is_err());
        assert!(peer.permit(&Credentials { other_groups: [5, 5, 0], ..who(5, &[], 0) }).is_err());
        assert!(Peer::Unknown.permit(&who(5, &[], 0)).is_err());
        assert!(Peer::Trusted.permit(&who(0, &[0], u64::MAX)).is_ok());
    }
}
