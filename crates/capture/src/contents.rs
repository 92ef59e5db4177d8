//! Content that travels by itself, ahead of the manifest of the stopped process: of memfds and deleted files too large for
//! the manifest, and of files that the destination wants.

use alloc::vec::Vec;

use protocol::{ContentKind, ContentRecord, DescriptionKind, FileVerdict, Header, Kind};
use sys::status::{self, FileType};
use sys::{Errno, descriptor, file};

use crate::descriptors::Table;
use crate::refusal::{Doing, Refusal};
use crate::tables::{self, Objects};

/// One of them, in a descriptor of the program's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Content {
    fd: u32,
    kind: ContentKind,
    index: u32,
}

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
            all.push(Content { fd: descriptor.fd, kind, index });
        }
    }
    all
}

/// Reads all of them through `buffer` and hands out the frames that carry them, until `send` says that no more are
/// wanted; the last one says that these were all.
///
/// # Errors
/// One cannot be read.
pub fn send(
    contents: &[Content],
    buffer: &mut [u8],
    send: &mut dyn FnMut(Header, &[u8]) -> bool,
) -> Result<(), Refusal> {
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
    fn hand_out(self, buffer: &mut [u8], send: &mut dyn FnMut(Header, &[u8]) -> bool) -> Result<bool, Errno> {
        let source = descriptor::open_again(self.fd)?;
        let status = status::of_fd(&source)?;
        if status.file_type != FileType::Regular {
            return Ok(true);
        }
        let file = tables::ghost(&descriptor::link(self.fd)?, &status);
        let head = protocol::encode(&ContentRecord { file, size: status.size }).unwrap_or_default();
        let header = Header {
            count: self.kind.number(),
            argument: u64::from(self.index),
            ..Header::plain(Kind::Content, 0)
        };
        if !send(header, &head) {
            return Ok(false);
        }
        let mut at = 0;
        while let Some((start, end)) = descriptor::next_data(&source, at, status.size)? {
            at = start;
            while at < end {
                let len = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len());
                let piece = buffer.get_mut(..len).unwrap_or_default();
                file::read_exact_at(&source, piece, at)?;
                if !send(Header { argument: at, ..Header::plain(Kind::ContentBytes, 0) }, piece) {
                    return Ok(false);
                }
                at += len as u64;
            }
        }
        Ok(true)
    }
}
