//! A seat: what one parked thread notes of itself. Lies in the arena, all zero is a free seat.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

use memory::Addr;
use protocol::{RseqRecord, ThreadRecord};
use sender_seam::restart::{Call, Interrupted};
use sys::{signal, signal_frame, thread};

use crate::arena::Header;
use crate::rseq;

/// Written by the thread that sits on it until it has entered, then read by the coordinator.
pub(crate) struct Seat {
    tid: AtomicU32,
    /// Park signals sent, and handled, by this thread.
    sent: AtomicU32,
    entered: AtomicU32,
    /// Park signals handled in a place where no thread may rest.
    passed: AtomicU32,
    /// 1 if the kernel told everything.
    complete: AtomicU32,
    frame: AtomicU64,
    frame_len: AtomicU64,
    components: AtomicU64,
    fs_base: AtomicU64,
    gs_base: AtomicU64,
    clear_child_tid: AtomicU64,
    robust_list: [AtomicU64; 2],
    rseq: AtomicU64,
    rseq_len: AtomicU32,
    name: [AtomicU64; 2],
    timer_slack_ns: AtomicU64,
    death_signal: AtomicU32,
    memory_mode: AtomicU32,
    memory_nodes: AtomicU64,
    /// The call that the thread was seen in before its signal: number plus one, address behind it, since when.
    call: [AtomicU64; 3],
    /// 1 if the thread is who the helper is.
    plain: AtomicU32,
    /// Which signals wait for it or for the process, and `TOLD`; 0 if it has not told yet.
    pending: AtomicU64,
    /// How that call is given up: instruction (0: it was none), stack, whether the kernel repeats it.
    interrupted: [AtomicU64; 3],
}

/// The bit of SIGKILL, for which nobody waits.
const TOLD: u64 = 1 << 8;

impl Seat {
    /// Notes the calling thread's state.
    pub(super) fn fill(&self, frame: signal_frame::Facts, rseq: &rseq::Facts) {
        self.frame.store(frame.at, SeqCst);
        self.frame_len.store(frame.len, SeqCst);
        self.components.store(frame.components, SeqCst);
        self.complete.store(u32::from(self.fill_from_kernel(rseq).is_ok()), SeqCst);
    }

    fn fill_from_kernel(&self, rseq: &rseq::Facts) -> Result<(), sys::Errno> {
        let fs_base = thread::fs_base()?;
        self.fs_base.store(fs_base, SeqCst);
        self.gs_base.store(thread::gs_base()?, SeqCst);
        self.clear_child_tid.store(thread::clear_child_tid()?, SeqCst);
        let (head, len) = thread::robust_list()?;
        let [head_slot, len_slot] = &self.robust_list;
        head_slot.store(head, SeqCst);
        len_slot.store(len, SeqCst);
        let name = u128::from_le_bytes(thread::name()?);
        let [low, high] = &self.name;
        low.store(u64::try_from(name & u128::from(u64::MAX)).unwrap_or(0), SeqCst);
        high.store(u64::try_from(name >> 64).unwrap_or(0), SeqCst);
        self.timer_slack_ns.store(thread::timer_slack_ns()?, SeqCst);
        self.death_signal.store(thread::death_signal(), SeqCst);
        let (mode, nodes) = thread::memory_policy();
        self.memory_mode.store(mode, SeqCst);
        self.memory_nodes.store(nodes, SeqCst);
        if let Some((at, len)) = rseq.of_calling_thread(fs_base) {
            self.rseq.store(at, SeqCst);
            self.rseq_len.store(len, SeqCst);
        }
        Ok(())
    }

    /// Remembers what the thread was seen in.
    pub(super) fn note_call(&self, call: Option<Call>) {
        let words = call.map_or([0; 3], |call| [u64::from(call.number) + 1, call.behind, call.since]);
        for (slot, word) in self.call.iter().zip(words) {
            slot.store(word, SeqCst);
        }
    }

    /// What the thread was seen in.
    pub(super) fn call(&self) -> Option<Call> {
        let [number, behind, since] = self.call.each_ref().map(|slot| slot.load(SeqCst));
        let number = u32::try_from(number.checked_sub(1)?).ok()?;
        Some(Call { number, behind, since })
    }

    /// Remembers that the thread is who the helper is.
    pub(super) fn note_plain(&self) {
        self.plain.store(1, SeqCst);
    }

    /// Tells which signals wait for the calling thread, all blocked; false if it has told before.
    pub(super) fn tell_pending(&self) -> bool {
        let is_first = self.pending.load(SeqCst) == 0;
        if is_first {
            self.pending.store(signal::pending().unwrap_or(u64::MAX) | TOLD, SeqCst);
        }
        is_first
    }

    /// Whether the thread has told which signals wait.
    pub(super) fn has_told_pending(&self) -> bool {
        self.pending.load(SeqCst) != 0
    }

    /// Whether the thread is known to be who the helper is, and no signal waits.
    pub(super) fn has_nothing_of_its_own(&self) -> bool {
        self.plain.load(SeqCst) != 0 && self.pending.load(SeqCst) == TOLD
    }

    /// Remembers how the call that will be made again could be given up.
    pub(super) fn note_interrupted(&self, was: Option<Interrupted>) {
        let words = was.map_or([0; 3], |was| [was.instruction, was.stack, u64::from(was.by_kernel)]);
        for (slot, word) in self.interrupted.iter().zip(words) {
            slot.store(word, SeqCst);
        }
    }

    /// The frame of the thread and how its call could be given up, if it was in one.
    pub(super) fn interrupted(&self) -> (u64, Option<Interrupted>) {
        let [instruction, stack, by_kernel] = self.interrupted.each_ref().map(|slot| slot.load(SeqCst));
        let was = Interrupted { instruction, stack, by_kernel: by_kernel != 0 };
        (self.frame.load(SeqCst), (instruction != 0).then_some(was))
    }

    /// The seat is filled; counts one handled signal.
    pub(super) fn enter(&self) {
        self.entered.fetch_add(1, SeqCst);
    }

    /// Counts one signal that found the thread where it may not rest.
    pub(super) fn pass(&self) {
        self.passed.fetch_add(1, SeqCst);
    }

    /// Whether every signal found the thread where it may not rest, so that it needs another.
    pub(super) fn has_only_passed(&self) -> bool {
        self.passed.load(SeqCst) >= self.sent.load(SeqCst)
    }

    /// Counts one signal on its way. Of who had one before it is not known who it is: it has run.
    pub(super) fn count_signal(&self) {
        self.plain.store(0, SeqCst);
        self.sent.fetch_add(1, SeqCst);
    }

    /// Whose seat it is; 0 if it is free.
    pub(super) fn tid(&self) -> u32 {
        self.tid.load(SeqCst)
    }

    /// Whether its thread rests (or rested).
    pub(super) fn has_entered(&self) -> bool {
        self.entered.load(SeqCst) != 0
    }

    /// Whether no park signal is on its way to the thread any more.
    pub(super) fn has_entered_for_every_signal(&self) -> bool {
        self.entered.load(SeqCst) + self.passed.load(SeqCst) >= self.sent.load(SeqCst)
    }

    /// XSAVE components of its frame.
    pub(super) fn components(&self) -> u64 {
        self.components.load(SeqCst)
    }

    /// Whether it has an area for restartable sequences that was not found.
    pub(super) fn has_hidden_rseq(&self) -> bool {
        self.rseq.load(SeqCst) != 0 && self.rseq_len.load(SeqCst) == 0
    }

    /// Frees the seat of a thread that has ended.
    pub(super) fn clear(&self) {
        self.sent.store(0, SeqCst);
        self.entered.store(0, SeqCst);
        self.passed.store(0, SeqCst);
        self.rseq_len.store(0, SeqCst);
        self.rseq.store(0, SeqCst);
        self.plain.store(0, SeqCst);
        self.pending.store(0, SeqCst);
        self.tid.store(0, SeqCst);
    }

    /// The manifest's record; `None` if the kernel did not tell everything. `pending` is left empty.
    pub(super) fn record(&self) -> Option<ThreadRecord> {
        if self.complete.load(SeqCst) == 0 {
            return None;
        }
        let [head, len] = &self.robust_list;
        let [low, high] = &self.name;
        let name = u128::from(high.load(SeqCst)) << 64 | u128::from(low.load(SeqCst));
        let rseq_len = self.rseq_len.load(SeqCst);
        Some(ThreadRecord {
            tid: self.tid(),
            frame: Addr(self.frame.load(SeqCst)),
            frame_len: self.frame_len.load(SeqCst),
            fs_base: self.fs_base.load(SeqCst),
            gs_base: self.gs_base.load(SeqCst),
            clear_child_tid: Addr(self.clear_child_tid.load(SeqCst)),
            robust_list: (Addr(head.load(SeqCst)), len.load(SeqCst)),
            rseq: (rseq_len != 0).then(|| RseqRecord {
                addr: Addr(self.rseq.load(SeqCst)),
                len: rseq_len,
                signature: rseq::SIGNATURE,
            }),
            name: name.to_le_bytes(),
            timer_slack_ns: self.timer_slack_ns.load(SeqCst),
            scheduling: thread::scheduling(self.tid()),
            death_signal: self.death_signal.load(SeqCst),
            no_new_privileges: false,
            memory_policy: (self.memory_mode.load(SeqCst), self.memory_nodes.load(SeqCst)),
            credentials: None,
            pending: Vec::new(),
        })
    }
}

impl Header {
    /// The seats of threads, with their numbers.
    pub(super) fn seats_in_use(&self) -> impl Iterator<Item = (usize, &Seat)> {
        let used = usize::try_from(self.seats_used.load(SeqCst)).unwrap_or(0);
        self.seats.iter().enumerate().take(used).filter(|(_, seat)| seat.tid() != 0)
    }

    /// Gives `tid` a seat; `None` if all are taken.
    pub(super) fn take_seat(&self, tid: u32) -> Option<(usize, &Seat)> {
        let (index, seat) = self.seats.iter().enumerate().find(|(_, seat)| seat.tid() == 0)?;
        seat.tid.store(tid, SeqCst);
        self.seats_used.fetch_max(u32::try_from(index + 1).ok()?, SeqCst);
        Some((index, seat))
    }
}
