//! Names of Unix sockets that lead nobody to them: what getsockname(2) tells at one end and getpeername(2) at the other.
//!
//! An accepted socket has the name of the one that listened, and a second one cannot be bound to it; a path that was
//! deleted may belong to something else. But a name is only what bind(2) was told: given under another root directory,
//! it collides with nothing and stays.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use nix::libc;
use nix::sys::socket::{Backlog, listen};
use nix::unistd::{chroot, fchdir};
use protocol::SocketRecord;
use sys::socket;

use crate::peer;

/// Binds `made` to the path of `record` without one that anybody could find, lets it listen if it did, and connects
/// `clients` to it.
pub(super) fn give(
    made: &OwnedFd,
    record: &SocketRecord,
    path: &Path,
    clients: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let place = std::env::temp_dir().join(format!(".posthaste-name-{}", std::process::id()));
    peer::with_its_rights(|| fs::create_dir(&place))?;
    let bind = || {
        let parent = path.parent();
        if parent.into_iter().flat_map(Path::components).any(|part| part == Component::ParentDir) {
            return Err(io::Error::other("a path that leads upwards"));
        }
        parent.map_or(Ok(()), fs::create_dir_all)?;
        socket::bind(made.as_fd(), &record.address)?;
        if let Some(backlog) = record.backlog {
            let backlog =
                Backlog::new(i32::try_from(backlog).unwrap_or(i32::MAX)).unwrap_or(Backlog::MAXCONN);
            listen(made, backlog)?;
        }
        for client in clients {
            socket::connect(*client, &record.address)?;
        }
        Ok(())
    };
    let bound = in_other_root(&place, || peer::with_its_rights(bind));
    peer::with_its_rights(|| fs::remove_dir_all(&place))?;
    bound
}

/// The path in a Unix socket's address, if it has one.
pub(in crate::restorer) fn path_of(address: &[u8]) -> Option<&Path> {
    const FAMILY_BYTES: usize = 2;
    let (family, path) = address.split_at_checked(FAMILY_BYTES)?;
    let path = path.split(|byte| *byte == 0).next()?;
    let local = u16::from_ne_bytes(family.try_into().ok()?) == u16::try_from(libc::AF_UNIX).ok()?;
    (local && !path.is_empty()).then(|| Path::new(OsStr::from_bytes(path)))
}

/// Calls `work` with `place` as root and working directory of this process, which has no other thread.
fn in_other_root(place: &Path, work: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let (root, directory) = (File::open("/")?, File::open(".")?);
    chroot(place)?;
    let outcome = std::env::set_current_dir("/").and_then(|()| work());
    // The way back must not fail half-way: the descriptor is the old root itself.
    fchdir(&root)?;
    chroot(".")?;
    fchdir(&directory)?;
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_local_addresses_have_a_path() {
        let address = |path: &[u8]| [&1_u16.to_ne_bytes()[..], path].concat();
        assert_eq!(path_of(&address(b"/run/x.sock\0")), Some(Path::new("/run/x.sock")));
        assert_eq!(path_of(&address(b"\0abstract")), None);
        assert_eq!(path_of(&[2, 0, 0x1f, 0x90, 127, 0, 0, 1]), None);
    }
}
