//! The address spaces that are served, each with its userfaultfd, and what they tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use engine::{DestinationInput, InstallOutcome, SpaceId};
use memory::{PageRange, VmaFlags};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use protocol::Manifest;
use sys::proc::smaps;
use sys::uffd::{EventLog, Note, Record, Uffd, UffdEvent};

use crate::HandlerError;
use crate::config::{EVENTS_PER_READ, EVENTS_PER_TURN, LOG_SLOTS, MAX_SPACES};

/// Every so many spaces it is looked which of them have ended.
const SWEEP_INTERVAL: usize = 64;
/// Tokens from here on are address spaces.
const FIRST_TOKEN: usize = 16;

/// Every address space that may still have missing pages.
#[derive(Debug)]
pub(crate) struct Spaces {
    uffds: BTreeMap<SpaceId, Uffd>,
    /// Spaces whose userfaultfd may have something to read.
    ready: BTreeSet<SpaceId>,
    next: u32,
    /// What was read, and what was done about it.
    log: EventLog,
    /// What is known of what each one's children will not inherit.
    withheld: BTreeMap<SpaceId, Withheld>,
    /// The processes that came from the source, once they run.
    pids: BTreeMap<SpaceId, u32>,
}

/// What `madvise(2)` keeps from children.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Withheld {
    /// As if unmapped there (`MADV_DONTFORK`).
    kept: Vec<PageRange>,
    /// As if dropped there (`MADV_WIPEONFORK`).
    wiped: Vec<PageRange>,
}

impl Withheld {
    fn of<'a>(mappings: impl Iterator<Item = (PageRange, &'a VmaFlags)>) -> Self {
        let mut found = Self::default();
        for (range, flags) in mappings {
            if flags.dont_fork {
                found.kept.push(range);
            }
            if flags.wipe_on_fork {
                found.wiped.push(range);
            }
        }
        found
    }
}

/// What was read: events to be handed in first, then faults, then the children that are new.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) events: Vec<DestinationInput>,
    pub(crate) faults: Vec<DestinationInput>,
    pub(crate) children: Vec<SpaceId>,
}

impl Spaces {
    pub(crate) fn new() -> io::Result<Self> {
        let log = EventLog::new(LOG_SLOTS).map_err(|errno| io::Error::from_raw_os_error(errno.0))?;
        Ok(Self {
            uffds: BTreeMap::new(),
            ready: BTreeSet::new(),
            next: SpaceId::MAIN.0,
            log,
            withheld: BTreeMap::new(),
            pids: BTreeMap::new(),
        })
    }

    /// Remembers what children of the first process will not inherit.
    pub(crate) fn learn(&mut self, manifest: &Manifest) {
        let withheld = Withheld::of(manifest.vmas.iter().map(|vma| (vma.range, &vma.flags)));
        self.withheld.insert(SpaceId::MAIN, withheld);
    }

    /// The process behind `space` runs as `pid`: from here on it may change what its children inherit.
    pub(crate) fn runs_as(&mut self, space: SpaceId, pid: u32) {
        self.pids.insert(space, pid);
    }

    /// As what the process behind `space` runs, if that is known.
    pub(crate) fn pid(&self, space: SpaceId) -> Option<u32> {
        self.pids.get(&space).copied()
    }

    /// Looks at what children of a process inherit now.
    fn learn_again(&mut self, space: SpaceId) {
        let pid = self.pids.get(&space).copied();
        let Some(Ok((mappings, attributes))) = pid.map(smaps::mappings_of) else { return };
        let found = mappings.iter().zip(&attributes).map(|(mapping, found)| (mapping.range, &found.flags));
        self.withheld.insert(space, Withheld::of(found));
    }

    /// Serves one more address space; the first one is [`SpaceId::MAIN`].
    pub(crate) fn add(&mut self, uffd: Uffd, registry: &Registry) -> Result<SpaceId, HandlerError> {
        let space = SpaceId(self.next);
        self.next += 1;
        self.add_numbered(space, uffd, registry)?;
        Ok(space)
    }

    /// Serves the first address space, which another loop has served. It is watched when [all begins anew](Self::begin_anew).
    pub(crate) fn inherit(&mut self, uffd: Uffd) {
        self.next = SpaceId::MAIN.0 + 1;
        self.uffds.insert(SpaceId::MAIN, uffd);
    }

    /// Leaves the numbers up to `last` to address spaces that come from the source.
    pub(crate) fn keep_numbers(&mut self, last: SpaceId) {
        self.next = self.next.max(last.0 + 1);
    }

    /// Serves one more address space, whose number was kept.
    pub(crate) fn add_numbered(
        &mut self,
        space: SpaceId,
        uffd: Uffd,
        registry: &Registry,
    ) -> Result<(), HandlerError> {
        if self.uffds.len() >= MAX_SPACES {
            return Err(HandlerError::TooManySpaces { limit: MAX_SPACES });
        }
        watch(registry, &uffd, space).map_err(HandlerError::Wait)?;
        self.uffds.insert(space, uffd);
        self.ready.insert(space);
        Ok(())
    }

    pub(crate) fn get(&self, space: SpaceId) -> Option<&Uffd> {
        self.uffds.get(&space)
    }

    /// Serves the space no longer: it has ended.
    pub(crate) fn forget(&mut self, space: SpaceId) {
        if self.uffds.contains_key(&space) {
            self.log.note(Note::Gone(space.0));
        }
        self.uffds.remove(&space);
        self.ready.remove(&space);
        self.withheld.remove(&space);
        self.pids.remove(&space);
    }

    /// Serves the space no longer if it has ended: the process may have, but one that shares its memory may live.
    pub(crate) fn forget_if_gone(&mut self, space: SpaceId) -> Option<DestinationInput> {
        self.uffds.get(&space).filter(|uffd| uffd.is_gone())?;
        self.forget(space);
        Some(DestinationInput::SpaceGone(space))
    }

    /// Serves nobody any longer, and closes nothing: somebody else may have.
    pub(crate) fn leave(&mut self) {
        std::mem::take(&mut self.uffds).into_values().for_each(std::mem::forget);
        self.ready.clear();
    }

    /// Serves nobody any longer: closing gives every range back to the kernel.
    pub(crate) fn clear(&mut self) {
        self.uffds.clear();
        self.ready.clear();
    }

    /// The kernel says that the descriptor behind `token` can be read; false if it is no address space.
    pub(crate) fn became_ready(&mut self, token: Token) -> bool {
        let number = token.0.checked_sub(FIRST_TOKEN).and_then(|number| u32::try_from(number).ok());
        if let Some(space) = number.map(SpaceId)
            && self.uffds.contains_key(&space)
        {
            self.ready.insert(space);
        }
        number.is_some()
    }

    /// Whether [`Self::read`] may find something.
    pub(crate) fn may_have_news(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Reads every userfaultfd that may have something until it is empty.
    pub(crate) fn read(&mut self, registry: &Registry) -> Result<News, HandlerError> {
        let mut news = News::default();
        for space in std::mem::take(&mut self.ready) {
            self.read_one(space, registry, &mut news)?;
        }
        Ok(news)
    }

    /// Reads the userfaultfd of `space`, readiness reported or not, until it gives less than there is room for.
    pub(crate) fn read_one(
        &mut self,
        space: SpaceId,
        registry: &Registry,
        news: &mut News,
    ) -> Result<(), HandlerError> {
        let mut read = 0;
        while read < EVENTS_PER_TURN {
            let Some(uffd) = self.uffds.get(&space) else { return Ok(()) };
            let events = self.log.read(space.0, uffd, EVENTS_PER_READ).map_err(HandlerError::Events)?;
            let count = events.len();
            for event in events {
                self.convert(space, event, registry, news)?;
            }
            if count == 0 {
                return Ok(());
            }
            read += count;
            // Fewer than there was room for: no more were there, or the next one cannot be had, which is told by the
            // next read. Whoever waits for a page does not wait for that.
            if count < EVENTS_PER_READ {
                break;
            }
        }
        self.ready.insert(space);
        Ok(())
    }

    fn convert(
        &mut self,
        space: SpaceId,
        event: UffdEvent,
        registry: &Registry,
        news: &mut News,
    ) -> Result<(), HandlerError> {
        match event {
            UffdEvent::Fork(uffd) => {
                if self.uffds.len().is_multiple_of(SWEEP_INTERVAL) {
                    let all: Vec<SpaceId> = self.uffds.keys().copied().collect();
                    news.events.extend(all.into_iter().filter_map(|space| self.forget_if_gone(space)));
                }
                let child = self.add(uffd, registry)?;
                news.children.push(child);
                self.tell_fork(space, child, &mut news.events);
            }
            UffdEvent::Fault { .. }
            | UffdEvent::Remap { .. }
            | UffdEvent::Remove(_)
            | UffdEvent::Unmap(_) => {
                tell_change(space, &event, news);
            }
        }
        Ok(())
    }
}

impl Spaces {
    /// What is written down for whoever goes on if this loop dies.
    pub(crate) const fn log(&mut self) -> &mut EventLog {
        &mut self.log
    }

    /// Takes what another loop was serving when it died: this is a copy of it from before `records`. Returns what has
    /// happened since. Descriptors that it has closed since are not touched.
    pub(crate) fn take_over(&mut self, records: &[Record]) -> Result<Vec<DestinationInput>, HandlerError> {
        let gone: BTreeSet<SpaceId> = records.iter().filter_map(gone_space).collect();
        for space in &gone {
            // Its number may stand for something else by now.
            if let Some(uffd) = self.uffds.remove(space) {
                std::mem::forget(uffd);
            }
        }
        let mut inputs = Vec::new();
        for record in records {
            match *record {
                Record::Message { space, words } => {
                    self.take_message(SpaceId(space), words, &gone, &mut inputs)?;
                }
                Record::Note(Note::Installed { space, pages }) => {
                    let (space, outcome) = (SpaceId(space), InstallOutcome::Installed);
                    inputs.push(DestinationInput::Installed { space, pages, outcome });
                }
                Record::Note(Note::Gone(space)) => inputs.push(DestinationInput::SpaceGone(SpaceId(space))),
                Record::Note(Note::Committed | Note::Resumed | Note::Finished { .. }) => {}
            }
        }
        self.ready = self.uffds.keys().copied().collect();
        Ok(inputs)
    }

    /// Every descriptor in use.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.uffds.values().map(AsFd::as_fd)
    }

    /// Watches every space by another poll, and has whoever waits tell so again.
    pub(crate) fn begin_anew(&mut self, registry: &Registry) -> Result<(), HandlerError> {
        for (space, uffd) in &self.uffds {
            watch(registry, uffd, *space).map_err(HandlerError::Wait)?;
            uffd.wake_all().map_err(HandlerError::Memory)?;
        }
        Ok(())
    }

    fn take_message(
        &mut self,
        space: SpaceId,
        words: [u64; 4],
        gone: &BTreeSet<SpaceId>,
        inputs: &mut Vec<DestinationInput>,
    ) -> Result<(), HandlerError> {
        if EventLog::forked(words).is_some() {
            let child = SpaceId(self.next);
            self.next += 1;
            if !gone.contains(&child)
                && let UffdEvent::Fork(uffd) = EventLog::message(words).map_err(HandlerError::Events)?
            {
                self.uffds.insert(child, uffd);
            }
            self.tell_fork(space, child, inputs);
            return Ok(());
        }
        let mut news = News::default();
        let event = EventLog::message(words).map_err(HandlerError::Events)?;
        tell_change(space, &event, &mut news);
        inputs.extend(news.events);
        Ok(())
    }

    /// The child's memory is its parent's, but for what `madvise(2)` keeps from it.
    fn tell_fork(&mut self, parent: SpaceId, child: SpaceId, inputs: &mut Vec<DestinationInput>) {
        inputs.push(DestinationInput::Forked { parent, child });
        if self.pids.contains_key(&parent) {
            self.learn_again(parent);
        }
        let Withheld { kept, wiped } = self.withheld.get(&parent).cloned().unwrap_or_default();
        let unmapped = |&pages| DestinationInput::Unmapped { space: child, pages };
        inputs.extend(kept.iter().map(unmapped));
        let removed = |&pages| DestinationInput::Removed { space: child, pages };
        inputs.extend(wiped.iter().map(removed));
        // What is kept from the child it does not have; what is wiped there is wiped in its children too.
        self.withheld.insert(child, Withheld { kept: Vec::new(), wiped });
    }
}

fn gone_space(record: &Record) -> Option<SpaceId> {
    match record {
        Record::Note(Note::Gone(space)) => Some(SpaceId(*space)),
        Record::Note(_) | Record::Message { .. } => None,
    }
}

/// An event other than a fork.
fn tell_change(space: SpaceId, event: &UffdEvent, news: &mut News) {
    match *event {
        UffdEvent::Fault { addr, thread, write: _ } => {
            news.faults.push(DestinationInput::Fault { space, addr, thread });
        }
        UffdEvent::Remap { from, to } => news.events.push(DestinationInput::Remapped { space, from, to }),
        UffdEvent::Remove(pages) => news.events.push(DestinationInput::Removed { space, pages }),
        UffdEvent::Unmap(pages) => news.events.push(DestinationInput::Unmapped { space, pages }),
        UffdEvent::Fork(_) => {}
    }
}

fn watch(registry: &Registry, uffd: &Uffd, space: SpaceId) -> io::Result<()> {
    let token = Token(FIRST_TOKEN + space.0 as usize);
    registry.register(&mut SourceFd(&uffd.as_raw_fd()), token, Interest::READABLE)
}

#[cfg(test)]
mod tests {
    use memory::Addr;

    use super::*;

    fn page(at: u64) -> PageRange {
        PageRange::from_pages(Addr(at), 1).expect("a small range")
    }

    #[test]
    fn a_child_lacks_what_its_own_parent_withholds_and_nothing_else() {
        let mut spaces = Spaces::new().expect("memory for the log");
        let withheld = Withheld { kept: vec![page(0x1000)], wiped: vec![page(0x2000)] };
        spaces.withheld.insert(SpaceId(1), withheld);
        let mut told = |parent, child| {
            let mut inputs = Vec::new();
            spaces.tell_fork(SpaceId(parent), SpaceId(child), &mut inputs);
            inputs.split_off(1)
        };
        let unmapped = DestinationInput::Unmapped { space: SpaceId(3), pages: page(0x1000) };
        let removed = |space| DestinationInput::Removed { space: SpaceId(space), pages: page(0x2000) };
        assert_eq!(told(1, 3), [unmapped, removed(3)]);
        assert_eq!(told(2, 4), []);
        assert_eq!(told(3, 5), [removed(5)]);
    }
}
