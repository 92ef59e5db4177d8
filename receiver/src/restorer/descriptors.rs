//! Descriptors: opened here or in the child, and put at their numbers in ascending order.
//!
//! The kernel gives out the lowest free number, and everything below the one that is wanted is in place: so
//! each descriptor lands at its own number, or below it, from where it is moved.
//!
//! ```text
//! while the source runs     prove: everything that has a path, an option or an inode can be had
//! while nobody runs         make: every descriptor; finish: addresses, connections by name, locks, once the source let go
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use nix::libc;
use protocol::{Description, DescriptionKind, Descriptor, FileVerdict, Manifest};
use sys::proc::fdinfo::{self, FdInfo};

use super::batch::Batch;
use super::credentials::as_its_sender;
use super::ghosts::Ghosts;
use super::{Program, RestoreError, Step, files};
use crate::relaying::Companion;

mod anonymous;
mod fifos;
mod finish;
mod interest;
mod made;
mod sockets;
mod terminals;

pub(super) use finish::{Finish, finish};
use made::Maker;
pub(super) use sockets::path_of;
pub(super) use sockets::{check_addresses, refuse_connections};
pub use sockets::{check_permission, count_relayed};
use terminals::Terminals;
pub(super) use terminals::prove as prove_terminals;

/// How a description comes into the child.
enum Origin {
    /// Opened here and passed.
    Passed(OwnedFd),
    /// Opened in the child, so that it belongs to its mount namespace, at this position: a directory, or what `/proc`
    /// tells of the process itself.
    Inside { path: Vec<u8>, flags: u32, offset: u64, held: Option<Known> },
    /// `eventfd2(2)`
    Event { count: u64, flags: u64 },
    /// `epoll_create1(2)`
    Epoll,
    /// `timerfd_create(2)`, set going at once: time passes while a program moves.
    Timer(fdinfo::Timer),
    /// `signalfd4(2)`
    Signals(u64),
    /// `pidfd_open(2)` of the process itself.
    Itself { pid: u32, flags: u64 },
}

/// Device and inode of what the sender may not open any more, but has: the child opens it with rights of root's, and so
/// it has to be that.
type Known = (u64, u64);

/// Proves that everything can be had, without keeping it. `same_kernel` tells whether the source runs here.
/// Files that come along are proved elsewhere.
pub(super) fn prove(
    manifest: &Manifest,
    verdicts: &[FileVerdict],
    same_kernel: bool,
) -> Result<(), RestoreError> {
    for (index, description) in (0..).zip(&manifest.descriptions) {
        let fd =
            manifest.descriptors.iter().find(|known| known.description == index).map_or(0, |known| known.fd);
        match &description.kind {
            DescriptionKind::File { file } => {
                let record = files::record(manifest, *file)?;
                // What `/proc` tells is asked for when the process is there.
                let is_of_process = files::is_of_process(&record.path, manifest.process.pid);
                if !is_of_process && !files::is_wanted(verdicts, *file) {
                    files::prove(manifest, *file, description.flags, same_kernel)?;
                }
            }
            DescriptionKind::Device { path } => {
                files::open_device(path, description.flags)?;
            }
            DescriptionKind::Anonymous { name } => {
                let info = info(fd, description)?;
                anonymous::prove(fd, name, &info, manifest.process.pid, same_kernel)?;
            }
            DescriptionKind::Socket(record) => sockets::prove(fd, record)?,
            DescriptionKind::Stream(_)
            | DescriptionKind::Pipe { .. }
            | DescriptionKind::LostConnection { .. }
            | DescriptionKind::Ghost { .. }
            | DescriptionKind::Object { .. } => {}
            DescriptionKind::Terminal { terminal, .. } => terminals::check(manifest, *terminal)?,
        }
    }
    fifos::all(manifest).try_for_each(|(index, pipe, access)| fifos::prove(index, pipe, access))
}

/// What the kernel said of the description behind descriptor `fd`.
fn info(fd: u32, description: &Description) -> Result<FdInfo, RestoreError> {
    fdinfo::parse(&description.info)
        .map_err(|_| RestoreError::Dangling { what: "the state of descriptor", index: fd })
}

/// Makes every descriptor of `manifest` in the child; returns what is left to do once the source has let go of addresses
/// and locks.
pub(super) fn make(
    batch: &mut Batch<'_>,
    manifest: &Manifest,
    objects: &[OwnedFd],
    ghosts: &Ghosts,
    same_kernel: bool,
    companion: Option<&Companion>,
) -> Result<Finish, RestoreError> {
    let mut placed = Placed::new(batch.child().control_number());
    let terminals = Terminals::make(batch.child(), manifest)?;
    terminals.take_control(batch)?;
    let mut maker = Maker::new(manifest, objects, ghosts, same_kernel, companion, terminals)?;
    let mut held = Vec::new();
    for descriptor in &manifest.descriptors {
        batch.unit()?.step(Step::Descriptor(descriptor.fd));
        let index = descriptor.description;
        let description = description(manifest, index)?;
        if let Some(&first) = placed.by_description.get(&index) {
            duplicate(batch.program(), first, descriptor);
        } else {
            let number = placed.lowest_free(descriptor.fd);
            match maker.origin(descriptor.fd, index)? {
                Origin::Passed(fd) => {
                    batch.pass(fd, descriptor.close_on_exec);
                }
                other => {
                    open_in_child(batch.program(), &other, number);
                    if let Origin::Inside { path, held: Some(known), .. } = other {
                        held.push((descriptor.fd, path, known));
                    }
                }
            }
            put(batch.program(), number, descriptor);
            set_flags(batch.program(), descriptor.fd, description);
            placed.by_description.insert(index, descriptor.fd);
        }
        placed.numbers.insert(descriptor.fd);
    }
    check_held(batch, &held)?;
    interest::fill(batch, manifest, maker.epolls_in_flight()?)?;
    Ok(Finish::new(manifest, maker.into_kept()?, &placed.by_description))
}

/// Whether the child has opened what it was to open, by number and path.
fn check_held(batch: &mut Batch<'_>, held: &[(u32, Vec<u8>, Known)]) -> Result<(), RestoreError> {
    if held.is_empty() {
        return Ok(());
    }
    batch.run()?;
    for (fd, path, known) in held {
        let opened = std::fs::metadata(format!("/proc/{}/fd/{fd}", batch.child().pid()));
        if !opened.is_ok_and(|opened| (opened.dev(), opened.ino()) == *known) {
            return Err(files::missing("the open file", path, sys::Errno::ENOENT));
        }
    }
    Ok(())
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
        Origin::Inside { path, flags, offset, held } => {
            const PR_SET_DUMPABLE: u64 = 4;
            let path = program.c_string(path);
            let flags = u64::from(flags & (files::KEPT | libc::O_DIRECTORY.unsigned_abs()));
            let open = |program: &mut Program| program.call(libc::SYS_openat, [AT_FDCWD, path.0, flags, 0]);
            if held.is_some() {
                open(program);
            } else {
                as_its_sender(program, |program| {
                    // What `/proc` tells of it belongs to that user then; to be traced its real ids are in the way.
                    program.call(libc::SYS_prctl, [PR_SET_DUMPABLE, 1, 0, 0, 0]);
                    open(program)
                });
            }
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
        Origin::Timer(timer) => anonymous::timer(program, timer, number),
        Origin::Signals(signals) => {
            const ANY: u64 = u64::MAX;
            let signals = program.words(&[*signals]);
            program.call(libc::SYS_signalfd4, [ANY, signals.0, 8, 0]);
        }
        Origin::Itself { pid, flags } => {
            program.call(libc::SYS_pidfd_open, [u64::from(*pid), *flags]);
        }
    }
}

/// `O_APPEND | O_NONBLOCK | O_DIRECT | O_NOATIME`: what `F_SETFL` can change, without `O_ASYNC`.
const SETTABLE: u32 = 0o2000 | 0o4000 | 0o40_000 | 0o1_000_000;

/// Sets what is left of a description once it has its number.
fn set_flags(program: &mut Program, fd: u32, description: &Description) {
    const F_SETFL: u64 = 4;
    const PATH_ONLY: u32 = 0o10_000_000;
    // The receiver's own: its other users shall not notice.
    let is_ours = matches!(description.kind, DescriptionKind::Stream(_));
    if !is_ours && description.flags & PATH_ONLY == 0 {
        program.call(libc::SYS_fcntl, [u64::from(fd), F_SETFL, u64::from(description.flags & SETTABLE)]);
    }
}
