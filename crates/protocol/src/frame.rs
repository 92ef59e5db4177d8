//! The frame: 16 bytes that say what follows and how long it is, checked before anything is allocated.

use alloc::vec::Vec;
use core::fmt;

use memory::{Addr, PAGE_SIZE, PageRange};

use crate::{MAX_PAGES_PER_FRAME, Piece, Text};

/// Bytes of a frame header.
pub const FRAME_HEADER_LEN: usize = 16;

/// The three connections of a migration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, serde::Serialize, serde::Deserialize)]
pub enum Channel {
    /// Handshake, manifest, switchover, page map.
    Control,
    /// Page requests and their answers; nothing bulky ever waits here.
    Fault,
    /// Pages that nobody has asked for yet.
    Push,
}

impl Channel {
    /// All three, in the order in which the source opens them.
    pub const ALL: [Self; 3] = [Self::Control, Self::Fault, Self::Push];
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $number:literal, limit $limit:expr;)*) => {
        /// What a frame carries. The table at the top of the crate has channel, direction and body of each.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u16)]
        pub enum Kind { $($(#[$doc])* $name = $number,)* }

        impl Kind {
            /// Every kind, for tests and tables.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The kind with this number on the wire.
            #[must_use]
            pub const fn from_number(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// Its number on the wire.
            #[must_use]
            pub const fn number(self) -> u16 {
                match self { $(Self::$name => $number,)* }
            }

            /// The longest body that a frame of this kind may announce, in bytes.
            #[must_use]
            pub const fn body_limit(self) -> u32 {
                match self { $(Self::$name => $limit,)* }
            }
        }
    };
}

const SMALL: u32 = 4 << 10;
const MANIFEST: u32 = 8 << 20;
const PAGE_MAP: u32 = 64 << 10;
const PAGES: u32 = 256 << 10;
const PAGE_BITS: u32 = 32 << 10;
/// A path of 4 KiB and what a symbolic link leads to.
const CONTENT: u32 = 12 << 10;
const RELAYED: u32 = crate::MAX_RELAYED_BYTES;
const _: () = assert!(PAGE_BITS as u64 * 8 == crate::MAX_PAGES_PER_LIST);

kinds! {
    /// First frame of every connection.
    Hello = 1, limit SMALL;
    /// The destination accepts the connection.
    Welcome = 2, limit SMALL;
    /// The destination does not take this migration; the connection closes behind it.
    Refused = 3, limit SMALL;
    /// A message of the handshake that seals the connection, in both directions.
    KeyExchange = 4, limit SMALL;
    /// The process as it is while it still runs: check and reserve.
    Reserve = 16, limit MANIFEST;
    /// Everything asked for can be had.
    Reserved = 17, limit MANIFEST;
    /// The process as it is now that it stands still.
    Switchover = 18, limit MANIFEST;
    /// Mapped, registered, eager pages in place.
    Ready = 19, limit 0;
    /// The point of no return.
    Run = 20, limit 0;
    /// The first thread has been let go at the destination.
    Running = 21, limit 0;
    /// Which pages of a scanned range hold data.
    PageMap = 22, limit PAGE_MAP;
    /// Every range has been scanned.
    PageMapDone = 23, limit 0;
    /// Every page has been pushed once.
    PushDone = 24, limit 0;
    /// The destination needs nothing more.
    Drained = 25, limit 0;
    /// The destination will never run this migration.
    Abort = 26, limit SMALL;
    /// The source takes the migration back, before `Run`.
    Cancel = 27, limit SMALL;
    /// This side has failed and says why.
    Failed = 28, limit SMALL;
    /// The source's own measurements, for the report.
    SourceReport = 29, limit SMALL;
    /// What the next bytes are the content of.
    Content = 30, limit CONTENT;
    /// A piece of it.
    ContentBytes = 31, limit PAGES;
    /// A thread waits for these pages.
    PageRequest = 32, limit 0;
    /// Page contents.
    Pages = 33, limit PAGES;
    /// Pages that are all zero.
    ZeroPages = 34, limit 8;
    /// Pages that the source cannot read: the destination answers a touch with SIGBUS.
    LostPages = 35, limit 8;
    /// Of these pages the destination has not been told what they hold.
    Unscanned = 36, limit 8;
    /// Which pages have arrived, or are missing.
    PageBits = 37, limit PAGE_BITS;
    /// That is all that is lacking: go on.
    Recover = 38, limit 0;
    /// The pages of a round have all been sent.
    RoundEnd = 39, limit 0;
    /// They are all in place.
    RoundTaken = 40, limit 0;
    /// Page contents in fewer bytes: one LZ4 block.
    PackedPages = 41, limit PAGES;
    /// Pages that were asked for and had been pushed before: they come over the other connection.
    Pushed = 42, limit 8;
    /// Bytes of a relayed connection; none of them: that direction has ended.
    Relayed = 48, limit RELAYED;
    /// So many bytes more of a relayed connection have room.
    RelayCredit = 49, limit 4;
    /// A relayed connection is broken.
    RelayReset = 50, limit 0;
}

/// The fixed head of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// What follows.
    pub kind: Kind,
    /// Bytes of body behind the header; at most [`Kind::body_limit`].
    pub body_len: u32,
    /// Pages, where the kind has a count; else 0.
    pub count: u16,
    /// Address, epoch, pid, descriptor or challenge, where the kind has one; else 0.
    pub argument: u64,
}

/// Bytes that are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// No kind has this number.
    #[error("unknown frame kind {0}")]
    UnknownKind(u16),
    /// The announced body is longer than this kind may have.
    #[error("a {kind:?} frame announces {len} bytes, the limit is {limit}")]
    TooLong {
        /// What the frame says it is.
        kind: Kind,
        /// What it announces, in bytes.
        len: u32,
        /// What it may announce, in bytes.
        limit: u32,
    },
    /// The fields contradict each other or name no user pages.
    #[error("a {kind:?} frame with count {count}, argument {argument:#x} and {len} bytes makes no sense")]
    Inconsistent {
        /// What the frame says it is.
        kind: Kind,
        /// Its count.
        count: u16,
        /// Its argument.
        argument: u64,
        /// Its body, in bytes.
        len: u32,
    },
    /// A [`Kind::PackedPages`] body that is not those pages.
    #[error("{len} bytes do not unpack to {count} pages")]
    NotThosePages {
        /// How many pages it should be.
        count: u16,
        /// Its body, in bytes.
        len: u32,
    },
}

impl Header {
    /// A header without count and argument.
    #[must_use]
    pub const fn plain(kind: Kind, body_len: u32) -> Self {
        Self { kind, body_len, count: 0, argument: 0 }
    }

    /// The sixteen bytes on the wire.
    #[must_use]
    pub fn to_bytes(self) -> [u8; FRAME_HEADER_LEN] {
        let mut bytes = [0; FRAME_HEADER_LEN];
        let (head, argument) = bytes.split_at_mut(8);
        let (len, tail) = head.split_at_mut(4);
        let (kind, count) = tail.split_at_mut(2);
        len.copy_from_slice(&self.body_len.to_le_bytes());
        kind.copy_from_slice(&self.kind.number().to_le_bytes());
        count.copy_from_slice(&self.count.to_le_bytes());
        argument.copy_from_slice(&self.argument.to_le_bytes());
        bytes
    }

    /// Reads and checks a header: kind known, body within its limit.
    ///
    /// # Errors
    /// [`FrameError`]; the connection cannot be used any further.
    pub fn from_bytes(bytes: [u8; FRAME_HEADER_LEN]) -> Result<Self, FrameError> {
        let [l0, l1, l2, l3, k0, k1, c0, c1, argument @ ..] = bytes;
        let number = u16::from_le_bytes([k0, k1]);
        let kind = Kind::from_number(number).ok_or(FrameError::UnknownKind(number))?;
        let header = Self {
            kind,
            body_len: u32::from_le_bytes([l0, l1, l2, l3]),
            count: u16::from_le_bytes([c0, c1]),
            argument: u64::from_le_bytes(argument),
        };
        let limit = kind.body_limit();
        if header.body_len > limit {
            return Err(FrameError::TooLong { kind, len: header.body_len, limit });
        }
        Ok(header)
    }

    /// The pages that a [`Kind::PageRequest`], [`Kind::Pages`] or [`Kind::PackedPages`] frame names.
    ///
    /// # Errors
    /// [`FrameError::Inconsistent`] unless they are 1 to [`MAX_PAGES_PER_FRAME`] user pages and the body fits: packed
    /// pages are shorter than they are otherwise.
    pub fn pages(self) -> Result<PageRange, FrameError> {
        let count = u64::from(self.count);
        let (plain, len) = (count * PAGE_SIZE, u64::from(self.body_len));
        let body_fits = match self.kind {
            Kind::Pages => len == plain,
            Kind::PackedPages => (1..plain).contains(&len),
            _ => len == 0,
        };
        PageRange::from_pages(Addr(self.argument), count)
            .filter(|_| (1..=MAX_PAGES_PER_FRAME).contains(&count) && body_fits)
            .ok_or_else(|| self.inconsistent())
    }

    /// The pages that a [`Kind::ZeroPages`], [`Kind::LostPages`], [`Kind::Pushed`] or [`Kind::Unscanned`] frame with this body
    /// names.
    ///
    /// # Errors
    /// [`FrameError::Inconsistent`] unless they are at least one page of user space.
    pub fn counted_pages(self, body: &[u8]) -> Result<PageRange, FrameError> {
        let count = <[u8; 8]>::try_from(body).map_err(|_| self.inconsistent())?;
        PageRange::from_pages(Addr(self.argument), u64::from_le_bytes(count))
            .filter(|range| !range.is_empty())
            .ok_or_else(|| self.inconsistent())
    }

    /// The runs of pages that a [`Kind::PageBits`] frame with this body names.
    ///
    /// # Errors
    /// [`FrameError::Inconsistent`] unless they are user pages.
    pub fn listed_pages(self, body: &[u8]) -> Result<Vec<PageRange>, FrameError> {
        crate::bits::decode_bits(Addr(self.argument), body).ok_or_else(|| self.inconsistent())
    }

    const fn inconsistent(self) -> FrameError {
        FrameError::Inconsistent {
            kind: self.kind,
            count: self.count,
            argument: self.argument,
            len: self.body_len,
        }
    }
}

/// A whole frame, its body still in the receive buffer.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'buffer> {
    /// What it is.
    pub header: Header,
    /// `header.body_len` bytes.
    pub body: &'buffer [u8],
}

impl Piece for Channel {
    fn put_into(&self, text: &mut impl Text) {
        text.push_text(match self {
            Self::Control => "control",
            Self::Fault => "fault",
            Self::Push => "push",
        });
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.in_words())
    }
}
