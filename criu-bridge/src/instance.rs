//! A tree of processes as both ends of a migration talk of it: which pages are whose, in one sequence.
//!
//! The engine knows one source with pages from 0 up. Here is which of those are which pages of which process, and which
//! are the bytes of a file with an image: those are eager, the others lazy.

use engine::{Place, SpaceId};
use memory::{Addr, PAGE_SIZE, PageRange};
use protocol::{HostFacts, Manifest};
use serde::{Deserialize, Serialize};

use crate::consent::Consent;
use crate::shadow::epoch::Epoch;

/// What there is of one process.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Task {
    /// Its id in the images.
    pub pid: u32,
    /// Its lazy pages; ascending.
    pub lazy: Vec<PageRange>,
}

/// An image without lazy pages.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ImageFile {
    /// Its name in the directory of the images.
    pub name: Vec<u8>,
    /// Bytes.
    pub len: u64,
}

/// The whole tree.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Instance {
    /// Its processes.
    pub tasks: Vec<Task>,
    /// Its images.
    pub files: Vec<ImageFile>,
    /// How it is to be restored.
    pub terms: Terms,
    /// What it is an epoch of, if it is to be kept instead.
    pub epoch: Option<Epoch>,
    /// `boot_id` of the machine on which the original ends when all of it is elsewhere; zeros where it goes on, or is no more.
    /// The manifest says it among its facts of the host.
    #[serde(skip)]
    pub ends_on: [u8; 16],
}

/// What whoever restores a tree has to know beforehand.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Terms {
    /// The version of the CRIU that dumps it.
    pub criu: (i32, i32),
    /// Whether its lazy pages come after the images.
    pub lazy: bool,
    /// What CRIU was permitted, and is to be permitted again.
    pub consent: Consent,
}

/// A run of source pages, and whose they are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Passage {
    /// In the sequence.
    pub source: PageRange,
    /// Index of the process or the file.
    pub index: usize,
    /// The process's address, or the offset in the file, of the first of them.
    pub start: u64,
}

/// Where everything is in the sequence.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Sequence {
    /// Pages of processes, ascending.
    pub tasks: Vec<Passage>,
    /// Bytes of files, ascending, behind the others.
    pub files: Vec<Passage>,
}

impl Instance {
    /// The sequence; `None` if it is longer than there are addresses.
    pub fn sequence(&self) -> Option<Sequence> {
        let mut next = Addr(PAGE_SIZE);
        let mut passage = |index, start, pages| {
            let source = PageRange::from_pages(next, pages)?;
            next = source.end();
            Some(Passage { source, index, start })
        };
        let mut sequence = Sequence::default();
        for (index, task) in self.tasks.iter().enumerate() {
            for range in &task.lazy {
                sequence.tasks.push(passage(index, range.start().0, range.pages())?);
            }
        }
        for (index, file) in self.files.iter().enumerate() {
            if file.len > 0 {
                sequence.files.push(passage(index, 0, file.len.div_ceil(PAGE_SIZE))?);
            }
        }
        Some(sequence)
    }

    /// The manifest that says it; `None` if it is too large for one.
    pub fn manifest(&self) -> Option<Manifest> {
        let sequence = self.sequence()?;
        let sources = |passages: &[Passage]| passages.iter().map(|passage| passage.source).collect();
        let (eager, lazy) = (sources(&sequence.files), sources(&sequence.tasks));
        let instance = protocol::encode(self).ok()?;
        let empty = Manifest::empty();
        let host = HostFacts { boot_id: self.ends_on, ..empty.host };
        Some(Manifest { host, eager, lazy, instance, ..empty })
    }

    /// The other way round; `None` for what no source of this kind says.
    pub fn of(manifest: &Manifest) -> Option<Self> {
        let instance = protocol::decode(&manifest.instance).ok()?;
        Some(Self { ends_on: manifest.host.boot_id, ..instance })
    }
}

/// The address space of the process with this index; the first one, which is no process, holds the files.
pub fn space_of(index: usize) -> Option<SpaceId> {
    u32::try_from(index).ok()?.checked_add(1).map(SpaceId)
}

impl Sequence {
    /// All pages.
    pub fn pages(&self) -> u64 {
        // They have addresses, one behind the other.
        self.tasks.iter().chain(&self.files).map(|passage| passage.source.pages()).sum()
    }

    /// Where the pages of all processes belong.
    pub fn places(&self) -> Vec<Place> {
        let place = |passage: &Passage| {
            let at = passage.source.moved_to(Addr(passage.start))?;
            Some(Place { space: space_of(passage.index)?, at, source: passage.source.start() })
        };
        self.tasks.iter().filter_map(place).collect()
    }

    /// A place without pages for each process: every one has an address space, also without lazy pages.
    pub fn homes(processes: usize) -> impl Iterator<Item = Place> {
        let nothing = PageRange::new(Addr(0), Addr(0));
        let home = move |index| Some(Place { space: space_of(index)?, at: nothing?, source: Addr(0) });
        (0..processes).filter_map(home)
    }

    /// The passage of `passages` that begins at or before `page` and holds it, from there on.
    pub fn find(passages: &[Passage], page: Addr) -> Option<Passage> {
        let behind = passages.partition_point(|passage| passage.source.start() <= page);
        let passage = passages.get(behind.checked_sub(1)?)?;
        let source = PageRange::new(page, passage.source.end()).filter(|rest| !rest.is_empty())?;
        let start = passage.start + (page.0 - passage.source.start().0);
        Some(Passage { source, index: passage.index, start })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(start: u64, count: u64) -> PageRange {
        PageRange::from_pages(Addr(start), count).expect("a small range")
    }

    #[test]
    fn every_page_of_every_process_has_a_number_of_its_own() {
        let tasks = vec![
            Task { pid: 7, lazy: vec![pages(0x40_0000, 2), pages(0x50_0000, 1)] },
            Task { pid: 8, lazy: vec![pages(0x40_0000, 3)] },
        ];
        let files = vec![ImageFile { name: b"core-7.img".to_vec(), len: 4097 }];
        let consent = Consent { external: vec!["tty[1:2]".to_owned()], ..Consent::default() };
        let terms = Terms { consent, ..Terms::default() };
        let epoch = Some(Epoch { shadow: "one".to_owned(), ..Epoch::default() });
        let instance = Instance { tasks, files, terms, epoch, ends_on: [3; 16] };
        let manifest = instance.manifest().expect("a small tree");
        assert_eq!(manifest.lazy, [pages(0x1000, 2), pages(0x3000, 1), pages(0x4000, 3)]);
        assert_eq!(manifest.eager, [pages(0x7000, 2)]);
        assert_eq!(Instance::of(&manifest), Some(instance.clone()));
        let sequence = instance.sequence().expect("a small tree");
        let found = Sequence::find(&sequence.tasks, Addr(0x5000)).expect("the second process has it");
        assert_eq!((found.index, found.start, found.source.pages()), (1, 0x40_1000, 2));
        assert_eq!(Sequence::find(&sequence.tasks, Addr(0x7000)), None);
        assert_eq!(sequence.places().len(), 3);
    }
}
