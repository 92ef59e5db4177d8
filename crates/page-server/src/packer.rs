//! Pages in fewer bytes, where the link is slow enough for that to pay.

use alloc::vec;
use alloc::vec::Vec;

use engine::Packing;
use memory::PageRange;
use relay::Socket;
use transport::{Connection, ConnectionError};

use crate::socket::now;

/// Sends pages packed or as they are.
#[derive(Debug, Default)]
pub(crate) struct Packer {
    /// Decides which.
    pub(crate) packing: Packing,
    /// The push connection keeps little for the link.
    pub(crate) is_held: bool,
    /// Made when it is first needed.
    tool: Option<Tool>,
}

/// What packing takes.
#[derive(Debug)]
struct Tool {
    packer: lz4::Packer,
    /// The pages as they were in one moment: a block refers to what came before, and whatever somebody writes to them in
    /// between must not change that.
    plain: Vec<u8>,
    block: Vec<u8>,
}

impl Tool {
    fn new() -> Self {
        Self { packer: lz4::Packer::default(), plain: Vec::new(), block: vec![0; lz4::MOST_BYTES] }
    }

    /// The block that `content` becomes, if that is shorter by an eighth at least: else it is not worth unpacking.
    fn pack(&mut self, content: &[u8]) -> Option<&[u8]> {
        self.plain.clear();
        self.plain.extend_from_slice(content);
        let room = self.block.get_mut(..content.len() / 8 * 7)?;
        let packed = self.packer.pack(&self.plain, room)?;
        room.get(..packed)
    }
}

impl Packer {
    /// Sends pages, `content` being their bytes.
    pub(crate) fn send_pages(
        &mut self,
        connection: &mut Connection<Socket>,
        pages: PageRange,
        content: &[u8],
    ) -> Result<(), ConnectionError> {
        let before = now();
        if content.len() <= lz4::MOST_BYTES && self.packing.is_tried(before) {
            let block = self.tool.get_or_insert_with(Tool::new).pack(content);
            let saved = block.map_or(0, |block| content.len() - block.len());
            let took_ns = now().0.saturating_sub(before.0);
            if self.packing.tried(saved as u64, took_ns)
                && let Some(block) = block
            {
                return connection.send_packed_pages(pages, block);
            }
        }
        connection.send_pages(pages, content)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::OwnedFd;

    use engine::Instant;
    use memory::Addr;
    use protocol::{Channel, Header, Kind};
    use sys::Fd;
    use transport::Expected;

    use super::*;

    fn pair() -> (Connection<Socket>, Connection<Socket>) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a loopback port");
        let near = TcpStream::connect(listener.local_addr().expect("its address")).expect("a connection");
        let (far, _) = listener.accept().expect("its other end");
        let over = |stream: TcpStream, expected| {
            Connection::new(Socket::new(Fd::from(OwnedFd::from(stream))), expected)
        };
        (over(near, Expected::FromDestination(Channel::Push)), over(far, Expected::FromSource(Channel::Push)))
    }

    /// Sends the pages over a link that was measured to be slow; returns what arrives.
    fn sent(is_wanted: bool, content: &[u8]) -> (Header, Vec<u8>) {
        let (mut near, mut far) = pair();
        let mut packer = Packer { packing: Packing::new(is_wanted), ..Packer::default() };
        let end = now();
        packer.packing.refused(Instant(end.0 - 1_000_000_000), 0);
        packer.packing.refused(end, 1_000_000);
        let pages = PageRange::from_pages(Addr(1 << 20), (content.len() / 4096) as u64).expect("user pages");
        packer.send_pages(&mut near, pages, content).expect("an open link");
        let frame = far.receive().expect("a frame").expect("all of it");
        assert_eq!(frame.header.pages(), Ok(pages));
        (frame.header, frame.body.to_vec())
    }

    fn text(pages: usize) -> Vec<u8> {
        let mut text = b"what a program holds is often text ".repeat(4096 * pages / 30);
        text.truncate(4096 * pages);
        text
    }

    fn noise(pages: usize) -> Vec<u8> {
        let words = (0..512 * pages as u64).map(|n| (n ^ n << 30).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        words.flat_map(u64::to_le_bytes).collect()
    }

    #[test]
    fn over_a_slow_link_text_goes_packed_and_is_the_same_behind_it() {
        let content = text(16);
        let (header, body) = sent(true, &content);
        assert_eq!(header.kind, Kind::PackedPages);
        assert!(body.len() < 4096);
        let mut unpacked = vec![0; content.len()];
        assert!(lz4::unpack(&body, &mut unpacked) && unpacked == content);
    }

    #[test]
    fn noise_goes_as_it_is_and_so_does_what_nobody_wants_packed() {
        assert_eq!(sent(true, &noise(16)).0.kind, Kind::Pages);
        assert_eq!(sent(false, &text(16)).0.kind, Kind::Pages);
    }

    #[test]
    fn noise_between_text_goes_along() {
        let content = [text(3), noise(2), text(2), noise(1)].concat();
        let (header, body) = sent(true, &content);
        assert_eq!(header.kind, Kind::PackedPages);
        let mut unpacked = vec![0; content.len()];
        assert!(lz4::unpack(&body, &mut unpacked) && unpacked == content);
    }

    #[test]
    fn more_than_a_block_holds_goes_as_it_is() {
        assert_eq!(sent(true, &text(64)).0.kind, Kind::Pages);
    }
}
