//! Reading clocks, and calendars.

use crate::raw::{nr, syscall3};

/// Nanoseconds of `CLOCK_MONOTONIC`.
#[must_use]
pub fn monotonic_ns() -> u64 {
    const CLOCK_MONOTONIC: usize = 1;
    now(CLOCK_MONOTONIC)
}

/// Nanoseconds of `CLOCK_BOOTTIME`.
#[must_use]
pub fn boottime_ns() -> u64 {
    const CLOCK_BOOTTIME: usize = 7;
    now(CLOCK_BOOTTIME)
}

/// Nanoseconds that the calling thread has worked: what it had to wait for others is not in it.
#[must_use]
pub fn own_work_ns() -> u64 {
    const CLOCK_THREAD_CPUTIME_ID: usize = 3;
    now(CLOCK_THREAD_CPUTIME_ID)
}

/// Nanoseconds that thread `tid` of this process has run; `None` if there is no such thread.
#[must_use]
pub fn run_time_ns(tid: u32) -> Option<u64> {
    /// `CPUCLOCK_SCHED` of one thread (clock_getcpuclockid(3) has it for processes).
    const OF_THREAD: u32 = 0b110;
    read((!tid << 3 | OF_THREAD) as usize)
}

/// Year, month and day of a day since 1970-01-01, by counting eras of 400 years that begin on 1 March, so
/// that the leap day is the last day of its year (Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
#[must_use]
pub const fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + if month <= 2 { 1 } else { 0 };
    (year, month, day)
}

fn now(clock: usize) -> u64 {
    read(clock).unwrap_or_default()
}

fn read(clock: usize) -> Option<u64> {
    let mut time = [0_u64; 2];
    // SAFETY: the kernel writes one timespec (two words) through the pointer, which is valid for it.
    unsafe { syscall3(nr::CLOCK_GETTIME, clock, time.as_mut_ptr().expose_provenance(), 0) }.ok()?;
    let [seconds, nanoseconds] = time;
    Some(seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds))
}
