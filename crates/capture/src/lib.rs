//! The manifest of this process: of the running one, so that refusal comes early, and of the stopped one.
//!
//! ```text
//! running ──► Reserve ──► Reserved { verdicts } ──► accept ──► (park) ──► stopped ──► Switchover
//! ```
//! Capture looks and does not touch: it writes into no memory of the program, moves no file position, takes no
//! byte out of a pipe. What it cannot put into a manifest it refuses by name. What waits in a terminal can only be taken
//! out: last of all, and by a function of its own ([`take_out_terminals`]), so that it can be given back.
//!
//! The parasite captures the process that it is in. The receiver's `check` looks at another one by the same rules, from
//! outside ([`survey`]).
#![no_std]
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

extern crate alloc;

mod classify;
pub mod connections;
mod contents;
mod descriptors;
mod mappings;
mod pages;
mod pipes;
mod process;
pub mod refusal;
mod segments;
mod sockets;
pub mod survey;
mod system_v;
mod tables;
mod terminals;
mod thread;
mod unmapped;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

use memory::{Addr, Backing, PageRange, Sharing, Vma};
use protocol::{FileVerdict, HostFacts, Manifest, SignalAction, ThreadRecord, VdsoRecord};
use sys::clock;
use sys::pagemap::Pagemap;

pub use contents::{Content, send as send_contents};
use descriptors::Table;
use pages::Known;
pub use process::credentials_beside;
use refusal::{Doing, MappingTrait, Note, ProcessTrait, Refusal};
pub use segments::remove as remove_segment;
pub use system_v::{Leftover, leftovers};
use tables::{Files, Ghosts, Objects};
pub use terminals::{give_back as give_back_terminals, take_out as take_out_terminals};

/// A look at the flags of all mappings that is less work than this is repeated while the program stands still.
const QUICK_LOOK_NS: u64 = 500_000;

/// What is in the process but is not the program's: capture leaves it out.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// The parasite's memory.
    pub ranges: &'a [PageRange],
    /// Bytes that a list of the process's pages may take.
    pub room: u64,
    /// The parasite's descriptors.
    pub descriptors: &'a [u32],
    /// Part of the parasite that travels as a page of zeros.
    pub state: PageRange,
    /// Where the program is left again at the destination.
    pub leaving_gate: Addr,
    /// What signal 33 did before the parasite borrowed it, while it is borrowed.
    pub park_action: Option<SignalAction>,
    /// Where frozen connections are noted, if they move: see [`connections`].
    pub frozen: Option<&'a [AtomicU32]>,
    /// Whether connections are relayed.
    pub relays: bool,
}

/// What the destination said of the running process's files, and what is known of it since.
#[derive(Clone, Copy, Debug)]
pub struct Verdicts<'a> {
    /// One for each file of that manifest.
    pub files: &'a [FileVerdict],
    /// It runs under this kernel.
    pub same_kernel: bool,
    /// What [`look_again`] has returned last.
    pub look: Option<&'a Look>,
}

/// A manifest, and what will be lost.
#[derive(Debug)]
pub struct Captured {
    /// The process, but for its pages.
    pub manifest: Manifest,
    /// To be said before anything stops.
    pub notes: Vec<Note>,
    /// What travels ahead of the manifest of the stopped process.
    pub contents: Vec<Content>,
}

/// The manifest of the running process: no frames, no content, nothing eager.
///
/// # Errors
/// What cannot be moved.
pub fn running(pagemap: &mut Pagemap, around: &Surroundings<'_>) -> Result<Box<Captured>, Refusal> {
    let tids = sys::process::other_threads().map_err(Refusal::kernel(Doing::Threads))?;
    process::check(&tids)?;
    build(pagemap, around, thread::listed(&tids), None)
}

/// Whether the destination's verdicts allow the move. It looks itself at files that have no verdict yet.
///
/// # Errors
/// A shared mapping of a file that is not the same there.
pub fn accept(manifest: &Manifest, verdicts: &[FileVerdict]) -> Result<(), Refusal> {
    for vma in manifest.vmas.iter().filter(|vma| vma.sharing == Sharing::Shared) {
        let Backing::File { file, .. } = vma.backing else { continue };
        if matches!(verdicts.get(file as usize), Some(FileVerdict::Travels | FileVerdict::Wanted)) {
            return Err(Refusal::mapping(vma.range.start(), MappingTrait::SharedFileDiffers));
        }
    }
    Ok(())
}

/// The manifest of the stopped process. `before` is that of the running one, on which the `verdicts` were given; its
/// files keep their indices, and those that came since have an index without a verdict: they travel, unless the
/// destination runs under the same kernel.
///
/// # Errors
/// What cannot be moved.
pub fn stopped(
    pagemap: &mut Pagemap,
    around: &Surroundings<'_>,
    threads: Vec<ThreadRecord>,
    before: &Manifest,
    verdicts: Verdicts<'_>,
) -> Result<Box<Captured>, Refusal> {
    if sys::process::has_children().map_err(Refusal::kernel(Doing::Children))? {
        return Err(ProcessTrait::Children.into());
    }
    let captured = build(pagemap, around, threads, Some((before, verdicts)))?;
    accept(&captured.manifest, verdicts.files)?;
    Ok(captured)
}

/// The mappings of the running process shortly before the stop.
#[derive(Debug)]
pub struct Look {
    vmas: Vec<Vma>,
    guards: Vec<PageRange>,
}

/// Looks at the mappings of the running process once more. `None` if that was quick: then it is done again at the stop.
/// Otherwise what the program does with madvise(2) from here on is seen only where it makes or splits a mapping, unless its
/// children do not inherit all of its memory as it is.
///
/// # Errors
/// What cannot be moved.
pub fn look_again(
    pagemap: &mut Pagemap,
    own: &[PageRange],
    before: &Manifest,
) -> Result<Option<Look>, Refusal> {
    let mut files = Files::new(Some(before));
    let began = clock::own_work_ns();
    let (_, vmas) = mappings::collect(own, true, None, &mut files, &mut Objects::default())?;
    if clock::own_work_ns() - began < QUICK_LOOK_NS {
        return Ok(None);
    }
    let guards = pages::guards(pagemap, &vmas, None)?;
    Ok(Some(Look { vmas, guards }))
}

fn build(
    pagemap: &mut Pagemap,
    around: &Surroundings<'_>,
    threads: Vec<ThreadRecord>,
    before: Option<(&Manifest, Verdicts<'_>)>,
) -> Result<Box<Captured>, Refusal> {
    let mut files = Files::new(before.map(|(manifest, _)| manifest));
    let mut objects = Objects::default();
    let mut ghosts = Ghosts::default();
    let look = before.and_then(|(_, verdicts)| verdicts.look);
    let old = look.map(|look| look.vmas.as_slice());
    let (mappings, mut vmas) =
        mappings::collect(around.ranges, before.is_some(), old, &mut files, &mut objects)?;
    let (table, notes) =
        descriptors::collect(around, &mut files, &mut objects, &mut ghosts, before.is_some())?;
    segments::settle(&mappings, &mut objects)?;
    mappings::settle_deleted(&mappings, &mut vmas, &objects)?;
    if before.is_some() {
        unmapped::complete(&vmas, &mut objects)?;
    }
    let guards = pages::guards(pagemap, &vmas, look)?;
    let process =
        process::record(around, before.map(|(manifest, _)| &manifest.process), &mut files, &mut ghosts)?;
    let (mut eager, mut lazy) = match before {
        Some((_, verdicts)) => {
            let verdicts = files.verdicts(verdicts.files, verdicts.same_kernel);
            let known = Known { vmas: &vmas, objects: &objects, verdicts: &verdicts, never: around.state };
            (known.eager(pagemap, &threads, &process.mm, around.leaving_gate)?, known.lazy())
        }
        // Nothing is known of the files yet; what counts in a reservation are the mappings.
        None => (Vec::new(), Vec::new()),
    };
    pages::remove(&guards, [&mut eager, &mut lazy]);
    let host = match before {
        Some((manifest, _)) => {
            let vdso = VdsoRecord { image: Vec::new(), ..manifest.host.vdso };
            let HostFacts { clocks, processors, .. } = &manifest.host;
            HostFacts { vdso, clocks: clocks.clone(), processors: processors.clone(), ..manifest.host }
        }
        None => process::host(&mappings)?,
    };
    let contents = contents::all(&table, &objects, before.map_or(&[], |(_, verdicts)| verdicts.files));
    let Table { descriptors, descriptions, pipes, terminals, locks } = table;
    let manifest = Manifest {
        host,
        process,
        threads,
        files: files.into_records(),
        objects: objects.into_records(),
        vmas,
        pipes,
        terminals,
        ghosts: ghosts.into_records(),
        locks,
        system_v: system_v::collect(sys::thread::process_id(), before.is_some())?,
        descriptions,
        descriptors,
        eager,
        lazy,
        kept: Vec::new(),
        guards,
        parasite_state: around.state,
        leaving_gate: around.leaving_gate,
        instance: Vec::new(),
    };
    Ok(Box::new(Captured { manifest, notes, contents }))
}
