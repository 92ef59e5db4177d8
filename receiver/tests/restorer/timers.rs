//! Timers keep their ids and the time that is left.

use nix::libc;
use protocol::{TimerRecord, TimerTimes};
use receiver::guardian::ExitStatus;

use super::image::{Code, DATA, Image, PID, ThreadCode};
use super::whole::{Report, run, serve};
use super::{Case, Outcome, privileged};

pub(super) const CASES: &[Case] =
    &[("timers_keep_their_ids_and_the_time_that_is_left", timers_keep), ("a_timer_goes_off_there", goes_off)];

const HOUR_NS: u64 = 3_600_000_000_000;

fn timer(id: u32, notify: u32, signal: u32, times: TimerTimes) -> TimerRecord {
    TimerRecord { id, clock: libc::CLOCK_MONOTONIC, signal, value: 7, notify, thread: PID, times }
}

fn main_thread(code: Code) -> ThreadCode {
    ThreadCode { tid: PID, code, name: b"timers" }
}

fn timers_keep() -> Outcome {
    privileged()?;
    let report = Report::new("timers");
    let mut code = Code::default();
    code.call(libc::SYS_timer_gettime, &[6, DATA]);
    code.call(libc::SYS_timer_gettime, &[9, DATA + 32]).store(DATA + 128);
    code.call(libc::SYS_getitimer, &[0, DATA + 64]);
    code.call(libc::SYS_timer_gettime, &[7, DATA + 96]).store(DATA + 136);
    code.write(3, DATA, 144).exit(0);
    let mut image = Image::new(vec![main_thread(code)]);
    let times = TimerTimes { interval_ns: HOUR_NS + 5, remaining_ns: HOUR_NS };
    let signals_thread = libc::SIGEV_THREAD_ID.unsigned_abs();
    image.manifest.process.timers =
        vec![timer(6, 0, 60, times), timer(9, signals_thread, 61, TimerTimes::default())];
    image.manifest.process.interval_timers[0] = TimerTimes { interval_ns: 0, remaining_ns: HOUR_NS };
    report.attach(&mut image, 3);
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Code(0));
    let words: Vec<u64> =
        report.read().as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    assert_eq!(words[..2], [3600, 5], "the interval of timer 6");
    assert!((1..=3600).contains(&words[2]), "{} seconds left", words[2]);
    assert_eq!(words[4..8], [0; 4], "timer 9 is not armed");
    assert!((1..=3600).contains(&words[10]), "{} seconds left", words[10]);
    assert_eq!(words[16], 0, "timer 9 is there");
    assert_eq!(words[17].cast_signed(), -i64::from(libc::EINVAL), "timer 7 is not");
    Ok(())
}

fn goes_off() -> Outcome {
    privileged()?;
    let mut code = Code::default();
    // Without a handler SIGALRM ends the process, which waits for nothing else.
    code.call(libc::SYS_pause, &[]).exit(0);
    let mut image = Image::new(vec![main_thread(code)]);
    image.manifest.process.interval_timers[0] = TimerTimes { interval_ns: 0, remaining_ns: 1 };
    let (mut running, uffd) = run(&image);
    assert_eq!(serve(&mut running, &uffd, |_| ()), ExitStatus::Signal(libc::SIGALRM));
    Ok(())
}
