//! The source of one epoch: a tree that stands still for as long as it takes to look at its pages, and runs on before
//! the first of them travels.
//!
//! What has changed is copied while the tree stands still, into a file that has no name. Nothing that happens from there
//! on concerns the tree.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Failure;
use memory::{Addr, PAGE_SIZE, PageRange};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use page_server::{Channels, ReadRun, SourceProcess};
use protocol::{Channel, Manifest, Reserved};
use sys::poll::Interest;

use super::digests::{Digest, Digester, Known, Taking};
use super::epoch::{self, Content, Epoch, PageSource, Pages};
use crate::config::{CHUNK_PAGES, MOST_SENT_RUNS};
use crate::frozen::Frozen;
use crate::instance::{Instance, Passage};
use crate::source::Origin as _;

/// How far an epoch has got.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The destination has not said that it takes it.
    Announced,
    /// The tree runs until it is time.
    Waiting,
    /// The tree has been stopped.
    Taken,
}

/// What is needed to take one.
#[derive(Debug)]
pub(crate) struct Plan<'shadow> {
    /// The tree, when it is time.
    pub(crate) frozen: Frozen,
    /// Its root.
    pub(crate) root: &'shadow OwnedFd,
    /// What is said of it.
    pub(crate) epoch: Epoch,
    /// When.
    pub(crate) due: Instant,
    /// The connection, to see whether it stands.
    pub(crate) link: OwnedFd,
    /// For its pages.
    pub(crate) digester: &'shadow Digester,
    /// The pages before it.
    pub(crate) known: Option<&'shadow Known>,
    /// Where the file is that has no name.
    pub(crate) directory: &'shadow Path,
}

/// It.
#[derive(Debug)]
pub(crate) struct Standby<'shadow> {
    plan: Plan<'shadow>,
    /// How far it has got.
    pub(crate) stage: Stage,
    /// When it was time.
    pub(crate) begun: Option<Instant>,
    /// Pages that travel.
    spool: Option<File>,
    /// Of all pages.
    digests: Vec<Digest>,
    /// The same, to build the next epoch on: made before this one travels, so that the next one is announced at once.
    pub(crate) known: Option<Known>,
    /// How many of them there are.
    pub(crate) pages: Pages,
    /// How long the tree stood still.
    pub(crate) freeze: Duration,
}

impl<'shadow> Standby<'shadow> {
    pub(crate) fn new(plan: Plan<'shadow>) -> Self {
        Self {
            plan,
            stage: Stage::Announced,
            begun: None,
            spool: None,
            digests: Vec::new(),
            known: None,
            pages: Pages::default(),
            freeze: Duration::ZERO,
        }
    }

    /// What is said while the tree runs.
    pub(crate) fn running(&self) -> Manifest {
        let epoch = Some(self.plan.epoch.clone());
        let instance = Instance { epoch, ..Instance::default() };
        // It always fits a message.
        instance.manifest().unwrap_or_else(Manifest::empty)
    }

    /// Copies what has changed and counts the rest; the tree stands still.
    fn look(&mut self, instance: &Instance) -> Result<Content, Failure> {
        let too_large = || Failure::Local("the tree has too many pages".to_owned());
        let spool = spool(self.plan.directory).map_err(|error| writing(&error))?;
        let sequence = instance.sequence().ok_or_else(too_large)?;
        let mut taking = Taking::new(self.plan.digester, self.plan.known);
        let (mut content, mut out) = (Content::default(), BufWriter::new(&spool));
        let mut room = vec![0; byte_len(CHUNK_PAGES)];
        let passages = sequence.tasks.iter().map(|passage| (passage, true));
        for (passage, is_memory) in passages.chain(sequence.files.iter().map(|passage| (passage, false))) {
            let mut done = 0;
            while done < passage.source.pages() {
                let wanted = (passage.source.pages() - done).min(CHUNK_PAGES);
                let room = room.get_mut(..byte_len(wanted)).ok_or_else(too_large)?;
                let pages = self.read_at(passage, is_memory, (done, wanted), room)?;
                for page in room.chunks_exact(byte_len(1)).take(usize::try_from(pages).unwrap_or(0)) {
                    let is_scattered = content.runs.len() >= MOST_SENT_RUNS;
                    // What is in too many pieces goes as it is.
                    let source =
                        Some(taking.look(page)).filter(|_| !is_scattered).unwrap_or(PageSource::Value);
                    content.push(1, source);
                    if source == PageSource::Value {
                        out.write_all(page).map_err(|error| writing(&error))?;
                    }
                }
                done += pages;
            }
        }
        out.flush().map_err(|error| writing(&error))?;
        drop(out);
        (self.spool, self.digests) = (Some(spool), taking.into_pages());
        Ok(content)
    }

    /// Reads `wanted` pages of `passage` behind the first `done`, or some of them, and returns how many.
    fn read_at(
        &mut self,
        passage: &Passage,
        is_memory: bool,
        (done, wanted): (u64, u64),
        room: &mut [u8],
    ) -> Result<u64, Failure> {
        let start = passage.start + done * PAGE_SIZE;
        let frozen = &mut self.plan.frozen;
        let read = if is_memory {
            let at = PageRange::from_pages(Addr(start), wanted);
            let read = at.and_then(|at| frozen.read_memory(passage.index, at, room));
            read.map(|bytes| bytes.len() as u64 / PAGE_SIZE)
        } else {
            frozen.read_file(passage.index, start, room).map(|()| wanted)
        };
        read.filter(|pages| *pages > 0)
            .ok_or_else(|| Failure::Local(format!("a page of the tree at {start:#x} cannot be read")))
    }

    fn take(&mut self) -> Result<Manifest, Failure> {
        // Who stops this process meanwhile would leave the tree as it is.
        let stops: SigSet = [Signal::SIGTSTP, Signal::SIGTTIN, Signal::SIGTTOU].into_iter().collect();
        let _ = stops.thread_block();
        let begun = Instant::now();
        self.begun = Some(begun);
        self.stage = Stage::Taken;
        let looked = self.plan.frozen.stop().and_then(|instance| {
            let content = self.look(&instance)?;
            Ok((instance, content))
        });
        self.plan.frozen.release();
        let stopped = self.plan.frozen.stopping().unwrap_or(begun);
        self.freeze = stopped.elapsed();
        let _ = stops.thread_unblock();
        let (mut instance, mut content) = looked?;
        let too_large = || Failure::Local("the tree has too many pieces of memory".to_owned());
        self.pages = content.count(self.digests.len() as u64, u64::MAX).ok_or_else(too_large)?;
        self.known = Some(Known::new(self.plan.epoch.id, std::mem::take(&mut self.digests)));
        content.freeze_us = micros(self.freeze);
        content.age_us = micros(stopped.elapsed());
        instance.epoch = Some(Epoch { content: Some(content), ..self.plan.epoch.clone() });
        let eager = epoch::travelling(self.pages.by_value).ok_or_else(too_large)?;
        let instance = protocol::encode(&instance).map_err(|_| too_large())?;
        let eager = Some(eager).filter(|eager| !eager.is_empty()).into_iter().collect();
        Ok(Manifest { eager, instance, ..Manifest::empty() })
    }
}

impl SourceProcess for Standby<'_> {
    fn accept(&mut self, _answer: Reserved) -> Result<(), Failure> {
        self.stage = Stage::Waiting;
        Ok(())
    }

    /// Waits until it is time, and for the end of the tree or of the link.
    fn prepare(&mut self) -> Result<(), Failure> {
        loop {
            let left = self.plan.due.saturating_duration_since(Instant::now());
            let left = PollTimeout::try_from(left + Duration::from_micros(999)).unwrap_or(PollTimeout::MAX);
            let mut ends = [
                PollFd::new(self.plan.root.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.plan.link.as_fd(), PollFlags::POLLIN),
            ];
            match poll(&mut ends, left) {
                Ok(0) => return Ok(()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(Failure::Local(errno.to_string())),
            }
            let [root, link] = ends.map(|end| end.any() == Some(true));
            if root {
                return Err(Failure::Local(ENDED.to_owned()));
            }
            if link {
                return Err(Failure::LinkLost(Channel::Control));
            }
        }
    }

    fn park(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    fn capture(&mut self) -> Result<Arc<Manifest>, Failure> {
        self.take().map(Arc::new)
    }

    fn commit(&mut self) {}

    /// If the answer is lost, the next epoch is built on the one before.
    fn reconnect(&mut self, _attempt: u32) -> Result<Channels, Failure> {
        Err(Failure::Peer("whether it is complete is not known".to_owned()))
    }

    fn read<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a> {
        let offset = epoch::number_of(pages) * PAGE_SIZE;
        let read = self.spool.as_ref().map(|spool| spool.read_exact_at(buffer, offset));
        match read {
            Some(Ok(())) => ReadRun { pages: pages.pages(), content: Some(buffer) },
            _ => ReadRun { pages: pages.pages(), content: None },
        }
    }

    fn scan(&mut self, _range: PageRange) -> Vec<PageRange> {
        Vec::new()
    }

    /// The tree runs already.
    fn release(&mut self) {}

    fn work(&mut self) -> bool {
        false
    }

    fn interests(&self) -> Vec<Interest> {
        Vec::new()
    }

    fn note(&mut self, _line: &'static str) {}
}

/// Why there will be no more epochs.
pub(crate) const ENDED: &str = "the tree has ended";

/// A file in `directory` that has no name.
fn spool(directory: &Path) -> std::io::Result<File> {
    let name: String = sys::random::sixteen_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect();
    let path = directory.join(format!("posthaste-{name}"));
    let file = std::os::unix::fs::OpenOptionsExt::mode(
        File::options().read(true).write(true).create_new(true),
        0o600,
    )
    .open(&path)?;
    std::fs::remove_file(&path)?;
    Ok(file)
}

fn writing(error: &std::io::Error) -> Failure {
    Failure::Local(format!("copying what has changed: {error}"))
}

fn byte_len(pages: u64) -> usize {
    usize::try_from(pages * PAGE_SIZE).unwrap_or(usize::MAX)
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
