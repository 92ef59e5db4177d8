//! A tree as the page server's loop sees it, wherever its pages come from.

use std::os::fd::BorrowedFd;
use std::sync::Arc;

use engine::Failure;
use memory::{PAGE_SIZE, PageRange};
use page_server::{Channels, ReadRun, SourceProcess};
use protocol::{Manifest, Reserved};
use sys::poll::Interest;

use crate::instance::{Instance, Passage, Sequence};

/// The first `pages` of what was read.
pub(crate) fn front(buffer: &[u8], pages: u64) -> Option<&[u8]> {
    buffer.get(..usize::try_from(pages * PAGE_SIZE).ok()?)
}

/// Where the pages of a tree come from.
pub(crate) trait Origin {
    /// Stops the tree and says what it is.
    ///
    /// # Errors
    /// Why not, in words for the user; [`release`](Self::release) follows.
    fn stop(&mut self) -> Result<Instance, Failure>;

    /// Why the stopped tree cannot go after all: asked when the destination is ready.
    fn obstacle(&mut self) -> Option<Failure> {
        None
    }

    /// The point of no return.
    fn commit(&mut self);

    /// The bytes of the pages at `at` of the process with this index, from the first one on, of as many as there are in
    /// one piece: in `buffer`, unless they lie somewhere already. `None` if nobody can read the first one.
    fn read_memory<'a>(&'a mut self, index: usize, at: PageRange, buffer: &'a mut [u8]) -> Option<&'a [u8]>;

    /// Reads an image, from `offset` on; beyond its end come zeros.
    fn read_file(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> Option<()>;

    /// The destination runs the tree: it is never given back.
    fn confirmed(&mut self) {}

    /// Sees to it that the tree still stands, as it has to from [`commit`](Self::commit) on, and to what its user says; false
    /// when there was nothing to do.
    fn watch(&mut self) -> bool {
        false
    }

    /// Readable when there is something to [`watch`](Self::watch).
    fn watched(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// New connections to the destination.
    ///
    /// # Errors
    /// It cannot be reached, or does not want this tree any more.
    fn reconnect(&mut self, attempt: u32) -> Result<Channels, Failure>;

    /// Lets the tree go on.
    fn release(&mut self);
}

/// A tree on its way.
#[derive(Debug)]
pub(crate) struct Tree<O> {
    /// Where it comes from.
    pub(crate) origin: O,
    sequence: Sequence,
}

impl<O: Origin> Tree<O> {
    pub(crate) fn new(origin: O) -> Self {
        Self { origin, sequence: Sequence::default() }
    }

    fn read_passage<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let most = |passage: &Passage| passage.source.pages().min(pages.pages());
        let bytes = |pages: u64| usize::try_from(pages * PAGE_SIZE).unwrap_or(usize::MAX);
        if let Some(passage) = Sequence::find(&self.sequence.tasks, pages.start()) {
            let at = PageRange::from_pages(memory::Addr(passage.start), most(&passage))?;
            return self.origin.read_memory(passage.index, at, buffer.get_mut(..bytes(at.pages()))?);
        }
        let passage = Sequence::find(&self.sequence.files, pages.start())?;
        let buffer = buffer.get_mut(..bytes(most(&passage)))?;
        self.origin.read_file(passage.index, passage.start, buffer)?;
        Some(buffer)
    }
}

impl<O: Origin> SourceProcess for Tree<O> {
    fn accept(&mut self, _answer: Reserved) -> Result<(), Failure> {
        Ok(())
    }

    fn park(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn capture(&mut self) -> Result<Arc<Manifest>, Failure> {
        let too_large =
            || Failure::Local("the tree has too many pieces of memory for one message".to_owned());
        let instance = self.origin.stop()?;
        self.sequence = instance.sequence().ok_or_else(too_large)?;
        instance.manifest().map(Arc::new).ok_or_else(too_large)
    }

    fn obstacle(&mut self) -> Option<Failure> {
        self.origin.obstacle()
    }

    fn commit(&mut self) {
        self.origin.commit();
    }

    fn confirmed(&mut self) {
        self.origin.confirmed();
    }

    fn reconnect(&mut self, attempt: u32) -> Result<Channels, Failure> {
        self.origin.reconnect(attempt)
    }

    fn read<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a> {
        match self.read_passage(pages, buffer) {
            Some(content) => ReadRun { pages: content.len() as u64 / PAGE_SIZE, content: Some(content) },
            None => ReadRun { pages: 1, content: None },
        }
    }

    /// CRIU has looked before: what is in its page maps holds data.
    fn scan(&mut self, range: PageRange) -> Vec<PageRange> {
        vec![range]
    }

    fn release(&mut self) {
        self.origin.release();
    }

    fn work(&mut self) -> bool {
        self.origin.watch()
    }

    fn interests(&self) -> Vec<Interest> {
        self.origin.watched().into_iter().map(|fd| Interest::borrowed(fd, false)).collect()
    }

    fn note(&mut self, _line: &'static str) {}
}
