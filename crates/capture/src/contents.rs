//! Content that travels by itself, ahead of the manifest of the stopped process: of memfds and deleted files too large for
//! the manifest, and of files that the destination wants.

use alloc::vec::Vec;

use protocol::{ContentKind, ContentRecord, DescriptionKind, FileVerdict, GhostRecord, Header, Kind};
use sys::status::{self, FileType};
use sys::{Errno, descriptor, file};

use crate::descriptors::Table;
use crate::refusal::{Doing, Refusal};
use crate::segments;
use crate::tables::{self, Objects};

/// One of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    from: Origin,
    kind: ContentKind,
    index: u32,
}

/// Where content is read from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Origin {
    /// A descriptor of the program's.
    Descriptor(u32),
    /// System V shared memory of this id and so many bytes.
    Segment(u32, u64),
}

/// The frames of what is handed out; `false` when no more are wanted.
type Send<'a> = dyn FnMut(Header, &[u8]) -> bool + 'a;

/// Each that is to travel, by the first descriptor that is open on it.
pub(crate) fn all(table: &Table, objects: &Objects, verdicts: &[FileVerdict]) -> Vec<Content> {
    let mut all = Vec::new();
    for descriptor in &table.descriptors {
        let Some(description) = table.descriptions.get(descriptor.description as usize) else { continue };
        let (kind, index) = match &description.kind {
            DescriptionKind::File { file } => {
                let is_wanted = verdicts.get(*file as usize) == Some(&FileVerdict::Wanted);
                (is_wanted.then_some(ContentKind::File), *file)
            }
            DescriptionKind::Object { object } => (objects.streamed(*object), *object),
            _ => continue,
        };
        let Some(kind) = kind else { continue };
        if !all.iter().any(|known: &Content| (known.kind, known.index) == (kind, index)) {
            all.push(Content { from: Origin::Descriptor(descriptor.fd), kind, index });
        }
    }
    for (index, record) in (0..).zip(objects.records()) {
        if let Some(id) = segments::id(&record.segment) {
            all.push(Content { from: Origin::Segment(id, record.size), kind: ContentKind::Memory, index });
        }
    }
    all
}

/// Reads all of them through `buffer` and hands out the frames that carry them, until `send` says that no more are
/// wanted; the last one says that these were all.
///
/// # Errors
/// One cannot be read.
pub fn send(contents: &[Content], buffer: &mut [u8], send: &mut Send<'_>) -> Result<(), Refusal> {
    for content in contents {
        if !content.hand_out(buffer, send).map_err(Refusal::kernel(Doing::Content))? {
            return Ok(());
        }
    }
    if !contents.is_empty() {
        send(Header::plain(Kind::Content, 0), &[]);
    }
    Ok(())
}

impl Content {
    fn hand_out(self, buffer: &mut [u8], send: &mut Send<'_>) -> Result<bool, Errno> {
        match self.from {
            Origin::Descriptor(fd) => self.hand_out_file(fd, buffer, send),
            Origin::Segment(id, size) => {
                if !self.announce(GhostRecord::default(), size, send) {
                    return Ok(false);
                }
                segments::read(id, size, buffer, &mut |at, piece| send(bytes_at(at), piece))
            }
        }
    }

    /// The frame that says what the next ones carry.
    fn announce(self, file: GhostRecord, size: u64, send: &mut Send<'_>) -> bool {
        let head = protocol::encode(&ContentRecord { file, size }).unwrap_or_default();
        let header = Header {
            count: self.kind.number(),
            argument: u64::from(self.index),
            ..Header::plain(Kind::Content, 0)
        };
        send(header, &head)
    }

    fn hand_out_file(self, fd: u32, buffer: &mut [u8], send: &mut Send<'_>) -> Result<bool, Errno> {
        let source = descriptor::open_again(fd)?;
        let status = status::of_fd(&source)?;
        if status.file_type != FileType::Regular {
            return Ok(true);
        }
        if !self.announce(tables::ghost(&descriptor::link(fd)?, &status), status.size, send) {
            return Ok(false);
        }
        let mut at = 0;
        while let Some((start, end)) = descriptor::next_data(&source, at, status.size)? {
            at = start;
            while at < end {
                let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let piece = buffer.get_mut(..len).unwrap_or_default();
                file::read_exact_at(&source, piece, at)?;
                if !send(bytes_at(at), piece) {
                    return Ok(false);
                }
                at += len as u64;
            }
        }
        Ok(true)
    }
}

fn bytes_at(at: u64) -> Header {
    Header { argument: at, ..Header::plain(Kind::ContentBytes, 0) }
}
