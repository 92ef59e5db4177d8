//! Bringing every thread of the host to rest, and letting them go again as if nothing had happened.
//!
//! A park signal makes the kernel write a thread's whole context into a signal frame on its own stack; its handler
//! notes where that is and sleeps. The signal is 33, installed only for the time of the parking: a libc lets no
//! program block it, so that it reaches threads that block everything else. It is queued with a mark and the
//! number of a seat, so that the host's own uses of 33 (glibc: setuid in all threads) are told apart and handed on.
//!
//! ```text
//! coordinator (helper)                                   a host thread
//! list tasks ─ new ones get a seat and a signal,
//! those that sleep in a call ahead of those that run ──► handler: inside += 1, fill the seat, entered += 1
//! wait until every seat is entered or its thread gone       └─ sleep until released
//! two lists without a new thread: all stand still
//! orders: go on, wake ─────────────────────────────────► inside -= 1 (its last touch of anything shared), return
//! wait: every signal sent was entered, inside = 0
//! action back to the host's; now nobody needs the arena
//! ```

mod calls;
mod diagnosis;
mod nested;
mod seat;
mod signals;

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::Ordering::SeqCst;
use core::time::Duration;

use protocol::{SignalInfo, ThreadRecord, text};
use sender_seam::restart::{Call, Interrupted};
use sender_seam::{MARK, PARK_SIGNAL};
use sys::proc::status;
use sys::signal::{self, Action, Delivery, Payload};
use sys::{clock, file, signal_frame, thread};

use crate::arena::Header;
use crate::config::{FEW_THREADS, PARK_DEADLINE, PARK_POLL, RELEASE_DEADLINE};
use crate::ffi::{self, resident};
use crate::rseq;

pub(crate) use calls::Clocks;
use calls::Sleeper;
pub(crate) use seat::Seat;
pub(crate) use signals::Board;

/// Bit of `Header::orders`: the threads may go on. Every other change is a question on the board.
const GO_ON: u32 = 1;
/// What is added to `Header::orders` for a question.
const QUESTION: u32 = 2;

/// XSAVE component 18, the AMX tiles: the receiving thread would have to ask for them first.
const TILE_DATA: u64 = 1 << 18;

/// What a thread does that is to rest: notes its state on its seat and sleeps. `repeat` lets the call that it was seen
/// in be made again. Returns when the thread is released.
///
/// The arena stays meanwhile, because [`release`] waits for the thread (`State::inside`).
pub(crate) fn come_to_rest(
    ticket: u64,
    frame: signal_frame::Facts,
    repeat: impl Fn(Option<Call>) -> Option<Interrupted>,
) {
    let index = usize::try_from(ticket & 0xffff_ffff).unwrap_or(usize::MAX);
    let Some((header, seat)) = ffi::header().and_then(|header| Some((header, header.seats.get(index)?)))
    else {
        repeat(None);
        return;
    };
    if header.forbids(frame.instruction) {
        seat.pass();
        header.arrivals.fetch_add(1, SeqCst);
        thread::wake_all(&header.arrivals);
        return;
    }
    seat.note_interrupted(repeat(seat.call()));
    seat.fill(frame, &rseq::Facts::load(header));
    seat.enter();
    header.arrive();
    loop {
        let orders = header.orders.load(SeqCst);
        if orders & GO_ON != 0 {
            break;
        }
        header.board.answer(header, seat);
        thread::wait_on(&header.orders, orders, None);
    }
}

/// What the park signal does without the parasite: this belongs into a manifest.
pub(crate) fn host_park_action() -> Option<Action> {
    ffi::park_handler_is_installed().then(|| resident().state.saved_action())
}

/// Threads at rest.
#[derive(Default)]
pub(crate) struct Parked {
    /// What each noted of itself, the main thread first.
    pub(crate) threads: Vec<ThreadRecord>,
    /// Signals that wait for the process as a whole.
    pub(crate) pending: Vec<SignalInfo>,
}

/// Looks up ahead what takes its time: in which calls threads sleep, how the clocks stand of the processors on which they
/// fell asleep, and of many threads who they are.
pub(crate) fn prepare() -> Clocks {
    let mut clocks = Clocks::default();
    let tids = file::numeric_entries(c"/proc/self/task").unwrap_or_default();
    let own = if tids.len() > FEW_THREADS { status::own().ok() } else { None };
    for tid in tids {
        clocks.look_at(tid, own.as_ref());
    }
    clocks
}

/// Brings every thread but the helper to rest.
///
/// # Errors
/// Why that is not possible, in words for the user. Some threads may rest by then: [`release`] in either case.
pub(crate) fn park(mut clocks: Clocks) -> Result<Parked, String> {
    let header = ffi::header().ok_or("the arena is gone")?;
    rseq::discover().store(header);
    resident().state.set_parking(true);
    let deadline = deadline_in(PARK_DEADLINE);
    keep_handler(header)?;
    // Who works meanwhile is stopped last, because it takes a while until hundreds of others have come to rest.
    seat_newcomers(header, &mut clocks, true)?;
    wait_for_all(header, &mut clocks, deadline)?;
    let mut quiet_rounds = 0;
    while quiet_rounds < 2 && !have_all_a_seat(header) {
        keep_handler(header)?;
        quiet_rounds = if seat_newcomers(header, &mut clocks, false)? == 0 { quiet_rounds + 1 } else { 0 };
        wait_for_all(header, &mut clocks, deadline)?;
    }
    let mut threads = collect(header)?;
    nested::check(header, &threads)?;
    let pending = signals::collect(header, &mut threads)?;
    calls::interrupt(header, &threads, &pending);
    // The main thread's task comes first in the list, but its seat need not.
    let main = thread::process_id();
    if let Some(at) = threads.iter().position(|record: &ThreadRecord| record.tid == main) {
        threads.swap(0, at);
    }
    Ok(Parked { threads, pending })
}

/// Installs the park handler; also when the host has just installed its own, which may have eaten signals.
fn keep_handler(header: &Header) -> Result<(), String> {
    if ffi::park_handler_is_installed() {
        return Ok(());
    }
    ffi::install_park_handler().map_err(|errno| text!["signal ", PARK_SIGNAL, " cannot be used: ", errno])?;
    for (index, seat) in header.seats_in_use() {
        if !seat.has_entered() {
            signal_seat(index, seat)?;
        }
    }
    Ok(())
}

/// Whether there is no thread but the helper and those at rest, who make no other.
fn have_all_a_seat(header: &Header) -> bool {
    // The kernel counts threads as links beside the two of every directory (`proc_task_getattr`).
    let known = header.seats_in_use().count() + 3;
    sys::status::of_path(c"/proc/self/task").is_ok_and(|found| found.links as usize == known)
}

/// Gives every thread that has none a seat and a signal, or only those that sleep; returns how many.
fn seat_newcomers(header: &Header, clocks: &mut Clocks, asleep: bool) -> Result<usize, String> {
    let tids =
        file::numeric_entries(c"/proc/self/task").map_err(|errno| text!["listing the threads: ", errno])?;
    let own = thread::thread_id();
    let mut newcomers = 0;
    for tid in tids {
        if tid == own || header.seats_in_use().any(|(_, seat)| seat.tid() == tid) {
            continue;
        }
        let sleeper = clocks.sleeper(tid);
        if asleep && sleeper.is_none() {
            continue;
        }
        let (index, seat) =
            header.take_seat(tid).ok_or_else(|| text!["more than ", header.seats.len(), " threads"])?;
        seat.note_call(sleeper.map(|sleeper| sleeper.call));
        signal_seat(index, seat)?;
        if sleeper.is_some_and(Sleeper::is_still_plain) {
            seat.note_plain();
        }
        newcomers += 1;
    }
    Ok(newcomers)
}

fn signal_seat(index: usize, seat: &Seat) -> Result<(), String> {
    let value = u64::from(resident().state.generation()) << 32 | index as u64;
    let payload = Payload { mark: MARK, value };
    match signal::queue_to_thread(thread::process_id(), seat.tid(), PARK_SIGNAL, payload) {
        Delivery::Queued => seat.count_signal(),
        Delivery::ThreadGone => seat.clear(),
        Delivery::QueueFull => {
            return Err(text![
                "no signal can be queued: the limit of pending signals (ulimit -i) is used up"
            ]);
        }
        Delivery::Forbidden(errno) => return Err(text!["signalling thread ", seat.tid(), ": ", errno]),
    }
    Ok(())
}

impl Header {
    /// Counts one more thread that has come to rest, or has told what all were asked.
    fn arrive(&self) {
        let arrivals = self.arrivals.fetch_add(1, SeqCst).wrapping_add(1);
        if arrivals.wrapping_sub(self.awaited.load(SeqCst)).cast_signed() >= 0 {
            thread::wake_all(&self.arrivals);
        }
    }

    /// Waits a while for those of the threads that `are_missing` to arrive; returns how many they were, 0 at once.
    fn await_arrivals(&self, are_missing: impl Fn(&Seat) -> bool) -> u32 {
        let arrivals = self.arrivals.load(SeqCst);
        let count = self.seats_in_use().filter(|(_, seat)| are_missing(seat)).count();
        let count = u32::try_from(count).unwrap_or(0);
        if count != 0 {
            self.awaited.store(arrivals.wrapping_add(count), SeqCst);
            thread::wait_on(&self.arrivals, arrivals, Some(nanoseconds(PARK_POLL)));
        }
        count
    }
}

/// Waits until every seated thread rests or has ended.
fn wait_for_all(header: &Header, clocks: &mut Clocks, deadline: u64) -> Result<(), String> {
    loop {
        let is_missing = |seat: &Seat| !seat.has_entered();
        if header.await_arrivals(is_missing) == 0 {
            return Ok(());
        }
        let late = clock::monotonic_ns() >= deadline;
        for (index, seat) in header.seats_in_use().filter(|(_, seat)| is_missing(seat)) {
            let tid = seat.tid();
            if !is_alive(tid) {
                seat.clear();
            } else if let Some(reason) = diagnosis::why_not_at_rest(tid, late).filter(|_| !seat.has_entered())
            {
                return Err(reason);
            } else if seat.has_only_passed() && !seat.has_entered() {
                seat.note_call(clocks.sleeper(tid).map(|sleeper| sleeper.call));
                signal_seat(index, seat)?;
            }
        }
        keep_handler(header)?;
    }
}

fn collect(header: &Header) -> Result<Vec<ThreadRecord>, String> {
    let mut records = Vec::new();
    for (_, seat) in header.seats_in_use() {
        if seat.components() & TILE_DATA != 0 {
            return Err(text![
                "thread ",
                seat.tid(),
                " uses AMX, whose registers this version does not move"
            ]);
        }
        if seat.has_hidden_rseq() {
            return Err(text![
                "thread ",
                seat.tid(),
                " uses restartable sequences in a place that is not known"
            ]);
        }
        records.push(
            seat.record().ok_or("this kernel does not tell clear_child_tid (CONFIG_CHECKPOINT_RESTORE)")?,
        );
    }
    Ok(records)
}

/// Lets every thread go on and gives the park signal back. True if nobody needs the arena any more; false only
/// if a thread did not leave the handler in time, which then needs it for a moment longer.
///
/// Allocates nothing, so that a panic may call it too. A thread that got a park signal and has not run since keeps
/// the park handler installed: the handler lets it pass, the host's own action might not.
pub(crate) fn release() -> bool {
    let Some(header) = ffi::header() else { return true };
    header.thaw();
    header.orders.fetch_or(GO_ON, SeqCst);
    thread::wake_all(&header.orders);
    let deadline = deadline_in(RELEASE_DEADLINE);
    let drained = wait_until(deadline, || {
        header.seats_in_use().all(|(_, seat)| seat.has_entered_for_every_signal() || !is_alive(seat.tid()))
    });
    resident().state.set_parking(false);
    let left = wait_until(deadline_in(RELEASE_DEADLINE), || resident().state.inside.load(SeqCst) == 0);
    if drained && left {
        ffi::restore_park_action();
    }
    left
}

fn wait_until(deadline: u64, condition: impl Fn() -> bool) -> bool {
    loop {
        if condition() {
            return true;
        }
        if clock::monotonic_ns() >= deadline {
            return false;
        }
        let inside = resident().state.inside.load(SeqCst);
        thread::wait_on(&resident().state.inside, inside, Some(nanoseconds(PARK_POLL)));
    }
}

fn is_alive(tid: u32) -> bool {
    signal::send_to_thread(thread::process_id(), tid, 0)
}

fn deadline_in(time: Duration) -> u64 {
    clock::monotonic_ns().saturating_add(nanoseconds(time))
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
