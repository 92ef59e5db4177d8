//! A tree that lies in a store, as the page server's loop sees it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use engine::Failure;
use memory::{PAGE_SIZE, PageRange};
use page_server::Channels;

use super::index::Index;
use super::promotion::Promotion;
use super::sizes;
use super::store::{Shadow, Stored};
use crate::config::MOST_FILES_BYTES;
use crate::holder::Holder;
use crate::instance::{Instance, Passage, Sequence};
use crate::source::{Origin, front};

/// The image that says which files are open.
const FILES: &[u8] = b"files.img";

/// It.
#[derive(Debug)]
pub(crate) struct Pages {
    instance: Instance,
    sequence: Sequence,
    index: Index,
    pages: File,
    /// Images that are not what was stored, by their place among them.
    changed: BTreeMap<usize, Vec<u8>>,
    /// What is to be noted before the tree may run, and who ends the receiver if this process ends before that.
    claim: Option<(Shadow, Promotion, Holder)>,
}

impl Pages {
    /// Opens an epoch.
    ///
    /// # Errors
    /// It cannot be read, or is not whole.
    pub(crate) fn open(shadow: &Shadow, epoch: &Stored) -> io::Result<Self> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the epoch is not whole");
        let (instance, index) = epoch.load()?;
        let sequence = instance.sequence().ok_or_else(malformed)?;
        if sequence.pages() != index.pages() {
            return Err(malformed());
        }
        let pages = shadow.pages()?;
        let mut opened = Self { instance, sequence, index, pages, changed: BTreeMap::new(), claim: None };
        opened.forget_sizes()?;
        Ok(opened)
    }

    /// Has `promotion` noted before the tree may run under its process; `holder` ends that, unless it may.
    pub(crate) fn claimed(self, shadow: Shadow, promotion: Promotion, holder: Holder) -> Self {
        Self { claim: Some((shadow, promotion, holder)), ..self }
    }

    /// Files that the tree writes have gone on since: they are not what they were, and need not be.
    fn forget_sizes(&mut self) -> io::Result<()> {
        let Some(at) = self.instance.files.iter().position(|file| file.name == FILES) else { return Ok(()) };
        let len = self.instance.files.get(at).map_or(0, |file| file.len);
        if len > MOST_FILES_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "files.img is too large"));
        }
        let len = usize::try_from(len).map_err(io::Error::other)?;
        let mut image = vec![0; len.next_multiple_of(4096)];
        self.read_file(at, 0, &mut image).ok_or(io::ErrorKind::InvalidData)?;
        image.truncate(len);
        let Some(image) = sizes::forget(&image) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "files.img is malformed"));
        };
        if let Some(file) = self.instance.files.get_mut(at) {
            file.len = image.len() as u64;
        }
        self.changed.insert(at, image);
        Ok(())
    }

    /// Reads what lies behind page `offset / PAGE_SIZE` of a passage, as far as it lies together, and returns how many
    /// pages.
    fn read_pages(&self, passage: &Passage, at: u64, buffer: &mut [u8]) -> Option<u64> {
        let within = at.checked_sub(passage.start)? / PAGE_SIZE;
        let number = super::epoch::number_of(passage.source) + within;
        let (slot, alike) = self.index.find(number)?;
        let wanted = buffer.len() as u64 / PAGE_SIZE;
        let pages = alike.min(wanted).min(passage.source.pages().checked_sub(within)?);
        let buffer = buffer.get_mut(..usize::try_from(pages * PAGE_SIZE).ok()?)?;
        match slot {
            Some(slot) => self.pages.read_exact_at(buffer, slot * PAGE_SIZE).ok()?,
            None => buffer.fill(0),
        }
        Some(pages).filter(|pages| *pages > 0)
    }
}

impl Origin for Pages {
    fn stop(&mut self) -> Result<Instance, Failure> {
        Ok(self.instance.clone())
    }

    fn obstacle(&mut self) -> Option<Failure> {
        let (shadow, promotion, _) = self.claim.as_ref()?;
        let error = shadow.promote(Some(promotion)).err()?;
        Some(Failure::Local(format!("noting that it is about to run: {error}")))
    }

    fn commit(&mut self) {
        if let Some((.., holder)) = self.claim.take() {
            holder.dismiss();
        }
    }

    fn read_memory<'a>(&'a mut self, index: usize, at: PageRange, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        let key = |passage: &Passage| (passage.index, passage.start);
        let behind = self.sequence.tasks.partition_point(|passage| key(passage) <= (index, at.start().0));
        let passage = self.sequence.tasks.get(behind.checked_sub(1)?).filter(|found| found.index == index)?;
        let pages = self.read_pages(passage, at.start().0, buffer)?;
        front(buffer, pages)
    }

    fn read_file(&mut self, index: usize, offset: u64, buffer: &mut [u8]) -> Option<()> {
        if let Some(image) = self.changed.get(&index) {
            let from = image.get(usize::try_from(offset).ok()?..)?;
            let (now, rest) = buffer.split_at_mut(from.len().min(buffer.len()));
            now.copy_from_slice(from.get(..now.len())?);
            rest.fill(0);
            return Some(());
        }
        let at = self.sequence.files.partition_point(|passage| passage.index < index);
        let passage = self.sequence.files.get(at).filter(|passage| passage.index == index)?;
        let mut done = 0;
        while done < buffer.len() {
            let room = buffer.get_mut(done..)?;
            let pages = self.read_pages(passage, offset + done as u64, room)?;
            done += usize::try_from(pages * PAGE_SIZE).ok()?;
        }
        Some(())
    }

    fn reconnect(&mut self, _attempt: u32) -> Result<Channels, Failure> {
        Err(Failure::Peer("the receiver has ended".to_owned()))
    }

    fn release(&mut self) {}
}
