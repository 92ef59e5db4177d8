//! The address spaces that are served, each with its userfaultfd, and what they tell.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::AsRawFd;

use engine::{DestinationInput, SpaceId};
use memory::PageRange;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use protocol::Manifest;
use sys::uffd::{EventBuffer, Uffd, UffdEvent};

use crate::HandlerError;
use crate::config::{EVENTS_PER_READ, EVENTS_PER_TURN, MAX_SPACES};

/// Tokens from here on are address spaces.
const FIRST_TOKEN: usize = 16;

/// Every address space that may still have missing pages.
#[derive(Debug)]
pub(crate) struct Spaces {
    uffds: BTreeMap<SpaceId, Uffd>,
    /// Spaces whose userfaultfd may have something to read.
    ready: BTreeSet<SpaceId>,
    next: u32,
    buffer: EventBuffer,
    /// What `madvise(2)` keeps from children: as if unmapped there (`MADV_DONTFORK`), as if dropped
    /// (`MADV_WIPEONFORK`).
    kept_from_children: Vec<PageRange>,
    wiped_in_children: Vec<PageRange>,
}

/// What was read: events to be handed in first, then faults, then the children that are new.
#[derive(Debug, Default)]
pub(crate) struct News {
    pub(crate) events: Vec<DestinationInput>,
    pub(crate) faults: Vec<DestinationInput>,
    pub(crate) children: Vec<SpaceId>,
}

impl Spaces {
    pub(crate) fn new() -> Self {
        Self {
            uffds: BTreeMap::new(),
            ready: BTreeSet::new(),
            next: SpaceId::MAIN.0,
            buffer: EventBuffer::new(EVENTS_PER_READ),
            kept_from_children: Vec::new(),
            wiped_in_children: Vec::new(),
        }
    }

    /// Remembers what children of the process will not inherit.
    pub(crate) fn learn(&mut self, manifest: &Manifest) {
        let ranges = |wanted: fn(&memory::VmaFlags) -> bool| {
            manifest.vmas.iter().filter(|vma| wanted(&vma.flags)).map(|vma| vma.range).collect()
        };
        self.kept_from_children = ranges(|flags| flags.dont_fork);
        self.wiped_in_children = ranges(|flags| flags.wipe_on_fork);
    }

    /// Serves one more address space; the first one is [`SpaceId::MAIN`].
    pub(crate) fn add(&mut self, uffd: Uffd, registry: &Registry) -> Result<SpaceId, HandlerError> {
        if self.uffds.len() >= MAX_SPACES {
            return Err(HandlerError::TooManySpaces { limit: MAX_SPACES });
        }
        let space = SpaceId(self.next);
        self.next += 1;
        watch(registry, &uffd, space).map_err(HandlerError::Wait)?;
        self.uffds.insert(space, uffd);
        self.ready.insert(space);
        Ok(space)
    }

    pub(crate) fn get(&self, space: SpaceId) -> Option<&Uffd> {
        self.uffds.get(&space)
    }

    /// Serves the space no longer: it has ended.
    pub(crate) fn forget(&mut self, space: SpaceId) {
        self.uffds.remove(&space);
        self.ready.remove(&space);
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

    /// Reads the userfaultfd of `space` until it is empty, readiness reported or not.
    pub(crate) fn read_one(
        &mut self,
        space: SpaceId,
        registry: &Registry,
        news: &mut News,
    ) -> Result<(), HandlerError> {
        let mut read = 0;
        while read < EVENTS_PER_TURN {
            let Some(uffd) = self.uffds.get(&space) else { return Ok(()) };
            let events = uffd.read_events(&mut self.buffer).map_err(HandlerError::Events)?;
            if events.is_empty() {
                return Ok(());
            }
            read += events.len();
            for event in events {
                self.convert(space, event, registry, news)?;
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
            UffdEvent::Fault { addr, thread, write: _ } => {
                news.faults.push(DestinationInput::Fault { space, addr, thread });
            }
            UffdEvent::Remap { from, to } => news.events.push(DestinationInput::Remapped { space, from, to }),
            UffdEvent::Remove(pages) => news.events.push(DestinationInput::Removed { space, pages }),
            UffdEvent::Unmap(pages) => news.events.push(DestinationInput::Unmapped { space, pages }),
            UffdEvent::Fork(uffd) => {
                let child = self.add(uffd, registry)?;
                news.children.push(child);
                news.events.push(DestinationInput::Forked { parent: space, child });
                let unmapped = |&pages| DestinationInput::Unmapped { space: child, pages };
                news.events.extend(self.kept_from_children.iter().map(unmapped));
                let removed = |&pages| DestinationInput::Removed { space: child, pages };
                news.events.extend(self.wiped_in_children.iter().map(removed));
            }
        }
        Ok(())
    }
}

fn watch(registry: &Registry, uffd: &Uffd, space: SpaceId) -> io::Result<()> {
    let token = Token(FIRST_TOKEN + space.0 as usize);
    registry.register(&mut SourceFd(&uffd.as_raw_fd()), token, Interest::READABLE)
}
