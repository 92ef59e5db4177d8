//! What a thread can do: touches, and every system call that changes an address space.

use std::ops::Range;

use super::Program;
use crate::kernel::{Stage, Thread, ThreadState};
use crate::mm::{Area, Event, MmId, Page, ThreadId};
use crate::random::Random;

/// Spaces that one program makes at most.
const MOST_SPACES: usize = 6;
/// Pages that a call moves, drops or maps at most.
const MOST_PAGES: u64 = 40;

impl Program {
    /// One thing of the thread's choice.
    pub(super) fn choose(&mut self, random: &mut Random, thread: ThreadId, id: MmId) {
        match random.below(100) {
            0..=61 => self.touch_something(random, thread, id),
            _ if self.is_moving_over(id) => {}
            62..=68 => self.dont_need(random, thread, id),
            69..=72 => self.unmap(random, thread, id, false),
            73..=80 => self.remap(random, thread, id),
            81..=83 if self.may_grow => self.grow(random, id),
            81..=85 => self.shrink(random, thread, id),
            86..=87 => self.map(random, id),
            88..=89 => self.unmap(random, thread, id, true),
            90..=92 => self.split(random, id),
            93..=94 => self.advise(random, id),
            95..=97 => self.fork(random, thread, id),
            98 => self.end_thread(thread, id),
            _ => self.exit_or_exec(random, id),
        }
    }

    fn touch_something(&mut self, random: &mut Random, thread: ThreadId, id: MmId) {
        if let Some((range, _)) = self.some_range(random, id, 1) {
            let write = random.percent(40);
            self.touch(random, thread, range.start, write);
        }
    }

    /// `madvise(MADV_DONTNEED)`: the event comes first, the pages go when it has been read.
    fn dont_need(&mut self, random: &mut Random, thread: ThreadId, id: MmId) {
        let Some((range, area)) = self.quiet_range(random, id) else { return };
        if area.file {
            return;
        }
        self.counters.removes += 1;
        if area.registered {
            self.kernel.mms[id].racy.extend(range.clone());
            let stages = vec![Stage::Tell(Event::Remove(range.clone())), Stage::Zap(range)];
            self.enter_call(thread, id, stages);
        } else {
            self.kernel.mms[id].zap(&range);
        }
    }

    /// `munmap`, or `mmap(MAP_FIXED)` over what is there.
    fn unmap(&mut self, random: &mut Random, thread: ThreadId, id: MmId, map_over: bool) {
        let Some((range, _)) = self.quiet_range(random, id) else { return };
        self.counters.unmaps += 1;
        let told = self.kernel.mms[id].unmap(&range);
        if map_over {
            self.kernel.mms[id].map(&range);
        }
        let event = Stage::Tell(Event::Unmap(range));
        self.enter_call(thread, id, told.then_some(event).into_iter().collect());
    }

    /// `mremap` to another place: free or not, growing or not, keeping the old mapping or not.
    fn remap(&mut self, random: &mut Random, thread: ThreadId, id: MmId) {
        let Some((from, area)) = self.quiet_range(random, id) else { return };
        let len = from.end - from.start;
        let new_len = if self.may_grow && random.percent(25) { len + random.between(1, 8) } else { len };
        let over = random.percent(25).then(|| self.quiet_range(random, id)).flatten();
        let to = match over {
            Some((range, _)) => range.start,
            None => match self.some_room(random, id, new_len) {
                Some(page) => page,
                None => return,
            },
        };
        let target = to..to + new_len;
        if area.file || overlap(&from, &target) || self.is_racy(id, &target) {
            return;
        }
        self.counters.remaps += 1;
        let keep_old = new_len == len && random.percent(15);
        let mm = &mut self.kernel.mms[id];
        let early = mm.unmap(&target);
        mm.take_areas(&from);
        mm.move_pages(&from, to);
        mm.areas.insert(to, Area { end: target.end, ..area });
        if keep_old {
            mm.areas.insert(from.start, Area { end: from.end, ..area });
        }
        let mut stages = Vec::new();
        if early {
            stages.push(Stage::Tell(Event::Unmap(target)));
        }
        if area.registered {
            stages.push(Stage::Tell(Event::Remap { from: from.clone(), to }));
            if !keep_old {
                stages.push(Stage::Tell(Event::Unmap(from)));
            }
        }
        self.enter_call(thread, id, stages);
    }

    /// `mremap` in place, or a stack that grows down: no event, and the new pages stay registered.
    fn grow(&mut self, random: &mut Random, id: MmId) {
        let Some((range, area)) = self.some_range(random, id, 1) else { return };
        let mm = &mut self.kernel.mms[id];
        let Some((start, _)) = mm.area_at(range.start) else { return };
        let by = random.between(1, 10);
        if random.percent(50) && mm.is_free(&(area.end..area.end + by)) {
            mm.areas.insert(start, Area { end: area.end + by, ..area });
        } else if start > 0x10 + by && mm.is_free(&(start - by..start)) {
            mm.areas.remove(&start);
            mm.areas.insert(start - by, area);
        }
    }

    /// `mremap` to a smaller size.
    fn shrink(&mut self, random: &mut Random, thread: ThreadId, id: MmId) {
        let Some((range, area)) = self.quiet_range(random, id) else { return };
        let tail = range.start..area.end;
        if tail.end - tail.start > MOST_PAGES || self.is_racy(id, &tail) {
            return;
        }
        self.counters.unmaps += 1;
        let told = self.kernel.mms[id].unmap(&tail);
        let event = Stage::Tell(Event::Unmap(tail));
        self.enter_call(thread, id, told.then_some(event).into_iter().collect());
    }

    fn map(&mut self, random: &mut Random, id: MmId) {
        let len = random.between(1, MOST_PAGES);
        if let Some(start) = self.some_room(random, id, len) {
            self.kernel.mms[id].map(&(start..start + len));
        }
    }

    /// `mprotect` on part of a mapping: nothing to see but that there are two of them.
    fn split(&mut self, random: &mut Random, id: MmId) {
        if let Some((range, _)) = self.some_range(random, id, 1) {
            self.kernel.mms[id].split_at(range.start);
        }
    }

    /// `MADV_DONTFORK` or `MADV_WIPEONFORK`.
    fn advise(&mut self, random: &mut Random, id: MmId) {
        let Some((range, area)) = self.quiet_range(random, id) else { return };
        if area.file {
            return;
        }
        let mm = &mut self.kernel.mms[id];
        let wipe = random.percent(50);
        for (start, area) in mm.take_areas(&range) {
            mm.areas.insert(start, Area { dont_fork: !wipe, wipe_on_fork: wipe, ..area });
        }
    }

    /// The child runs when the parent's event has been read.
    fn fork(&mut self, random: &mut Random, thread: ThreadId, id: MmId) {
        if self.kernel.mms.len() >= MOST_SPACES || random.percent(50) {
            return;
        }
        self.counters.forks += 1;
        let child = self.kernel.mms.len();
        let parent = &self.kernel.mms[id];
        let told = parent.areas.values().any(|area| area.registered);
        let ranges = |wanted: fn(&Area) -> bool| {
            let areas = parent.areas.iter().filter(move |(_, area)| wanted(area));
            areas.map(|(start, area)| *start..area.end).collect()
        };
        let (kept_back, wiped) = (ranges(|area| area.dont_fork), ranges(|area| area.wipe_on_fork));
        let mm = parent.child();
        self.kernel.mms.push(mm);
        self.kernel.threads.push(Thread { mm: child, state: ThreadState::Dead });
        let event = told.then_some(Stage::Tell(Event::Fork { child, kept_back, wiped }));
        self.enter_call(thread, id, event.into_iter().chain([Stage::StartChild(child)]).collect());
    }

    fn end_thread(&mut self, thread: ThreadId, id: MmId) {
        let living =
            self.kernel.threads.iter().filter(|other| other.mm == id && other.state != ThreadState::Dead);
        if living.count() > 1 {
            self.kernel.threads[thread].state = ThreadState::Dead;
        }
    }

    /// `exec` is not told to the reader of the userfaultfd; an exit is seen by its pidfd.
    fn exit_or_exec(&mut self, random: &mut Random, id: MmId) {
        if random.percent(70) {
            return;
        }
        self.kernel.kill(id);
        if random.percent(50) {
            self.counters.execs += 1;
            self.kernel.mms[id].death_is_known = true;
        } else {
            self.counters.exits += 1;
        }
    }

    /// A range within one area in which no thread is dropping pages.
    fn quiet_range(&self, random: &mut Random, id: MmId) -> Option<(Range<Page>, Area)> {
        self.some_range(random, id, MOST_PAGES).filter(|(range, _)| !self.is_racy(id, range))
    }

    /// Whether a thread is moving memory over other registered memory, and only the second half of that has been told.
    fn is_moving_over(&self, id: MmId) -> bool {
        let untold = |stage: &Stage| matches!(stage, Stage::Tell(Event::Remap { .. }));
        let in_between = |thread: &Thread| match &thread.state {
            ThreadState::InCall { rest, .. } => thread.mm == id && rest.iter().any(untold),
            ThreadState::Running
            | ThreadState::Touching { .. }
            | ThreadState::Faulting { .. }
            | ThreadState::Dead => false,
        };
        self.kernel.threads.iter().any(in_between)
    }

    fn is_racy(&self, id: MmId, range: &Range<Page>) -> bool {
        self.kernel.mms[id].racy.range(range.clone()).next().is_some()
    }
}

fn overlap(a: &Range<Page>, b: &Range<Page>) -> bool {
    a.start < b.end && b.start < a.end
}
