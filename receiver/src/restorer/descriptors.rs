//! Descriptors: opened here or in the child, and put at their numbers in ascending order.
//!
//! The kernel gives out the lowest free number, and everything below the one that is wanted is in place: so
//! each descriptor lands at its own number, or below it, from where it is moved.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;

use nix::libc;
use protocol::{Description, DescriptionKind, Descriptor, Manifest};

use super::batch::Batch;
use super::ghosts::Ghosts;
use super::{Program, RestoreError, Step, files};

mod made;
mod sockets;

use made::Maker;
pub(super) use sockets::{Bind, bind_all, check_addresses};

/// How a description comes into the child.
enum Origin {
    /// Opened here and passed.
    Passed(OwnedFd),
    /// Opened in the child, so that it belongs to its mount namespace, at this position: a directory, or what `/proc`
    /// tells of the process itself.
    Inside { path: Vec<u8>, flags: u32, offset: u64 },
    /// `eventfd2(2)`
    Event { count: u64, flags: u64 },
    /// `epoll_create1(2)`
    Epoll,
    /// `socket(2)`
    Socket { domain: u32, kind: u32, protocol: u32 },
}

/// Proves that everything that has a path can be opened, without keeping it.
pub(super) fn prove(manifest: &Manifest) -> Result<(), RestoreError> {
    for description in &manifest.descriptions {
        match &description.kind {
            DescriptionKind::File { file, .. } => {
                let record = files::record(manifest, *file)?;
                // What `/proc` tells is asked for when the process is there.
                if !files::is_of_process(&record.path, manifest.process.pid) {
                    files::open_again(manifest, *file, description.flags)?;
                }
            }
            DescriptionKind::Device { path } => {
                files::open_device(path, description.flags)?;
            }
            DescriptionKind::Stream(_)
            | DescriptionKind::Pipe { .. }
            | DescriptionKind::SocketPair { .. }
            | DescriptionKind::Event { .. }
            | DescriptionKind::Epoll { .. }
            | DescriptionKind::Listener(_)
            | DescriptionKind::Socket { .. }
            | DescriptionKind::LostConnection { .. }
            | DescriptionKind::Ghost { .. }
            | DescriptionKind::Object { .. } => {}
        }
    }
    Ok(())
}

/// Makes every descriptor of `manifest` in the child; returns the addresses that are to be bound once the
/// source has let go of them.
pub(super) fn make(
    batch: &mut Batch<'_>,
    manifest: &Manifest,
    objects: &[OwnedFd],
    ghosts: &Ghosts,
) -> Result<Vec<Bind>, RestoreError> {
    let mut placed = Placed::new(batch.child().control_number());
    let mut maker = Maker::new(manifest, objects, ghosts)?;
    for descriptor in &manifest.descriptors {
        batch.unit()?.step(Step::Descriptor(descriptor.fd));
        let index = descriptor.description;
        let description = description(manifest, index)?;
        if let Some(&first) = placed.by_description.get(&index) {
            duplicate(batch.program(), first, descriptor);
        } else {
            let number = placed.lowest_free(descriptor.fd);
            match maker.origin(descriptor.fd, description)? {
                Origin::Passed(fd) => {
                    batch.pass(fd, descriptor.close_on_exec);
                }
                other => open_in_child(batch.program(), &other, number),
            }
            put(batch.program(), number, descriptor);
            finish(batch.program(), descriptor.fd, description);
            placed.by_description.insert(index, descriptor.fd);
        }
        placed.numbers.insert(descriptor.fd);
    }
    watch(batch, manifest)?;
    Ok(sockets::binds(manifest, &placed.by_description))
}

/// Which numbers are taken in the child.
struct Placed {
    numbers: BTreeSet<u32>,
    by_description: BTreeMap<u32, u32>,
    /// Everything below is taken.
    lowest: u32,
}

impl Placed {
    fn new(control: u32) -> Self {
        Self { numbers: BTreeSet::from([control]), by_description: BTreeMap::new(), lowest: 0 }
    }

    /// The lowest free number, which is at most `wanted`.
    fn lowest_free(&mut self, wanted: u32) -> u32 {
        while self.lowest < wanted && self.numbers.contains(&self.lowest) {
            self.lowest += 1;
        }
        self.lowest
    }
}

fn description(manifest: &Manifest, index: u32) -> Result<&Description, RestoreError> {
    let found = manifest.descriptions.get(index as usize);
    found.ok_or(RestoreError::Dangling { what: "open file description", index })
}

fn duplicate(program: &mut Program, first: u32, descriptor: &Descriptor) {
    let close_on_exec = if descriptor.close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 };
    let arguments = [u64::from(first), u64::from(descriptor.fd), u64::from(close_on_exec)];
    program.call(libc::SYS_dup3, arguments);
}

/// Moves a descriptor from `number`, where it landed, to where it belongs.
fn put(program: &mut Program, number: u32, descriptor: &Descriptor) {
    const F_SETFD: u64 = 2;
    if number != descriptor.fd {
        program.call(libc::SYS_dup3, [u64::from(number), u64::from(descriptor.fd), 0]);
        program.close(number);
    }
    // Fails if it is not there after all.
    program.call(libc::SYS_fcntl, [u64::from(descriptor.fd), F_SETFD, u64::from(descriptor.close_on_exec)]);
}

fn open_in_child(program: &mut Program, origin: &Origin, number: u32) {
    const AT_FDCWD: u64 = (-100_i64).cast_unsigned();
    const SEEK_SET: u64 = 0;
    match origin {
        Origin::Passed(_) => {}
        Origin::Inside { path, flags, offset } => {
            let path = program.c_string(path);
            program.call(libc::SYS_openat, [AT_FDCWD, path.0, u64::from(*flags), 0]);
            if *offset != 0 {
                program.call(libc::SYS_lseek, [u64::from(number), *offset, SEEK_SET]);
            }
        }
        Origin::Event { count, flags } => {
            program.call(libc::SYS_eventfd2, [0, *flags]);
            if *count != 0 {
                let count = program.words(&[*count]);
                program.call(libc::SYS_write, [u64::from(number), count.0, 8]);
            }
        }
        Origin::Epoll => {
            program.call(libc::SYS_epoll_create1, [0]);
        }
        Origin::Socket { domain, kind, protocol } => {
            program.call(libc::SYS_socket, [u64::from(*domain), u64::from(*kind), u64::from(*protocol)]);
        }
    }
}

/// Sets what is left of a description once it has its number.
fn finish(program: &mut Program, fd: u32, description: &Description) {
    const F_SETFL: u64 = 4;
    /// `O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME`: what `F_SETFL` can change, without `O_ASYNC`.
    const SETTABLE: u32 = 0o2000 | 0o4000 | 0o40_000 | 0o1_000_000;
    const PATH_ONLY: u32 = 0o10_000_000;
    match &description.kind {
        // The receiver's own: its other users shall not notice.
        DescriptionKind::Stream(_) => return,
        DescriptionKind::Listener(listener) => sockets::set_options(program, fd, listener),
        DescriptionKind::File { .. }
        | DescriptionKind::Device { .. }
        | DescriptionKind::Pipe { .. }
        | DescriptionKind::SocketPair { .. }
        | DescriptionKind::Event { .. }
        | DescriptionKind::Epoll { .. }
        | DescriptionKind::Socket { .. }
        | DescriptionKind::LostConnection { .. }
        | DescriptionKind::Ghost { .. }
        | DescriptionKind::Object { .. } => {}
    }
    if description.flags & PATH_ONLY == 0 {
        program.call(libc::SYS_fcntl, [u64::from(fd), F_SETFL, u64::from(description.flags & SETTABLE)]);
    }
}

/// Fills the interest lists, last: everything watched must be in place.
fn watch(batch: &mut Batch<'_>, manifest: &Manifest) -> Result<(), RestoreError> {
    const EPOLL_CTL_ADD: u64 = 1;
    let mut done = BTreeSet::new();
    for descriptor in &manifest.descriptors {
        let DescriptionKind::Epoll { watches } = &description(manifest, descriptor.description)?.kind else {
            continue;
        };
        if !done.insert(descriptor.description) {
            continue;
        }
        for watched in watches {
            let program = batch.unit()?.step(Step::Descriptor(descriptor.fd));
            // struct epoll_event is packed on x86-64.
            let mut event = watched.events.to_le_bytes().to_vec();
            event.extend_from_slice(&watched.data.to_le_bytes());
            let event = program.data(&event);
            let arguments = [u64::from(descriptor.fd), EPOLL_CTL_ADD, u64::from(watched.fd), event.0];
            program.call(libc::SYS_epoll_ctl, arguments);
        }
    }
    Ok(())
}
