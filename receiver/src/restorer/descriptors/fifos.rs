//! Pipes and FIFOs with what was in flight in them.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{AccessFlags, faccessat, mkfifo, pipe2};
use protocol::{DescriptionKind, Manifest, PipeRecord};
use sys::descriptor::pipe::in_flight;

use super::super::error::RestoreError;
use super::super::files;
use crate::confinement::{self, Place};
use crate::peer;

/// The pipes with their indices, and what the program may do with each, by its descriptors.
pub(super) fn all(manifest: &Manifest) -> impl Iterator<Item = (u32, &PipeRecord, AccessFlags)> {
    let mut access = vec![AccessFlags::empty(); manifest.pipes.len()];
    for description in &manifest.descriptions {
        if let DescriptionKind::Pipe { pipe, .. } = description.kind
            && let Some(access) = access.get_mut(pipe as usize)
        {
            *access |= match description.flags.cast_signed() & libc::O_ACCMODE {
                libc::O_RDONLY => AccessFlags::R_OK,
                libc::O_WRONLY => AccessFlags::W_OK,
                _ => AccessFlags::R_OK | AccessFlags::W_OK,
            };
        }
    }
    (0..).zip(&manifest.pipes).zip(access).map(|((index, record), access)| (index, record, access))
}

/// Proves that a FIFO with a name is here, and that its sender may open it so; or that a pipe can be had as large as it
/// was.
pub(super) fn prove(index: u32, record: &PipeRecord, access: AccessFlags) -> Result<(), RestoreError> {
    if record.path.is_empty() {
        let made = peer::with_its_rights(|| pipe(record));
        return made.map(|_| ()).map_err(|source| RestoreError::Pipe { index, source });
    }
    if deleted(record).is_some() {
        return Ok(());
    }
    let path = Path::new(OsStr::from_bytes(&record.path));
    let found = find(path, access).and_then(|held| held.metadata());
    let found = found.map_err(|error| {
        files::missing("the FIFO", &record.path, sys::Errno(error.raw_os_error().unwrap_or(0)))
    })?;
    if found.file_type().is_fifo() {
        Ok(())
    } else {
        Err(RestoreError::NotAFile { path: path.display().to_string() })
    }
}

/// Looks a FIFO up with its sender's rights, who must be allowed to open it so.
fn find(path: &Path, access: AccessFlags) -> io::Result<File> {
    peer::with_its_rights(|| {
        let held = confinement::file(path, libc::O_PATH | libc::O_NOFOLLOW)?;
        faccessat(AT_FDCWD, itself(&held).as_str(), access, AtFlags::AT_EACCESS)?;
        Ok(held)
    })
}

fn itself(held: &File) -> String {
    format!("/proc/self/fd/{}", held.as_raw_fd())
}

/// Where a deleted FIFO was.
fn deleted(record: &PipeRecord) -> Option<&[u8]> {
    let path = record.path.strip_suffix(b" (deleted)")?;
    let there = Path::new(OsStr::from_bytes(&record.path));
    (!confinement::is_there(there)).then_some(path)
}

/// Reading and writing end, non-blocking, with capacity and content as recorded. A pipe belongs to the sender, and is no
/// larger than it could have it. Of a FIFO both can do more than `access`, and are only there to be opened again.
pub(super) fn make(
    record: &PipeRecord,
    access: AccessFlags,
    same_kernel: bool,
) -> io::Result<(OwnedFd, OwnedFd)> {
    if record.path.is_empty() {
        let (reader, writer) = peer::with_its_rights(|| pipe(record))?;
        fill(&writer, record)?;
        return Ok((reader, writer));
    }
    let opened = open_both_ways(record, access)?;
    // The source still has it open: what is in flight there is in flight here.
    let number = opened.as_raw_fd().cast_unsigned();
    if !(same_kernel && in_flight(number)? as usize == record.content.len() && !record.content.is_empty()) {
        if !record.content.is_empty() && deleted(record).is_none() {
            find(Path::new(OsStr::from_bytes(&record.path)), AccessFlags::W_OK)?;
        }
        peer::with_its_rights(|| resize(&opened, record))?;
        fill(&opened, record)?;
    }
    Ok((opened.try_clone()?, opened))
}

fn pipe(record: &PipeRecord) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    resize(&writer, record)?;
    Ok((reader, writer))
}

fn open_both_ways(record: &PipeRecord, access: AccessFlags) -> io::Result<OwnedFd> {
    if let Some(path) = deleted(record) {
        return peer::with_its_rights(|| make_deleted(path));
    }
    let held = find(Path::new(OsStr::from_bytes(&record.path)), access)?;
    if !held.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("no FIFO any more"));
    }
    // Its sender may have less of it: one end cannot be opened for writing while nobody has the other.
    let opened =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(itself(&held))?;
    Ok(opened.into())
}

fn make_deleted(path: &[u8]) -> io::Result<OwnedFd> {
    let beside =
        Beside::new(path, |place| mkfifo(place, Mode::from_bits_truncate(0o600)).map_err(Into::into))?;
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    let opened = OpenOptions::new().read(true).write(true).custom_flags(flags).open(beside.0.path())?;
    Ok(opened.into())
}

fn resize(writer: &OwnedFd, record: &PipeRecord) -> io::Result<()> {
    let capacity = i32::try_from(record.capacity).map_err(io::Error::other)?;
    fcntl(writer, FcntlArg::F_SETPIPE_SZ(capacity))?;
    Ok(())
}

fn fill(writer: &OwnedFd, record: &PipeRecord) -> io::Result<()> {
    File::from(writer.try_clone()?).write_all(&record.content)
}

/// Something that exists for a moment, to be opened: at a path, or beside it if that is taken. Its name goes with it.
struct Beside(Place);

impl Beside {
    /// Lets `make` make it.
    fn new(path: &[u8], mut make: impl FnMut(&Path) -> io::Result<()>) -> io::Result<Self> {
        const ATTEMPTS: u32 = 100;
        let mut place = Place::of(Path::new(OsStr::from_bytes(path)))?;
        let own_name = place.name().to_owned();
        for attempt in 0..ATTEMPTS {
            match make(&place.path()) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let mut name = own_name.clone();
                    name.push(format!(".{}.{attempt}", std::process::id()));
                    place = place.beside(name)?;
                }
                other => return other.map(|()| Self(place)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let path = self.0.path();
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
    }
}
