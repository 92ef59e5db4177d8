//! `--root DIR`: a session, and the process that it takes in, for which DIR is all that there is of the machine's files.
//!
//! The session makes DIR the root of a mount namespace of its own before it looks at a single name from the wire, and the
//! process inherits that: so the kernel confines every name, symbolic links included, and the process sees the same files
//! as its receiver. One way out is left, because the session needs the machine's own `/proc`: its links into other
//! processes. Names that lead through one are refused, when they are opened; what is made is made in a directory that was
//! opened so ([`Place`]).

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;

use anyhow::{Context, ensure};
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd::{chdir, geteuid, pivot_root};
use sys::{Errno, Fd, file};

use crate::peer;

/// Set once this process is confined: the mount namespace that it has left.
static CONFINED: OnceLock<File> = OnceLock::new();

/// Proves that `directory` can be a root, as far as that can be known.
///
/// # Errors
/// Why not, and what to do.
pub fn check(directory: &Path) -> anyhow::Result<()> {
    let shown = directory.display();
    ensure!(geteuid().is_root(), "--root makes a mount namespace: run the receiver as root");
    let what = fs::metadata(directory).with_context(|| format!("--root {shown}"))?;
    ensure!(what.is_dir(), "--root {shown}: it is not a directory");
    ensure!(
        directory.join("proc").is_dir(),
        "--root {shown}: it needs an empty directory 'proc' to show processes in"
    );
    Ok(())
}

/// Makes `directory` the root of this process and of those that it starts.
///
/// # Errors
/// Those of mount(2) and pivot_root(2).
pub fn enter(directory: &Path) -> anyhow::Result<()> {
    const NONE: Option<&str> = None;
    let directory = directory.canonicalize().with_context(|| format!("--root {}", directory.display()))?;
    let outside = File::open("/proc/self/ns/mnt").context("/proc/self/ns/mnt")?;
    let confine = || -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)?;
        let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
        mount(Some(&directory), &directory, NONE, bind, NONE)?;
        mount(Some("/proc"), &directory.join("proc"), NONE, bind, NONE)?;
        chdir(&directory)?;
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")
    };
    confine().with_context(|| format!("making {} the root directory", directory.display()))?;
    let _ = CONFINED.set(outside);
    Ok(())
}

/// Starts a program of the receiver's own, which is not in the root, and for which nothing in the root is to be run.
///
/// # Errors
/// Those of setns(2), and those of `start`.
pub fn outside<T: Send>(start: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    let Some(outside) = CONFINED.get() else { return start() };
    let leave_and_start = || {
        // A thread of its own: what it starts is where it is, and nobody else leaves the root.
        unshare(CloneFlags::CLONE_FS)?;
        setns(outside, CloneFlags::CLONE_NEWNS)?;
        start()
    };
    let ended = thread::scope(|scope| scope.spawn(leave_and_start).join());
    ended.unwrap_or_else(|_| Err(io::Error::other("starting it has failed")))
}

/// Opens a name from the wire. For anybody but root none leads through what this process has open, nor to what `/proc`
/// tells of it.
///
/// # Errors
/// Those of open(2); `ELOOP` for one that leads out of the root.
pub fn open(path: &CString, flags: usize) -> Result<Fd, Errno> {
    let opened =
        if without_magic() { file::open_without_magic(path, flags) } else { file::open(path, flags) }?;
    let opened = OwnedFd::from(opened);
    let refused = peer::is_restricted() && tells_of_this_process(&opened);
    if refused { Err(Errno::EACCES) } else { Ok(opened.into()) }
}

fn without_magic() -> bool {
    CONFINED.get().is_some() || peer::is_restricted()
}

fn tells_of_this_process(file: &OwnedFd) -> bool {
    let own = std::process::id().to_string();
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap_or_default();
    path.components().any(|part| part.as_os_str() == own.as_str())
        && fstatfs(file).is_ok_and(|found| found.filesystem_type() == PROC_SUPER_MAGIC)
}

/// Opens a name from the wire, as the standard library has it.
///
/// # Errors
/// As for [`open`].
pub fn file(path: &Path, flags: i32) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let opened = open(&path, flags.cast_unsigned() as usize)?;
    Ok(OwnedFd::from(opened).into())
}

/// Whether anything is there under a name from the wire.
pub fn is_there(path: &Path) -> bool {
    file(path, libc::O_PATH).is_ok()
}

/// A name from the wire whose directory is held open: where it leads cannot be changed any more.
#[derive(Debug)]
pub struct Place {
    directory: File,
    name: OsString,
}

impl Place {
    /// Opens the directory of `path`, which must be there.
    ///
    /// # Errors
    /// As for [`open`]; `EINVAL` for a path that names nothing.
    pub fn of(path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Ok(Self { directory: file(parent, libc::O_PATH | libc::O_DIRECTORY)?, name })
    }

    /// Opens the directory of `path`, which leads on from `directory`.
    ///
    /// # Errors
    /// As for [`Self::of`].
    pub fn below(directory: File, path: &Path) -> io::Result<Self> {
        let name = path.file_name().ok_or(ErrorKind::InvalidInput)?.to_owned();
        let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) else {
            return Ok(Self { directory, name });
        };
        let parent = CString::new(parent.as_os_str().as_bytes())?;
        let flags = file::PATH_ONLY | file::DIRECTORY;
        let opened = file::open_below(directory.as_fd(), &parent, flags, without_magic())?;
        Ok(Self { directory: OwnedFd::from(opened).into(), name })
    }

    /// Another name in the same directory.
    ///
    /// # Errors
    /// Those of dup(2).
    pub fn beside(&self, name: OsString) -> io::Result<Self> {
        Ok(Self { directory: self.directory.try_clone()?, name })
    }

    /// The directory, open for nothing but being what it is (`O_PATH`).
    #[must_use]
    pub fn directory(&self) -> BorrowedFd<'_> {
        self.directory.as_fd()
    }

    /// The last part of the path.
    #[must_use]
    pub fn name(&self) -> &OsStr {
        &self.name
    }

    /// A path to it for this process, good for calls that do not follow a link in its place.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.directory.as_raw_fd())).join(&self.name)
    }
}

/// Whether a name from the wire, of something that is there or is to be made, stays inside.
///
/// # Errors
/// `ELOOP` if it does not.
pub fn permit(path: &[u8]) -> io::Result<()> {
    if CONFINED.get().is_none() {
        return Ok(());
    }
    let path = Path::new(OsStr::from_bytes(path));
    for place in path.ancestors().filter(|place| !place.as_os_str().is_empty()) {
        let place = CString::new(place.as_os_str().as_bytes())?;
        match file::open_without_magic(&place, file::PATH_ONLY).map_err(io::Error::from) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_place_stays_where_it_was_whatever_becomes_of_its_name() {
        let base = std::env::temp_dir().join(format!("posthaste-place-{}", std::process::id()));
        fs::create_dir_all(base.join("inside")).expect("a directory");
        fs::create_dir_all(base.join("elsewhere")).expect("a directory");
        let place = Place::of(&base.join("inside/file")).expect("it is there");
        fs::rename(base.join("inside"), base.join("moved")).expect("ours");
        symlink(base.join("elsewhere"), base.join("inside")).expect("ours");
        File::create_new(place.path()).expect("room");
        assert!(base.join("moved/file").exists() && !base.join("elsewhere/file").exists());
        let below =
            Place::below(File::open(&base).expect("ours"), Path::new("moved/file")).expect("it is there");
        fs::remove_file(below.path()).expect("ours");
        assert!(!base.join("moved/file").exists());
        fs::remove_dir_all(&base).expect("ours");
    }
}
