//! Pipes: inside the process with the bytes in flight, or one end of one to the outside.

use alloc::vec::Vec;

use protocol::{DescriptionKind, PipeEnd, PipeRecord};
use sys::descriptor::{self, pipe};

use crate::descriptors::{Context, Facts, stream_for};
use crate::refusal::{DescriptorTrait, Doing, Note, Refusal};

/// The manifest's pipes, each once, by inode.
#[derive(Default)]
pub(crate) struct Pipes {
    records: Vec<PipeRecord>,
    inodes: Vec<u64>,
}

impl Pipes {
    /// The finished table.
    pub(crate) fn into_records(self) -> Vec<PipeRecord> {
        self.records
    }
}

/// The kind of the description behind `facts`, a pipe or FIFO.
pub(crate) fn kind(facts: &Facts, context: &mut Context<'_>) -> Result<DescriptionKind, Refusal> {
    if facts.flags & descriptor::DIRECT != 0 {
        return Err(facts.refuse(DescriptorTrait::PacketPipe));
    }
    let end = if facts.is_readable() { PipeEnd::Read } else { PipeEnd::Write };
    let is_inside = facts.is_readable() && facts.is_writable()
        || context.all.iter().any(|other| {
            facts.is_same_inode(other)
                && (other.is_readable(), other.is_writable()) != (facts.is_readable(), facts.is_writable())
        });
    // The other end of a FIFO is where its name is.
    if !is_inside && !is_fifo(facts) {
        let readiness = descriptor::readiness(facts.at).map_err(Refusal::kernel(Doing::Pipe))?;
        // A pipe whose writers have gone holds all that will ever come: it moves with its bytes.
        if !(end == PipeEnd::Read && readiness.hang_up) {
            if let Some(stream) = stream_for(facts, context.all) {
                if facts.fd == 0 && end == PipeEnd::Read {
                    context.notes.push(Note::LostInput);
                }
                return Ok(DescriptionKind::Stream(stream));
            }
            if !(readiness.hang_up || readiness.error) {
                context.notes.push(Note::LostPipe(facts.fd));
            }
        }
    }
    Ok(DescriptionKind::Pipe { pipe: record(facts, context)?, end })
}

fn is_fifo(facts: &Facts) -> bool {
    facts.link.starts_with(b"/")
}

/// The index of the record of the pipe behind `facts`.
fn record(facts: &Facts, context: &mut Context<'_>) -> Result<u32, Refusal> {
    let failed = Refusal::kernel(Doing::Pipe);
    let inode = facts.status.inode;
    let known = context.pipes.inodes.iter().position(|known| *known == inode);
    let index = if let Some(index) = known {
        index
    } else {
        let reader = context.all.iter().find(|other| facts.is_same_inode(other) && other.is_readable());
        let reader = reader.map(|reader| reader.at);
        let content = match reader {
            Some(fd) if context.is_stopped => pipe::peek(fd).map_err(&failed)?,
            _ => Vec::new(),
        };
        let bytes = match reader {
            Some(fd) => pipe::in_flight(fd).map_err(&failed)? as usize,
            None => 0,
        };
        context.take(bytes)?;
        let capacity = pipe::capacity(facts.at).map_err(&failed)?;
        let path = if is_fifo(facts) { facts.link.clone() } else { Vec::new() };
        context.pipes.records.push(PipeRecord { path, capacity, content });
        context.pipes.inodes.push(inode);
        context.pipes.inodes.len() - 1
    };
    Ok(u32::try_from(index).unwrap_or(u32::MAX))
}
