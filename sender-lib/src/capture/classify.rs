//! What an open file description is, and whether it can be moved.

use alloc::vec::Vec;

use protocol::{DescriptionKind, LockRecord, StreamKind, WatchRecord};
use sys::number::words;
use sys::path::KernelPath;
use sys::proc::fdinfo::{self, FdInfo};
use sys::status::{self, Device, FileType};
use sys::{descriptor, file, thread};

use super::descriptors::{Context, Facts, stream_for};
use super::refusal::{DescriptorTrait, Doing, Refusal};
use super::tables::DELETED;
use super::{pipes, sockets};

/// Character devices that hold no state, with the name that every machine has them under.
const STATELESS: [(u32, &[u8]); 5] =
    [(3, b"/dev/null"), (5, b"/dev/zero"), (7, b"/dev/full"), (8, b"/dev/random"), (9, b"/dev/urandom")];
/// Anonymous inodes that do not move in this version.
const IMMOVABLE: [(&[u8], DescriptorTrait); 7] = [
    (b"[io_uring]", DescriptorTrait::IoUring),
    (b"[userfaultfd]", DescriptorTrait::Userfaultfd),
    (b"[timerfd]", DescriptorTrait::Timer),
    (b"[signalfd]", DescriptorTrait::Signal),
    (b"inotify", DescriptorTrait::Watcher),
    (b"[fanotify]", DescriptorTrait::Watcher),
    (b"[pidfd]", DescriptorTrait::Process),
];
/// The multiplexer that makes terminals: a terminal to isatty(3), but the wrong end of one.
const PTMX: Device = Device { major: 5, minor: 2 };

/// The kind of the description behind `facts`.
pub(crate) fn kind(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    match facts.status.file_type {
        FileType::Regular | FileType::Directory => path(facts, context),
        FileType::Link if facts.flags & descriptor::PATH_ONLY != 0 => path(facts, context),
        FileType::Character => device(facts, context),
        FileType::Pipe => pipes::kind(facts, context),
        FileType::Socket => sockets::kind(facts, context),
        FileType::Block => Err(facts.refuse(DescriptorTrait::Device)),
        FileType::Link | FileType::Other => anonymous_inode(facts, context),
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
            || descriptor::is_terminal(facts.fd))
}

fn path(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    if facts.link.starts_with(b"anon_inode:") {
        return anonymous_inode(facts, context);
    }
    let info = fdinfo::of_number(facts.fd)?;
    for line in &info.locks {
        // Kinds as the kernel writes them (locks_show_fd): FLOCK, POSIX, OFDLCK, LEASE, DELEG.
        if words(line).nth(1).is_none_or(|kind| matches!(kind, b"LEASE" | b"DELEG")) {
            return Err(facts.refuse(DescriptorTrait::Leased));
        }
        context.locks.push(LockRecord { fd: facts.fd, line: line.clone() });
    }
    if is_reachable(facts) {
        let file = context.files.of_descriptor(&facts.link, &facts.status);
        return Ok(DescriptionKind::File { file, offset: info.position });
    }
    if !facts.link.starts_with(b"/") {
        return own_namespace(facts, context);
    }
    if facts.status.file_type == FileType::Regular {
        return object(facts, &info, context);
    }
    let target = descriptor::target(facts.fd).unwrap_or_default();
    Ok(DescriptionKind::Ghost { ghost: context.ghosts.of(&facts.link, &facts.status, target) })
}

/// A namespace that the process is in is what `/proc` has for it at the destination; others do not move.
fn own_namespace(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let refused = || facts.refuse(DescriptorTrait::AnonymousInode);
    let kind = facts.link.split(|byte| *byte == b':').next().unwrap_or_default();
    let mut path = KernelPath::numbered("/proc/", thread::process_id(), "/ns/").into_bytes();
    path.extend_from_slice(kind);
    let own = KernelPath::new(&path).and_then(|path| file::read_link(path.as_c_str()));
    if own.map_err(|_| refused())? != facts.link {
        return Err(refused());
    }
    Ok(DescriptionKind::File { file: context.files.of_descriptor(&path, &facts.status), offset: 0 })
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
fn object(facts: &Facts, info: &FdInfo, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    let size = facts.status.size;
    let name = facts.link.strip_suffix(DELETED).unwrap_or(&facts.link);
    let (limit, is_stopped) = (context.content_left(), context.is_stopped);
    let (object, record) = context.objects.of_descriptor(name, &facts.status);
    if let Some(record) = record {
        let extents = descriptor::content(facts.fd, size, limit).map_err(Refusal::kernel(Doing::Content))?;
        let bytes = extents.iter().map(|(_, bytes)| bytes.len()).sum();
        record.size = size;
        record.seals = descriptor::seals(facts.fd).unwrap_or(0);
        if !name.starts_with(b"/memfd:") {
            record.ghost = Some(context.ghosts.of(&facts.link, &facts.status, Vec::new()));
        }
        if is_stopped {
            record.content = extents;
        }
        context.take(bytes)?;
    }
    Ok(DescriptionKind::Object { object, offset: info.position })
}

fn device(facts: &Facts, context: &Context<'_>) -> Result<DescriptionKind, Refusal> {
    const MEMORY_DEVICES: u32 = 1;
    let special = facts.status.special;
    let stateless =
        STATELESS.iter().find(|(minor, _)| (MEMORY_DEVICES, *minor) == (special.major, special.minor));
    if let Some((_, path)) = stateless {
        return Ok(DescriptionKind::Device { path: path.to_vec() });
    }
    if !is_terminal(facts) {
        return Err(facts.refuse(DescriptorTrait::Device));
    }
    // A terminal that is not open as a standard stream too: what is only written is output; the rest is there
    // to be read, as by a program that asks for a password.
    let by_mode = if facts.is_readable() { StreamKind::Input } else { StreamKind::Output };
    Ok(DescriptionKind::Stream(stream_for(facts, context.all).unwrap_or(by_mode)))
}

fn anonymous_inode(facts: &Facts, context: &Context<'_>) -> Result<DescriptionKind, Refusal> {
    let name = facts.link.strip_prefix(b"anon_inode:").unwrap_or(&facts.link);
    match name {
        b"[eventfd]" => event(facts),
        b"[eventpoll]" => epoll(facts, context),
        _ => {
            let known = IMMOVABLE.iter().find(|(known, _)| *known == name);
            Err(facts.refuse(known.map_or(DescriptorTrait::AnonymousInode, |(_, what)| *what)))
        }
    }
}

fn event(facts: &Facts) -> Result<DescriptionKind, Refusal> {
    let info = fdinfo::of_number(facts.fd)?;
    let count = info.event_count.ok_or_else(|| facts.refuse(DescriptorTrait::AnonymousInode))?;
    Ok(DescriptionKind::Event { count, semaphore: info.event_semaphore })
}

/// The interest list, without entries whose number is closed or open on another file: those can no longer be
/// reached under that number, and there is no other way to add them.
fn epoll(facts: &Facts, context: &Context<'_>) -> Result<DescriptionKind, Refusal> {
    let info = fdinfo::of_number(facts.fd)?;
    let is_there = |watch: &&fdinfo::Watch| {
        let watched = context.all.iter().find(|other| other.fd == watch.fd);
        watched.is_some_and(|other| watch.inode.is_none_or(|inode| inode == other.status.inode))
    };
    let watches = info.watches.iter().filter(is_there);
    let watches =
        watches.map(|watch| WatchRecord { fd: watch.fd, events: watch.events, data: watch.data }).collect();
    Ok(DescriptionKind::Epoll { watches })
}
