//! The parasite's own mutable state: one page, all zero at rest.
//!
//! The destination leaves this page zero instead of fetching it, so that a moved program finds its parasite
//! at rest. A child that is forked in mid-migration inherits a copy: `owner` tells it that none of this is its own.
//! What must outlive a move (settings) is not here, see `settings`.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use memory::{Addr, PageRange};
use sys::signal::Action;
use sys::thread;

/// See the module.
#[repr(C, align(4096))]
#[derive(Debug)]
pub struct State {
    /// Process id of whom a migration runs in; 0 at rest.
    owner: AtomicU32,
    /// Thread id of the helper.
    helper: AtomicU32,
    /// Counts migrations, so that a late park signal of an earlier one is recognised.
    generation: AtomicU32,
    /// The generation whose park signals count; 0 while nobody shall park.
    parking: AtomicU32,
    /// Threads in the park handler that may touch the arena.
    pub inside: AtomicU32,
    /// Park signals that were the host's own and came while threads were parked.
    pub host_signals: AtomicU32,
    /// 1 once `Run` was sent: from here the process must never run here again.
    committed: AtomicU32,
    /// Address of the body's [`crate::Rest`]; 0 before there is a body.
    rest: AtomicU64,
    arena_start: AtomicU64,
    arena_bytes: AtomicU64,
    /// What the park signal did before the park handler came, word for word.
    saved_action: [AtomicU64; 4],
}

const _: () = assert!(size_of::<State>() == 4096, "the state is one page");

impl Default for State {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    /// At rest.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            owner: AtomicU32::new(0),
            helper: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            parking: AtomicU32::new(0),
            inside: AtomicU32::new(0),
            host_signals: AtomicU32::new(0),
            committed: AtomicU32::new(0),
            rest: AtomicU64::new(0),
            arena_start: AtomicU64::new(0),
            arena_bytes: AtomicU64::new(0),
            saved_action: [const { AtomicU64::new(0) }; 4],
        }
    }

    /// Takes the one migration that a process may be in; false if one is under way.
    pub fn claim(&self) -> bool {
        let own = thread::process_id();
        let owner = self.owner.load(Ordering::SeqCst);
        if owner == own
            || self.owner.compare_exchange(owner, own, Ordering::SeqCst, Ordering::SeqCst).is_err()
        {
            return false;
        }
        if owner != 0 {
            // A child of a process in mid-migration: the counts are about its parent's threads.
            self.inside.store(0, Ordering::SeqCst);
            self.parking.store(0, Ordering::SeqCst);
        }
        self.generation.fetch_add(1, Ordering::SeqCst);
        self.helper.store(0, Ordering::SeqCst);
        self.host_signals.store(0, Ordering::SeqCst);
        self.committed.store(0, Ordering::SeqCst);
        self.rest.store(0, Ordering::SeqCst);
        self.arena_start.store(0, Ordering::SeqCst);
        true
    }

    /// Gives up a claim with which nothing was begun.
    pub fn disclaim(&self) {
        self.owner.store(0, Ordering::SeqCst);
    }

    /// The word that the helper's last instructions set to 0.
    #[must_use]
    pub const fn owner_word(&self) -> &AtomicU32 {
        &self.owner
    }

    /// Whether a migration of this very process is under way.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.owner.load(Ordering::SeqCst) == thread::process_id()
    }

    /// Remembers the calling thread as the helper.
    pub fn set_helper(&self) {
        self.helper.store(thread::thread_id(), Ordering::SeqCst);
    }

    /// Whether the calling thread is the helper of a migration of this process.
    #[must_use]
    pub fn is_helper(&self) -> bool {
        self.is_ours() && self.helper.load(Ordering::SeqCst) == thread::thread_id()
    }

    /// Which migration of this process this is.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.generation.load(Ordering::SeqCst)
    }

    /// Lets park signals of this migration count, or no longer.
    pub fn set_parking(&self, on: bool) {
        self.parking.store(if on { self.generation() } else { 0 }, Ordering::SeqCst);
    }

    /// Whether park signals of `generation` count.
    #[must_use]
    pub fn is_parking(&self, generation: u32) -> bool {
        self.parking.load(Ordering::SeqCst) == generation && self.is_ours()
    }

    /// Notes that `Run` is about to be sent, or that the destination has given its word that it never runs the process.
    pub fn set_committed(&self, committed: bool) {
        self.committed.store(u32::from(committed), Ordering::SeqCst);
    }

    /// Whether the process must never run here again.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.is_ours() && self.committed.load(Ordering::SeqCst) != 0
    }

    /// Remembers where the body is entered by threads that are to rest.
    pub fn set_rest(&self, at: u64) {
        self.rest.store(at, Ordering::SeqCst);
    }

    /// Where the body is entered by threads that are to rest; 0 before it is there.
    #[must_use]
    pub fn rest(&self) -> u64 {
        self.rest.load(Ordering::SeqCst)
    }

    /// Remembers where the arena is.
    pub fn set_arena(&self, start: u64, bytes: usize) {
        self.arena_bytes.store(bytes as u64, Ordering::SeqCst);
        self.arena_start.store(start, Ordering::SeqCst);
    }

    /// Start and length of the arena, in bytes; only while a migration of this process is under way.
    #[must_use]
    pub fn arena(&self) -> Option<(u64, u64)> {
        let start = self.arena_start.load(Ordering::SeqCst);
        (self.is_ours() && start != 0).then(|| (start, self.arena_bytes.load(Ordering::SeqCst)))
    }

    /// As [`Self::arena`], without asking the kernel for the process id: for the helper, which is the only thread
    /// that allocates and exists in no forked child.
    #[must_use]
    pub fn arena_of_helper(&self) -> Option<(u64, u64)> {
        let start = self.arena_start.load(Ordering::Relaxed);
        let claimed = self.owner.load(Ordering::Relaxed) != 0;
        (claimed && start != 0).then(|| (start, self.arena_bytes.load(Ordering::Relaxed)))
    }

    /// Remembers what the park signal does without the parasite.
    pub fn save_action(&self, action: &Action) {
        let words = [action.handler, action.flags, action.restorer, action.mask];
        for (slot, word) in self.saved_action.iter().zip(words) {
            slot.store(word, Ordering::SeqCst);
        }
    }

    /// What the park signal does without the parasite.
    #[must_use]
    pub fn saved_action(&self) -> Action {
        let [handler, flags, restorer, mask] =
            self.saved_action.each_ref().map(|word| word.load(Ordering::SeqCst));
        Action { handler, flags, restorer, mask }
    }

    /// Where it is.
    #[must_use]
    pub fn page(&self) -> Option<PageRange> {
        PageRange::page_of(Addr(core::ptr::from_ref(self).addr() as u64))
    }
}
