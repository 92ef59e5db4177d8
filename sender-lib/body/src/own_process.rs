//! The process that the parasite lives in, as the page server wants it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem::take;
use core::sync::atomic::AtomicU32;

use capture::refusal::Note;
use capture::{Captured, Content, Leftover, Look, Surroundings, Verdicts};
use engine::Failure;
use memory::{Addr, Backing, PageRange, PageSet, RangeSet, Sharing};
use page_server::{Channels, ReadRun, SourceProcess, Sweep};
use protocol::{
    Connections, DescriptionKind, FileVerdict, Header, Manifest, Piece, Reserved, SignalAction, ThreadRecord,
    text,
};
use sys::clock;
use sys::descriptor::{self, tcp};
use sys::poll::Interest;

use crate::ahead::Ahead;
use crate::config::{FRESH_NS, LONG_KEPT, MAX_KEPT};
use crate::connect::Route;
use crate::ffi::resident;
use crate::log::log;
use crate::own_memory::OwnMemory;
use crate::quiesce::{Clocks, Parked};
use crate::staying::Staying;
use crate::{arena, commit, dumpable, ffi, quiesce};

/// See the module.
pub(crate) struct OwnProcess {
    memory: OwnMemory,
    /// What goes ahead of the switchover, if anything does.
    ahead: Option<Ahead>,
    route: Route,
    /// What it was while it ran.
    running: Arc<Manifest>,
    verdicts: Vec<FileVerdict>,
    /// Nothing may come after the switchover.
    all_pages_first: bool,
    /// The destination runs under this kernel.
    same_kernel: bool,
    /// What the destination does with connections.
    connections: Connections,
    /// Its mappings when they were looked at again, unless that is quick. What goes ahead has its place in those of
    /// `running`, which the destination has made.
    look: Option<Look>,
    /// When that was over, in nanoseconds.
    looked_at: u64,
    /// What is lost with the move, unless the destination takes it.
    notes: Vec<Note>,
    /// What travels ahead of the manifest.
    contents: Vec<Content>,
    /// Of the processors, for [`quiesce::park`].
    clocks: Clocks,
    parked: Parked,
    /// Numbers of bound sockets, whose addresses the destination needs.
    bound: Vec<u32>,
    /// What the kernel says of System V segments.
    segments: Vec<Vec<u8>>,
    /// System V semaphores and message queues.
    system_v: Vec<Leftover>,
    /// Numbers of locked files, whose locks the destination needs.
    locked: Vec<u32>,
    /// Connections that stay here.
    staying: Staying,
    /// What it is while it stands still, if something was taken out of its terminals.
    stopped: Option<Arc<Manifest>>,
}

impl OwnProcess {
    /// The process as it runs, and what it looks like.
    ///
    /// # Errors
    /// Why it cannot be moved, in words for the user.
    pub(crate) fn look(route: Route) -> Result<Self, String> {
        let mut memory = OwnMemory::open().map_err(|errno| text!["reading the own memory: ", errno])?;
        let captured = capture(&mut memory, None, None, false)?;
        Ok(Self {
            memory,
            ahead: None,
            route,
            running: Arc::new(captured.manifest),
            verdicts: Vec::new(),
            all_pages_first: false,
            same_kernel: false,
            connections: Connections::Reset,
            look: None,
            looked_at: 0,
            notes: captured.notes,
            contents: Vec::new(),
            clocks: Clocks::default(),
            parked: Parked::default(),
            bound: Vec::new(),
            segments: Vec::new(),
            system_v: Vec::new(),
            locked: Vec::new(),
            staying: Staying::default(),
            stopped: None,
        })
    }

    /// Opens the channels to the receiver.
    ///
    /// # Errors
    /// Why not, in words for the user.
    pub(crate) fn connect(&self) -> Result<Channels, String> {
        self.route.open().map_err(|failure| self.route.words(failure))
    }

    /// Whether the destination takes what would be lost.
    fn takes(&self, note: Note) -> bool {
        match note {
            Note::Connection(_) => self.connections != Connections::Reset,
            Note::HalfConnection(_) => self.connections == Connections::Relay,
            _ => false,
        }
    }

    /// Stays until no connection needs this process any more.
    pub(crate) fn stay(&mut self) {
        if let Some(state) = resident().state.page().filter(|_| self.staying.has_to_stay()) {
            self.memory.let_go(state);
        }
        self.close_bound();
        self.staying.stay();
    }

    /// Gives up the addresses of bound sockets.
    fn close_bound(&mut self) {
        for fd in self.bound.drain(..) {
            ffi::close(fd.cast_signed());
        }
    }

    /// What it was while it ran.
    pub(crate) fn running(&self) -> Arc<Manifest> {
        Arc::clone(&self.running)
    }

    /// Looks at what may change while it runs.
    fn look_again(&mut self) -> Result<(), Failure> {
        let own = arena::range();
        self.look = capture::look_again(self.memory.pagemap(), own.as_slice(), &self.running)
            .map_err(|refusal| Failure::Local(refusal.in_words()))?;
        self.looked_at = clock::monotonic_ns();
        Ok(())
    }

    /// Adds what is in place already.
    fn add_kept(&mut self, manifest: &mut Manifest) {
        let Some(ahead) = &self.ahead else { return };
        let mut kept = ahead.kept(self.memory.pagemap(), manifest);
        for eager in &manifest.eager {
            kept.remove(*eager);
        }
        manifest.kept = kept.runs().collect();
        manifest.kept.truncate(MAX_KEPT);
    }

    /// Adds what has to be in place before the process runs: of every page, if nothing may come later; else the pages
    /// of shared objects. An object stays what it is when the program drops, moves or doubles a mapping of it, and the
    /// kernel reports `MADV_DONTNEED`, which leaves the object alone, and `MADV_REMOVE`, which does not, as the same
    /// event: so a page of an object must be in it before either happens.
    fn add_eager(&mut self, manifest: &mut Manifest) {
        let mut lazy: RangeSet = manifest.lazy.iter().copied().collect();
        for kept in &manifest.kept {
            // To look at what is in place already costs time for every page.
            if kept.pages() >= LONG_KEPT {
                lazy.remove(*kept);
            }
        }
        let mut eager: RangeSet = manifest.eager.iter().copied().collect();
        for vma in &manifest.vmas {
            let is_object = vma.sharing == Sharing::Shared && matches!(vma.backing, Backing::Object { .. });
            if !is_object && !self.all_pages_first {
                continue;
            }
            for range in lazy.runs_in(vma.range) {
                for data in self.memory.scan(range) {
                    eager.insert(data);
                }
            }
        }
        for kept in &manifest.kept {
            eager.remove(*kept);
        }
        manifest.eager = eager.runs().collect();
        if self.all_pages_first {
            manifest.lazy.clear();
        }
    }
}

impl SourceProcess for OwnProcess {
    fn accept(&mut self, answer: Reserved) -> Result<(), Failure> {
        self.verdicts = answer.files;
        self.all_pages_first = answer.all_pages_first || answer.travel.none_after;
        self.same_kernel = answer.same_kernel;
        self.connections = answer.connections;
        if let Some(header) = ffi::header().filter(|_| answer.other_vdso) {
            header.forbid(self.running.host.vdso.range);
        }
        let mut taken = 0;
        for note in &self.notes {
            if self.takes(*note) {
                taken += 1;
            } else {
                log!(note);
            }
        }
        if answer.all_pages_first {
            log!("the receiver may not follow forks: the program stands still until all its memory is there");
        }
        capture::accept(&self.running, &self.verdicts)
            .map_err(|refusal| Failure::Local(refusal.in_words()))?;
        if answer.travel.ahead {
            match Ahead::begin(&self.running) {
                Ok(ahead) => {
                    if let Some(header) = ffi::header() {
                        header.remember(ahead.descriptor().cast_signed());
                    }
                    self.ahead = Some(ahead);
                }
                Err(errno) => log!("no page can go ahead: watching what the program writes: ", errno),
            }
        }
        match self.connections {
            // Others may be opened until the stop.
            Connections::Relay => self.staying.open(&self.route, taken),
            Connections::Move if taken > 0 && !tcp::may_freeze() => Err(Failure::Local(String::from(
                "connections move only with CAP_NET_ADMIN: run the program as root, or the receiver with --tcp reset",
            ))),
            Connections::Move | Connections::Reset => Ok(()),
        }
    }

    fn sweep(&mut self) -> Sweep {
        self.ahead.as_mut().map(|ahead| ahead.sweep(self.memory.pagemap())).unwrap_or_default()
    }

    fn sent_ahead(&mut self, sent: PageSet) {
        if let Some(ahead) = &mut self.ahead {
            ahead.set_sent(sent);
        }
    }

    fn await_reservation(&mut self) -> Result<(), Failure> {
        self.look_again()
    }

    fn prepare(&mut self) -> Result<(), Failure> {
        if clock::monotonic_ns() - self.looked_at > FRESH_NS {
            self.look_again()?;
        }
        self.clocks = quiesce::prepare();
        Ok(())
    }

    fn park(&mut self) -> Result<(), Failure> {
        self.parked = quiesce::park(take(&mut self.clocks)).map_err(Failure::Local)?;
        Ok(())
    }

    fn capture(&mut self) -> Result<Arc<Manifest>, Failure> {
        let Parked { threads, pending } = take(&mut self.parked);
        let verdicts =
            Verdicts { files: &self.verdicts, same_kernel: self.same_kernel, look: self.look.as_ref() };
        let stopped = Some((threads, &*self.running, verdicts));
        let frozen = match self.connections {
            Connections::Reset | Connections::Relay => None,
            Connections::Move => ffi::header().map(|header| header.frozen.as_slice()),
        };
        let relays = self.staying.relays();
        let captured = capture(&mut self.memory, stopped, frozen, relays).map_err(Failure::Local)?;
        let Captured { mut manifest, contents, .. } = *captured;
        self.contents = contents;
        manifest.process.pending = pending;
        self.memory.set_mappings(&manifest.vmas);
        self.add_kept(&mut manifest);
        self.add_eager(&mut manifest);
        self.bound = bound_sockets(&manifest);
        self.staying.take(&manifest, &self.bound)?;
        self.segments = manifest.objects.iter().map(|object| object.segment.clone()).collect();
        self.system_v = capture::leftovers(&manifest.system_v);
        self.locked = manifest.locks.iter().map(|lock| lock.fd).collect();
        let taken = capture::take_out_terminals(&mut manifest);
        let manifest = Arc::new(manifest);
        if !manifest.terminals.is_empty() {
            self.stopped = Some(Arc::clone(&manifest));
        }
        taken.map_err(|refusal| Failure::Local(refusal.in_words()))?;
        Ok(manifest)
    }

    fn send_content(
        &mut self,
        buffer: &mut [u8],
        send: &mut dyn FnMut(Header, &[u8]) -> bool,
    ) -> Result<(), Failure> {
        capture::send_contents(&self.contents, buffer, send)
            .map_err(|refusal| Failure::Local(refusal.in_words()))
    }

    fn read<'a>(&'a mut self, pages: PageRange, buffer: &'a mut [u8]) -> ReadRun<'a> {
        self.memory.read(pages, buffer)
    }

    fn scan(&mut self, range: PageRange) -> Vec<PageRange> {
        self.memory.scan(range)
    }

    fn release(&mut self) {
        self.memory.set_mappings(&[]);
        commit::take_back();
        self.staying.release();
        if let Some(stopped) = self.stopped.take() {
            capture::give_back_terminals(&stopped);
        }
        // Asked again by `migration::run`, which has to know the answer.
        let _ = quiesce::release();
    }

    fn commit(&mut self) {
        commit::never_run_here_again();
        // On another machine they are in nobody's way, and a process that is given back has them still.
        if self.same_kernel {
            self.close_bound();
        }
        for fd in self.locked.drain(..) {
            descriptor::unlock(fd);
        }
        self.staying.begin();
    }

    fn obstacle(&mut self) -> Option<Failure> {
        let reason = "the way over which its TCP connections were to be relayed is cut";
        self.staying.is_cut_off().then(|| Failure::Local(String::from(reason)))
    }

    fn work(&mut self) -> bool {
        self.staying.work()
    }

    fn interests(&self) -> Vec<Interest> {
        self.staying.interests()
    }

    fn confirmed(&mut self) {
        self.staying.keep();
        self.close_bound();
        self.segments.iter().for_each(|segment| capture::remove_segment(segment));
        self.system_v.iter().for_each(|left| left.remove());
    }

    fn reconnect(&mut self, attempt: u32) -> Result<Channels, Failure> {
        self.route.open_again(attempt)
    }

    fn note(&mut self, _line: &'static str) {}
}

/// Captures the running process, or the `stopped` one of which the threads, the earlier manifest and the verdicts on it
/// are known. Leaves out all that is the parasite's and takes back what it changed.
fn capture(
    memory: &mut OwnMemory,
    stopped: Option<(Vec<ThreadRecord>, &Manifest, Verdicts<'_>)>,
    frozen: Option<&[AtomicU32]>,
    relays: bool,
) -> Result<Box<Captured>, String> {
    let arena = arena::range();
    let mut descriptors = memory.descriptors().to_vec();
    descriptors.extend(ffi::header().into_iter().flat_map(arena::Header::remembered));
    let around = Surroundings {
        ranges: arena.as_slice(),
        room: arena.map_or(0, PageRange::len),
        descriptors: &descriptors,
        state: resident().state.page().ok_or("the state page is beyond user space")?,
        leaving_gate: Addr(resident().leaving_gate),
        frozen,
        relays,
        park_action: quiesce::host_park_action().map(|action| SignalAction {
            handler: action.handler,
            flags: action.flags,
            restorer: action.restorer,
            mask: action.mask,
        }),
    };
    let captured = match stopped {
        None => capture::running(memory.pagemap(), &around),
        Some((parked, before, verdicts)) => {
            capture::stopped(memory.pagemap(), &around, parked, before, verdicts)
        }
    };
    let mut captured = captured.map_err(|refusal| refusal.in_words())?;
    if dumpable::is_open() {
        captured.manifest.process.dumpable = 0;
    }
    Ok(captured)
}

/// Numbers of the descriptors that keep an address for themselves.
fn bound_sockets(manifest: &Manifest) -> Vec<u32> {
    let keeps_address = |index: u32| {
        let description = usize::try_from(index).ok().and_then(|index| manifest.descriptions.get(index));
        description.is_some_and(|description| {
            matches!(&description.kind, DescriptionKind::Socket(socket)
                if !socket.address.is_empty() && socket.connection.is_empty())
        })
    };
    let holders = manifest.descriptors.iter().filter(|descriptor| keeps_address(descriptor.description));
    holders.map(|descriptor| descriptor.fd).collect()
}
