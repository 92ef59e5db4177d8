//! What all threads share, and what stands in the way of moving the process as a whole.

use alloc::vec::Vec;
use core::ffi::CStr;

use protocol::{
    ClockRecord, Credentials, HostFacts, MmFields, PROC_VALUES, ProcValue, ProcessRecord, SignalAction,
    TimerRecord, TimerTimes,
};
use sys::path::KernelPath;
use sys::proc::maps::Mapping;
use sys::proc::stat;
use sys::proc::status::{self, Status};
use sys::proc::timers;
use sys::process::{self, Flag};
use sys::status::FileStatus;
use sys::{clock, file, identity, signal, thread};

use crate::Surroundings;
use crate::refusal::{Doing, ProcessTrait, Refusal};
use crate::tables::{DELETED, Files, Ghosts};

/// Signals that exist.
const SIGNALS: core::ops::RangeInclusive<u32> = 1..=64;
/// Bytes of `timens_offsets`, amply.
const OFFSETS_LIMIT: usize = 512;
/// Bytes of an auxiliary vector.
const AUXV_LIMIT: usize = 64 << 10;

/// What must fit the destination.
pub(crate) fn host(mappings: &[Mapping]) -> Result<HostFacts, Refusal> {
    Ok(HostFacts {
        boot_id: identity::boot_id().map_err(Refusal::kernel(Doing::BootId))?,
        xsave: identity::xsave_layout(),
        vdso: identity::vdso_record(mappings).ok_or(ProcessTrait::Vdso)?,
        clocks: ClockRecord {
            offsets: file::read_file(c"/proc/self/timens_offsets", OFFSETS_LIMIT).unwrap_or_default(),
            monotonic_ns: clock::monotonic_ns(),
            boottime_ns: clock::boottime_ns(),
        },
        processors: file::read_file(c"/sys/devices/system/cpu/online", OFFSETS_LIMIT).unwrap_or_default(),
    })
}

/// Refuses what no manifest of this version can hold. Looks at every thread, so only while the process runs.
pub(crate) fn check(threads: &[u32]) -> Result<(), Refusal> {
    let asking = Refusal::kernel(Doing::Children);
    if process::has_children().map_err(&asking)? {
        return Err(ProcessTrait::Children.into());
    }
    if process::may_use_tiles() {
        return Err(ProcessTrait::Tiles.into());
    }
    let root = file::read_link(c"/proc/thread-self/root");
    check_root(&root.map_err(Refusal::kernel(Doing::Root))?)?;
    threads.iter().try_for_each(|tid| check_thread(*tid))
}

/// Refuses a process whose root directory leads elsewhere.
pub(crate) fn check_root(root: &[u8]) -> Result<(), ProcessTrait> {
    if root == b"/" { Ok(()) } else { Err(ProcessTrait::Chroot) }
}

fn check_thread(tid: u32) -> Result<(), Refusal> {
    // A thread that has ended since it was listed is no obstacle.
    let Ok(status) = status::of_thread(tid) else { return Ok(()) };
    Ok(check_status(tid, tid == thread::process_id(), &status)?)
}

/// Refuses a thread by what its status says.
pub(crate) fn check_status(tid: u32, is_main: bool, status: &Status) -> Result<(), ProcessTrait> {
    if tid == 1 {
        return Err(ProcessTrait::Init);
    }
    if status.tracer != 0 {
        return Err(ProcessTrait::Traced(u32::try_from(status.tracer).unwrap_or(0)));
    }
    if status.seccomp != 0 {
        return Err(ProcessTrait::Seccomp);
    }
    match status.state {
        b'T' | b't' => Err(ProcessTrait::Stopped(tid)),
        b'Z' | b'X' if is_main => Err(ProcessTrait::DeadMainThread),
        _ => Ok(()),
    }
}

/// The process's record. `before` is that of the running process.
pub(crate) fn record(
    around: &Surroundings<'_>,
    before: Option<&ProcessRecord>,
    files: &mut Files,
    ghosts: &mut Ghosts,
) -> Result<ProcessRecord, Refusal> {
    const PARK_SIGNAL: usize = 33;
    let status = status::own()?;
    check_scatter(&status, around.room)?;
    let mut actions = actions()?;
    if let (Some(action), Some(slot)) = (around.park_action, actions.get_mut(PARK_SIGNAL - 1)) {
        *slot = action;
    }
    let (working_directory, working_ghost) = working_directory(ghosts)?;
    let flag = |flag| process::flag(flag).map_err(Refusal::kernel(Doing::Flags));
    Ok(ProcessRecord {
        pid: thread::process_id(),
        session_and_group: process::session_and_group(),
        executable: executable(files)?,
        mm: mm()?,
        auxv: auxv()?,
        resident_kib: status.resident_kib,
        working_directory,
        working_ghost,
        credentials: credentials(&status),
        umask: status.umask,
        personality: process::personality().map_err(Refusal::kernel(Doing::Flags))?,
        limits: process::limits().map_err(Refusal::kernel(Doing::Limits))?,
        actions,
        pending: Vec::new(),
        interval_timers: interval_timers(before)?,
        timers: timers()?,
        dumpable: u8::try_from(flag(Flag::Dumpable)?).unwrap_or(0),
        keep_capabilities: flag(Flag::KeepCapabilities)? != 0,
        child_subreaper: flag(Flag::ChildSubreaper)? != 0,
        thp_disable: flag(Flag::ThpDisable)? != 0,
        barriers: process::barrier_registrations(),
        proc_values: proc_values(),
        settings: process::settings(),
    })
}

/// Refuses a process with more stretches of touched memory than the parasite can list in `room` bytes: whoever runs out of it
/// after the switchover loses the process.
pub(crate) fn check_scatter(status: &Status, room: u64) -> Result<(), ProcessTrait> {
    /// Bytes that one word of a set of pages takes, in every set that is kept of them, amply.
    const WORD_BYTES: u64 = 256;
    /// Words for the pages of one page table.
    const TABLE_WORDS: u64 = 8;
    /// Bytes for all else.
    const OTHER_BYTES: u64 = 8 << 20;
    let words = (status.touched_kib / 4).min(status.page_tables_kib / 4 * TABLE_WORDS);
    if words * WORD_BYTES + OTHER_BYTES > room {
        return Err(ProcessTrait::TooScattered);
    }
    Ok(())
}

fn actions() -> Result<Vec<SignalAction>, Refusal> {
    let mut actions = Vec::with_capacity(64);
    for number in SIGNALS {
        let signal::Action { handler, flags, restorer, mask } =
            signal::action(number).map_err(Refusal::kernel(Doing::Actions))?;
        actions.push(SignalAction { handler, flags, restorer, mask });
    }
    Ok(actions)
}

fn timers() -> Result<Vec<TimerRecord>, Refusal> {
    let mut timers = timers::own()?;
    for timer in &mut timers {
        timer.times = process::timer(timer.id).map_err(Refusal::kernel(Doing::Timers))?;
    }
    Ok(timers)
}

/// `setitimer(2)`. The first one has no time left while its signal waits, and goes on when that is delivered. The
/// others, which count processor time in ticks, seem to have none in the last tick before they go off, which one that
/// is not armed has for ever: it counts as armed if it was `before`.
fn interval_timers(before: Option<&ProcessRecord>) -> Result<[TimerTimes; 3], Refusal> {
    let mut timers = process::interval_timers().map_err(Refusal::kernel(Doing::Timers))?;
    for (which, timer) in timers.iter_mut().enumerate() {
        let was_armed = || {
            let then = before.and_then(|before| before.interval_timers.get(which));
            then.is_some_and(|then| then.remaining_ns != 0)
        };
        if timer.remaining_ns == 0 && (which == 0 || was_armed()) {
            timer.remaining_ns = timer.interval_ns;
        }
    }
    Ok(timers)
}

fn executable(files: &mut Files) -> Result<u32, Refusal> {
    let (path, status) = linked(c"/proc/thread-self/exe", Doing::Program)?;
    check_executable(&path, &status)?;
    Ok(files.of_descriptor(&path, &status))
}

/// Where a link of `/proc` leads to, and the status of what is there.
pub(crate) fn linked(link: &CStr, doing: Doing) -> Result<(Vec<u8>, FileStatus), Refusal> {
    let failed = Refusal::kernel(doing);
    let path = file::read_link(link).map_err(&failed)?;
    Ok((path, sys::status::of_path(link).map_err(&failed)?))
}

/// Refuses a program whose file is not under its path.
pub(crate) fn check_executable(path: &[u8], status: &FileStatus) -> Result<(), ProcessTrait> {
    let reached = reach(path).filter(|reached| reached.inode == status.inode);
    reached.map(|_| ()).ok_or(ProcessTrait::NoExecutable)
}

/// The status of what a path of bytes leads to, if it leads anywhere.
fn reach(path: &[u8]) -> Option<FileStatus> {
    KernelPath::new(path).and_then(|path| sys::status::of_path(path.as_c_str())).ok()
}

fn mm() -> Result<MmFields, Refusal> {
    let brk = process::program_break().map_err(Refusal::kernel(Doing::Heap))?;
    Ok(MmFields { brk, ..stat::own()? })
}

/// The auxiliary vector up to its terminator, whole pairs of words.
fn auxv() -> Result<Vec<u8>, Refusal> {
    let mut bytes =
        file::read_file(c"/proc/thread-self/auxv", AUXV_LIMIT).map_err(Refusal::kernel(Doing::Auxv))?;
    bytes.truncate(bytes.len() & !15);
    Ok(bytes)
}

/// Files below `/proc` that say something of the process; some kernels lack some of them.
fn proc_values() -> Vec<ProcValue> {
    const LIMIT: usize = 64;
    let mut values = Vec::new();
    for name in PROC_VALUES {
        let mut path = b"/proc/thread-self/".to_vec();
        path.extend_from_slice(name.to_bytes());
        let value = KernelPath::new(&path).and_then(|path| file::read_file(path.as_c_str(), LIMIT));
        if let Ok(value) = value {
            values.push(ProcValue { name: name.to_bytes().to_vec(), value });
        }
    }
    values
}

/// Refuses a working directory that no path leads to.
pub(crate) fn check_working_directory(path: &[u8]) -> Result<(), ProcessTrait> {
    if path.starts_with(b"/") { Ok(()) } else { Err(ProcessTrait::NoWorkingDirectory) }
}

/// The working directory, and the ghost that it is if it was deleted.
fn working_directory(ghosts: &mut Ghosts) -> Result<(Vec<u8>, Option<u32>), Refusal> {
    let (path, status) = linked(c"/proc/thread-self/cwd", Doing::WorkingDirectory)?;
    check_working_directory(&path)?;
    let is_deleted =
        path.ends_with(DELETED) && reach(&path).is_none_or(|reached| reached.inode != status.inode);
    let ghost = is_deleted.then(|| ghosts.of(&path, &status, Vec::new()));
    Ok((path, ghost))
}

/// Who a thread with `status` is, if it is not who the thread with the status `own` is.
#[must_use]
pub fn credentials_beside(status: &Status, own: &Status) -> Option<Credentials> {
    let found = credentials(status);
    (found != credentials(own)).then_some(found)
}

fn credentials(status: &Status) -> Credentials {
    let ([real_user, user, saved_user, file_user], [real_group, group, saved_group, file_group]) =
        (status.users, status.groups);
    let [inheritable, permitted, capabilities, bounding, ambient] = status.capabilities;
    Credentials {
        user,
        group,
        other_users: [real_user, saved_user, file_user],
        other_groups: [real_group, saved_group, file_group],
        groups: status.supplementary.clone(),
        capabilities,
        permitted,
        inheritable,
        bounding,
        ambient,
    }
}
