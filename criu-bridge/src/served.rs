//! A restored tree as the fault handler's loop sees it: memory that CRIU hands over, many processes in one migration.

use std::os::fd::BorrowedFd;

use engine::Failure;
use fault_handler::{Assembly, DestinationProcess, Mapped, Measurement, Notification, Resumption};
use memory::PageRange;
use protocol::{Connections, Manifest, Reserved, Travel};
use sys::uffd::Uffd;

use crate::handover::{Arrival, Handover};
use crate::instance::{Instance, Sequence, space_of};

/// Whoever has the tree rebuilt.
pub(crate) trait Rebuilder {
    /// Says whether a tree of this kind can be had.
    ///
    /// # Errors
    /// Why not, in words for the user.
    fn reserve(&mut self, instance: &Instance) -> Result<(), Failure>;

    /// Takes what `instance` says of the stopped tree.
    ///
    /// # Errors
    /// Why it cannot be had.
    fn prepare(&mut self, instance: &Instance) -> Result<(), Failure>;

    /// Writes into the image with this index.
    ///
    /// # Errors
    /// Why not.
    fn write(&mut self, index: usize, offset: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// Every image is there: begins to rebuild the tree.
    ///
    /// # Errors
    /// Why not.
    fn begin(&mut self) -> Result<(), Failure>;

    /// What has become of it since, once; `None` when there is nothing new. `line` is how far CRIU has got with handing
    /// over memory.
    fn progress(&mut self, line: Line) -> Option<Result<(), Failure>>;

    /// Descriptors that are readable when there is progress or a notification; the list only grows, at its end.
    fn readiness(&self) -> Vec<BorrowedFd<'_>> {
        Vec::new()
    }

    /// Something else that has happened.
    fn notification(&mut self) -> Option<Notification> {
        None
    }

    /// Lets the tree run; the process id of its root here is 0 if it is not known.
    ///
    /// # Errors
    /// Why not.
    fn resume(&mut self) -> Result<Resumption, Failure>;

    /// The process here whose id in the images is `pid`, if that is known.
    fn process_here(&mut self, pid: u32) -> Option<u32>;

    /// Has somebody hold a duplicate of a userfaultfd for as long as pages are missing.
    ///
    /// # Errors
    /// Why not.
    fn hold(&mut self, uffd: &Uffd) -> Result<(), Failure>;

    /// The tree has all its memory.
    fn finished(&mut self);

    /// Ends what there is of the tree.
    fn discard(&mut self);

    /// Something to tell.
    fn measured(&mut self, measurement: Measurement);
}

/// How far CRIU has got with handing over memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Line {
    /// There may be more.
    Open,
    /// That was all, and the tree is about to run.
    Finished,
    /// CRIU has hung up before.
    Ended,
}

/// A tree that is served.
#[derive(Debug)]
pub(crate) struct Served<R> {
    /// Whoever rebuilds it.
    pub(crate) rebuilder: R,
    handover: Handover,
    instance: Instance,
    sequence: Sequence,
    line: Line,
    travel: Travel,
}

impl<R: Rebuilder> Served<R> {
    pub(crate) fn new(rebuilder: R, handover: Handover) -> Self {
        let (instance, sequence) = (Instance::default(), Sequence::default());
        Self { rebuilder, handover, instance, sequence, line: Line::Open, travel: Travel::default() }
    }

    /// Its pages are to travel like this.
    pub(crate) fn with_travel(self, travel: Travel) -> Self {
        Self { travel, ..self }
    }

    /// What there is to say to a source that may come.
    pub(crate) fn reserved(&self) -> Reserved {
        Reserved {
            files: Vec::new(),
            all_pages_first: false,
            connections: Connections::Reset,
            travel: self.travel,
            same_kernel: false,
            other_vdso: false,
        }
    }

    /// What CRIU has handed over, if anything.
    fn hear(&mut self) -> Option<Notification> {
        loop {
            match self.handover.hear() {
                Ok(None) => return None,
                Ok(Some(Arrival::Memory(pid, uffd))) => return Some(self.memory(pid, uffd)),
                Ok(Some(Arrival::Finished)) => self.line = Line::Finished,
                Ok(Some(Arrival::Ended)) => {
                    if self.line == Line::Open {
                        self.line = Line::Ended;
                    }
                    return None;
                }
                Err(error) => {
                    let text = format!("taking memory from criu: {error}");
                    return Some(Notification::Abandoned(Failure::Local(text)));
                }
            }
        }
    }

    fn memory(&mut self, pid: u32, uffd: Uffd) -> Notification {
        let index = self.instance.tasks.iter().position(|task| task.pid == pid);
        let Some(space) = index.and_then(space_of) else {
            let text = format!("criu restores process {pid}, which is not in the images");
            return Notification::Abandoned(Failure::Local(text));
        };
        match self.rebuilder.hold(&uffd) {
            Ok(()) => Notification::Space(space, uffd, self.rebuilder.process_here(pid)),
            Err(failure) => Notification::Abandoned(failure),
        }
    }
}

impl<R: Rebuilder> DestinationProcess for Served<R> {
    fn reserve(&mut self, manifest: &Manifest) -> Result<Reserved, Failure> {
        self.rebuilder.reserve(&instance_of(manifest)?)?;
        Ok(self.reserved())
    }

    fn map(&mut self, manifest: &Manifest) -> Result<Mapped, Failure> {
        let instance = instance_of(manifest)?;
        let sequence = instance.sequence().filter(|sequence| {
            let lazy: Vec<PageRange> = sequence.tasks.iter().map(|passage| passage.source).collect();
            lazy == manifest.lazy
        });
        let sequence = sequence.ok_or(Failure::Protocol("pages that are nobody's"))?;
        self.rebuilder.prepare(&instance)?;
        let mut places: Vec<_> = Sequence::homes(instance.tasks.len()).collect();
        places.extend(sequence.places());
        (self.instance, self.sequence) = (instance, sequence);
        Ok(Mapped::Places(places))
    }

    fn write(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), Failure> {
        let (mut at, mut bytes) = (at, bytes);
        while !at.is_empty() {
            let passage = Sequence::find(&self.sequence.files, at.start());
            let passage = passage.ok_or(Failure::Protocol("bytes of no image"))?;
            let (now, rest) = at.split_at_pages(passage.source.pages());
            let len = usize::try_from(now.len()).unwrap_or(usize::MAX);
            let (part, behind) = bytes.split_at_checked(len).ok_or(Failure::Protocol("a cut page"))?;
            let file = self.instance.files.get(passage.index).map_or(0, |file| file.len);
            let left = usize::try_from(file.saturating_sub(passage.start)).unwrap_or(usize::MAX);
            self.rebuilder.write(passage.index, passage.start, part.get(..left).unwrap_or(part))?;
            (at, bytes) = (rest, behind);
        }
        Ok(())
    }

    fn assemble(&mut self) -> Result<Assembly, Failure> {
        self.rebuilder.begin()?;
        Ok(Assembly::Begun)
    }

    fn resume(&mut self) -> Result<Resumption, Failure> {
        self.rebuilder.resume()
    }

    fn forked(&mut self, child: &Uffd) -> Result<(), Failure> {
        self.rebuilder.hold(child)
    }

    fn finished(&mut self) {
        self.rebuilder.finished();
    }

    fn discard(&mut self, _reason: &Failure) {
        self.rebuilder.discard();
    }

    fn watched(&mut self) -> Vec<BorrowedFd<'_>> {
        let mut handover = self.handover.readiness().into_iter();
        let mut watched: Vec<_> = handover.next().into_iter().collect();
        watched.extend(self.rebuilder.readiness());
        watched.extend(handover);
        watched
    }

    fn notification(&mut self) -> Option<Notification> {
        if let Some(other) = self.rebuilder.notification() {
            return Some(other);
        }
        if self.instance.tasks.is_empty() {
            // Whose memory it is, is not known yet.
            return None;
        }
        if let Some(heard) = self.hear() {
            return Some(heard);
        }
        // Memory that was handed over before comes first.
        self.rebuilder.progress(self.line).map(Notification::Assembled)
    }

    fn measured(&mut self, measurement: Measurement) {
        self.rebuilder.measured(measurement);
    }
}

fn instance_of(manifest: &Manifest) -> Result<Instance, Failure> {
    Instance::of(manifest).ok_or(Failure::Protocol("a tree that is not described"))
}
