//! Addresses of sockets: proven while the source runs, bound once it has let go of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use memory::Addr;
use nix::libc;
use protocol::{DescriptionKind, Listener, Manifest};
use sys::Errno;

use super::super::{BlankChild, Program, RestoreError, Step};

/// How long the source, on this very machine, may take to let go of its addresses.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait between two attempts: the kernel has no event for an address that becomes free.
const PAUSE: Duration = Duration::from_millis(1);

/// An address that a socket of the child shall be bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(in super::super) struct Bind {
    /// The socket's descriptor in the child.
    fd: u32,
    /// As getsockname(2) wrote it.
    address: Vec<u8>,
    /// For listening sockets.
    backlog: Option<u32>,
}

/// The addresses of `manifest`, with the first descriptor of each socket.
pub(super) fn binds(manifest: &Manifest, first: &BTreeMap<u32, u32>) -> Vec<Bind> {
    let bind = |(index, description): (u32, &protocol::Description)| {
        let &fd = first.get(&index)?;
        let (address, backlog) = address_of(&description.kind)?;
        Some(Bind { fd, address: address.to_vec(), backlog })
    };
    (0..).zip(&manifest.descriptions).filter_map(bind).collect()
}

/// The address that a socket is bound to, and the backlog if it listens.
fn address_of(kind: &DescriptionKind) -> Option<(&[u8], Option<u32>)> {
    match kind {
        DescriptionKind::Listener(listener) => Some((&listener.address, Some(listener.backlog))),
        DescriptionKind::Socket { address, .. } if !address.is_empty() => Some((address, None)),
        DescriptionKind::Socket { .. }
        | DescriptionKind::File { .. }
        | DescriptionKind::Device { .. }
        | DescriptionKind::Stream(_)
        | DescriptionKind::Pipe { .. }
        | DescriptionKind::SocketPair { .. }
        | DescriptionKind::Event { .. }
        | DescriptionKind::Epoll { .. }
        | DescriptionKind::LostConnection { .. }
        | DescriptionKind::Ghost { .. }
        | DescriptionKind::Object { .. } => None,
    }
}

/// Sets a listening socket's options.
pub(super) fn set_options(program: &mut Program, fd: u32, listener: &Listener) {
    let mut set = |level: i32, option: i32, on: bool| {
        if on {
            let value = program.data(&1_u32.to_le_bytes());
            let arguments =
                [u64::from(fd), u64::from(level.unsigned_abs()), u64::from(option.unsigned_abs())];
            let [fd, level, option] = arguments;
            program.call(libc::SYS_setsockopt, [fd, level, option, value.0, 4]);
        }
    };
    set(libc::SOL_SOCKET, libc::SO_REUSEADDR, listener.reuse_address);
    set(libc::SOL_SOCKET, libc::SO_REUSEPORT, listener.reuse_port);
    set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, listener.v6_only);
}

/// Proves, in a child without descriptors, that every address could be bound; one in use is as good if it is
/// the source itself, on this machine, that uses it.
pub(in super::super) fn check_addresses(
    child: &BlankChild,
    manifest: &Manifest,
    same_kernel: bool,
) -> Result<(), RestoreError> {
    for (index, description) in (0..).zip(&manifest.descriptions) {
        let Some((address, _)) = address_of(&description.kind) else { continue };
        let first = manifest.descriptors.iter().find(|descriptor| descriptor.description == index);
        let Some(fd) = first.map(|descriptor| descriptor.fd) else { continue };
        if unix_path(address).is_some() {
            continue;
        }
        if let Err(errno) = probe(child, &description.kind, address, fd)?
            && !(same_kernel && is_in_use(errno))
        {
            return Err(RestoreError::Address { fd, errno });
        }
    }
    Ok(())
}

/// Binds a socket of the same kind for a moment.
fn probe(
    child: &BlankChild,
    kind: &DescriptionKind,
    address: &[u8],
    fd: u32,
) -> Result<Result<u64, Errno>, RestoreError> {
    const NUMBER: u32 = 0;
    let mut program = child.program();
    program.step(Step::Bind(fd));
    let (domain, socket_kind, protocol) = match kind {
        DescriptionKind::Socket { domain, kind, protocol, .. } => (*domain, *kind, *protocol),
        DescriptionKind::Listener(listener) => (listener.domain, libc::SOCK_STREAM.unsigned_abs(), 0),
        _ => return Ok(Ok(0)),
    };
    program.call(libc::SYS_socket, [u64::from(domain), u64::from(socket_kind), u64::from(protocol)]);
    if let DescriptionKind::Listener(listener) = kind {
        set_options(&mut program, NUMBER, listener);
    }
    let place = program.data(address);
    let bound = program.attempt(libc::SYS_bind, bind_arguments(NUMBER, place, address));
    program.close(NUMBER);
    Ok(child.run(program, &[])?.of(bound))
}

/// Binds what can be bound, waiting a bounded time for addresses in use, and makes listeners listen. Returns
/// the descriptors whose address could not be had.
pub(in super::super) fn bind_all(
    child: &BlankChild,
    binds: &[Bind],
) -> Result<Vec<(u32, Errno)>, RestoreError> {
    let deadline = Instant::now() + PATIENCE;
    let mut left: Vec<&Bind> = binds.iter().collect();
    let mut refused = Vec::new();
    while !left.is_empty() {
        let mut in_use = Vec::new();
        for bind in left {
            match attempt(child, bind)? {
                Ok(_) => {}
                Err(errno) if is_in_use(errno) && Instant::now() < deadline => in_use.push(bind),
                Err(errno) => refused.push((bind.fd, errno)),
            }
        }
        left = in_use;
        if !left.is_empty() {
            child.wait_for_its_end(PAUSE)?;
        }
    }
    Ok(refused)
}

fn attempt(child: &BlankChild, bind: &Bind) -> Result<Result<u64, Errno>, RestoreError> {
    if let Some(path) = unix_path(&bind.address) {
        remove_stale(&path);
    }
    let mut program = child.program();
    program.step(Step::Bind(bind.fd));
    let place = program.data(&bind.address);
    let bound = program.attempt(libc::SYS_bind, bind_arguments(bind.fd, place, &bind.address));
    let bound = child.run(program, &[])?.of(bound);
    let (Ok(_), Some(backlog)) = (bound, bind.backlog) else { return Ok(bound) };
    // A program of its own: listening without an address would choose one.
    let mut program = child.program();
    program.step(Step::Bind(bind.fd));
    let listening = program.attempt(libc::SYS_listen, [u64::from(bind.fd), u64::from(backlog)]);
    Ok(child.run(program, &[])?.of(listening))
}

fn bind_arguments(fd: u32, place: Addr, address: &[u8]) -> [u64; 3] {
    [u64::from(fd), place.0, address.len() as u64]
}

fn is_in_use(errno: Errno) -> bool {
    io::Error::from(errno).kind() == ErrorKind::AddrInUse
}

/// The path of a local socket's address, if it has one in the file system.
fn unix_path(address: &[u8]) -> Option<PathBuf> {
    const FAMILY_BYTES: usize = 2;
    let (family, path) = address.split_at_checked(FAMILY_BYTES)?;
    let path = path.split(|byte| *byte == 0).next()?;
    let local = u16::from_ne_bytes(family.try_into().ok()?) == u16::try_from(libc::AF_UNIX).ok()?;
    (local && !path.is_empty()).then(|| PathBuf::from(OsStr::from_bytes(path)))
}

/// Removes a socket that nobody listens at: the source's own, left behind when it let go of it.
fn remove_stale(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        let _ = std::fs::remove_file(path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_local_addresses_have_a_path() {
        let address = |path: &[u8]| [&1_u16.to_ne_bytes()[..], path].concat();
        assert_eq!(unix_path(&address(b"/run/x.sock\0")), Some(PathBuf::from("/run/x.sock")));
        assert_eq!(unix_path(&address(b"\0abstract")), None);
        assert_eq!(unix_path(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1]), None);
    }
}
