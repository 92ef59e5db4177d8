//! Pseudo-terminals whose master is in the process, and slaves whose master has gone. All others are the outside's.

use alloc::vec::Vec;

use protocol::{DescriptionKind, Manifest, TerminalEnd, TerminalRecord};
use sys::descriptor::terminal::{self, State};
use sys::process;
use sys::status::Device;

use crate::classify::{self, PTMX};
use crate::descriptors::{Context, Facts, stream_for};
use crate::refusal::{DescriptorTrait, Doing, Note, Refusal};

/// Of the slaves of pseudo-terminals.
const SLAVES: u32 = 136;
/// `/dev/tty`
const CONTROLLING: Device = Device { major: 5, minor: 0 };

/// The manifest's pseudo-terminals, each once: by number and by the file system of its master, or slave if there is none.
#[derive(Default)]
pub(crate) struct Terminals {
    records: Vec<TerminalRecord>,
    file_systems: Vec<Device>,
}

impl Terminals {
    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<TerminalRecord> {
        self.records
    }
}

/// The kind of the description behind `facts`, if it is an end of a terminal inside.
pub(crate) fn kind(facts: &Facts, context: &mut Context<'_>) -> Result<Option<DescriptionKind>, Refusal> {
    let special = facts.status.special;
    let (master, end) = if special == PTMX {
        (facts, TerminalEnd::Master)
    } else if let Some(master) = master_of(facts, context) {
        let is_slave = special.major == SLAVES;
        (master, if is_slave { TerminalEnd::Slave } else { TerminalEnd::Controlling })
    } else if special.major == SLAVES
        && State::of(facts.at).has_hung_up()
        && stream_for(facts, context.all).is_none()
    {
        (facts, TerminalEnd::Slave)
    } else {
        return Ok(None);
    };
    if !context.is_in_table(facts) || !context.is_in_table(master) {
        return Err(facts.refuse(DescriptorTrait::TerminalOfOthers));
    }
    let terminal = index(master, context)?;
    Ok(Some(DescriptionKind::Terminal { terminal, end }))
}

/// The descriptor of the master of the terminal that `facts` is open on, if it is one of this process.
pub(crate) fn master_of<'a>(facts: &Facts, context: &Context<'a>) -> Option<&'a Facts> {
    let (special, status) = (facts.status.special, &facts.status);
    let is_controlling = special == CONTROLLING;
    if !is_controlling && special.major != SLAVES {
        return None;
    }
    let device = if is_controlling { terminal::device(facts.at)? } else { special };
    if device.major != SLAVES {
        return None;
    }
    context.all.iter().find(|master| {
        if master.status.special != PTMX || terminal::index(master.at) != Ok(device.minor) {
            return false;
        }
        if is_controlling {
            return controls(master, context) == Some(true);
        }
        // Opening another one changes nothing only as long as there is one.
        !State::of(master.at).has_hung_up() && terminal::is_slave(master.at, status.device, status.inode)
    })
}

/// Whether the terminal is the process's own, with nobody else's process group in front of it; `None` if it controls
/// nobody.
fn controls(master: &Facts, context: &Context<'_>) -> Option<bool> {
    let ids = process::session_and_group_of(context.pid);
    let [session, _] = ids;
    Some(terminal::session_and_group(master.at)? == ids && session == context.pid)
}

/// The index of the record of the terminal behind `master`, or behind a slave that has none any more.
fn index(master: &Facts, context: &mut Context<'_>) -> Result<u32, Refusal> {
    let failed = Refusal::kernel(Doing::Descriptors);
    let (special, file_system) = (master.status.special, master.status.device);
    let is_master = special == PTMX;
    let number = if is_master { terminal::index(master.at).map_err(&failed)? } else { special.minor };
    let known = &context.terminals;
    let mut known = known.records.iter().zip(&known.file_systems);
    let found = known.position(|(record, system)| (record.index, *system) == (number, file_system));
    if let Some(index) = found {
        return Ok(u32::try_from(index).unwrap_or(u32::MAX));
    }
    let record = if is_master {
        record(master, context)?
    } else {
        TerminalRecord { index: number, flags: TerminalRecord::HUNG_UP, ..TerminalRecord::default() }
    };
    context.terminals.records.push(record);
    context.terminals.file_systems.push(file_system);
    Ok(u32::try_from(context.terminals.records.len() - 1).unwrap_or(u32::MAX))
}

fn record(master: &Facts, context: &mut Context<'_>) -> Result<TerminalRecord, Refusal> {
    let held_up = || master.refuse(DescriptorTrait::HeldUpTerminal);
    let mut record = terminal::look(master.at).map_err(Refusal::kernel(Doing::Descriptors))?;
    let state = State::of(master.at);
    let slave = context.all.iter().find(|slave| {
        let is_it = |found: &Facts| found.status.device == master.status.device;
        slave.status.special == Device { major: SLAVES, minor: record.index }
            && classify::is_terminal(slave)
            && master_of(slave, context).is_some_and(is_it)
    });
    if state.is_held_up() {
        return Err(held_up());
    }
    if let Some(slave) = slave {
        if State::of(slave.at).is_held_up() || terminal::is_too_full(slave.at, &record) {
            return Err(held_up());
        }
        if terminal::is_exclusive(slave.at) {
            record.flags |= TerminalRecord::EXCLUSIVE;
        }
        let (user, group) = slave.status.owner;
        record.name = Some((slave.status.mode, user, group));
    } else if !state.has_hung_up() {
        // Opening the other end to look would be seen for ever: once it has been open, it has been closed.
        if state.has_input() {
            return Err(held_up());
        }
        context.notes.push(Note::HalfTerminal(master.fd));
        record.flags |= TerminalRecord::UNOPENED;
    }
    match controls(master, context) {
        None => {}
        Some(true) => record.flags |= TerminalRecord::CONTROLS,
        Some(false) => return Err(master.refuse(DescriptorTrait::TerminalOfOthers)),
    }
    Ok(record)
}

/// Masters, and slaves as far as they are open, of the terminals of `manifest` in which something may wait, with the
/// indices of their records.
fn ends(manifest: &Manifest) -> Vec<(u32, Option<u32>, usize)> {
    let mut found = Vec::new();
    for (index, record) in manifest.terminals.iter().enumerate() {
        if record.is(TerminalRecord::UNOPENED) {
            continue;
        }
        if let Some(master) = end_of(manifest, index, TerminalEnd::Master) {
            found.push((master, end_of(manifest, index, TerminalEnd::Slave), index));
        }
    }
    found
}

/// The first descriptor that is open on an end of a terminal.
fn end_of(manifest: &Manifest, index: usize, wanted: TerminalEnd) -> Option<u32> {
    let is_it = |kind: &DescriptionKind| matches!(*kind, DescriptionKind::Terminal { terminal, end } if terminal as usize == index && end == wanted);
    for descriptor in &manifest.descriptors {
        if manifest.descriptions.get(descriptor.description as usize).is_some_and(|found| is_it(&found.kind))
        {
            return Some(descriptor.fd);
        }
    }
    None
}

/// Takes what waits in terminals out of them and puts it into the manifest of the stopped process. The destination runs it
/// with that, or [`give_back`] is called, whatever the result.
///
/// # Errors
/// More waits than can be told.
pub fn take_out(manifest: &mut Manifest) -> Result<(), Refusal> {
    for (fd, slave, index) in ends(manifest) {
        let Some(record) = manifest.terminals.get_mut(index) else { continue };
        terminal::take_out(fd, slave, record)
            .map_err(|_| Refusal::descriptor(fd, DescriptorTrait::HeldUpTerminal))?;
    }
    Ok(())
}

/// Puts back into terminals what [`take_out`] took out.
pub fn give_back(manifest: &Manifest) {
    for (fd, slave, index) in ends(manifest) {
        if let Some(record) = manifest.terminals.get(index) {
            let _ = terminal::give_back(fd, slave, record);
        }
    }
}
