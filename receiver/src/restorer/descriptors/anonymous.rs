//! Anonymous inodes of the kernel, made again from what `/proc/PID/fdinfo` said of them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::{Command, Stdio};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use protocol::{Description, DescriptionKind, Manifest};
use sys::descriptor::pipe::in_flight;
use sys::handle;
use sys::pidfd;
use sys::proc::fdinfo::{FdInfo, Timer, Watcher};

use super::super::Program;
use super::super::error::RestoreError;
use super::Origin;
use crate::{confinement, peer};

const SECOND: u64 = 1_000_000_000;
/// The highest number of an inotify watch: those below it that are free are used up one by one.
const HIGHEST_NUMBER: u32 = 1 << 18;

/// Refuses what cannot be made here.
pub(super) fn prove(
    fd: u32,
    name: &[u8],
    info: &FdInfo,
    pid: u32,
    same_kernel: bool,
) -> Result<(), RestoreError> {
    let refuse = |what| Err(RestoreError::NotMoved { fd, what });
    match name {
        b"[eventfd]" if info.event_count.is_some() => Ok(()),
        b"[timerfd]" if info.timer.is_some() => Ok(()),
        b"[signalfd]" if info.signals.is_some() => Ok(()),
        b"[eventpoll]" => Ok(()),
        b"[pidfd]" => match info.process {
            Some(Some(of)) if of != pid => refuse("a pidfd of another process"),
            Some(_) => Ok(()),
            None => refuse("a pidfd of which this kernel tells nothing"),
        },
        b"inotify" if info.watchers.is_empty() => Ok(()),
        b"inotify" if !same_kernel => {
            refuse("an inotify that watches files, which can be found on this machine only")
        }
        b"inotify" => inotify(fd, info).map(|_| ()),
        _ => refuse("a kernel object of a kind that is not known"),
    }
}

/// How an anonymous inode comes into the child; `dead` is what a pidfd of an ended process becomes.
pub(super) fn origin(
    fd: u32,
    name: &[u8],
    description: &Description,
    dead: Option<OwnedFd>,
) -> Result<Origin, RestoreError> {
    let info = &super::info(fd, description)?;
    let unknown = RestoreError::NotMoved { fd, what: "a kernel object of a kind that is not known" };
    let found = match name {
        b"[eventfd]" => info.event_count.map(|count| {
            let flags = if info.event_semaphore { libc::EFD_SEMAPHORE.unsigned_abs() } else { 0 };
            Origin::Event { count, flags: u64::from(flags) }
        }),
        b"[eventpoll]" => Some(Origin::Epoll),
        b"[timerfd]" => info.timer.map(Origin::Timer),
        b"[signalfd]" => info.signals.map(Origin::Signals),
        b"[pidfd]" => match info.process {
            Some(Some(pid)) => {
                // `PIDFD_NONBLOCK` and `PIDFD_THREAD`.
                let flags = description.flags & (libc::O_NONBLOCK | libc::O_EXCL).unsigned_abs();
                Some(Origin::Itself { pid, flags: u64::from(flags) })
            }
            Some(None) => dead.map(Origin::Passed),
            None => None,
        },
        b"inotify" => Some(Origin::Passed(inotify(fd, info)?)),
        _ => None,
    };
    found.ok_or(unknown)
}

/// Descriptors of processes that have ended and been waited for: of one process for all that share an inode.
pub(super) fn dead(manifest: &Manifest) -> Result<BTreeMap<u64, Vec<OwnedFd>>, RestoreError> {
    let mut wanted: BTreeMap<u64, usize> = BTreeMap::new();
    for description in &manifest.descriptions {
        let is_pidfd = matches!(&description.kind, DescriptionKind::Anonymous { name } if name == b"[pidfd]");
        if is_pidfd && super::info(0, description)?.process == Some(None) {
            *wanted.entry(description.inode).or_default() += 1;
        }
    }
    let one = |(inode, count)| Ok((inode, ended(count).map_err(|source| failed("a pidfd", source))?));
    wanted.into_iter().map(one).collect()
}

fn ended(count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut command = Command::new("/proc/self/exe");
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = confinement::outside(|| command.spawn())?;
    let opened: Result<Vec<OwnedFd>, _> = (0..count).map(|_| pidfd::open(child.id())).collect();
    child.wait()?;
    Ok(opened?)
}

fn failed(what: &'static str, source: io::Error) -> RestoreError {
    RestoreError::Descriptor { fd: 0, what, source }
}

/// Sets a timer, which is at `number`, going: with the time that was left, or, where the clock may be set, for the same
/// time of day.
pub(super) fn timer(program: &mut Program, timer: &Timer, number: u32) {
    const TFD_TIMER_ABSTIME: u32 = 1;
    const TFD_IOC_SET_TICKS: u64 = 0x4008_5400;
    /// `CLOCK_REALTIME` and `CLOCK_REALTIME_ALARM`.
    const TIMES_OF_DAY: [u32; 2] = [0, 8];
    program.call(libc::SYS_timerfd_create, [u64::from(timer.clock), 0]);
    let mut flags = 0;
    let mut value = timer.remaining_ns;
    if timer.settime_flags & TFD_TIMER_ABSTIME != 0 && TIMES_OF_DAY.contains(&timer.clock) && value != 0 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        flags = timer.settime_flags;
        value = value.saturating_add(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX / 2));
    }
    let interval = timer.interval_ns;
    let times = program.words(&[interval / SECOND, interval % SECOND, value / SECOND, value % SECOND]);
    program.call(libc::SYS_timerfd_settime, [u64::from(number), u64::from(flags), times.0, 0]);
    if timer.ticks != 0 {
        let ticks = program.words(&[timer.ticks]);
        program.call(libc::SYS_ioctl, [u64::from(number), TFD_IOC_SET_TICKS, ticks.0]);
    }
}

/// Takes out of inotifies what was told to them while their process was made: none of it is for the program.
pub(super) fn forget_events(inotifies: &[OwnedFd]) {
    for inotify in inotifies {
        let fd = inotify.as_raw_fd().cast_unsigned();
        let mut reader = inotify.try_clone().map(File::from);
        // It may be blocking by now: read only what is there.
        while let (Ok(bytes @ 1..), Ok(reader)) = (in_flight(fd), &mut reader) {
            let mut events = vec![0; bytes as usize];
            if reader.read(&mut events).is_err() {
                break;
            }
        }
    }
}

/// An inotify that watches the same files under the same numbers. It hears of what is done here until [`forget_events`].
fn inotify(fd: u32, info: &FdInfo) -> Result<OwnedFd, RestoreError> {
    let failed = |source: std::io::Error| RestoreError::Descriptor { fd, what: "an inotify", source };
    let made = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
        .map_err(|errno| failed(errno.into()))?;
    let mut watchers: Vec<&Watcher> = info.watchers.iter().collect();
    watchers.sort_by_key(|watcher| watcher.number);
    let mut next = 1;
    for watcher in watchers {
        let file = handle::open(watcher.device, watcher.handle_type, &watcher.handle)
            .map_err(|errno| failed(errno.into()))?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        /// What the kernel adds to a mask, and what tells how to add it.
        const EVENTS: u32 = 0xfff | 0x0400_0000 | 0x8000_0000;
        let mask = AddWatchFlags::from_bits_retain(watcher.mask & EVENTS);
        if watcher.number > HIGHEST_NUMBER {
            return Err(failed(std::io::ErrorKind::OutOfMemory.into()));
        }
        // Numbers are given out in ascending order.
        loop {
            let added = peer::with_its_rights(|| made.add_watch(path.as_str(), mask));
            let added = added.map_err(|errno| failed(errno.into()))?;
            next += 1;
            if next > watcher.number {
                break;
            }
            made.rm_watch(added).map_err(|errno| failed(errno.into()))?;
        }
    }
    made.as_fd().try_clone_to_owned().map_err(failed)
}
