//! Interest lists of epoll, filled last: everything watched must be in place.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;

use memory::Addr;
use nix::libc;
use protocol::{Description, DescriptionKind, Manifest};
use sys::proc::fdinfo::Watch;

use super::super::batch::Batch;
use super::super::{Program, RestoreError, Step};
use super::{description, info};

/// Where an epoll is: under a number that the builder knows, or in a word of the hole.
#[derive(Clone, Copy)]
enum Place {
    Number(u32),
    Word(Addr),
}

/// Fills every interest list of `manifest`; `in_flight` are epolls that no number leads to, by description.
pub(super) fn fill(
    batch: &mut Batch<'_>,
    manifest: &Manifest,
    in_flight: Vec<(u32, OwnedFd)>,
) -> Result<(), RestoreError> {
    let mut done = BTreeSet::new();
    for descriptor in &manifest.descriptors {
        let found = description(manifest, descriptor.description)?;
        let DescriptionKind::Anonymous { name } = &found.kind else { continue };
        if name != EPOLL || !done.insert(descriptor.description) {
            continue;
        }
        for watch in info(descriptor.fd, found)?.watches {
            batch.unit()?.step(Step::Descriptor(descriptor.fd));
            watch_one(batch.program(), Place::Number(descriptor.fd), &watch, manifest)?;
        }
    }
    for (index, epoll) in in_flight {
        let watches = info(index, description(manifest, index)?)?.watches;
        if done.contains(&index) || watches.is_empty() {
            continue;
        }
        // A program of its own, so that the word is still there when it is needed.
        batch.run()?;
        batch.unit()?.step(Step::Descriptor(index));
        let word = batch.pass(epoll, true);
        for watch in watches.iter().take(MOST_WATCHES_IN_FLIGHT) {
            watch_one(batch.program(), Place::Word(word), watch, manifest)?;
        }
        batch.program().call_with(libc::SYS_close, [0], &[(0, word)]);
        batch.run()?;
    }
    Ok(())
}

const EPOLL: &[u8] = b"[eventpoll]";
/// Entries of an interest list that is in flight: as many as one program takes.
const MOST_WATCHES_IN_FLIGHT: usize = 32;

/// Whether a description is an epoll.
pub(super) fn is_epoll(kind: &DescriptionKind) -> bool {
    matches!(kind, DescriptionKind::Anonymous { name } if name == EPOLL)
}

fn watch_one(
    program: &mut Program,
    epoll: Place,
    watch: &Watch,
    manifest: &Manifest,
) -> Result<(), RestoreError> {
    match holder(manifest, watch)? {
        Some(fd) if fd == watch.fd => add(program, epoll, watch),
        Some(fd) => add_under_another_number(program, epoll, fd, watch, manifest),
        // Open nowhere in the process any more: nothing can be heard of it but its end.
        None => {}
    }
    Ok(())
}

/// A descriptor of what `watch` is about: the number under which it was added, unless that is open on something else
/// since. Both ends of a pipe are one inode: what is waited for tells which.
fn holder(manifest: &Manifest, watch: &Watch) -> Result<Option<u32>, RestoreError> {
    const EPOLLIN: u32 = 1;
    const EPOLLOUT: u32 = 4;
    let (mut best, mut rank) = (None, 0);
    for candidate in &manifest.descriptors {
        let Description { inode, flags, .. } = description(manifest, candidate.description)?;
        if watch.inode.is_some_and(|wanted| wanted != *inode) {
            continue;
        }
        if candidate.fd == watch.fd {
            return Ok(Some(candidate.fd));
        }
        let access = flags.cast_signed() & libc::O_ACCMODE;
        let fit = match watch.events {
            events if events & EPOLLIN != 0 && access != libc::O_WRONLY => 3,
            events if events & EPOLLOUT != 0 && access != libc::O_RDONLY => 2,
            _ => 1,
        };
        // Without an inode number nothing but its number says what it is.
        if watch.inode.is_some() && fit > rank {
            (best, rank) = (Some(candidate.fd), fit);
        }
    }
    Ok(best)
}

fn add(program: &mut Program, epoll: Place, watch: &Watch) {
    const EPOLL_CTL_ADD: u64 = 1;
    // struct epoll_event is packed on x86-64.
    let mut event = watch.events.to_le_bytes().to_vec();
    event.extend_from_slice(&watch.data.to_le_bytes());
    let event = program.data(&event);
    let arguments = |epoll: u64| [epoll, EPOLL_CTL_ADD, u64::from(watch.fd), event.0];
    match epoll {
        Place::Number(number) => program.call(libc::SYS_epoll_ctl, arguments(u64::from(number))),
        Place::Word(word) => program.call_with(libc::SYS_epoll_ctl, arguments(0), &[(0, word)]),
    };
}

/// Adds what is open at `fd` under the number that it was added with, which is lent to it for a moment.
fn add_under_another_number(
    program: &mut Program,
    epoll: Place,
    fd: u32,
    watch: &Watch,
    manifest: &Manifest,
) {
    const F_DUPFD_CLOEXEC: u64 = 1030;
    let is_taken = manifest.descriptors.iter().find(|known| known.fd == watch.fd);
    let [from, to] = [fd, watch.fd].map(u64::from);
    let Some(taken) = is_taken else {
        program.call(libc::SYS_dup3, [from, to, 0]);
        add(program, epoll, watch);
        program.close(watch.fd);
        return;
    };
    let close_on_exec = if taken.close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 };
    let kept = program.call(libc::SYS_fcntl, [to, F_DUPFD_CLOEXEC, 0]);
    let kept = program.result(kept);
    program.call(libc::SYS_dup3, [from, to, 0]);
    add(program, epoll, watch);
    program.call_with(libc::SYS_dup3, [0, to, u64::from(close_on_exec)], &[(0, kept)]);
    program.call_with(libc::SYS_close, [0], &[(0, kept)]);
}
