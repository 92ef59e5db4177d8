//! The stages of rebuilding a process, as types: only an [`Assembled`] one can be resumed.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, OwnedFd};

use memory::PageRange;
use nix::libc;
use protocol::{Connections, FileVerdict, Header, Manifest};
use sys::Errno;
use sys::thread::LongSlices;
use sys::uffd::{self, Permission, Uffd};

use super::batch::Batch;
use super::blank::Begun;
use super::clocks::Offsets;
use super::contents::{self, Contents};
use super::descriptors::{self, Finish};
use super::early::Early;
use super::ghosts::Ghosts;
use super::mappings::{self, Mappings};
use super::objects::Shown;
use super::requirements::{self, Here};
use super::threads::{Ahead, Threads};
use super::vdso::Vdso;
use super::{
    BlankChild, Hole, RestoreError, Step, files, huge, locks, objects, process, room, segments, system_v,
    threads, timers,
};
use crate::guardian::{Guardian, Identity, Namespaces};
use crate::peer;
use crate::policy::{self, Policy};
use crate::relaying::Companion;

/// Numbers below this are left to the program for descriptors that it still opens; the control socket is
/// above.
const LOWEST_CONTROL_NUMBER: u32 = 900;
/// How many numbers above the program's highest the control socket keeps away.
const CONTROL_DISTANCE: u32 = 64;
/// Time slices of who stores pages that come ahead, in nanoseconds: several times what a kernel gives to all.
const SLICE_AHEAD_NS: u64 = 10_000_000;
/// Threads that the program may still start between the two manifests.
const SPARE_THREADS: u64 = 256;

/// A process under construction.
#[derive(Debug)]
pub struct Restorer<Stage> {
    child: BlankChild,
    here: Here,
    stage: Stage,
}

/// Everything that the running program needs can be had, and most of its mappings are there.
#[derive(Debug)]
pub struct Reserved {
    mappings: Mappings,
    uffd: Uffd,
    threads: Ahead,
    verdicts: Vec<(protocol::FileRecord, FileVerdict)>,
    memory: File,
    early: Early,
    /// Bytes were written ahead that do not hold.
    stale: Vec<PageRange>,
    connections: Connections,
    contents: Contents,
    companion: Option<Companion>,
    own_ipc: bool,
    own_terminals: bool,
    /// While pages come ahead, which is in no hurry: until [`Restorer::hurry`].
    slices: Option<LongSlices>,
}

/// The final image stands, but for its pages; the child makes all else meanwhile.
#[derive(Debug)]
pub struct Mapped {
    image: Image,
    under_way: UnderWay,
    uffd: Uffd,
}

/// What the child does while pages come, and what it needs for that.
#[derive(Debug)]
struct UnderWay {
    begun: Begun,
    _ghosts: Ghosts,
}

/// What is known of an image that stands.
#[derive(Debug)]
struct Image {
    manifest: Manifest,
    threads: Threads,
    finish: Finish,
    memory: File,
    shown: Shown,
    remade: Vec<PageRange>,
    contents: Contents,
    companion: Option<Companion>,
}

/// Every page that is to come is waited for.
#[derive(Debug)]
pub struct Registered(Image, UnderWay);

/// Descriptors and threads stand too, all threads wait: the process may run.
#[derive(Debug)]
pub struct Assembled(Image);

/// A process that runs.
#[derive(Debug)]
pub struct Running {
    /// Its id in the receiver's PID namespace.
    pub pid: u32,
    /// Becomes readable when it ends.
    pub pidfd: OwnedFd,
    /// Who watches over it.
    pub guardian: Guardian,
    /// Sockets whose addresses could not be had after all, by descriptor: they stay unbound.
    pub unbound: Vec<(u32, Errno)>,
    /// Files whose lock somebody else took, by descriptor.
    pub unlocked: Vec<(u32, Errno)>,
    /// Who relays the connections that stayed at the source.
    pub companion: Option<Companion>,
}

impl Restorer<Reserved> {
    /// Checks that everything `manifest` asks for can be had here, starts the blank child and maps ahead what
    /// the program has mapped. Nothing has stopped at the source yet.
    ///
    /// # Errors
    /// What cannot be had; the child is dead then.
    pub fn reserve(manifest: &Manifest, policy: &Policy) -> Result<(Self, protocol::Reserved), RestoreError> {
        let here = Here::look()?;
        here.check(manifest)?;
        files::check_names(manifest)?;
        if policy.pid == policy::Pid::Keep {
            if peer::is_restricted() {
                return Err(RestoreError::IdsNotKept);
            }
            requirements::check_ids_are_free(manifest)?;
        }
        room::check(manifest)?;
        let permission = Permission::ask()?;
        let highest_fd = manifest.descriptors.iter().map(|descriptor| descriptor.fd).max().unwrap_or(0);
        let control_number = highest_fd.saturating_add(CONTROL_DISTANCE).max(LOWEST_CONTROL_NUMBER);
        process::check_limits(&manifest.process, control_number)?;
        if manifest.process.working_ghost.is_none() {
            files::prove_directory(&manifest.process.working_directory)?;
        }
        files::open_executable(&files::record(manifest, manifest.process.executable)?.path)?;
        let mut verdicts = files::verdicts(manifest, here.boot_id);
        if policy.files == policy::Files::Ship {
            contents::want(manifest, &mut verdicts);
        }
        let contents = Contents::prepare(manifest, &verdicts)?;
        descriptors::prove(manifest, &verdicts, here.is_home_of(manifest))?;
        descriptors::check_addresses(manifest, here.is_home_of(manifest))?;
        locks::prove(manifest)?;
        let wanted = mappings::ahead(manifest, &verdicts)?;
        let hole = find_hole(manifest, &here)?;
        let vdso = Vdso::of(&manifest.host.vdso, here.vdso.as_ref())?;
        let clocks = Offsets::of(manifest, here.is_home_of(manifest));
        let shifted = clocks.to_write();
        let (own_ipc, own_terminals) = (needs_own_ipc(manifest), !manifest.terminals.is_empty());
        let (user, ipc, terminals) = (here.needs_user_namespace(), own_ipc, own_terminals);
        let namespaces = Namespaces { user, ipc, terminals, clocks: shifted.as_deref() };
        let identity = Identity::of(&manifest.process, policy.pid == policy::Pid::Keep);
        let mut child = BlankChild::start(identity, hole, control_number, namespaces)?;
        clocks.report(child.pid());
        segments::prove(&child, manifest)?;
        system_v::prove(&child, manifest)?;
        descriptors::prove_terminals(&child, manifest)?;
        let memory = open_memory(&child)?;
        vdso.map(&child, &memory, hole.range().end())?;
        let uffd = create_uffd(&child, &permission)?;
        mappings::make_first(&child, &wanted)?;
        let threads = Ahead::make(&mut child, &here, manifest)?;
        let (travel, same_kernel) = (policy.travel(), here.is_home_of(manifest));
        let early = if travel.ahead { Early::begin(&uffd, &wanted) } else { Early::default() };
        let (files, connections, other_vdso) = (verdicts.clone(), policy.connections(), vdso.is_other());
        let all_pages_first = matches!(permission, Permission::WithoutForks(_));
        let answer =
            protocol::Reserved { files, all_pages_first, same_kernel, other_vdso, connections, travel };
        let verdicts = manifest.files.iter().cloned().zip(verdicts).collect();
        let stage = Reserved {
            mappings: wanted,
            uffd,
            threads,
            verdicts,
            memory,
            early,
            stale: Vec::new(),
            connections,
            contents,
            companion: None,
            own_ipc,
            own_terminals,
            slices: travel.ahead.then(|| LongSlices::of(SLICE_AHEAD_NS)).flatten(),
        };
        Ok((Self { child, here, stage }, answer))
    }

    /// Writes pages of private memory while the program still runs at the source.
    ///
    /// # Errors
    /// [`RestoreError::Write`]; [`RestoreError::NoPlaceAhead`] for anything but private memory of the program.
    pub fn write_ahead(&mut self, at: PageRange, bytes: &[u8]) -> Result<(), RestoreError> {
        let Reserved { mappings, uffd, memory, early, .. } = &mut self.stage;
        if !mappings::is_private_memory(mappings, at) {
            return Err(RestoreError::NoPlaceAhead(at));
        }
        early.store(uffd, memory, at, bytes)
    }

    /// What was written to these pages does not hold: it is dropped before anything is registered.
    pub fn forget(&mut self, pages: Vec<PageRange>) {
        self.stage.stale = pages;
    }

    /// Takes content that comes ahead of the final manifest.
    ///
    /// # Errors
    /// It is not what was agreed on, or there is no room for it.
    pub fn content(&mut self, header: Header, body: &[u8]) -> Result<(), RestoreError> {
        let guardian = self.child.guardian();
        self.stage.contents.take(header, body, guardian)
    }

    /// Pages come ahead no more, or somebody is about to be born who has no time to lose.
    pub fn hurry(&mut self) {
        self.stage.slices = None;
    }

    /// Has the connections that stay at the source relayed by `companion`.
    pub fn relay_by(&mut self, companion: Companion) {
        self.stage.companion = Some(companion);
    }

    /// Whether [`Self::relay_by`] was called.
    #[must_use]
    pub const fn has_relay(&self) -> bool {
        self.stage.companion.is_some()
    }

    /// Builds the final image: mappings, of which every page that comes later is registered, and lets the child begin with all
    /// else: descriptors, threads, everything but pages and addresses of sockets.
    ///
    /// # Errors
    /// What did not work; the child is dead then.
    pub fn map(mut self, manifest: &Manifest) -> Result<Restorer<Mapped>, RestoreError> {
        self.check_final(manifest)?;
        self.stage.contents.check(manifest)?;
        self.stage.early.end(&self.stage.uffd)?;
        let wanted = mappings::last(manifest)?;
        let guardian = self.child.guardian();
        let ghosts = Ghosts::make(manifest, guardian)?;
        let objects = {
            let Reserved { contents, memory, .. } = &mut self.stage;
            objects::make(&self.child, memory, manifest, &ghosts, contents)?
        };
        segments::make(&self.child, manifest, &objects, &self.stage.memory)?;
        system_v::make(&self.child, manifest)?;
        let (have, kept) = (&self.stage.mappings, &manifest.kept);
        let remade = mappings::change_around(&self.child, have, &wanted, &objects, kept)?;
        segments::mark(&self.child, manifest)?;
        mappings::forget(&self.child, &wanted, &self.stage.stale)?;
        mappings::guard(&self.child, &manifest.guards)?;
        objects::seal(manifest, &objects)?;
        let ahead = std::mem::take(&mut self.stage.threads);
        let threads = threads::place(&mut self.child, manifest, ahead, self.here.changes(manifest)?)?;
        // Before `/proc` shows the program's arguments and environment: whoever reads them there, as ps(1) does, would
        // put a zero page where a page is still to come.
        for range in &manifest.lazy {
            self.stage.uffd.register(*range)?;
        }
        mappings::prove_missing(&self.child, &manifest.lazy, &manifest.kept)?;
        let mut batch = Batch::new(&self.child);
        process::set(&mut batch, manifest, &ghosts)?;
        let same_kernel = self.here.is_home_of(manifest);
        let finish = {
            let companion = self.stage.companion.as_ref();
            descriptors::make(&mut batch, manifest, &objects, &ghosts, same_kernel, companion)?
        };
        process::set_settings(batch.unit()?, &manifest.process);
        // Behind the descriptors: a thread that is the program's user already would let that user into this memory, and
        // what becomes of one thread decides how all may be looked at.
        process::set_limits(batch.unit()?, &manifest.process, &process::LIMITS_OF_PRIORITIES)?;
        threads.begin(&mut batch)?;
        threads.await_born(&mut batch)?;
        threads::raise_pending(&mut batch, manifest)?;
        timers::make(&mut batch, manifest)?;
        let program = batch.unit()?;
        threads::become_main(program, manifest)?;
        process::set_limits(program, &manifest.process, &process::OTHER_LIMITS)?;
        let under_way = UnderWay { begun: batch.begin()?, _ghosts: ghosts };
        let shown = Shown::of(manifest, objects);
        let Reserved { uffd, memory, contents, companion, .. } = self.stage;
        let image =
            Image { manifest: manifest.clone(), threads, finish, memory, shown, remade, contents, companion };
        let stage = Mapped { image, under_way, uffd };
        Ok(Restorer { child: self.child, here: self.here, stage })
    }

    /// What the program has changed since it was reserved must still be possible.
    fn check_final(&self, manifest: &Manifest) -> Result<(), RestoreError> {
        self.here.check(manifest)?;
        files::check_names(manifest)?;
        if needs_own_ipc(manifest) && !self.stage.own_ipc {
            return Err(RestoreError::SegmentMeanwhile);
        }
        if !manifest.terminals.is_empty() && !self.stage.own_terminals {
            return Err(RestoreError::TerminalMeanwhile);
        }
        if !self.stage.threads.is_empty() && !self.here.leaves_threads_alone(manifest) {
            return Err(RestoreError::CapabilitiesMeanwhile);
        }
        let identity = self.child.identity();
        if Identity::of(&manifest.process, identity.outside_too) != identity {
            return Err(RestoreError::SessionChanged);
        }
        let hole = self.child.layout().hole().range();
        let occupied = manifest.vmas.iter().map(|vma| vma.range);
        if let Some(taken) = occupied.into_iter().find(|range| range.intersection(hole).is_some()) {
            return Err(RestoreError::HoleTaken(taken));
        }
        if self.stage.connections == Connections::Reset
            || self.stage.connections == Connections::Relay && self.stage.companion.is_none()
        {
            descriptors::refuse_connections(manifest)?;
        }
        let number = self.child.control_number();
        if manifest.descriptors.iter().any(|descriptor| descriptor.fd == number) {
            return Err(RestoreError::NumberTaken(number));
        }
        mappings::check_files(manifest, &|record| {
            let known = self.stage.verdicts.iter().find(|(known, _)| known == record);
            known.map_or_else(
                || files::verdict(record, self.here.is_home_of(manifest)),
                |(_, verdict)| *verdict,
            )
        })
    }
}

impl Restorer<Mapped> {
    /// Hands out the userfaultfd, with which every page that comes later is registered; the guardian has a duplicate.
    ///
    /// # Errors
    /// What did not work; the child is dead then.
    pub fn register(self) -> Result<(Restorer<Registered>, Uffd), RestoreError> {
        let Mapped { image, under_way, uffd } = self.stage;
        let mut child = self.child;
        child.guardian().hold(uffd.as_fd()).map_err(super::ChildError::from)?;
        Ok((Restorer { child, here: self.here, stage: Registered(image, under_way) }, uffd))
    }
}

impl Restorer<Registered> {
    /// Writes pages that are not registered, whatever their protection.
    ///
    /// # Errors
    /// [`RestoreError::Write`]: `EIO` for pages that are registered and missing.
    pub fn write(&self, at: PageRange, bytes: &[u8]) -> Result<(), RestoreError> {
        let Image { shown, memory, .. } = &self.stage.0;
        let written = shown.write(memory, at, bytes);
        written.map_err(|source| RestoreError::Write { range: at, source })
    }

    /// Pages that were written ahead, hold, and are not in place any more.
    #[must_use]
    pub fn remade(&self) -> Vec<PageRange> {
        self.stage.0.remade.clone()
    }

    /// Whether any page of `range` is registered, so that it is to be filled by the userfaultfd.
    #[must_use]
    pub fn is_registered(&self, range: PageRange) -> bool {
        self.stage.0.manifest.lazy.iter().any(|lazy| lazy.intersection(range).is_some())
    }

    /// Waits until the child has made descriptors and threads.
    ///
    /// # Errors
    /// What did not work; the child is dead then.
    pub fn assemble(self) -> Result<Restorer<Assembled>, RestoreError> {
        let Registered(image, under_way) = self.stage;
        self.child.end(&under_way.begun)?;
        Ok(Restorer { child: self.child, here: self.here, stage: Assembled(image) })
    }
}

impl Restorer<Assembled> {
    /// Binds sockets, then lets every thread go. **From here on the process runs.** The caller must have the
    /// source's word that it does not, and must serve the userfaultfd.
    ///
    /// # Errors
    /// What did not work: no thread has run then, and the child is dead.
    pub fn resume(mut self) -> Result<Running, RestoreError> {
        let Image { manifest, threads, finish, memory, shown, mut contents, companion, .. } = self.stage.0;
        drop((memory, shown));
        let unbound = descriptors::finish(&self.child, &finish)?;
        finish.let_connections_go(&manifest);
        drop(finish);
        huge::protect(&self.child, &manifest)?;
        let unlocked = locks::take_all(&self.child, &manifest)?;
        let _ = self.child.guardian().keep();
        if let Err(error) = threads.let_go(&self.child, &manifest) {
            // Not by the guardian, which may stand still itself: whoever is killed runs no instruction more, and only
            // then may the source be told that nothing runs here.
            let _ = sys::pidfd::kill(self.child.pidfd());
            return Err(error);
        }
        contents.keep();
        let pid = self.child.pid();
        let (guardian, pidfd) = self.child.into_guardian();
        if let Some(Err(error)) = companion.as_ref().map(Companion::go) {
            tracing::warn!(%error, "nobody relays the connections that stayed at the source");
        }
        Ok(Running { pid, pidfd, guardian, unbound, unlocked, companion })
    }
}

impl Restorer<Assembled> {
    /// The running process, in a copy of the process that has let it go and died: whatever that has closed meanwhile
    /// is not touched.
    #[must_use]
    pub fn succeed(mut self) -> Running {
        let pid = self.child.pid();
        let companion = self.stage.0.companion.take();
        std::mem::forget(self.stage);
        let (guardian, pidfd) = self.child.succeed();
        Running { pid, pidfd, guardian, unbound: Vec::new(), unlocked: Vec::new(), companion }
    }
}

impl Restorer<Reserved> {
    /// As [`Restorer::succeed`], in a copy from before the final image was built; and the userfaultfd.
    #[must_use]
    pub fn inherit(self) -> (Running, Uffd) {
        let Self { child, here: _, stage } = self;
        let pid = child.pid();
        let Reserved { uffd, mappings, threads, memory, early, contents, companion, .. } = stage;
        std::mem::forget((mappings, threads, memory, early, contents, companion));
        let (guardian, pidfd) = child.succeed();
        (Running { pid, pidfd, guardian, unbound: Vec::new(), unlocked: Vec::new(), companion: None }, uffd)
    }
}

impl<Stage> Restorer<Stage> {
    /// The guardian, whose events tell if the child ends early.
    pub const fn guardian(&mut self) -> &mut Guardian {
        self.child.guardian()
    }

    /// The child's id in the receiver's PID namespace.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.child.pid()
    }

    /// Whether the source runs on this machine, under this kernel.
    #[must_use]
    pub fn is_home_of(&self, manifest: &Manifest) -> bool {
        self.here.is_home_of(manifest)
    }
}

/// Whether the program holds what has ids of an IPC namespace.
fn needs_own_ipc(manifest: &Manifest) -> bool {
    segments::has_any(manifest) || !manifest.system_v.is_empty()
}

fn find_hole(manifest: &Manifest, here: &Here) -> Result<Hole, RestoreError> {
    let mut occupied = here.occupied.clone();
    occupied.extend(manifest.vmas.iter().map(|vma| vma.range));
    occupied.push(manifest.host.vdso.range);
    let threads = manifest.threads.len() as u64;
    Hole::find(&occupied, 2 * threads + SPARE_THREADS + threads / 4).ok_or(RestoreError::NoHole)
}

/// Makes a userfaultfd in the child, so that it acts on the child's memory, and takes it away.
fn create_uffd(child: &BlankChild, permission: &Permission) -> Result<Uffd, RestoreError> {
    const UFFD_API: u64 = 0xaa;
    const UFFDIO_API: u64 = 0xc018_aa3f;
    let mut program = child.program();
    program.step(Step::CreateUffd);
    let flags = u64::from(uffd::FLAGS);
    let (made, device) = match permission {
        Permission::Full | Permission::WithoutForks(None) => {
            (program.call(libc::SYS_userfaultfd, [flags]), None)
        }
        Permission::WithoutForks(Some(device)) => {
            let at = program.receive(child.control_number(), true);
            let request = [0, u64::from(uffd::USERFAULTFD_IOC_NEW), flags];
            let made = program.call_with(libc::SYS_ioctl, request, &[(0, at)]);
            program.call_with(libc::SYS_close, [0], &[(0, at)]);
            (made, Some(device.as_fd()))
        }
    };
    let number = program.result(made);
    let api = program.words(&[UFFD_API, permission.features(), 0]);
    program.call_with(libc::SYS_ioctl, [0, UFFDIO_API, api.0], &[(0, number)]);
    let results = child.run(program, device.as_slice())?;
    let refused = |errno| super::ChildError::Refused { step: Step::CreateUffd, errno };
    let number = results.of(made).map_err(refused)?;
    let number = u32::try_from(number).map_err(|_| refused(Errno::EBADF))?;
    let uffd = sys::birth::fetch_descriptor(child.pidfd(), number).map_err(refused)?;
    let mut program = child.program();
    program.step(Step::CreateUffd).close(number);
    child.run(program, &[])?;
    Ok(Uffd::from(uffd))
}

/// The child's memory, whatever its protection.
fn open_memory(child: &BlankChild) -> Result<File, RestoreError> {
    let opened = OpenOptions::new().read(true).write(true).open(format!("/proc/{}/mem", child.pid()));
    opened.map_err(|source| RestoreError::Host { what: "the new process's memory", source })
}
