//! Descriptions that are made here and passed to the child: files, pipes, streams, connections.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::epoll::{Epoll, EpollCreateFlags};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{setsockopt, sockopt};
use protocol::{Description, DescriptionKind, Manifest, PipeEnd, StreamKind};

use super::super::error::RestoreError;
use super::super::files;
use super::super::ghosts::Ghosts;
use super::sockets::{self, Sockets};
use super::terminals::{self, Terminals};
use super::{Origin, anonymous, fifos, interest};
use crate::relaying::Companion;
use crate::{confinement, peer};

/// Makes descriptions one after another. Both ends of every pipe and connection live here until all are passed.
pub(super) struct Maker<'a> {
    manifest: &'a Manifest,
    objects: &'a [OwnedFd],
    ghosts: &'a Ghosts,
    pipes: Vec<(OwnedFd, OwnedFd)>,
    sockets: Sockets,
    /// Descriptions that travel in a message too, so that they are made before their turn.
    in_flight: BTreeMap<u32, OwnedFd>,
    /// Pipe ends (pipe, is it the writing one) and objects that were passed once already.
    passed_ends: BTreeSet<(u32, bool)>,
    passed_objects: BTreeSet<u32>,
    /// Descriptors of processes that have ended: those of one process have one inode.
    dead: BTreeMap<u64, Vec<OwnedFd>>,
    inotifies: Vec<OwnedFd>,
    terminals: Terminals<'a>,
}

impl<'a> Maker<'a> {
    /// A maker with every pipe and socket made and filled. `objects` are the shared-memory objects, by index.
    pub(super) fn new(
        manifest: &'a Manifest,
        objects: &'a [OwnedFd],
        ghosts: &'a Ghosts,
        same_kernel: bool,
        companion: Option<&Companion>,
        terminals: Terminals<'a>,
    ) -> Result<Self, RestoreError> {
        let pipes = fifos::all(manifest).map(|(index, record, access)| {
            fifos::make(record, access, same_kernel).map_err(broken_pipe(index))
        });
        let mut maker = Self {
            pipes: pipes.collect::<Result<_, _>>()?,
            sockets: sockets::make_all(manifest, companion)?,
            manifest,
            objects,
            ghosts,
            in_flight: BTreeMap::new(),
            passed_ends: BTreeSet::new(),
            passed_objects: BTreeSet::new(),
            dead: anonymous::dead(manifest)?,
            inotifies: Vec::new(),
            terminals,
        };
        maker.make_what_is_in_flight()?;
        let Self { sockets, in_flight, .. } = &mut maker;
        sockets.fill(manifest, |sockets, index| {
            let found = sockets.get(index).or_else(|| in_flight.get(&index));
            let found = found.ok_or(RestoreError::Dangling { what: "descriptor in flight", index })?;
            found.try_clone().map_err(|source| RestoreError::Descriptor {
                fd: index,
                what: "in flight",
                source,
            })
        })?;
        Ok(maker)
    }

    /// Makes every description but sockets that a message brings.
    fn make_what_is_in_flight(&mut self) -> Result<(), RestoreError> {
        let messages = sockets::records(self.manifest).flat_map(|(_, _, record)| &record.messages);
        let wanted: BTreeSet<u32> = messages.flat_map(|message| &message.descriptions).copied().collect();
        for index in wanted {
            if let Some(socket) = self.sockets.get(index) {
                self.set_flags(index, socket)?;
                continue;
            }
            let made = match self.origin(index, index)? {
                Origin::Passed(made) => made,
                Origin::Inside { path, .. } => {
                    let path = Path::new(OsStr::from_bytes(&path));
                    if path.starts_with("/proc") || path == Path::new(terminals::CONTROLLING) {
                        let what = "in flight, and of the process itself";
                        return Err(RestoreError::NotMoved { fd: index, what });
                    }
                    let opened = peer::with_its_rights(|| confinement::file(path, libc::O_RDONLY));
                    opened
                        .map_err(|source| RestoreError::Descriptor { fd: index, what: "in flight", source })?
                        .into()
                }
                Origin::Epoll => {
                    let made = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map(|epoll| epoll.0);
                    made.map_err(|errno| failed(index, errno))?
                }
                Origin::Event { count, flags } if count <= u64::from(u32::MAX) => {
                    let semaphore = if flags == 0 { EfdFlags::empty() } else { EfdFlags::EFD_SEMAPHORE };
                    let made = EventFd::from_flags(semaphore | EfdFlags::EFD_CLOEXEC);
                    let made = made.map_err(|errno| failed(index, errno))?;
                    made.write(count).map_err(|errno| failed(index, errno))?;
                    made.as_fd().try_clone_to_owned().map_err(|source| failed(index, source))?
                }
                Origin::Event { .. } | Origin::Timer(_) | Origin::Signals(_) | Origin::Itself { .. } => {
                    return Err(RestoreError::NotMoved {
                        fd: index,
                        what: "in flight, and an object of the kernel",
                    });
                }
            };
            self.set_flags(index, &made)?;
            self.in_flight.insert(index, made);
        }
        Ok(())
    }

    /// Sets the flags of a description that no number in the child leads to.
    fn set_flags(&self, index: u32, made: &OwnedFd) -> Result<(), RestoreError> {
        let flags = super::description(self.manifest, index)?.flags;
        if flags & libc::O_PATH.unsigned_abs() == 0 {
            let flags = OFlag::from_bits_retain((flags & super::SETTABLE).cast_signed());
            fcntl(made, FcntlArg::F_SETFL(flags)).map_err(|errno| failed(index, errno))?;
        }
        Ok(())
    }

    /// Epolls that a message brings, by description.
    pub(super) fn epolls_in_flight(&self) -> Result<Vec<(u32, OwnedFd)>, RestoreError> {
        let mut epolls = Vec::new();
        for (index, made) in &self.in_flight {
            if interest::is_epoll(&super::description(self.manifest, *index)?.kind) {
                epolls.push((*index, made.try_clone().map_err(|source| failed(*index, source))?));
            }
        }
        Ok(epolls)
    }

    /// The sockets and the inotifies, which are still needed when everything has been passed.
    pub(super) fn into_kept(self) -> Result<(Sockets, Vec<OwnedFd>), RestoreError> {
        self.terminals.finish()?;
        Ok((self.sockets, self.inotifies))
    }

    /// How description `index`, which is behind descriptor `fd`, comes into the child.
    pub(super) fn origin(&mut self, fd: u32, index: u32) -> Result<Origin, RestoreError> {
        let made = |what, result: io::Result<OwnedFd>| {
            result.map(Origin::Passed).map_err(|source| RestoreError::Descriptor { fd, what, source })
        };
        if let Some(known) = self.in_flight.get(&index) {
            return made("in flight", known.try_clone());
        }
        let description = super::description(self.manifest, index)?;
        match &description.kind {
            DescriptionKind::File { file } => self.file(fd, *file, description),
            DescriptionKind::Device { path } => {
                files::open_device(path, description.flags).map(Origin::Passed)
            }
            DescriptionKind::Stream(kind) => made("a standard stream", stream(*kind)),
            DescriptionKind::Pipe { pipe, end } => self.pipe_end(fd, *pipe, *end, description.flags),
            DescriptionKind::Anonymous { name } => {
                let dead = self.dead.get_mut(&description.inode).and_then(Vec::pop);
                let origin = anonymous::origin(fd, name, description, dead)?;
                if let (b"inotify", Origin::Passed(inotify)) = (name.as_slice(), &origin) {
                    self.inotifies.push(inotify.try_clone().map_err(|source| failed(fd, source))?);
                }
                Ok(origin)
            }
            DescriptionKind::Socket(_) => {
                let found = self.sockets.get(index);
                made("a socket", found.ok_or(RestoreError::Dangling { what: "socket", index })?.try_clone())
            }
            DescriptionKind::LostConnection { domain } => {
                made("a lost connection", peer::with_its_rights(|| lost_connection(*domain)))
            }
            DescriptionKind::Ghost { ghost } => {
                let itself = self.ghosts.open_itself(*ghost)?;
                if itself.metadata().is_ok_and(|found| found.is_dir()) {
                    let path = self.ghosts.path(*ghost)?.as_os_str().as_bytes().to_vec();
                    return Ok(Origin::Inside { path, flags: description.flags, offset: 0, held: None });
                }
                Ok(Origin::Passed(itself.into()))
            }
            DescriptionKind::Object { object } => self.object(fd, *object, description),
            DescriptionKind::Terminal { terminal, end } => {
                self.terminals.origin(fd, *terminal, *end, description.flags)
            }
        }
    }

    fn file(&self, fd: u32, file: u32, description: &Description) -> Result<Origin, RestoreError> {
        let record = files::record(self.manifest, file)?;
        let (flags, offset) = (description.flags, super::info(fd, description)?.position);
        let failed = |source| RestoreError::Descriptor { fd, what: "a file", source };
        if files::is_of_process(&record.path, self.manifest.process.pid) {
            let pid = self.manifest.process.pid;
            if peer::is_restricted() && files::leads_out_of_proc(&record.path, pid) {
                return Err(files::missing("the open file", &record.path, sys::Errno::EACCES));
            }
            return Ok(Origin::Inside { path: record.path.clone(), flags, offset, held: None });
        }
        let opened = File::from(files::open_again(self.manifest, file, flags)?);
        let found = opened.metadata().map_err(failed)?;
        if found.is_dir() {
            let path = record.path.clone();
            let flags = flags | libc::O_DIRECTORY.unsigned_abs();
            let held = files::is_denied(&path, flags & files::KEPT).then_some((found.dev(), found.ino()));
            return Ok(Origin::Inside { path, flags, offset, held });
        }
        let path_only = flags & libc::O_PATH.unsigned_abs() != 0;
        if offset != 0 && !path_only {
            (&opened).seek(SeekFrom::Start(offset)).map_err(failed)?;
        }
        Ok(Origin::Passed(opened.into()))
    }

    fn pipe_end(&mut self, fd: u32, index: u32, end: PipeEnd, flags: u32) -> Result<Origin, RestoreError> {
        let found = self.pipes.get(index as usize);
        let (reader, writer) = found.ok_or(RestoreError::Dangling { what: "pipe", index })?;
        let writes = end == PipeEnd::Write;
        let original = if writes { writer } else { reader };
        let is_fifo = self.manifest.pipes.get(index as usize).is_some_and(|record| !record.path.is_empty());
        let access = flags.cast_signed() & libc::O_ACCMODE;
        let result = if is_fifo {
            reopen(original, access)
        } else if access != libc::O_RDWR && self.passed_ends.insert((index, writes)) {
            original.try_clone()
        } else {
            reopen(original, access)
        };
        result.map(Origin::Passed).map_err(|source| RestoreError::Descriptor { fd, what: "a pipe", source })
    }

    fn object(&mut self, fd: u32, index: u32, description: &Description) -> Result<Origin, RestoreError> {
        let (flags, offset) = (description.flags, super::info(fd, description)?.position);
        let missing = RestoreError::Dangling { what: "shared-memory object", index };
        let original = self.objects.get(index as usize).ok_or(missing)?;
        let access = flags.cast_signed() & libc::O_ACCMODE;
        let result = if access == libc::O_RDWR && self.passed_objects.insert(index) {
            original.try_clone()
        } else {
            reopen(original, access)
        };
        let failed = |source| RestoreError::Descriptor { fd, what: "a memfd", source };
        let opened = File::from(result.map_err(failed)?);
        (&opened).seek(SeekFrom::Start(offset)).map_err(failed)?;
        Ok(Origin::Passed(opened.into()))
    }
}

fn failed(index: u32, source: impl Into<io::Error>) -> RestoreError {
    RestoreError::Descriptor { fd: index, what: "in flight", source: source.into() }
}

fn broken_pipe(index: u32) -> impl Fn(io::Error) -> RestoreError {
    move |source| RestoreError::Pipe { index, source }
}

/// A second description of what `fd` is open on.
fn reopen(fd: &OwnedFd, access: i32) -> io::Result<OwnedFd> {
    let mut options = OpenOptions::new();
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let opened = options
        .read(access != libc::O_WRONLY)
        .write(access != libc::O_RDONLY)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    opened.map(OwnedFd::from)
}

/// The receiver's own stream. Somebody else than who started it may write there, and not read: neither from its input
/// nor, by way of its output, from its terminal.
fn stream(kind: StreamKind) -> io::Result<OwnedFd> {
    let own = match kind {
        StreamKind::Input => io::stdin().as_fd().try_clone_to_owned(),
        StreamKind::Output => io::stdout().as_fd().try_clone_to_owned(),
        StreamKind::Error => io::stderr().as_fd().try_clone_to_owned(),
    }?;
    if peer::rights().is_none() {
        return Ok(own);
    }
    let nothing = |for_reading: bool| {
        let open = || File::options().read(for_reading).write(!for_reading).open("/dev/null");
        confinement::outside(open).map(OwnedFd::from)
    };
    match kind {
        StreamKind::Input => nothing(true),
        StreamKind::Output | StreamKind::Error if is_written_only(&own)? => Ok(own),
        StreamKind::Output | StreamKind::Error => {
            let path = format!("/proc/self/fd/{}", own.as_raw_fd());
            let mut options = File::options();
            let again = options.append(true).custom_flags(libc::O_NOCTTY).open(path);
            // There is no such way to a socket.
            again.map(OwnedFd::from).or_else(|_| nothing(false))
        }
    }
}

fn is_written_only(stream: &OwnedFd) -> io::Result<bool> {
    Ok(fcntl(stream, FcntlArg::F_GETFL)? & libc::O_ACCMODE == libc::O_WRONLY)
}

/// One end of a connection that its other end has reset.
fn lost_connection(domain: u32) -> io::Result<OwnedFd> {
    match domain.cast_signed() {
        libc::AF_UNIX => {
            let (mut ours, theirs) = UnixStream::pair()?;
            // Closing with a byte unread is what resets a local connection.
            ours.write_all(&[0])?;
            drop(theirs);
            Ok(ours.into())
        }
        libc::AF_INET6 => reset_by("[::1]:0").or_else(|_| reset_by("127.0.0.1:0")),
        _ => reset_by("127.0.0.1:0"),
    }
}

fn reset_by(address: &str) -> io::Result<OwnedFd> {
    let listener = TcpListener::bind(address)?;
    let ours = TcpStream::connect(listener.local_addr()?)?;
    let (theirs, _) = listener.accept()?;
    setsockopt(&theirs, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
    drop(theirs);
    Ok(ours.into())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};

    use nix::unistd::AccessFlags;
    use protocol::PipeRecord;

    use super::*;

    #[test]
    fn reading_from_a_lost_connection_says_that_it_was_reset() {
        for domain in [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX] {
            let mut connection = File::from(lost_connection(domain.unsigned_abs()).expect("a connection"));
            let error = connection.read(&mut [0]).expect_err("nothing to read");
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "domain {domain}");
        }
    }

    #[test]
    fn a_pipe_has_its_capacity_and_its_content() {
        let record = PipeRecord { path: vec![], capacity: 1 << 17, content: vec![7; 100_000] };
        let (reader, writer) = fifos::make(&record, AccessFlags::empty(), true).expect("a pipe");
        assert_eq!(fcntl(&reader, FcntlArg::F_GETPIPE_SZ).expect("a size"), 1 << 17);
        let again = reopen(&reader, libc::O_RDONLY).expect("a second description");
        drop((reader, writer));
        let mut content = Vec::new();
        File::from(again).read_to_end(&mut content).expect("readable");
        assert_eq!(content, record.content);
    }
}
