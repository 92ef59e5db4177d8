//! Timers: made with the ids that the program knows, armed as the last thing before it runs.

use nix::libc;
use protocol::{Manifest, TimerRecord, TimerTimes};
use sys::Errno;

use super::batch::Batch;
use super::{BlankChild, ChildError, Program, RestoreError, Step};

const SECOND: u64 = 1_000_000_000;
/// `SIGEV_THREAD_ID`
const TO_THREAD: u32 = 4;
/// Ids that are skipped one by one where the kernel cannot be asked for one, at most.
const MOST_SKIPPED: u32 = 2048;

/// Makes every timer of `manifest`, not armed. The threads that they signal must exist.
pub(super) fn make(batch: &mut Batch<'_>, manifest: &Manifest) -> Result<(), RestoreError> {
    let timers = &manifest.process.timers;
    if timers.is_empty() {
        return Ok(());
    }
    batch.run()?;
    let child = batch.child();
    let mut next = 0;
    let may_choose = choose_ids(child, true)?;
    for timer in timers {
        let mut program = child.program();
        program.step(Step::MakeTimer(timer.id));
        if !may_choose {
            skip_to(&mut program, &mut next, timer.id)?;
        }
        create(&mut program, timer);
        // Proves that the id is the one that the program knows.
        let times = program.words(&[0; 4]);
        program.call(libc::SYS_timer_gettime, [u64::from(timer.id), times.0]);
        child.run(program, &[])?;
    }
    if may_choose {
        choose_ids(child, false)?;
    }
    Ok(())
}

/// `PR_TIMER_CREATE_RESTORE_IDS` (Linux 6.15): whether timer_create(2) takes the id that it is given.
fn choose_ids(child: &BlankChild, on: bool) -> Result<bool, RestoreError> {
    const PR_TIMER_CREATE_RESTORE_IDS: u64 = 77;
    let mut program = child.program();
    let asked = program.attempt(libc::SYS_prctl, [PR_TIMER_CREATE_RESTORE_IDS, u64::from(on), 0, 0, 0]);
    Ok(child.run(program, &[])?.of(asked).is_ok())
}

/// Uses up the ids before `wanted`: the kernel gives them out in order.
fn skip_to(program: &mut Program, next: &mut u32, wanted: u32) -> Result<(), RestoreError> {
    if wanted.saturating_sub(*next) > MOST_SKIPPED {
        let step = Step::MakeTimer(wanted);
        return Err(ChildError::Refused { step, errno: Errno::EOVERFLOW }.into());
    }
    while *next < wanted {
        // Without a sigevent the timer signals the process with SIGALRM; it is never armed.
        let id = program.words(&[0]);
        program.call(libc::SYS_timer_create, [0, 0, id.0]);
        program.call(libc::SYS_timer_delete, [u64::from(*next)]);
        *next += 1;
    }
    *next += 1;
    Ok(())
}

fn create(program: &mut Program, timer: &TimerRecord) {
    let thread = if timer.notify & TO_THREAD == 0 { 0 } else { timer.thread };
    // struct sigevent: value, then signal and notify, then the thread, 64 bytes in all.
    let pair = u64::from(timer.signal) | u64::from(timer.notify) << 32;
    let event = program.words(&[timer.value, pair, u64::from(thread), 0, 0, 0, 0, 0]);
    let id = program.words(&[u64::from(timer.id)]);
    let clock = i64::from(timer.clock).cast_unsigned();
    program.call(libc::SYS_timer_create, [clock, event.0, id.0]);
}

/// Arms what was armed, with the time that was left.
pub(super) fn arm(program: &mut Program, manifest: &Manifest) {
    let is_armed = |times: &TimerTimes| times.remaining_ns != 0;
    for timer in manifest.process.timers.iter().filter(|timer| is_armed(&timer.times)) {
        let times = words(program, timer.times, 1);
        program.step(Step::ArmTimer).call(libc::SYS_timer_settime, [u64::from(timer.id), 0, times, 0]);
    }
    for (which, times) in (0..).zip(&manifest.process.interval_timers) {
        if is_armed(times) {
            let times = words(program, *times, 1000);
            program.step(Step::ArmTimer).call(libc::SYS_setitimer, [which, times, 0]);
        }
    }
}

/// Interval and value in seconds and fractions, of which one counts `unit` nanoseconds; a time that is left is
/// never rounded down to none.
fn words(program: &mut Program, times: TimerTimes, unit: u64) -> u64 {
    let [interval, remaining] = [times.interval_ns, times.remaining_ns]
        .map(|time| (time / SECOND, (time % SECOND).div_ceil(unit).min(SECOND / unit - 1)));
    program.words(&[interval.0, interval.1, remaining.0, remaining.1]).0
}
