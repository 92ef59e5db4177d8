//! The process that the parasite lives in, as the page server wants it.

use alloc::string::String;
use alloc::vec::Vec;

use engine::Failure;
use memory::PageRange;
use page_server::{ReadRun, SourceProcess};
use protocol::{DescriptionKind, FileVerdict, Manifest, ThreadRecord};

use crate::own_memory::OwnMemory;
use crate::{capture, commit, dumpable, ffi, quiesce};

/// See the module.
pub(crate) struct OwnProcess {
    memory: OwnMemory,
    /// What it was while it ran.
    running: Manifest,
    verdicts: Vec<FileVerdict>,
    parked: Vec<ThreadRecord>,
    /// Numbers of bound sockets, whose addresses the destination needs.
    bound: Vec<u32>,
}

impl OwnProcess {
    /// The process as it runs, and what it looks like.
    ///
    /// # Errors
    /// Why it cannot be moved, in words for the user.
    pub(crate) fn look() -> Result<(Self, Manifest), String> {
        let memory = OwnMemory::open().map_err(|errno| alloc::format!("reading the own memory: {errno}"))?;
        let mut running = capture::running()?;
        as_before(&mut running);
        let copy = running.clone();
        Ok((Self { memory, running, verdicts: Vec::new(), parked: Vec::new(), bound: Vec::new() }, copy))
    }
}

impl SourceProcess for OwnProcess {
    fn accept_verdicts(&mut self, files: Vec<FileVerdict>) {
        self.verdicts = files;
    }

    fn park(&mut self) -> Result<(), Failure> {
        self.parked = quiesce::park().map_err(Failure::Local)?;
        Ok(())
    }

    fn capture(&mut self) -> Result<Manifest, Failure> {
        let parked = core::mem::take(&mut self.parked);
        let mut manifest = capture::stopped(parked, &self.running, &self.verdicts).map_err(Failure::Local)?;
        as_before(&mut manifest);
        self.memory.set_mappings(&manifest.vmas);
        self.bound = bound_sockets(&manifest);
        Ok(manifest)
    }

    fn read(&mut self, pages: PageRange, buffer: &mut [u8]) -> ReadRun {
        self.memory.read(pages, buffer)
    }

    fn scan(&mut self, range: PageRange) -> Vec<PageRange> {
        self.memory.scan(range)
    }

    fn release(&mut self) {
        // Asked again by `migration::run`, which has to know the answer.
        let _ = quiesce::release();
    }

    fn commit(&mut self) {
        commit::never_run_here_again();
        for fd in self.bound.drain(..) {
            ffi::close(fd.cast_signed());
        }
    }

    fn note(&mut self, _line: &'static str) {}
}

/// Takes out of the manifest what the parasite itself has changed.
fn as_before(manifest: &mut Manifest) {
    if dumpable::is_open() {
        manifest.process.dumpable = 0;
    }
}

/// Numbers of the descriptors that keep an address for themselves.
fn bound_sockets(manifest: &Manifest) -> Vec<u32> {
    let keeps_address = |index: u32| {
        let description = usize::try_from(index).ok().and_then(|index| manifest.descriptions.get(index));
        description.is_some_and(|description| match &description.kind {
            DescriptionKind::Listener(_) => true,
            DescriptionKind::Socket { address, .. } => !address.is_empty(),
            _ => false,
        })
    };
    let holders = manifest.descriptors.iter().filter(|descriptor| keeps_address(descriptor.description));
    holders.map(|descriptor| descriptor.fd).collect()
}
