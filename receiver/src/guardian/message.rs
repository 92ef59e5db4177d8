//! What session and guardian say to each other: one byte for orders, five for words.

/// From the session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Keep the descriptor that comes along.
    Hold,
    /// The end of the process whose pidfd comes along is told.
    Follow,
    /// In the directory that comes along something is about to be made under the guardian's name: delete it if the session
    /// dies before it says what it is.
    Making,
    /// The file or directory that comes along was made for the process: delete it if that does not come.
    Made,
    /// The process comes: what was made for it stays.
    Keep,
    /// The migration is complete.
    Complete,
    /// Kill everything.
    Kill,
}

impl Order {
    /// Its byte.
    pub(super) const fn byte(self) -> u8 {
        match self {
            Self::Hold => b'H',
            Self::Follow => b'F',
            Self::Making => b'N',
            Self::Made => b'M',
            Self::Keep => b'P',
            Self::Complete => b'C',
            Self::Kill => b'K',
        }
    }

    /// The order that a byte means.
    pub(super) const fn from_byte(byte: u8) -> Option<Self> {
        match byte {
            b'H' => Some(Self::Hold),
            b'F' => Some(Self::Follow),
            b'N' => Some(Self::Making),
            b'M' => Some(Self::Made),
            b'P' => Some(Self::Keep),
            b'C' => Some(Self::Complete),
            b'K' => Some(Self::Kill),
            _ => None,
        }
    }
}

/// From the guardian.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    /// The child is there; its pidfd comes along.
    Ready,
    /// `/proc` could not be mounted; an error number.
    NoProc(i32),
    /// `/dev/pts` could not be mounted; an error number.
    NoTerminals(i32),
    /// The child could not be made; an error number.
    NoChild(i32),
    /// The child has exited with this code.
    Exited(i32),
    /// The child was killed by this signal.
    Killed(i32),
    /// Nobody is left.
    Empty,
}

impl Word {
    /// Its bytes.
    pub(super) fn encode(self) -> [u8; 5] {
        let (kind, value) = match self {
            Self::Ready => (b'R', 0),
            Self::NoProc(errno) => (b'P', errno),
            Self::NoTerminals(errno) => (b'T', errno),
            Self::NoChild(errno) => (b'N', errno),
            Self::Exited(code) => (b'X', code),
            Self::Killed(signal) => (b'S', signal),
            Self::Empty => (b'E', 0),
        };
        let [a, b, c, d] = value.to_le_bytes();
        [kind, a, b, c, d]
    }

    /// The word that `bytes` mean.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let &[kind, a, b, c, d] = bytes else { return None };
        let value = i32::from_le_bytes([a, b, c, d]);
        match kind {
            b'R' => Some(Self::Ready),
            b'P' => Some(Self::NoProc(value)),
            b'T' => Some(Self::NoTerminals(value)),
            b'N' => Some(Self::NoChild(value)),
            b'X' => Some(Self::Exited(value)),
            b'S' => Some(Self::Killed(value)),
            b'E' => Some(Self::Empty),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back_as_they_went() {
        let words = [Word::Ready, Word::Empty, Word::Exited(-1), Word::Killed(9)];
        for word in words.into_iter().chain([Word::NoProc(1), Word::NoTerminals(2), Word::NoChild(17)]) {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        assert_eq!(Word::decode(b"R"), None);
        let orders = [Order::Hold, Order::Follow, Order::Making, Order::Made, Order::Keep, Order::Complete];
        for order in orders.into_iter().chain([Order::Kill]) {
            assert_eq!(Order::from_byte(order.byte()), Some(order));
        }
    }
}
