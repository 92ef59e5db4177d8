//! Descriptions that are made here and passed to the child: files, pipes, streams, connections.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
use nix::unistd::pipe2;
use protocol::{Description, DescriptionKind, Manifest, PipeEnd, PipeRecord, SocketPairRecord, StreamKind};

use super::super::error::RestoreError;
use super::super::files;
use super::super::ghosts::{self, Ghosts};
use super::Origin;

/// Makes descriptions one after another. Both ends of every pipe and pair live here until all are passed.
pub(super) struct Maker<'a> {
    manifest: &'a Manifest,
    objects: &'a [OwnedFd],
    ghosts: &'a Ghosts,
    pipes: Vec<(OwnedFd, OwnedFd)>,
    pairs: Vec<[OwnedFd; 2]>,
    /// Pipe ends (pipe, is it the writing one) and objects that were passed once already.
    passed_ends: BTreeSet<(u32, bool)>,
    passed_objects: BTreeSet<u32>,
}

impl<'a> Maker<'a> {
    /// A maker with every pipe made and filled. `objects` are the shared-memory objects, by index.
    pub(super) fn new(
        manifest: &'a Manifest,
        objects: &'a [OwnedFd],
        ghosts: &'a Ghosts,
    ) -> Result<Self, RestoreError> {
        let pipes =
            (0..).zip(&manifest.pipes).map(|(index, record)| pipe(record).map_err(broken_pipe(index)));
        let pairs = (0..).zip(&manifest.socket_pairs);
        let pairs =
            pairs.map(|(index, record)| pair(record).map_err(|source| RestoreError::Pair { index, source }));
        Ok(Self {
            pairs: pairs.collect::<Result<_, _>>()?,
            manifest,
            objects,
            ghosts,
            pipes: pipes.collect::<Result<_, _>>()?,
            passed_ends: BTreeSet::new(),
            passed_objects: BTreeSet::new(),
        })
    }

    /// How the description behind descriptor `fd` comes into the child.
    pub(super) fn origin(&mut self, fd: u32, description: &Description) -> Result<Origin, RestoreError> {
        let made = |what, result: io::Result<OwnedFd>| {
            result.map(Origin::Passed).map_err(|source| RestoreError::Descriptor { fd, what, source })
        };
        match &description.kind {
            DescriptionKind::File { file, offset } => self.file(fd, *file, *offset, description.flags),
            DescriptionKind::Device { path } => {
                files::open_device(path, description.flags).map(Origin::Passed)
            }
            DescriptionKind::Stream(kind) => made("a standard stream", stream(*kind)),
            DescriptionKind::Pipe { pipe, end } => self.pipe_end(fd, *pipe, *end),
            DescriptionKind::SocketPair { pair, end } => {
                let found = self.pairs.get(*pair as usize).and_then(|ends| ends.get(usize::from(*end)));
                let found = found.ok_or(RestoreError::Dangling { what: "socket pair", index: *pair })?;
                made("a socket pair", found.try_clone())
            }
            DescriptionKind::Event { count, semaphore } => {
                let flags = if *semaphore { libc::EFD_SEMAPHORE.unsigned_abs() } else { 0 };
                Ok(Origin::Event { count: *count, flags: u64::from(flags) })
            }
            DescriptionKind::Epoll { .. } => Ok(Origin::Epoll),
            DescriptionKind::Listener(listener) => Ok(Origin::Socket {
                domain: listener.domain,
                kind: libc::SOCK_STREAM.unsigned_abs(),
                protocol: 0,
            }),
            DescriptionKind::Socket { domain, kind, protocol, .. } => {
                Ok(Origin::Socket { domain: *domain, kind: *kind, protocol: *protocol })
            }
            DescriptionKind::LostConnection { domain } => made("a lost connection", lost_connection(*domain)),
            DescriptionKind::Ghost { ghost } => {
                let path = self.ghosts.path(*ghost)?;
                if path.is_dir() {
                    let path = path.as_os_str().as_bytes().to_vec();
                    return Ok(Origin::Inside { path, flags: description.flags, offset: 0 });
                }
                made("a deleted link", ghosts::open_link(path))
            }
            DescriptionKind::Object { object, offset } => {
                self.object(fd, *object, *offset, description.flags)
            }
        }
    }

    fn file(&self, fd: u32, file: u32, offset: u64, flags: u32) -> Result<Origin, RestoreError> {
        let record = files::record(self.manifest, file)?;
        if files::is_of_process(&record.path, self.manifest.process.pid) {
            return Ok(Origin::Inside { path: record.path.clone(), flags, offset });
        }
        let opened = File::from(files::open_again(self.manifest, file, flags)?);
        let failed = |source| RestoreError::Descriptor { fd, what: "a file", source };
        if opened.metadata().map_err(failed)?.is_dir() {
            let path = record.path.clone();
            return Ok(Origin::Inside { path, flags: flags | libc::O_DIRECTORY.unsigned_abs(), offset });
        }
        let path_only = flags & libc::O_PATH.unsigned_abs() != 0;
        if offset != 0 && !path_only {
            (&opened).seek(SeekFrom::Start(offset)).map_err(failed)?;
        }
        Ok(Origin::Passed(opened.into()))
    }

    fn pipe_end(&mut self, fd: u32, index: u32, end: PipeEnd) -> Result<Origin, RestoreError> {
        let found = self.pipes.get(index as usize);
        let (reader, writer) = found.ok_or(RestoreError::Dangling { what: "pipe", index })?;
        let writes = end == PipeEnd::Write;
        let original = if writes { writer } else { reader };
        let result = if self.passed_ends.insert((index, writes)) {
            original.try_clone()
        } else {
            reopen(original, if writes { libc::O_WRONLY } else { libc::O_RDONLY })
        };
        result.map(Origin::Passed).map_err(|source| RestoreError::Descriptor { fd, what: "a pipe", source })
    }

    fn object(&mut self, fd: u32, index: u32, offset: u64, flags: u32) -> Result<Origin, RestoreError> {
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

fn broken_pipe(index: u32) -> impl Fn(io::Error) -> RestoreError {
    move |source| RestoreError::Pipe { index, source }
}

/// A pipe with the recorded capacity and content; both ends non-blocking.
fn pipe(record: &PipeRecord) -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    let capacity = i32::try_from(record.capacity).map_err(io::Error::other)?;
    fcntl(&writer, FcntlArg::F_SETPIPE_SZ(capacity))?;
    File::from(writer.try_clone()?).write_all(&record.content)?;
    Ok((reader, writer))
}

/// Two connected sockets, each with what it has received; both non-blocking.
fn pair(record: &SocketPairRecord) -> io::Result<[OwnedFd; 2]> {
    let kind = match record.kind.cast_signed() {
        libc::SOCK_STREAM => SockType::Stream,
        libc::SOCK_DGRAM => SockType::Datagram,
        libc::SOCK_SEQPACKET => SockType::SeqPacket,
        other => return Err(io::Error::other(format!("socket type {other}"))),
    };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (first, second) = socketpair(AddressFamily::Unix, kind, None, flags)?;
    let [for_first, for_second] = &record.content;
    for (sender, content) in [(&second, for_first), (&first, for_second)] {
        if !content.is_empty() {
            File::from(sender.try_clone()?).write_all(content)?;
        }
    }
    Ok([first, second])
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

/// The receiver's own stream.
fn stream(kind: StreamKind) -> io::Result<OwnedFd> {
    match kind {
        StreamKind::Input => io::stdin().as_fd().try_clone_to_owned(),
        StreamKind::Output => io::stdout().as_fd().try_clone_to_owned(),
        StreamKind::Error => io::stderr().as_fd().try_clone_to_owned(),
    }
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
        let record = PipeRecord { capacity: 1 << 17, content: vec![7; 100_000] };
        let (reader, writer) = pipe(&record).expect("a pipe");
        assert_eq!(fcntl(&reader, FcntlArg::F_GETPIPE_SZ).expect("a size"), 1 << 17);
        let again = reopen(&reader, libc::O_RDONLY).expect("a second description");
        drop((reader, writer));
        let mut content = Vec::new();
        File::from(again).read_to_end(&mut content).expect("readable");
        assert_eq!(content, record.content);
    }
}
