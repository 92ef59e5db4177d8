//! Bodies of the control messages. Page messages have none: their header says it all.

use alloc::string::String;
use alloc::vec::Vec;

use memory::PageRange;
use serde::{Deserialize, Serialize};

use crate::{Channel, GhostRecord};

/// The version that this code speaks; a `Hello` offers a range of them.
pub const PROTOCOL_VERSION: u16 = 5;
/// Pages in one `Pages` or `PageRequest` frame: 256 KiB, from where larger blocks gain nothing.
pub const MAX_PAGES_PER_FRAME: u64 = 64;
/// Pages from the first to the last of one `PageBits` frame: a gibibyte in 32 KiB of bits.
pub const MAX_PAGES_PER_LIST: u64 = 1 << 18;
/// Bytes in one `Relayed` frame.
pub const MAX_RELAYED_BYTES: u32 = 32 << 10;

/// Names one migration on all its channels; random, made by the source.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct MigrationId(pub [u8; 16]);

impl core::fmt::Display for MigrationId {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Opens a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Hello {
    /// Always [`Hello::MAGIC`], so that a stranger's bytes are named as such.
    pub magic: [u8; 8],
    /// Oldest version that the source speaks.
    pub oldest: u16,
    /// Newest version that the source speaks.
    pub newest: u16,
    /// Which migration the connection belongs to.
    pub migration: MigrationId,
    /// Which of its channels it is.
    pub channel: Channel,
    /// Made by the source, and known to nobody but the two sides: who connects again proves by it that it is the same
    /// source.
    pub token: [u8; 16],
    /// How often the source has connected again: 0 for a migration that begins.
    pub attempt: u32,
    /// Whether the source has a key: then `KeyExchange` follows `Welcome`, and from there on everything is sealed.
    pub sealed: bool,
    /// Whether it is none of the three channels but the one that carries what relayed connections say.
    pub relays: bool,
}

impl Hello {
    /// The first bytes of every conversation.
    pub const MAGIC: [u8; 8] = *b"POSTHAST";

    /// A greeting of this version, without a key.
    #[must_use]
    pub const fn new(migration: MigrationId, channel: Channel) -> Self {
        Self {
            magic: Self::MAGIC,
            oldest: PROTOCOL_VERSION,
            newest: PROTOCOL_VERSION,
            migration,
            channel,
            token: [0; 16],
            attempt: 0,
            sealed: false,
            relays: false,
        }
    }

    /// The same with a token of the source's.
    #[must_use]
    pub const fn with_token(self, token: [u8; 16]) -> Self {
        Self { token, ..self }
    }
}

/// Accepts a connection.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both will speak.
    pub version: u16,
}

/// Why something is refused, cancelled or has failed: one line, no page content, no path that the other
/// side did not name itself.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reason {
    /// Lower case, says what to do where the reader can do something.
    #[serde(with = "text_as_bytes")]
    pub text: String,
}

impl Reason {
    /// The text as it may be shown: of bounded length, without anything that could steer a terminal or forge a line.
    #[must_use]
    pub fn printable(&self) -> String {
        const MOST_CHARS: usize = 400;
        self.text.chars().take(MOST_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
    }
}

/// What the destination found for one of the manifest's files.
///
/// One byte, by way of `u8`: the derived decoder of an enum drags in serde's wording for floating-point numbers, which
/// is a tenth of the parasite.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum FileVerdict {
    /// The very same content is here: unchanged pages need not travel.
    Same,
    /// Missing or different: private mappings of it become anonymous and all their pages travel.
    Travels,
    /// As [`Self::Travels`]; and the content that it has when the process stands still is wanted.
    Wanted,
}

/// A byte that stands for no verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0} is no verdict")]
pub struct NotAVerdict(u8);

impl TryFrom<u8> for FileVerdict {
    type Error = NotAVerdict;

    fn try_from(byte: u8) -> Result<Self, NotAVerdict> {
        match byte {
            0 => Ok(Self::Same),
            1 => Ok(Self::Travels),
            2 => Ok(Self::Wanted),
            other => Err(NotAVerdict(other)),
        }
    }
}

impl From<FileVerdict> for u8 {
    fn from(verdict: FileVerdict) -> Self {
        match verdict {
            FileVerdict::Same => 0,
            FileVerdict::Travels => 1,
            FileVerdict::Wanted => 2,
        }
    }
}

/// What has content that travels by itself, because it is too large for a manifest or the destination lacks it.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct ContentRecord {
    /// Where it is, and to whom it belongs; a memfd has its name where others have their path.
    pub file: GhostRecord,
    /// Bytes. Those that no frame brings are zero.
    pub size: u64,
}

/// What a content is of: the count of a `Content` frame, where 0 says that all content has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ContentKind {
    /// A memfd; the frame's argument is its index among the objects of the manifest that follows.
    Memory,
    /// A deleted file; as above.
    Deleted,
    /// A file that the destination wants; its index among the files of both manifests.
    File,
}

impl ContentKind {
    /// Its number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        match self {
            Self::Memory => 1,
            Self::Deleted => 2,
            Self::File => 3,
        }
    }

    /// The kind with this number on the wire.
    #[must_use]
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(Self::Memory),
            2 => Some(Self::Deleted),
            3 => Some(Self::File),
            _ => None,
        }
    }
}

/// What becomes of TCP connections that are open. One byte, as [`FileVerdict`]; one that stands for nothing is a reset.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(from = "u8", into = "u8")]
pub enum Connections {
    /// They are reset at the destination.
    #[default]
    Reset,
    /// They go on at the destination, which has the address from then on.
    Move,
    /// They stay at the source, which passes on what is said over them until they are closed.
    Relay,
}

impl From<u8> for Connections {
    fn from(byte: u8) -> Self {
        match byte {
            1 => Self::Move,
            2 => Self::Relay,
            _ => Self::Reset,
        }
    }
}

impl From<Connections> for u8 {
    fn from(connections: Connections) -> Self {
        match connections {
            Connections::Reset => 0,
            Connections::Move => 1,
            Connections::Relay => 2,
        }
    }
}

/// Everything that the manifest asks for can be had.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Reserved {
    /// One verdict for each of the manifest's files, in its order.
    pub files: Vec<FileVerdict>,
    /// The destination cannot serve every missing page there could be: all have to be in place before the process runs.
    pub all_pages_first: bool,
    /// It runs under the source's kernel: the very inode is the same file.
    pub same_kernel: bool,
    /// Its vDSO is another one, so that no thread may stand still in the source's.
    pub other_vdso: bool,
    /// What the destination does with open TCP connections.
    pub connections: Connections,
    /// When the pages travel, as the destination's user wants it.
    pub travel: Travel,
}

/// When pages travel, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Travel {
    /// Some of them go ahead, while the process still runs at the source.
    pub ahead: bool,
    /// None comes after `Run`: what did not go ahead comes while the process stands still.
    pub none_after: bool,
    /// Milliseconds that the process may stand still for what has not gone ahead.
    pub max_downtime_ms: u32,
    /// Bytes of pages a second that may go out while the process runs; 0 for as many as can.
    pub bandwidth: u64,
    /// They may come packed, where the link is slow enough for that to pay.
    pub packed: bool,
}

/// One scanned range and the pages of it that hold data; all others are zero.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PageMap {
    /// What was scanned.
    pub scanned: PageRange,
    /// Runs of pages with content, ascending, within `scanned`.
    pub data: Vec<PageRange>,
}

/// The source's side of the report. Times in microseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct SourceReport {
    /// From the signal to the accepted reservation; the program runs.
    pub setup_us: u64,
    /// From there to the first park signal: pages go ahead.
    pub ahead_us: u64,
    /// From the first park signal to the last thread at rest.
    pub park_us: u64,
    /// Reading registers, mappings and descriptors of the stopped process.
    pub capture_us: u64,
    /// From the captured image to `Run` on its way.
    pub switchover_us: u64,
    /// From `Run` on its way to `Running` received.
    pub resume_us: u64,
    /// Looking for pages that hold data.
    pub scan_us: u64,
    /// Bytes handed to the sockets, headers included.
    pub bytes_sent: u64,
}

/// A text in its bytes, encoded like any other sequence: what a `String` looks like on the wire.
mod text_as_bytes {
    use alloc::string::String;
    use alloc::vec::Vec;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
        text.as_bytes().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
        String::from_utf8(Vec::deserialize(deserializer)?)
            .map_err(|_| D::Error::custom("the text is not UTF-8"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{decode, encode};

    #[test]
    fn a_reason_is_its_length_and_its_bytes() {
        let reason = Reason { text: String::from("naïve") };
        let bytes = encode(&reason).expect("short");
        assert_eq!(bytes, b"\x06na\xc3\xafve");
        assert_eq!(decode::<Reason>(&bytes), Ok(reason));
    }

    #[test]
    fn a_reason_that_is_not_utf_8_or_too_short_is_malformed() {
        assert!(decode::<Reason>(b"\x01\xff").is_err());
        assert!(decode::<Reason>(b"\x05four").is_err());
        assert!(decode::<Reason>(b"\xfd\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
