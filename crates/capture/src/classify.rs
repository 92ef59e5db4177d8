//! What an open file description is, and whether it can be moved.

use alloc::vec::Vec;

use protocol::{DescriptionKind, LockRecord, StreamKind};
use sys::descriptor::pipe;
use sys::number::words;
use sys::path::KernelPath;
use sys::status::{self, Device, FileType};
use sys::{Errno, descriptor, file};

use crate::descriptors::{Context, Facts, stream_for};
use crate::refusal::{DescriptorTrait, Doing, Refusal};
use crate::tables::DELETED;
use crate::{pipes, sockets, terminals};

/// Character devices that hold no state, with the name that every machine has them under.
const STATELESS: [(u32, &[u8]); 5] =
    [(3, b"/dev/null"), (5, b"/dev/zero"), (7, b"/dev/full"), (8, b"/dev/random"), (9, b"/dev/urandom")];
/// Anonymous inodes whose text in `fdinfo` says everything.
const TOLD: [&[u8]; 6] = [b"[eventfd]", b"[eventpoll]", b"[timerfd]", b"[signalfd]", b"inotify", b"[pidfd]"];
/// Anonymous inodes that do not move in this version, with a name of their own.
const IMMOVABLE: [(&[u8], DescriptorTrait); 3] = [
    (b"[io_uring]", DescriptorTrait::IoUring),
    (b"[userfaultfd]", DescriptorTrait::Userfaultfd),
    (b"[fanotify]", DescriptorTrait::Watcher),
];
/// The multiplexer that makes terminals: a terminal to isatty(3), but the wrong end of one.
pub(crate) const PTMX: Device = Device { major: 5, minor: 2 };

/// The kind of the description behind `facts`.
pub(crate) fn kind(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    match facts.status.file_type {
        FileType::Regular | FileType::Directory => path(facts, context),
        _ if facts.flags & descriptor::PATH_ONLY != 0 => path(facts, context),
        FileType::Character => device(facts, context),
        FileType::Pipe => pipes::kind(facts, context),
        FileType::Socket => sockets::kind(facts, context),
        FileType::Block => Err(facts.refuse(DescriptorTrait::Device)),
        FileType::Link | FileType::Other => anonymous_inode(facts),
    }
}

/// Whether `facts` is a terminal: by its number, because one that has hung up no longer says so, or by what it says.
pub(crate) fn is_terminal(facts: &Facts) -> bool {
    /// Virtual consoles and serial lines; Unix98 pseudo-terminals.
    const TERMINALS: [core::ops::RangeInclusive<u32>; 2] = [4..=4, 136..=143];
    /// The controlling terminal and the console.
    const OWN: [Device; 2] = [Device { major: 5, minor: 0 }, Device { major: 5, minor: 1 }];
    let device = facts.status.special;
    facts.status.file_type == FileType::Character
        && device != PTMX
        && (TERMINALS.iter().any(|majors| majors.contains(&device.major))
            || OWN.contains(&device)
            || descriptor::is_terminal(facts.at))
}

fn path(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    if facts.link.starts_with(b"anon_inode:") {
        return anonymous_inode(facts);
    }
    let info = descriptor::info(facts.at).map_err(Refusal::kernel(Doing::Descriptors))?;
    for line in info.split(|byte| *byte == b'\n') {
        let Some(line) = line.strip_prefix(b"lock:") else { continue };
        // Kinds as the kernel writes them (locks_show_fd): FLOCK, POSIX, OFDLCK, LEASE, DELEG.
        if words(line).nth(1).is_none_or(|kind| matches!(kind, b"LEASE" | b"DELEG")) {
            return Err(facts.refuse(DescriptorTrait::Leased));
        }
        context.locks.push(LockRecord { fd: facts.fd, line: line.to_vec() });
    }
    if is_reachable(facts) {
        let file = context.files.of_descriptor(&facts.link, &facts.status);
        return Ok(DescriptionKind::File { file });
    }
    if !facts.link.starts_with(b"/") {
        return own_namespace(facts, context);
    }
    if facts.status.file_type == FileType::Regular {
        return object(facts, context);
    }
    let target = descriptor::target(facts.at).unwrap_or_default();
    Ok(DescriptionKind::Ghost { ghost: context.ghosts.of(&facts.link, &facts.status, target) })
}

/// A namespace that the process is in is what `/proc` has for it at the destination; others do not move.
fn own_namespace(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let refused = || facts.refuse(DescriptorTrait::AnonymousInode);
    let kind = facts.link.split(|byte| *byte == b':').next().unwrap_or_default();
    let mut path = KernelPath::numbered("/proc/", context.pid, "/ns/").into_bytes();
    path.extend_from_slice(kind);
    let own = KernelPath::new(&path).and_then(|path| file::read_link(path.as_c_str()));
    if own.map_err(|_| refused())? != facts.link {
        return Err(refused());
    }
    Ok(DescriptionKind::File { file: context.files.of_descriptor(&path, &facts.status) })
}

/// Whether the path that the kernel shows still leads to the file.
fn is_reachable(facts: &Facts) -> bool {
    if !facts.link.ends_with(DELETED) {
        return facts.link.starts_with(b"/");
    }
    // Another name is left: the destination looks for it in the same directory.
    if facts.status.links > 0 && facts.status.file_type == FileType::Regular {
        return facts.link.starts_with(b"/");
    }
    let Ok(path) = KernelPath::new(&facts.link) else { return false };
    status::of_path(path.as_c_str()).is_ok_and(|found| found.inode == facts.status.inode)
}

/// A memfd, or a file without a name, which is as good as one.
fn object(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let size = facts.status.size;
    let name = facts.link.strip_suffix(DELETED).unwrap_or(&facts.link);
    let (limit, is_stopped, is_in_table) =
        (context.content_left(), context.is_stopped, context.is_in_table(facts));
    let (object, record) = context.objects.of_descriptor(name, &facts.status);
    if let Some(record) = record {
        let mut bytes = 0;
        // While the process runs it is enough that it can be read.
        let found = if is_stopped { descriptor::content(facts.at, size, limit) } else { Ok(Vec::new()) };
        match found {
            Ok(extents) => {
                bytes = extents.iter().map(|(_, bytes)| bytes.len()).sum();
                record.content = extents;
            }
            Err(Errno::EOVERFLOW) if is_in_table => record.streamed = true,
            Err(errno) => return Err(Refusal::kernel(Doing::Content)(errno)),
        }
        record.size = size;
        record.mode = facts.status.mode;
        record.owner = facts.status.owner;
        if name.starts_with(b"/memfd:") {
            record.seals = descriptor::seals(facts.at).unwrap_or(0);
        } else if name != b"/dev/zero" {
            record.ghost = Some(context.ghosts.of(&facts.link, &facts.status, Vec::new()));
        }
        context.take(bytes)?;
    }
    Ok(DescriptionKind::Object { object })
}

fn device(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    const MEMORY_DEVICES: u32 = 1;
    let special = facts.status.special;
    let stateless =
        STATELESS.iter().find(|(minor, _)| (MEMORY_DEVICES, *minor) == (special.major, special.minor));
    if let Some((_, path)) = stateless {
        return Ok(DescriptionKind::Device { path: path.to_vec() });
    }
    if let Some(kind) = terminals::kind(facts, context)? {
        return Ok(kind);
    }
    if !is_terminal(facts) {
        return Err(facts.refuse(DescriptorTrait::Device));
    }
    // A terminal that is not open as a standard stream too: what is only written is output; the rest is there
    // to be read, as by a program that asks for a password.
    let by_mode = if facts.is_readable() { StreamKind::Input } else { StreamKind::Output };
    Ok(DescriptionKind::Stream(stream_for(facts, context.all).unwrap_or(by_mode)))
}

fn anonymous_inode(facts: &Facts) -> Result<DescriptionKind, Refusal> {
    let name = facts.link.strip_prefix(b"anon_inode:").unwrap_or(&facts.link);
    if TOLD.contains(&name) {
        // A periodic timer that has gone off stands still until it is asked.
        descriptor::ask_timer(facts.at);
        // Nobody can look at events without taking them out.
        if name == b"inotify" && pipe::in_flight(facts.at) != Ok(0) {
            return Err(facts.refuse(DescriptorTrait::InFlight));
        }
        return Ok(DescriptionKind::Anonymous { name: name.to_vec() });
    }
    let known = IMMOVABLE.iter().find(|(known, _)| *known == name);
    Err(facts.refuse(known.map_or(DescriptorTrait::AnonymousInode, |(_, what)| *what)))
}
