//! The migrated program: threads that touch, move, drop and fork, as the seed has it, and know what they must find.
//!
//! It is a correct program: no thread maps, moves or drops pages that another one is dropping at the same moment, and
//! nobody changes mappings while another thread moves memory over registered memory (`MREMAP_FIXED`): the kernel tells
//! of the overwritten part first and waits, so that others' events come between the halves, and no reader of a
//! userfaultfd could tell what happened first.

mod calls;

use std::collections::VecDeque;
use std::ops::Range;

use crate::checker::Violation;
use crate::counters::Counters;
use crate::kernel::{Kernel, Stage, Thread, ThreadState};
use crate::mm::{Area, MmId, POISON, Page, ThreadId, Version, ZERO};
use crate::random::Random;

/// Versions that the program writes at the destination; the source's are below.
pub(crate) const FIRST_OWN_VERSION: Version = 1 << 32;
/// Expected where the source cannot read the page: SIGBUS.
pub(crate) const UNREADABLE: Version = u64::MAX - 1;

/// The program at the destination.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) kernel: Kernel,
    pub(crate) violation: Option<Violation>,
    pub(crate) counters: Counters,
    /// Steps of its own choice that are left.
    pub(crate) budget: u32,
    /// Mappings may grow in place.
    may_grow: bool,
    /// The source is lost: its pages may be poison.
    pub(crate) may_be_poisoned: bool,
    /// The threads have been let go.
    pub(crate) runs: bool,
    next_version: Version,
}

impl Program {
    pub(crate) fn new(budget: u32, may_grow: bool) -> Self {
        Self {
            kernel: Kernel::default(),
            violation: None,
            counters: Counters::default(),
            budget,
            may_grow,
            may_be_poisoned: false,
            runs: false,
            next_version: FIRST_OWN_VERSION,
        }
    }

    /// Threads that can do something.
    pub(crate) fn runnable(&self) -> Vec<ThreadId> {
        let can_go_on = |thread: &Thread| match thread.state {
            ThreadState::Running => self.budget > 0,
            ThreadState::Touching { .. } => true,
            ThreadState::InCall { read, .. } => read,
            ThreadState::Faulting { .. } | ThreadState::Dead => false,
        };
        let threads = self.kernel.threads.iter().enumerate();
        let able = threads.filter(|(_, thread)| self.runs && can_go_on(thread));
        able.map(|(id, _)| id).collect()
    }

    /// Threads that wait for the loop, in a fault or in a call.
    pub(crate) fn sleepers(&self) -> usize {
        let asleep = |thread: &&Thread| match thread.state {
            ThreadState::Faulting { .. } => true,
            ThreadState::InCall { read, .. } => !read,
            ThreadState::Running | ThreadState::Touching { .. } | ThreadState::Dead => false,
        };
        self.kernel.threads.iter().filter(asleep).count()
    }

    /// A page that is there, although a thread sleeps in a fault on it and no event waits to be read.
    pub(crate) fn sleeps_at_present_page(&self) -> Option<Page> {
        self.kernel.threads.iter().find_map(|thread| match thread.state {
            ThreadState::Faulting { page, .. } => {
                let mm = &self.kernel.mms[thread.mm];
                (mm.changing == 0 && mm.present.contains_key(&page)).then_some(page)
            }
            ThreadState::Running
            | ThreadState::Touching { .. }
            | ThreadState::InCall { .. }
            | ThreadState::Dead => None,
        })
    }

    /// One step of some thread, if one can make any.
    pub(crate) fn step(&mut self, random: &mut Random) -> bool {
        let Some(thread) = random.pick(&self.runnable()) else { return false };
        let Some(Thread { mm, state }) = self.kernel.threads.get(thread).cloned() else { return false };
        match state {
            ThreadState::Running => {
                self.budget -= 1;
                self.choose(random, thread, mm);
            }
            ThreadState::Touching { page, write } => self.touch(random, thread, page, write),
            ThreadState::InCall { rest, .. } => {
                self.kernel.mms[mm].changing = self.kernel.mms[mm].changing.saturating_sub(1);
                self.go_on(thread, rest);
            }
            ThreadState::Faulting { .. } | ThreadState::Dead => {}
        }
        true
    }

    /// A thread reads or writes a page.
    fn touch(&mut self, random: &mut Random, thread: ThreadId, page: Page, write: bool) {
        let id = self.kernel.threads[thread].mm;
        self.set(thread, ThreadState::Running);
        let mm = &mut self.kernel.mms[id];
        // Unmapped by another thread meanwhile: a handled SIGSEGV.
        let Some((_, area)) = mm.area_at(page) else { return };
        match mm.present.get(&page).copied() {
            None if area.registered => {
                mm.faults.push_back((thread, page));
                self.counters.faults += 1;
                self.set(thread, ThreadState::Faulting { page, write });
                return;
            }
            None => _ = mm.present.insert(page, ZERO),
            Some(_) => {}
        }
        if self.reads_right(id, page) {
            self.write(id, page, write);
        } else if random.percent(50) {
            self.counters.exits += 1;
            self.kernel.kill(id);
        }
    }

    /// Compares what is there with what must be; false for a SIGBUS that the program has to expect.
    fn reads_right(&mut self, id: MmId, page: Page) -> bool {
        let mm = &self.kernel.mms[id];
        let (found, expected) = (mm.present.get(&page).copied().unwrap_or(ZERO), mm.expected_at(page));
        if mm.racy.contains(&page) {
            return found != POISON;
        }
        let lost = expected == UNREADABLE || (self.may_be_poisoned && expected < FIRST_OWN_VERSION);
        if found == POISON && lost {
            self.counters.sigbus += 1;
            return false;
        }
        if found != expected {
            self.violate(6, format!("space {id} page {page:#x} holds {found:#x} and not {expected:#x}"));
        }
        true
    }

    fn write(&mut self, id: MmId, page: Page, write: bool) {
        if write {
            self.next_version += 1;
            let mm = &mut self.kernel.mms[id];
            mm.present.insert(page, self.next_version);
            if !mm.racy.contains(&page) {
                mm.expected.insert(page, self.next_version);
            }
        }
    }

    /// Every page of every living space, present or not, once the userfaultfds are closed.
    pub(crate) fn check_everything(&mut self) {
        for id in 0..self.kernel.mms.len() {
            if self.kernel.mms[id].dead {
                continue;
            }
            let pages: Vec<_> = self.kernel.mms[id].expected.keys().copied().collect();
            let present: Vec<_> = self.kernel.mms[id].present.keys().copied().collect();
            for page in pages.into_iter().chain(present) {
                if self.kernel.mms[id].area_at(page).is_some() {
                    self.reads_right(id, page);
                }
            }
        }
    }

    /// What a system call does behind its first change: tells, waits, drops, starts.
    fn enter_call(&mut self, thread: ThreadId, id: MmId, stages: Vec<Stage>) {
        let told = stages.iter().filter(|stage| matches!(stage, Stage::Tell(_))).count();
        self.kernel.mms[id].changing += u32::try_from(told).unwrap_or(0);
        self.go_on(thread, stages.into());
    }

    fn go_on(&mut self, thread: ThreadId, mut rest: VecDeque<Stage>) {
        let id = self.kernel.threads[thread].mm;
        while let Some(stage) = rest.pop_front() {
            match stage {
                Stage::Tell(_) if self.kernel.mms[id].closed => {
                    self.kernel.mms[id].changing = self.kernel.mms[id].changing.saturating_sub(1);
                }
                Stage::Tell(event) => {
                    self.kernel.mms[id].events.push_back((thread, event));
                    return self.set(thread, ThreadState::InCall { read: false, rest });
                }
                Stage::Zap(range) => self.kernel.mms[id].zap(&range),
                Stage::StartChild(child) => {
                    for thread in self.kernel.threads.iter_mut().filter(|thread| thread.mm == child) {
                        thread.state = ThreadState::Running;
                    }
                }
            }
        }
        self.set(thread, ThreadState::Running);
    }

    fn set(&mut self, thread: ThreadId, state: ThreadState) {
        if let Some(thread) = self.kernel.threads.get_mut(thread) {
            thread.state = state;
        }
    }

    pub(crate) fn violate(&mut self, invariant: u8, text: String) {
        self.violation.get_or_insert(Violation { invariant, text });
    }

    /// A range of at most `most` pages within one area of the space, and that area.
    fn some_range(&self, random: &mut Random, id: MmId, most: u64) -> Option<(Range<Page>, Area)> {
        let areas: Vec<_> = self.kernel.mms[id].areas.iter().map(|(start, area)| (*start, *area)).collect();
        let (start, area) = random.pick(&areas)?;
        let first = random.between(start, area.end - 1);
        let len = random.between(1, most).min(area.end - first);
        Some((first..first + len, area))
    }

    /// Free room for `len` pages, often where something has just been.
    fn some_room(&self, random: &mut Random, id: MmId, len: u64) -> Option<Page> {
        let mm = &self.kernel.mms[id];
        let start = random.between(0x10, 0x600);
        (start..start + 0x200).step_by(7).find(|page| mm.is_free(&(*page..page + len)))
    }
}
