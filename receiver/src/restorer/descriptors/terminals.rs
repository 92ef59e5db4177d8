//! Pseudo-terminals under the numbers that they had, in a `/dev/pts` of the program's own, with what waited in them.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};

use nix::libc;
use protocol::{Manifest, TerminalEnd, TerminalRecord};
use sys::descriptor::terminal;
use sys::{Errno, Fd, file};

use super::super::batch::Batch;
use super::super::error::RestoreError;
use super::super::{BlankChild, Step};
use super::Origin;
use crate::peer;

/// The controlling terminal of whoever opens it.
pub(super) const CONTROLLING: &str = "/dev/tty";
/// Numbers above: all below them are used up one by one.
const HIGHEST_INDEX: u32 = 1 << 10;

/// All terminals of a manifest, in its order. Their ends here are open until [`Terminals::finish`].
pub(super) struct Terminals<'a>(Vec<Terminal<'a>>);

struct Terminal<'a> {
    record: &'a TerminalRecord,
    master: OwnedFd,
    /// None if the slave was never opened.
    slave: Option<Fd>,
}

/// Whether there is a terminal `index`.
pub(super) fn check(manifest: &Manifest, index: u32) -> Result<(), RestoreError> {
    let found = manifest.terminals.get(index as usize);
    found.map(|_| ()).ok_or(RestoreError::Dangling { what: "pseudo-terminal", index })
}

/// Proves that all numbers can be had.
pub(in super::super) fn prove(child: &BlankChild, manifest: &Manifest) -> Result<(), RestoreError> {
    masters(child, &manifest.terminals).map(|_| ())
}

impl<'a> Terminals<'a> {
    /// Makes and fills all of them.
    pub(super) fn make(child: &BlankChild, manifest: &'a Manifest) -> Result<Self, RestoreError> {
        let mut masters = masters(child, &manifest.terminals)?;
        let made = manifest.terminals.iter().map(|record| {
            let index = record.index;
            let master = masters.remove(&index).ok_or(Errno::EEXIST);
            let made = master.map_err(io::Error::from).and_then(|master| Terminal::fill(record, master));
            made.map_err(|source| RestoreError::Terminal { index, source })
        });
        made.collect::<Result<_, _>>().map(Self)
    }

    /// Has the child, which leads its session, take its controlling terminal.
    pub(super) fn take_control(&self, batch: &mut Batch<'_>) -> Result<(), RestoreError> {
        let controlling = self.0.iter().find(|terminal| terminal.record.is(TerminalRecord::CONTROLS));
        let Some(Terminal { record, slave: Some(slave), .. }) = controlling else { return Ok(()) };
        let slave = slave.duplicate_from(0).map_err(|errno| failed(record.index)(errno.into()))?;
        batch.unit()?.step(Step::TakeTerminal);
        let number = batch.pass(slave.into(), true);
        let request = terminal::TAKE_CONTROL as u64;
        batch.program().call_with(libc::SYS_ioctl, [0, request, 0], &[(0, number)]);
        batch.program().call_with(libc::SYS_close, [0], &[(0, number)]);
        Ok(())
    }

    /// How an end comes into the child.
    pub(super) fn origin(
        &self,
        fd: u32,
        index: u32,
        end: TerminalEnd,
        flags: u32,
    ) -> Result<Origin, RestoreError> {
        let found = self.0.get(index as usize);
        let found = found.ok_or(RestoreError::Dangling { what: "pseudo-terminal", index })?;
        let made = match end {
            TerminalEnd::Master => found.master.try_clone(),
            TerminalEnd::Slave => {
                let access = flags & libc::O_ACCMODE.unsigned_abs();
                terminal::open_slave(found.number(), access).map(Into::into).map_err(Into::into)
            }
            TerminalEnd::Controlling => {
                let path = CONTROLLING.as_bytes().to_vec();
                let flags = flags & (libc::O_ACCMODE | libc::O_NONBLOCK).unsigned_abs();
                return Ok(Origin::Inside { path, flags, offset: 0, held: None });
            }
        };
        let failed = |source| RestoreError::Descriptor { fd, what: "a pseudo-terminal", source };
        made.map(Origin::Passed).map_err(failed)
    }

    /// What would have stood in the way: exclusiveness and locks. Lets go of every end.
    pub(super) fn finish(self) -> Result<(), RestoreError> {
        for Terminal { record, master, slave } in &self.0 {
            if let Some(slave) = slave
                && record.is(TerminalRecord::EXCLUSIVE)
            {
                let set = terminal::set_exclusive(number(slave), true);
                set.map_err(|errno| failed(record.index)(errno.into()))?;
            }
            let set = terminal::set_locked(raw(master), record.is(TerminalRecord::LOCKED));
            set.map_err(|errno| failed(record.index)(errno.into()))?;
        }
        Ok(())
    }
}

impl<'a> Terminal<'a> {
    fn fill(record: &'a TerminalRecord, master: OwnedFd) -> io::Result<Self> {
        let number_of_master = raw(&master);
        terminal::set_locked(number_of_master, false)?;
        if record.is(TerminalRecord::HUNG_UP) {
            let slave = Some(terminal::open_slave(number_of_master, 2)?);
            return Ok(Self { record, master, slave });
        }
        terminal::set_window(number_of_master, record.window)?;
        if record.is(TerminalRecord::UNOPENED) {
            terminal::set(number_of_master, record)?;
            return Ok(Self { record, master, slave: None });
        }
        let slave = terminal::open_slave(number_of_master, 2)?;
        terminal::fill(number_of_master, &slave, record)?;
        if let Some(name) = record.name {
            // Whom it cannot be given to, it does not belong to: an unknown user of a user namespace.
            if let Err(error) = give(&slave, name) {
                tracing::warn!(%error, "a pseudo-terminal does not belong to whom it belonged to");
            }
        }
        Ok(Self { record, master, slave: Some(slave) })
    }

    fn number(&self) -> u32 {
        raw(&self.master)
    }
}

/// Gives a slave its mode, owner and group.
fn give(slave: &Fd, (mode, user, group): (u32, u32, u32)) -> io::Result<()> {
    const PERMISSIONS: u32 = 0o777;
    let slave = File::from(OwnedFd::from(slave.duplicate_from(0)?));
    peer::with_its_rights(|| {
        fchown(&slave, Some(user), Some(group))?;
        slave.set_permissions(Permissions::from_mode(mode & PERMISSIONS))
    })
}

/// A master for each number, in the child's own `/dev/pts`, which gives out the lowest free one.
fn masters(child: &BlankChild, records: &[TerminalRecord]) -> Result<BTreeMap<u32, OwnedFd>, RestoreError> {
    let mut found = BTreeMap::new();
    let Some(highest) = records.iter().map(|record| record.index).max() else { return Ok(found) };
    let failed = failed(highest);
    if highest > HIGHEST_INDEX {
        return Err(failed(io::ErrorKind::OutOfMemory.into()));
    }
    let mut options = OpenOptions::new();
    options.read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY);
    let directory = options.open(format!("/proc/{}/root/dev/pts", child.pid())).map_err(&failed)?;
    let mut spare = Vec::new();
    for _ in 0..=highest {
        let flags = (libc::O_RDWR | libc::O_NOCTTY).unsigned_abs() as usize;
        let opened = peer::with_its_rights(|| {
            file::open_below(std::os::fd::AsFd::as_fd(&directory), c"ptmx", flags, true)
        });
        let master = OwnedFd::from(opened.map_err(|errno| failed(errno.into()))?);
        let index = terminal::index(raw(&master)).map_err(|errno| failed(errno.into()))?;
        if records.iter().any(|record| record.index == index) {
            found.insert(index, master);
        } else {
            spare.push(master);
        }
    }
    if found.len() < records.len() {
        // Two of one number.
        return Err(failed(Errno::EEXIST.into()));
    }
    Ok(found)
}

fn failed(index: u32) -> impl Fn(io::Error) -> RestoreError {
    move |source| RestoreError::Terminal { index, source }
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

const fn number(fd: &Fd) -> u32 {
    fd.raw().cast_unsigned()
}
