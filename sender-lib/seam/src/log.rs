//! A line of log under construction. Who writes it is the resident half.

use protocol::Text;

/// Bytes of one line of log.
const LINE_BYTES: usize = 480;

/// What does not fit is cut.
#[repr(C)]
#[derive(Debug)]
pub struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Text for Line {
    fn push_text(&mut self, piece: &str) {
        // One byte stays free for the end of the line.
        let room = self.bytes.get_mut(self.len..LINE_BYTES - 1).unwrap_or_default();
        let mut taken = 0;
        for (slot, byte) in room.iter_mut().zip(piece.bytes()) {
            *slot = if byte < b' ' { b' ' } else { byte };
            taken += 1;
        }
        self.len += taken;
    }
}

impl Line {
    /// The line that `put` fills.
    #[must_use]
    pub fn of(put: &dyn Fn(&mut Self)) -> Self {
        let mut line = Self { bytes: [0; LINE_BYTES], len: 0 };
        line.push_text("posthaste: ");
        put(&mut line);
        if let Some(end) = line.bytes.get_mut(line.len) {
            *end = b'\n';
            line.len += 1;
        }
        line
    }

    /// All of it, its end included.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}
