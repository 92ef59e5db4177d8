//! The userfaultfd as KERNEL documents describe it: faults before events, `EAGAIN` while mappings change, one
//! mapping a call, no repetition over what is there.

use std::collections::VecDeque;
use std::ops::Range;

use crate::mm::{Event, Mm, MmId, Page, ThreadId, Version};

/// What a thread does next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum ThreadState {
    /// Whatever it likes.
    Running,
    /// Touches this page (again).
    Touching { page: Page, write: bool },
    /// Sleeps in a page fault.
    Faulting { page: Page, write: bool },
    /// Sleeps in a system call until its event has been read; then come the call's further stages.
    InCall { read: bool, rest: VecDeque<Stage> },
    /// Gone.
    Dead,
}

/// What is left of a system call behind the event that it waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// Tell the reader, and wait until it has been read.
    Tell(Event),
    /// `madvise` drops the pages only now.
    Zap(Range<Page>),
    /// The child runs.
    StartChild(MmId),
}

/// A thread of the program.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) mm: MmId,
    pub(crate) state: ThreadState,
}

/// What the reader of a userfaultfd gets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Fault { thread: ThreadId, page: Page },
    Event(Event),
}

/// What an attempt to fill missing pages gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Fill {
    /// That many pages are in place; the next one is there already, or all are done.
    Done(u64),
    /// `EEXIST`: the first page is there.
    Exists,
    /// `EAGAIN`: mappings are changing.
    Again,
    /// `ENOENT`: not within one registered mapping.
    NoEntry,
    /// `ESRCH`: the address space is gone.
    Gone,
}

/// All address spaces and threads at the destination.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kernel {
    pub(crate) mms: Vec<Mm>,
    pub(crate) threads: Vec<Thread>,
}

impl Kernel {
    /// The next message of this userfaultfd. Pending faults come before events, whichever is older.
    pub(crate) fn read(&mut self, id: MmId) -> Option<Message> {
        let mm = self.mms.get_mut(id)?;
        if mm.closed || mm.dead {
            return None;
        }
        if let Some((thread, page)) = mm.faults.pop_front() {
            return Some(Message::Fault { thread, page });
        }
        let (thread, event) = mm.events.pop_front()?;
        self.acknowledge(thread);
        Some(Message::Event(event))
    }

    /// Whether a poll would say that the userfaultfd is readable.
    pub(crate) fn is_readable(&self, id: MmId) -> bool {
        self.mms.get(id).is_some_and(|mm| !mm.closed && !mm.dead && mm.has_messages())
    }

    /// `UFFDIO_COPY`, `ZEROPAGE` or `POISON`: one mapping, missing pages only.
    pub(crate) fn fill(&mut self, id: MmId, at: Page, versions: &[Version], wake: bool) -> Fill {
        let Some(mm) = self.mms.get_mut(id).filter(|mm| !mm.dead) else { return Fill::Gone };
        if mm.changing > 0 {
            return Fill::Again;
        }
        let end = at + versions.len() as u64;
        if !mm.area_at(at).is_some_and(|(_, area)| area.registered && end <= area.end) {
            return Fill::NoEntry;
        }
        let mut done = 0;
        for version in versions {
            if mm.present.contains_key(&(at + done)) {
                break;
            }
            mm.present.insert(at + done, *version);
            done += 1;
        }
        if done == 0 {
            return Fill::Exists;
        }
        if wake {
            self.wake(id, &(at..at + done));
        }
        Fill::Done(done)
    }

    /// `UFFDIO_WAKE`: whoever sleeps in a fault on these addresses tries again.
    pub(crate) fn wake(&mut self, id: MmId, range: &Range<Page>) {
        if let Some(mm) = self.mms.get_mut(id) {
            mm.faults.retain(|(_, page)| !range.contains(page));
        }
        for thread in self.threads.iter_mut().filter(|thread| thread.mm == id) {
            if let ThreadState::Faulting { page, write } = thread.state
                && range.contains(&page)
            {
                thread.state = ThreadState::Touching { page, write };
            }
        }
    }

    /// The last descriptor is closed: everybody goes on, and what is missing is zero.
    pub(crate) fn close(&mut self, id: MmId) {
        let Some(mm) = self.mms.get_mut(id) else { return };
        mm.closed = true;
        for area in mm.areas.values_mut() {
            area.registered = false;
        }
        let waiting: Vec<_> = mm.events.drain(..).map(|(thread, _)| thread).collect();
        waiting.into_iter().for_each(|thread| self.acknowledge(thread));
        self.wake(id, &(0..Page::MAX));
    }

    /// The address space ends, with all its threads; a fork that has not come to its end never happened.
    pub(crate) fn kill(&mut self, id: MmId) {
        if let Some(mm) = self.mms.get_mut(id) {
            mm.dead = true;
            mm.events.clear();
            mm.faults.clear();
        }
        let mut unborn = Vec::new();
        for thread in self.threads.iter_mut().filter(|thread| thread.mm == id) {
            if let ThreadState::InCall { rest, .. } = &thread.state {
                unborn.extend(rest.iter().filter_map(|stage| match stage {
                    Stage::StartChild(child) => Some(*child),
                    Stage::Tell(_) | Stage::Zap(_) => None,
                }));
            }
            thread.state = ThreadState::Dead;
        }
        for child in unborn {
            let mm = &mut self.mms[child];
            (mm.dead, mm.death_is_known) = (true, true);
        }
    }

    fn acknowledge(&mut self, thread: ThreadId) {
        if let Some(Thread { state: ThreadState::InCall { read, .. }, .. }) = self.threads.get_mut(thread) {
            *read = true;
        }
    }
}
