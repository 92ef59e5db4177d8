//! From the process's memory to the socket: pages, runs of zeros, and what nobody can read.

use memory::{PAGE_SIZE, PageRange};
use protocol::Kind;
use relay::Socket;
use transport::{Connection, ConnectionError};

use crate::packer::Packer;
use crate::process::{ReadRun, SourceProcess};

/// Bytes of the buffer that pages pass through: the largest frame's worth.
pub(crate) const BUFFER_BYTES: usize = 256 << 10;
const PAGE_BYTES: usize = 4096;

const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE && BUFFER_BYTES / PAGE_BYTES == 64);

/// Reads `pages` and sends them, each run as what it is; a few may wait for a flush. Every page is looked at once. If they
/// `are_awaited`, nothing waits, and the first one is what a thread waits for: over a slow link it goes by itself.
pub(crate) fn send_pages(
    process: &mut impl SourceProcess,
    connection: &mut Connection<Socket>,
    (buffer, packer): (&mut [u8], &mut Packer),
    pages: PageRange,
    are_awaited: bool,
) -> Result<(), ConnectionError> {
    let mut rest = pages;
    let mut most = packer.packing.first_pages(are_awaited);
    while !rest.is_empty() {
        let (part, _) = rest.split_at_pages(most.into());
        let room = buffer.get_mut(..byte_len(part)).unwrap_or_default();
        let ReadRun { pages, content } = process.read(part, room);
        let (run, _) = part.split_at_pages(pages.max(1));
        match content {
            Some(content) => send_content(connection, packer, run, content)?,
            None => connection.enqueue_counted(Kind::LostPages, run)?,
        }
        if are_awaited {
            connection.flush()?;
        }
        (_, rest) = rest.split_at_pages(run.pages());
        most = packer.packing.frame_pages();
    }
    Ok(())
}

/// Sends pages that `content` begins with, zero runs as such.
fn send_content(
    connection: &mut Connection<Socket>,
    packer: &mut Packer,
    pages: PageRange,
    content: &[u8],
) -> Result<(), ConnectionError> {
    let mut zeros = zero_mask(content);
    let (mut rest, mut content) = (pages, content);
    while !rest.is_empty() {
        let zero = zeros & 1 == 1;
        let alike = if zero { zeros.trailing_ones() } else { zeros.trailing_zeros() };
        let (run, behind) = rest.split_at_pages(u64::from(alike));
        let (bytes, bytes_behind) = content.split_at_checked(byte_len(run)).unwrap_or_default();
        if zero {
            connection.enqueue_counted(Kind::ZeroPages, run)?;
        } else {
            packer.send_pages(connection, run, bytes)?;
        }
        zeros = zeros.checked_shr(alike).unwrap_or(0);
        (rest, content) = (behind, bytes_behind);
    }
    Ok(())
}

/// Bit n is set when page n of `content` (64 pages at most) is all zero.
fn zero_mask(content: &[u8]) -> u64 {
    let (pages, _) = content.as_chunks::<PAGE_BYTES>();
    pages.iter().take(64).zip(0_u32..).fold(0, |mask, (page, bit)| mask | u64::from(is_zero(page)) << bit)
}

/// Whether a page is all zero: stops at the first 128 bytes that are not, and reads them as words.
fn is_zero(page: &[u8; PAGE_BYTES]) -> bool {
    let (blocks, _) = page.as_chunks::<128>();
    blocks.iter().all(|block| {
        let (words, _) = block.as_chunks::<8>();
        words.iter().fold(0, |bits, word| bits | u64::from_ne_bytes(*word)) == 0
    })
}

/// A range within the buffer, so always below 256 KiB.
fn byte_len(pages: PageRange) -> usize {
    usize::try_from(pages.len()).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_makes_a_page_count_as_data() {
        for at in 0..PAGE_BYTES {
            let mut content = alloc::vec![0; 3 * PAGE_BYTES];
            if let Some(byte) = content.get_mut(PAGE_BYTES + at) {
                *byte = 1 << (at % 8);
            }
            assert_eq!(zero_mask(&content), 0b101, "byte {at}");
        }
    }

    #[test]
    fn a_whole_buffer_of_zeros_is_64_zero_pages() {
        assert_eq!(zero_mask(&alloc::vec![0; BUFFER_BYTES]), u64::MAX);
    }
}
