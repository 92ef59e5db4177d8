//! The descriptor table: which numbers there are, which of them share an open file description, and what each
//! description is.
//!
//! Streams of the outside are an exception to sharing: a shell gives a program one description of the terminal
//! under all three numbers, but the receiver's three streams may lead to three places.

use alloc::vec::Vec;
use core::sync::atomic::AtomicU32;

use protocol::{
    Description, DescriptionKind, Descriptor, LockRecord, PipeRecord, StreamKind, TerminalRecord,
};
use sys::descriptor::{self, Sameness};
use sys::status::{self, FileStatus, FileType};
use sys::{Errno, thread};

use crate::refusal::{DescriptorTrait, Doing, Note, ProcessTrait, Refusal};
use crate::tables::{Files, Ghosts, Objects};
use crate::{Surroundings, classify, connections, pipes, sockets, terminals};

/// Bytes of content that descriptors may bring into the manifest.
pub(crate) const CONTENT_LIMIT: usize = 8 << 20;

/// One open number, as the kernel describes it.
pub(crate) struct Facts {
    pub(crate) fd: u32,
    /// By which number the kernel is asked: of another process's descriptor, that of a duplicate here.
    pub(crate) at: u32,
    pub(crate) close_on_exec: bool,
    pub(crate) flags: u32,
    pub(crate) link: Vec<u8>,
    pub(crate) status: FileStatus,
}

impl Facts {
    /// Whether both are open on the same inode.
    pub(crate) fn is_same_inode(&self, other: &Self) -> bool {
        (self.status.device, self.status.inode) == (other.status.device, other.status.inode)
    }

    /// Refuses this descriptor.
    pub(crate) fn refuse(&self, what: DescriptorTrait) -> Refusal {
        Refusal::descriptor(self.fd, what)
    }

    /// Whether the description can be written.
    pub(crate) const fn is_writable(&self) -> bool {
        matches!(self.flags & descriptor::ACCESS_MODE, descriptor::WRITE_ONLY | descriptor::READ_WRITE)
    }

    /// Whether the description can be read.
    pub(crate) const fn is_readable(&self) -> bool {
        self.flags & descriptor::ACCESS_MODE != descriptor::WRITE_ONLY
    }
}

/// What the descriptors put into the manifest.
#[derive(Default)]
pub(crate) struct Table {
    pub(crate) descriptors: Vec<Descriptor>,
    pub(crate) descriptions: Vec<Description>,
    pub(crate) pipes: Vec<PipeRecord>,
    pub(crate) terminals: Vec<TerminalRecord>,
    pub(crate) locks: Vec<LockRecord>,
}

/// What classifying a descriptor needs and adds to.
pub(crate) struct Context<'a> {
    pub(crate) files: &'a mut Files,
    pub(crate) objects: &'a mut Objects,
    pub(crate) ghosts: &'a mut Ghosts,
    pub(crate) locks: Vec<LockRecord>,
    pub(crate) all: &'a [Facts],
    pub(crate) pipes: pipes::Pipes,
    pub(crate) terminals: terminals::Terminals,
    pub(crate) queues: sockets::Queues,
    pub(crate) notes: Vec<Note>,
    /// Whose descriptors they are.
    pub(crate) pid: u32,
    /// Whether content is copied; while the process runs it is only counted.
    pub(crate) is_stopped: bool,
    /// How many of `all` have a number of their own; the others are in flight.
    in_table: usize,
    frozen: Option<&'a [AtomicU32]>,
    relays: bool,
    content_left: usize,
}

impl<'a> Context<'a> {
    /// Of a running process, with the tables that its descriptors are to go into.
    pub(crate) fn new(
        all: &'a [Facts],
        pid: u32,
        (files, objects, ghosts): (&'a mut Files, &'a mut Objects, &'a mut Ghosts),
    ) -> Self {
        Self {
            files,
            objects,
            ghosts,
            locks: Vec::new(),
            all,
            pipes: pipes::Pipes::default(),
            terminals: terminals::Terminals::default(),
            queues: sockets::Queues::default(),
            notes: Vec::new(),
            pid,
            is_stopped: false,
            in_table: all.len(),
            frozen: None,
            relays: false,
            content_left: CONTENT_LIMIT,
        }
    }

    /// Takes `bytes` from what the manifest may hold.
    pub(crate) fn take(&mut self, bytes: usize) -> Result<(), Refusal> {
        let left = self.content_left.checked_sub(bytes).ok_or(ProcessTrait::TooMuchContent)?;
        self.content_left = left;
        Ok(())
    }

    /// Whether a descriptor has a number of its own, and is not in flight.
    pub(crate) fn is_in_table(&self, facts: &Facts) -> bool {
        self.all.iter().take(self.in_table).any(|known| known.fd == facts.fd)
    }

    /// Where to note connection `facts` when it is frozen, if it moves. One that is in flight does not.
    pub(crate) fn marks(&self, facts: &Facts) -> Option<&'_ [AtomicU32]> {
        self.frozen.filter(|_| self.is_in_table(facts))
    }

    /// Whether connection `facts` is relayed. One that is in flight is not.
    pub(crate) fn relays(&self, facts: &Facts) -> bool {
        self.relays && self.is_in_table(facts)
    }

    /// Bytes that the manifest may still hold.
    pub(crate) const fn content_left(&self) -> usize {
        self.content_left
    }
}

/// The descriptor table without the parasite's, and what is lost with it.
pub(crate) fn collect(
    around: &Surroundings<'_>,
    files: &mut Files,
    objects: &mut Objects,
    ghosts: &mut Ghosts,
    is_stopped: bool,
) -> Result<(Table, Vec<Note>), Refusal> {
    let mut all = facts(around.descriptors)?;
    let in_table = all.len();
    // While the program runs nobody may touch its queues, and nobody need.
    let queues = if is_stopped { sockets::look_into(&mut all)? } else { sockets::Queues::default() };
    let mut context = Context {
        queues,
        is_stopped,
        in_table,
        frozen: around.frozen,
        relays: around.relays,
        ..Context::new(&all, thread::process_id(), (files, objects, ghosts))
    };
    let mut table = Table::default();
    for (index, facts) in all.iter().enumerate() {
        let earlier = all.get(..index).unwrap_or_default();
        let description = match describe(facts, earlier, &mut table, &mut context) {
            Ok(description) => description,
            // The running program has closed it since; when it stands still there is another look.
            Err(refusal) if !is_stopped && (refusal.is_of_proc() || has_changed(facts)) => continue,
            Err(refusal) => return Err(refusal),
        };
        table.descriptors.push(Descriptor { fd: facts.fd, close_on_exec: facts.close_on_exec, description });
    }
    if let Some(marks) = around.frozen {
        connections::record(marks, &mut table, &mut context)?;
    }
    name_descriptors_in_flight(&mut table);
    table.descriptors.truncate(in_table);
    table.pipes = context.pipes.into_records();
    table.terminals = context.terminals.into_records();
    table.locks = context.locks;
    Ok((table, context.notes))
}

/// Turns the numbers that descriptors in flight have meanwhile into those of their descriptions.
fn name_descriptors_in_flight(table: &mut Table) {
    let Table { descriptors, descriptions, .. } = table;
    for description in descriptions {
        let DescriptionKind::Socket(socket) = &mut description.kind else { continue };
        for number in socket.messages.iter_mut().flat_map(|message| &mut message.descriptions) {
            let found = descriptors.iter().find(|known| known.fd == *number);
            *number = found.map_or(u32::MAX, |found| found.description);
        }
    }
}

/// The index of the description of `facts`, which is a new one unless an `earlier` descriptor shares it.
pub(crate) fn describe(
    facts: &Facts,
    earlier: &[Facts],
    table: &mut Table,
    context: &mut Context<'_>,
) -> Result<u32, Refusal> {
    let known = shared_with(facts, earlier, context)?.and_then(|twin| description_of(table, twin));
    if let Some(known) = known {
        return Ok(known);
    }
    let kind = classify::kind(facts, context)?;
    let is_told = matches!(
        kind,
        DescriptionKind::File { .. } | DescriptionKind::Object { .. } | DescriptionKind::Anonymous { .. }
    );
    let info = if is_told { descriptor::info(facts.at) } else { Ok(Vec::new()) };
    let info = info.map_err(Refusal::kernel(Doing::Descriptors))?;
    let (flags, inode, mode) = (facts.flags, facts.status.inode, facts.status.mode);
    table.descriptions.push(Description { flags, inode, mode, info, kind });
    Ok(u32::try_from(table.descriptions.len() - 1).unwrap_or(u32::MAX))
}

/// Whether the number is closed, or open on something else.
pub(crate) fn has_changed(facts: &Facts) -> bool {
    look(facts.fd, facts.at).map_or(true, |found| !found.is_same_inode(facts))
}

fn facts(own: &[u32]) -> Result<Vec<Facts>, Refusal> {
    let failed = Refusal::kernel(Doing::Descriptors);
    let numbers = descriptor::numbers().map_err(&failed)?;
    let mut all = Vec::with_capacity(numbers.len());
    for fd in numbers.into_iter().filter(|fd| !own.contains(fd)) {
        match look(fd, fd) {
            Ok(facts) => all.push(facts),
            // The running program has closed it since.
            Err(Errno::EBADF | Errno::ENOENT) => {}
            Err(errno) => return Err(failed(errno)),
        }
    }
    Ok(all)
}

/// Descriptor `fd`, of which the kernel is asked by the number `at`.
pub(crate) fn look(fd: u32, at: u32) -> Result<Facts, Errno> {
    Ok(Facts {
        fd,
        at,
        close_on_exec: descriptor::close_on_exec(at)?,
        flags: descriptor::status_flags(at)?,
        link: descriptor::link(at)?,
        status: status::of_number(at)?,
    })
}

/// The earlier number that shares `facts`' description, if one does; only equal inodes and flags are compared.
/// Terminals share only above the standard numbers, best with standard output.
fn shared_with(facts: &Facts, earlier: &[Facts], context: &Context<'_>) -> Result<Option<u32>, Refusal> {
    let is_terminal = classify::is_terminal(facts) && terminals::master_of(facts, context).is_none();
    if is_terminal && facts.fd <= 2 {
        return Ok(None);
    }
    let mut best = None;
    for other in earlier {
        if !facts.is_same_inode(other) || facts.flags != other.flags {
            continue;
        }
        match descriptor::sameness(facts.at, other.at) {
            Sameness::Different => {}
            Sameness::Unknown if facts.status.file_type == FileType::Character => {}
            Sameness::Unknown => return Err(facts.refuse(DescriptorTrait::SharingUnknown(other.fd))),
            Sameness::Same if !is_terminal || other.fd == 1 => return Ok(Some(other.fd)),
            Sameness::Same => best = Some(other.fd),
        }
    }
    Ok(best)
}

pub(crate) fn description_of(table: &Table, fd: u32) -> Option<u32> {
    table.descriptors.iter().find(|known| known.fd == fd).map(|known| known.description)
}

/// The receiver's stream that stands in for standard number `fd`.
pub(crate) const fn stream_of(fd: u32) -> Option<StreamKind> {
    match fd {
        0 => Some(StreamKind::Input),
        1 => Some(StreamKind::Output),
        2 => Some(StreamKind::Error),
        _ => None,
    }
}

/// The stream that stands in for something outside that `facts` is open on: by its number, or by that of a
/// standard descriptor that is open on the same and can do the same.
pub(crate) fn stream_for(facts: &Facts, all: &[Facts]) -> Option<StreamKind> {
    let same = |other: &&Facts| {
        other.fd <= 2 && facts.is_same_inode(other) && facts.is_writable() == other.is_writable()
    };
    let number = if facts.fd <= 2 { facts.fd } else { all.iter().find(same)?.fd };
    stream_of(number)
}
