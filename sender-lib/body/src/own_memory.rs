//! Reading the stopped process from within: which pages hold data, and their bytes.

use alloc::vec::Vec;

use memory::{Addr, Backing, PAGE_SIZE, PageRange, Sharing, USER_END, Vma};
use page_server::ReadRun;
use sys::own_memory::{read_own, resident};
use sys::pagemap::{Pagemap, Wanted};
use sys::{Errno, Fd, file, process};

use crate::config::LIBRARY_BYTES;
use crate::ffi;

/// Pages of a shared object that one look covers: 256 MiB, at one byte a page.
const MOST_PAGES: u64 = 65536;

/// The process's own memory, seen through the kernel: nothing here can fault.
pub(crate) struct OwnMemory {
    pagemap: Pagemap,
    /// `/proc/self/mem`, which reads what the process itself may not.
    mem: Fd,
    /// Mappings of the stopped process, ascending.
    vmas: Vec<Vma>,
    has_swap: bool,
}

impl OwnMemory {
    /// Opens what is needed; knows no mapping yet.
    ///
    /// # Errors
    /// Those of open(2).
    pub(crate) fn open() -> Result<Self, Errno> {
        let mem = file::open(c"/proc/thread-self/mem", file::READ_ONLY)?;
        Ok(Self { pagemap: Pagemap::open()?, mem, vmas: Vec::new(), has_swap: process::machine_has_swap() })
    }

    /// Numbers of the own descriptors.
    pub(crate) fn descriptors(&self) -> [u32; 2] {
        [&self.mem, self.pagemap.descriptor()].map(|fd| fd.raw().cast_unsigned())
    }

    /// What the kernel knows of each page.
    pub(crate) const fn pagemap(&mut self) -> &mut Pagemap {
        &mut self.pagemap
    }

    /// Takes the mappings of the stopped process; none once it is released.
    pub(crate) fn set_mappings(&mut self, vmas: &[Vma]) {
        self.vmas = vmas.to_vec();
    }

    /// Gives the memory of the program, which runs elsewhere, back to the machine. Threads at rest never return to it, but
    /// what the kernel writes for them must have a place: so private memory stays mapped. What is near `state`, a page of
    /// the library's, may be the library's and stays as it is.
    pub(crate) fn let_go(&self, state: PageRange) {
        let (start, end) = (state.start().0.saturating_sub(LIBRARY_BYTES), state.end().0 + LIBRARY_BYTES);
        let elsewhere = [(0, start), (end, USER_END)];
        let elsewhere = elsewhere.map(|(from, to)| PageRange::new(Addr(from), Addr(to)));
        for vma in &self.vmas {
            for part in elsewhere.iter().flatten().filter_map(|side| side.intersection(vma.range)) {
                match (vma.sharing, &vma.backing) {
                    (Sharing::Private, Backing::Anonymous) => ffi::empty(part),
                    (Sharing::Private, _) => {}
                    (Sharing::Shared, _) => ffi::unmap(part),
                }
            }
        }
    }

    /// See [`page_server::SourceProcess::scan`].
    pub(crate) fn scan(&mut self, range: PageRange) -> Vec<PageRange> {
        let mut data = Vec::new();
        let mut rest = range;
        while !rest.is_empty() {
            let piece = self.scan_piece(rest, &mut data);
            (_, rest) = rest.split_at_pages(piece.pages().max(1));
        }
        data
    }

    /// Appends the data of a piece from the start of `range`, and returns the piece.
    fn scan_piece(&mut self, range: PageRange, data: &mut Vec<PageRange>) -> PageRange {
        let next = self.vmas.partition_point(|vma| vma.range.end() <= range.start());
        let Some((piece, kind)) = self.vmas.get(next).and_then(|vma| piece_of(vma, range)) else {
            return range;
        };
        match kind {
            Pages::None => {}
            Pages::All => data.push(piece),
            Pages::Written => {
                data.extend(self.pagemap.scan(piece, Wanted::Private).unwrap_or_else(|_| one(piece)));
            }
            // The page tables do not know what only other processes touched, and nobody tells what is swapped out.
            Pages::OfObject if self.has_swap => data.push(piece),
            Pages::OfObject => {
                let (piece, _) = piece.split_at_pages(MOST_PAGES);
                self.scan_object(piece, data);
                return piece;
            }
        }
        piece
    }

    fn scan_object(&mut self, piece: PageRange, data: &mut Vec<PageRange>) {
        let mut pages = alloc::vec![0; usize::try_from(piece.pages()).unwrap_or(0)];
        if resident(piece.start().0, &mut pages).is_err() {
            data.push(piece);
            return;
        }
        for run in self.pagemap.scan(piece, Wanted::Known).unwrap_or_else(|_| one(piece)) {
            let first = (run.start().0 - piece.start().0) / PAGE_SIZE;
            let indices =
                usize::try_from(first).unwrap_or(0)..usize::try_from(first + run.pages()).unwrap_or(0);
            pages.get_mut(indices).unwrap_or_default().fill(1);
        }
        let mut at = piece.start();
        for alike in pages.chunk_by(|a, b| a & 1 == b & 1) {
            let Some(run) = PageRange::from_pages(at, alike.len() as u64) else { return };
            if alike.first().is_some_and(|page| page & 1 == 1) {
                data.push(run);
            }
            at = run.end();
        }
    }

    /// See [`page_server::SourceProcess::read`].
    pub(crate) fn read<'a>(&'a self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a> {
        if let Some(content) = self.private_part(pages).and_then(|part| ffi::bytes(self, part)) {
            return ReadRun { pages: whole_pages(content.len()), content: Some(content) };
        }
        let at = pages.start().0;
        let mut read = read_own(at, buffer).map_or(0, whole_pages);
        if read == 0 {
            // Not readable by the program itself (PROT_NONE, or execute only): the kernel reads it anyway.
            read = file::read_at(&self.mem, buffer, at).map_or(0, whole_pages);
        }
        ReadRun { pages: read.max(1), content: (read > 0).then_some(buffer) }
    }

    /// The front of `pages` that lies in one private anonymous mapping of the stopped process: nobody else can change
    /// such memory, or take it away.
    fn private_part(&self, pages: PageRange) -> Option<PageRange> {
        let next = self.vmas.partition_point(|vma| vma.range.end() <= pages.start());
        match piece_of(self.vmas.get(next)?, pages)? {
            (part, Pages::Written) => Some(part),
            _ => None,
        }
    }
}

/// Which pages of a mapping hold data that has to travel.
enum Pages {
    /// None: a hole between mappings.
    None,
    /// Each that can be read: the destination has nothing of it.
    All,
    /// Those that the process has written.
    Written,
    /// Those that the shared object has.
    OfObject,
}

/// The front of `range` that is alike, if `vma`, the first mapping that ends behind its start, reaches into it.
fn piece_of(vma: &Vma, range: PageRange) -> Option<(PageRange, Pages)> {
    let common = vma.range.intersection(range)?;
    if common.start() > range.start() {
        return Some((between(range.start(), common.start())?, Pages::None));
    }
    let pages = match (vma.sharing, &vma.backing) {
        (Sharing::Private, Backing::Anonymous) => Pages::Written,
        (Sharing::Private, Backing::File { .. } | Backing::Object { .. }) => Pages::All,
        (Sharing::Shared, _) => Pages::OfObject,
    };
    Some((common, pages))
}

fn between(start: Addr, end: Addr) -> Option<PageRange> {
    PageRange::new(start, end)
}

fn one(piece: PageRange) -> Vec<PageRange> {
    alloc::vec![piece]
}

fn whole_pages(bytes: usize) -> u64 {
    bytes as u64 / PAGE_SIZE
}
