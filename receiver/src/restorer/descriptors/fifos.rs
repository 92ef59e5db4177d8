//! Pipes and FIFOs with what was in flight in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{mkfifo, pipe2};
use protocol::PipeRecord;
use sys::descriptor::pipe::in_flight;

use super::super::error::RestoreError;
use super::super::files;

/// Proves that a FIFO with a name is here.
pub(super) fn prove(record: &PipeRecord) -> Result<(), RestoreError> {
    if record.path.is_empty() || deleted(record).is_some() {
        return Ok(());
    }
    let path = Path::new(std::ffi::OsStr::from_bytes(&record.path));
    let found = fs::symlink_metadata(path);
    let found = found.map_err(|error| {
        files::missing("the FIFO", &record.path, sys::Errno(error.raw_os_error().unwrap_or(0)))
    })?;
    if found.file_type().is_fifo() {
        Ok(())
    } else {
        Err(RestoreError::NotAFile { path: path.display().to_string() })
    }
}

/// Where a deleted FIFO was.
fn deleted(record: &PipeRecord) -> Option<&[u8]> {
    let path = record.path.strip_suffix(b" (deleted)")?;
    let there = Path::new(std::ffi::OsStr::from_bytes(&record.path));
    (!there.exists()).then_some(path)
}

/// Reading and writing end, non-blocking, with capacity and content as recorded.
pub(super) fn make(record: &PipeRecord, same_kernel: bool) -> io::Result<(OwnedFd, OwnedFd)> {
    if record.path.is_empty() {
        let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
        fill(&writer, record)?;
        return Ok((reader, writer));
    }
    let opened = if let Some(path) = deleted(record) {
        let beside =
            Beside::new(path, |place| mkfifo(place, Mode::from_bits_truncate(0o600)).map_err(Into::into))?;
        open_both_ways(beside.path())?
    } else {
        open_both_ways(Path::new(std::ffi::OsStr::from_bytes(&record.path)))?
    };
    // The source still has it open: what is in flight there is in flight here.
    let number = opened.as_raw_fd().cast_unsigned();
    if !(same_kernel && in_flight(number)? as usize == record.content.len() && !record.content.is_empty()) {
        fill(&opened, record)?;
    }
    Ok((opened.try_clone()?, opened))
}

fn open_both_ways(path: &Path) -> io::Result<OwnedFd> {
    let opened = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !opened.metadata()?.file_type().is_fifo() {
        return Err(io::Error::other("no FIFO any more"));
    }
    Ok(opened.into())
}

fn fill(writer: &OwnedFd, record: &PipeRecord) -> io::Result<()> {
    let capacity = i32::try_from(record.capacity).map_err(io::Error::other)?;
    fcntl(writer, FcntlArg::F_SETPIPE_SZ(capacity))?;
    File::from(writer.try_clone()?).write_all(&record.content)
}

/// Something that exists for a moment, to be opened: at a path, or beside it if that is taken. Its name goes with it.
struct Beside(PathBuf);

impl Beside {
    /// Lets `make` make it.
    fn new(path: &[u8], mut make: impl FnMut(&Path) -> io::Result<()>) -> io::Result<Self> {
        const ATTEMPTS: u32 = 100;
        let path = Path::new(std::ffi::OsStr::from_bytes(path));
        let mut place = path.to_owned();
        for attempt in 0..ATTEMPTS {
            match make(&place) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    let mut name = path.as_os_str().to_owned();
                    name.push(format!(".{}.{attempt}", std::process::id()));
                    place = name.into();
                }
                other => return other.map(|()| Self(place)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Where it is.
    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0).or_else(|_| std::fs::remove_dir(&self.0));
    }
}
