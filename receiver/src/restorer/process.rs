//! What all threads of a process share, besides memory and descriptors.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;

use memory::Addr;
use nix::libc;
use protocol::{Credentials, Manifest, PROC_VALUES, PROCESS_SETTINGS, ProcessRecord, SECURE_BITS};

use super::batch::Batch;
use super::credentials::{self, Change};
use super::ghosts::Ghosts;
use super::{Program, RestoreError, Step, files};
use crate::peer;

/// Limits without which the program's memory and descriptors do not hold, by `RLIMIT_*` number.
const NEEDED_LIMITS: [(u32, &str); 4] =
    [(2, "the data segment"), (3, "the stack"), (7, "the number of descriptors"), (9, "the address space")];

/// Sets everything but limits.
pub(super) fn set(batch: &mut Batch<'_>, manifest: &Manifest, ghosts: &Ghosts) -> Result<(), RestoreError> {
    let process = &manifest.process;
    let executable = files::open_executable(&files::record(manifest, process.executable)?.path)?;
    set_memory_fields(batch, executable, process)?;
    let program = batch.unit()?;
    set_actions(program, process);
    program.step(Step::ChangeDirectory);
    let directory = match process.working_ghost {
        Some(ghost) => ghosts.path(ghost)?.as_os_str().as_bytes(),
        None => &process.working_directory,
    };
    let directory = program.c_string(directory);
    program.call(libc::SYS_chdir, [directory.0]);
    set_flags(program, process);
    set_values(batch.unit()?, process);
    Ok(())
}

const PR_SET_MM: u64 = 35;
const PR_SET_MM_MAP: u64 = 14;
const MM_MAP_BYTES: u64 = 104;

/// Has `/proc` look for arguments and environment at `place` and find none: where the parent has its own, the program
/// may have memory whose pages are still to come.
pub(super) fn have_no_arguments(program: &mut Program, place: Addr) {
    const NO_AUXV_NO_EXECUTABLE: u64 = 0xffff_ffff << 32;
    // Code ends behind its start, and the heap starts behind the data, or the kernel refuses.
    let (at, behind) = (place.0, place.0 + 1);
    let fields =
        program.words(&[at, behind, at, at, behind, behind, at, at, at, at, at, 0, NO_AUXV_NO_EXECUTABLE]);
    program.call(libc::SYS_prctl, [PR_SET_MM, PR_SET_MM_MAP, fields.0, MM_MAP_BYTES, 0]);
}

/// `PR_SET_MM_MAP` (prctl(2)): with the executable, which may be changed because the old one is not mapped.
fn set_memory_fields(
    batch: &mut Batch<'_>,
    executable: OwnedFd,
    process: &ProcessRecord,
) -> Result<(), RestoreError> {
    batch.unit()?.step(Step::SetMemoryFields);
    let executable = batch.pass(executable, true);
    let program = batch.program();
    let auxv = program.data(&process.auxv);
    let mm = &process.mm;
    let fields = program.words(&[
        mm.start_code,
        mm.end_code,
        mm.start_data,
        mm.end_data,
        mm.start_brk,
        mm.brk,
        mm.start_stack,
        mm.arg_start,
        mm.arg_end,
        mm.env_start,
        mm.env_end,
        auxv.0,
        // u32 auxv_size, u32 exe_fd; exe_fd is copied there below, with four zero bytes behind it.
        process.auxv.len() as u64,
        0,
    ]);
    program.copy(executable, Addr(fields.0 + MM_MAP_BYTES - 4));
    program.call(libc::SYS_prctl, [PR_SET_MM, PR_SET_MM_MAP, fields.0, MM_MAP_BYTES, 0]);
    program.call_with(libc::SYS_close, [0], &[(0, executable)]);
    Ok(())
}

fn set_actions(program: &mut Program, process: &ProcessRecord) {
    const SIGKILL: u32 = 9;
    const SIGSTOP: u32 = 19;
    for (signal, action) in (1_u32..).zip(&process.actions) {
        if signal != SIGKILL && signal != SIGSTOP {
            program.step(Step::SetSignalAction(signal));
            let action = program.words(&[action.handler, action.flags, action.restorer, action.mask]);
            program.call(libc::SYS_rt_sigaction, [u64::from(signal), action.0, 0, 8]);
        }
    }
}

/// Whether memory may have transparent huge pages.
pub(super) fn forbid_huge_pages(program: &mut Program, forbidden: bool) {
    const PR_SET_THP_DISABLE: u64 = 41;
    program.call(libc::SYS_prctl, [PR_SET_THP_DISABLE, u64::from(forbidden), 0, 0, 0]);
}

fn set_flags(program: &mut Program, process: &ProcessRecord) {
    const PR_SET_KEEPCAPS: u64 = 8;
    const PR_SET_CHILD_SUBREAPER: u64 = 36;
    program.step(Step::SetProcessFlags);
    program.call(libc::SYS_umask, [u64::from(process.umask)]);
    set_personality(program, process);
    // No huge pages while pages were written ahead.
    forbid_huge_pages(program, process.thp_disable);
    let flags =
        [(PR_SET_KEEPCAPS, process.keep_capabilities), (PR_SET_CHILD_SUBREAPER, process.child_subreaper)];
    for (option, _) in flags.into_iter().filter(|(_, set)| *set) {
        program.call(libc::SYS_prctl, [option, 1, 0, 0, 0]);
    }
}

/// Each thread has its own, though a program sees the first one's only.
pub(super) fn set_personality(program: &mut Program, process: &ProcessRecord) {
    program.call(libc::SYS_personality, [u64::from(process.personality)]);
}

/// Sets what is told by files below `/proc/self` and by membarrier(2): as far as it can be had.
fn set_values(program: &mut Program, process: &ProcessRecord) {
    const AT_FDCWD: u64 = (-100_i64).cast_unsigned();
    const WRITE_ONLY: u64 = 1;
    program.step(Step::SetProcessValue);
    for value in &process.proc_values {
        if PROC_VALUES.iter().all(|known| known.to_bytes() != value.name) {
            continue;
        }
        let Some(permitted) = peer::proc_value(value) else { continue };
        let path = program.c_string(&[b"/proc/self/", value.name.as_slice()].concat());
        let content = program.data(&permitted);
        let opened = program.attempt(libc::SYS_openat, [AT_FDCWD, path.0, WRITE_ONLY, 0]);
        let number = program.result(opened);
        // Without the file both calls fail on a number that is none.
        let len = permitted.len() as u64;
        program.attempt_with(libc::SYS_write, [0, content.0, len], &[(0, number)]);
        program.attempt_with(libc::SYS_close, [0], &[(0, number)]);
    }
    credentials::bound(program, &process.credentials);
    allow_barriers(program, process);
}

/// Registers for membarrier(2): before there are other threads, because the kernel waits for all processors otherwise,
/// unless the process is registered already.
pub(super) fn allow_barriers(program: &mut Program, process: &ProcessRecord) {
    program.step(Step::SetProcessValue);
    for bit in (0..u32::BITS).filter(|bit| process.barriers & (1 << bit) != 0) {
        program.attempt(libc::SYS_membarrier, [1 << bit, 0, 0]);
    }
}

/// Whether a thread inherits nothing of what [`set`] and [`set_settings`] set, where this process is known to audit by
/// `login_id`: it may be made before that.
pub(super) fn leaves_threads_alone(ours: &Credentials, login_id: &[u8], process: &ProcessRecord) -> bool {
    let mut values = process.proc_values.iter().filter(|value| value.name == LOGIN_ID.as_bytes());
    credentials::is_unbound(ours, &process.credentials)
        && !process.keep_capabilities
        && secure_bits(process) == 0
        && values.all(|value| value.value.trim_ascii() == login_id.trim_ascii())
}

/// The one of [`PROC_VALUES`] that each thread has for itself.
const LOGIN_ID: &str = "loginuid";

/// What the receiver's own file says, and its child's until it is told otherwise; empty without auditing.
pub(super) fn own_login_id() -> Vec<u8> {
    std::fs::read(format!("/proc/self/{LOGIN_ID}")).unwrap_or_default()
}

/// Sets what prctl(2) sets for the whole process or, where no other has been made yet, for the first thread: as far as it
/// can be had. Nothing is made executable behind this any more.
pub(super) fn set_settings(program: &mut Program, process: &ProcessRecord) {
    program.step(Step::SetProcessFlags);
    for ((_, set), value) in PROCESS_SETTINGS.iter().zip(&process.settings) {
        if *value != 0 && *set != SECURE_BITS.1 {
            program.attempt(libc::SYS_prctl, [u64::from(*set), u64::from(*value), 0, 0, 0]);
        }
    }
    let bits = secure_bits(process);
    if bits != 0 {
        program.call(libc::SYS_prctl, [SECURE_BITS.1.into(), bits.into(), 0, 0, 0]);
    }
}

/// `PR_GET_SECUREBITS`, but for the bit that `PR_SET_KEEPCAPS` sets.
fn secure_bits(process: &ProcessRecord) -> u32 {
    const KEEP_CAPABILITIES: u32 = 1 << 4;
    let found = PROCESS_SETTINGS.iter().zip(&process.settings).find(|(known, _)| **known == SECURE_BITS);
    found.map_or(0, |(_, bits)| bits & !KEEP_CAPABILITIES)
}

/// Refuses a program to which a user id of 0 means something of its own, where ids have to be taken on.
pub(super) fn check_settings(process: &ProcessRecord, change: &Change) -> Result<(), RestoreError> {
    if secure_bits(process) == 0 || !change.is_of_ids() {
        return Ok(());
    }
    let Credentials { user, group, capabilities, .. } = process.credentials;
    Err(RestoreError::Credentials { user, group, capabilities })
}

/// Sets whether others may look into the process: last, because taking on credentials resets it.
pub(super) fn set_dumpable(program: &mut Program, process: &ProcessRecord) {
    const PR_SET_DUMPABLE: u64 = 4;
    program.step(Step::SetProcessFlags);
    // 2 (readable by root only) cannot be asked for; 0 is the stricter of what can.
    program.call(libc::SYS_prctl, [PR_SET_DUMPABLE, u64::from(process.dumpable == 1), 0, 0, 0]);
}

/// `RLIMIT_NICE` and `RLIMIT_RTPRIO`: what threads may have of priorities.
pub(super) const LIMITS_OF_PRIORITIES: [u32; 2] = [13, 14];
/// All others.
pub(super) const OTHER_LIMITS: [u32; 14] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 15];

/// Sets the limits `which`: soft ones as they were, as far as the hard ones here, and those of the sender, allow; hard ones
/// are never raised.
pub(super) fn set_limits(
    program: &mut Program,
    process: &ProcessRecord,
    which: &[u32],
) -> Result<(), RestoreError> {
    let limits = (0_u32..).zip(&process.limits).zip(hard_limits()?);
    for ((number, limit), here) in limits.filter(|((number, _), _)| which.contains(number)) {
        let hard = limit.hard.min(here).min(peer::limit(number));
        let soft = limit.soft.min(hard);
        if soft < limit.soft {
            tracing::warn!(resource = number, wanted = limit.soft, soft, "a soft limit is lower here");
        }
        program.step(Step::SetLimit(number));
        let value = program.words(&[soft, hard]);
        program.call(libc::SYS_prlimit64, [0, u64::from(number), value.0, 0]);
    }
    Ok(())
}

/// Refuses a program that needs more than may be had here.
pub(super) fn check_limits(process: &ProcessRecord, highest_fd: u32) -> Result<(), RestoreError> {
    const DESCRIPTORS: u32 = 7;
    let here = hard_limits()?;
    for (number, name) in NEEDED_LIMITS {
        let needed = process.limits.get(number as usize).map_or(0, |limit| limit.soft);
        let needed = if number == DESCRIPTORS { u64::from(highest_fd) + 1 } else { needed };
        let here = here.get(number as usize).copied().unwrap_or(u64::MAX);
        if here < needed {
            return Err(RestoreError::Limit { name, here, needed });
        }
    }
    Ok(())
}

/// The hard limits of this process, by `RLIMIT_*` number.
fn hard_limits() -> Result<Vec<u64>, RestoreError> {
    let limits = sys::process::limits()
        .map_err(|errno| RestoreError::Host { what: "the resource limits", source: errno.into() })?;
    Ok(limits.into_iter().map(|limit| limit.hard).collect())
}
