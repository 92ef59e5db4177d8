//! The same rules for a process that goes on undisturbed: what stands in its way as a whole, and what becomes of each of
//! its threads, mappings and descriptors.
//!
//! Descriptors are looked at through duplicates in this process. What the kernel tells nobody but the process itself is
//! not seen: whether it may use AMX tiles.

use alloc::vec::Vec;

use protocol::DescriptionKind;
use sys::path::KernelPath;
use sys::proc::maps::Mapping;
use sys::proc::smaps::Attributes;
use sys::proc::status::Status;

use crate::descriptors::{Context, Table, describe, has_changed, look};
use crate::mappings;
use crate::process;
use crate::refusal::{Doing, Note, ProcessTrait, Refusal};
use crate::segments;
use crate::system_v;
use crate::tables::{Files, Ghosts, Objects};

/// Bytes that the parasite takes where no limit forbids it.
const ROOM_BYTES: u64 = 128 << 20;

/// A descriptor of the process and its duplicate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Duplicate {
    /// Its number in the process.
    pub fd: u32,
    /// The number of its duplicate here.
    pub here: u32,
}

/// What becomes of the descriptors.
#[derive(Default)]
pub struct Descriptors {
    /// Of each that is still open: its number, and what a manifest would hold, or why not.
    pub found: Vec<(u32, Result<DescriptionKind, Refusal>)>,
    /// What is lost.
    pub notes: Vec<Note>,
    objects: Objects,
    /// `/proc/sysvipc/shm` in the process's IPC namespace.
    pub segments: Vec<u8>,
    /// The id of the System V segment of each attachment.
    attached: Vec<u64>,
}

/// What stands in the way of process `pid` as a whole. `status` is that of its main thread.
#[must_use]
pub fn process(pid: u32, status: &Status, has_children: bool) -> Vec<Refusal> {
    let path = |name| KernelPath::numbered("/proc/", pid, name);
    let root = process::linked(path("/root").as_c_str(), Doing::Root)
        .and_then(|(root, _)| Ok(process::check_root(&root)?));
    let directory = process::linked(path("/cwd").as_c_str(), Doing::WorkingDirectory)
        .and_then(|(directory, _)| Ok(process::check_working_directory(&directory)?));
    // As the process's own root directory has it.
    let executable = process::linked(path("/exe").as_c_str(), Doing::Program).and_then(|(name, status)| {
        let name = [path("/root").into_bytes(), name].concat();
        Ok(process::check_executable(&name, &status)?)
    });
    let children = if has_children { Err(ProcessTrait::Children.into()) } else { Ok(()) };
    let scatter = process::check_scatter(status, ROOM_BYTES).map_err(Refusal::from);
    [children, root, directory, executable, scatter].into_iter().filter_map(Result::err).collect()
}

/// Whether System V semaphores and messages stand in the way of process `pid`, in whose IPC namespace this one is.
///
/// # Errors
/// They do.
pub fn system_v(pid: u32) -> Result<(), Refusal> {
    system_v::collect(pid, false).map(|_| ())
}

/// Whether thread `tid`, as it numbers itself, can be moved.
///
/// # Errors
/// Why not.
pub fn thread(tid: u32, is_main: bool, status: &Status) -> Result<(), Refusal> {
    Ok(process::check_status(tid, is_main, status)?)
}

/// Whether a mapping can be moved; `descriptors` are those of its process.
///
/// # Errors
/// Why not.
pub fn mapping(mapping: &Mapping, attributes: &Attributes, descriptors: &Descriptors) -> Result<(), Refusal> {
    if sys::identity::is_vdso(mapping) {
        return Ok(());
    }
    mappings::check(mapping, attributes)?;
    if segments::is_segment(mapping) {
        let attachments = descriptors.attached.iter().filter(|id| **id == mapping.inode).count();
        return segments::line(&descriptors.segments, mapping, attachments as u64).map(|_| ());
    }
    if mapping.inode != 0
        && mapping.is_deleted()
        && mappings::object_behind(mapping, &descriptors.objects)?.is_none()
    {
        mappings::check_huge(mapping, attributes.flags.huge_kib)?;
    }
    Ok(())
}

/// What becomes of the descriptors of process `pid`, ascending.
#[must_use]
pub fn descriptors(pid: u32, all: &[Duplicate]) -> Descriptors {
    let all: Vec<_> = all.iter().filter_map(|one| look(one.fd, one.here).ok()).collect();
    let (mut files, mut ghosts, mut objects) = (Files::new(None), Ghosts::default(), Objects::default());
    let mut context = Context::new(&all, pid, (&mut files, &mut objects, &mut ghosts));
    let mut table = Table::default();
    let mut found = Vec::with_capacity(all.len());
    for (index, facts) in all.iter().enumerate() {
        let earlier = all.get(..index).unwrap_or_default();
        let what = match describe(facts, earlier, &mut table, &mut context) {
            Err(refusal) if refusal.is_of_proc() || has_changed(facts) => continue,
            Err(refusal) => Err(refusal),
            Ok(description) => {
                let record =
                    |close_on_exec| protocol::Descriptor { fd: facts.fd, close_on_exec, description };
                table.descriptors.push(record(facts.close_on_exec));
                let description = table.descriptions.get(description as usize);
                let Some(description) = description else { continue };
                Ok(description.kind.clone())
            }
        };
        found.push((facts.fd, what));
    }
    let notes = context.notes;
    Descriptors { found, notes, objects, ..Descriptors::default() }
}

impl Descriptors {
    /// Takes note of a mapping before any is judged: two of the same memory may stand in each other's way.
    pub fn see(&mut self, mapping: &Mapping) {
        mappings::see(mapping, &mut self.objects);
        if segments::is_segment(mapping) {
            self.attached.push(mapping.inode);
        }
    }
}

impl core::fmt::Debug for Descriptors {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Descriptors").field("found", &self.found).field("notes", &self.notes).finish()
    }
}
