//! TCP connections that move: frozen as they are found, looked at once nothing can change them any more.

use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::SeqCst;

use protocol::{Description, DescriptionKind};
use sys::descriptor::tcp;

use crate::descriptors::{Context, Table, description_of};
use crate::refusal::{Doing, ProcessTrait, Refusal};

/// The mark of a frozen connection: its descriptor and what it was like before.
const fn mark(fd: u32, before: u32) -> u32 {
    (fd << 3 | before) + 1
}

/// The marked connections, and what they were like before.
pub fn frozen(marks: &[AtomicU32]) -> impl Iterator<Item = (u32, u32)> {
    marks.iter().map_while(|mark| mark.load(SeqCst).checked_sub(1)).map(|mark| (mark >> 3, mark & 7))
}

/// Freezes connection `fd`; marked first, so that it goes on whatever happens.
pub(super) fn freeze(fd: u32, marks: &[AtomicU32]) -> Result<(), Refusal> {
    let failed = Refusal::kernel(Doing::Socket);
    let slot = marks.iter().find(|mark| mark.load(SeqCst) == 0).ok_or(ProcessTrait::TooMuchContent)?;
    slot.store(mark(fd, tcp::switches(fd).map_err(&failed)?), SeqCst);
    tcp::freeze(fd).map_err(&failed)
}

/// Completes the records of all frozen connections.
pub(super) fn record(
    marks: &[AtomicU32],
    table: &mut Table,
    context: &mut Context<'_>,
) -> Result<(), Refusal> {
    let mut has_settled = false;
    for (fd, _) in frozen(marks) {
        if !has_settled {
            tcp::settle();
            has_settled = true;
        }
        let record = tcp::record(fd).map_err(Refusal::kernel(Doing::Socket))?;
        context.take(record.len())?;
        let description =
            description_of(table, fd).and_then(|index| table.descriptions.get_mut(index as usize));
        if let Some(Description { kind: DescriptionKind::Socket(socket), .. }) = description {
            socket.connection = record;
        }
    }
    Ok(())
}
