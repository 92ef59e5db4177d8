//! Signals that wait because they are blocked: each thread at rest shows its own, and puts them back at once.
//!
//! The kernel tells what a waiting signal carries only to who takes it. So a thread takes all of them and queues
//! them again in their order. All its signals are blocked meanwhile, so that it misses none and nobody sees a
//! difference.

use alloc::string::String;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use protocol::{Piece, SignalInfo, ThreadRecord, text};
use sys::proc::status;
use sys::signal::{self, Info};
use sys::{clock, thread};

use super::{QUESTION, Seat, deadline_in, nanoseconds};
use crate::arena::Header;
use crate::config::{FEW_THREADS, MAX_QUEUED_SIGNALS, PARK_POLL, PUT_BACK_ATTEMPTS, RELEASE_DEADLINE};
use crate::ffi::resident;

/// What one thread at rest is asked, and its answer. Lies in the arena, all zero is no question.
pub(crate) struct Board {
    /// The thread that is asked; 0 for nobody, [`EVERYBODY`] for which signals wait.
    asked: AtomicU32,
    /// 1 if the signals wait for the process, 0 if for the thread.
    for_process: AtomicU32,
    /// Which signals, bit n-1 for signal n.
    set: AtomicU64,
    /// One more than the signals that are shown; 0 if there is no answer yet.
    shown: AtomicU32,
    signals: [[AtomicU64; 16]; MAX_QUEUED_SIGNALS],
}

const EVERYBODY: u32 = u32::MAX;

impl Board {
    /// Answers if the calling thread, which sits on `seat`, is asked. Runs on the stack of a signal handler: needs little of
    /// it.
    pub(super) fn answer(&self, header: &Header, seat: &Seat) {
        // In this order: an answer is not taken for one to the next question.
        let is_answered = self.shown.load(SeqCst) != 0;
        let tid = self.asked.load(SeqCst);
        if tid == EVERYBODY && seat.tell_pending() {
            header.arrive();
        }
        if is_answered || tid != thread::thread_id() {
            return;
        }
        let set = self.set.load(SeqCst);
        let mut count = 0;
        for slot in &self.signals {
            let Some(info) = signal::take(set) else { break };
            for (word, value) in slot.iter().zip(info) {
                word.store(value, SeqCst);
            }
            count += 1;
        }
        let receiver = (self.for_process.load(SeqCst) == 0).then_some(tid);
        for slot in self.signals.iter().take(count) {
            put_back(receiver, &read(slot));
        }
        self.shown.store(u32::try_from(count + 1).unwrap_or(1), SeqCst);
        thread::wake_all(&self.shown);
    }

    /// Has all threads at rest tell which signals wait: quicker than to read that of each. Who has not told in time is asked
    /// by itself.
    fn ask_all(&self, header: &Header) {
        self.asked.store(EVERYBODY, SeqCst);
        header.orders.fetch_add(QUESTION, SeqCst);
        thread::wake_all(&header.orders);
        let deadline = deadline_in(RELEASE_DEADLINE);
        while header.await_arrivals(|seat| !seat.has_told_pending()) != 0 && clock::monotonic_ns() < deadline
        {
        }
    }

    fn ask(
        &self,
        orders: &AtomicU32,
        tid: u32,
        set: u64,
        for_process: bool,
    ) -> Result<Vec<SignalInfo>, String> {
        self.asked.store(0, SeqCst);
        self.set.store(set, SeqCst);
        self.for_process.store(u32::from(for_process), SeqCst);
        self.shown.store(0, SeqCst);
        self.asked.store(tid, SeqCst);
        orders.fetch_add(QUESTION, SeqCst);
        thread::wake_all(orders);
        let deadline = deadline_in(RELEASE_DEADLINE);
        loop {
            if let Some(count) = self.shown.load(SeqCst).checked_sub(1) {
                let count = usize::try_from(count).unwrap_or(0);
                return Ok(self.signals.iter().take(count).map(|slot| SignalInfo(read(slot))).collect());
            }
            if clock::monotonic_ns() >= deadline {
                return Err(text!["thread ", tid, " does not show its waiting signals"]);
            }
            thread::wait_on(&self.shown, 0, Some(nanoseconds(PARK_POLL)));
        }
    }
}

fn read(slot: &[AtomicU64; 16]) -> Info {
    let mut info = Info::default();
    for (word, value) in info.iter_mut().zip(slot) {
        *word = value.load(SeqCst);
    }
    info
}

/// The room in the queue was free a moment ago; only another process of this user can have taken it since.
fn put_back(receiver: Option<u32>, info: &Info) {
    for _ in 0..PUT_BACK_ATTEMPTS {
        if signal::put_back(thread::process_id(), receiver, info).is_ok() {
            return;
        }
    }
}

/// Fills in which signals wait for each of `threads`, and who it is if it is not who the process is; all are at rest, in the
/// order of their seats. Returns the signals that wait for the process.
pub(super) fn collect(header: &Header, threads: &mut [ThreadRecord]) -> Result<Vec<SignalInfo>, String> {
    if threads.len() > FEW_THREADS {
        header.board.ask_all(header);
    }
    let own = status::own().map_err(|error| error.in_words())?;
    // Another thread's filter for system calls may have given all no new privileges; and who came to rest behind a signal 33 of
    // the host's own, as glibc sends it to make all threads another user, has run its handler.
    let may_differ = own.no_new_privileges || resident().state.host_signals.load(SeqCst) != 0;
    let check = |set: u64| {
        if set != 0 && own.queued > MAX_QUEUED_SIGNALS as u64 {
            return Err(text!["more than ", MAX_QUEUED_SIGNALS, " signals of this user wait"]);
        }
        Ok(())
    };
    check(own.shared_pending)?;
    for (record, (_, seat)) in threads.iter_mut().zip(header.seats_in_use()) {
        if seat.has_nothing_of_its_own() && !may_differ {
            continue;
        }
        let status = status::of_thread(record.tid).map_err(|error| error.in_words())?;
        check(status.pending)?;
        record.credentials = capture::credentials_beside(&status, &own);
        record.no_new_privileges = status.no_new_privileges;
        let both = status.pending & own.shared_pending;
        if both != 0 {
            let number = both.trailing_zeros() + 1;
            return Err(text![
                "signal ",
                number,
                " waits for thread ",
                record.tid,
                " and for the process too"
            ]);
        }
        if status.pending != 0 {
            record.pending = header.board.ask(&header.orders, record.tid, status.pending, false)?;
        }
    }
    if own.shared_pending == 0 {
        return Ok(Vec::new());
    }
    header.board.ask(&header.orders, thread::process_id(), own.shared_pending, true)
}
