//! The bytes between two machines: frame header, messages, the manifest (the process image), versions.
//!
//! ```text
//! every frame: 16 bytes, little endian            { body_len: u32, kind: u16, count: u16, argument: u64 }, then the body
//!
//! kind  name           channel  way  count      argument        body
//!    1  Hello          any      →    0          0               bincode Hello
//!    2  Welcome        any      ←    0          challenge       bincode Welcome
//!    3  Refused        any      ←    0          0               bincode Reason
//!    4  KeyExchange    any      ↔    0          0               Noise message
//!   16  Reserve        control  →    0          0               bincode Manifest
//!   17  Reserved       control  ←    0          0               bincode Reserved
//!   18  Switchover     control  →    0          0               bincode Manifest
//!   19  Ready          control  ←    0          0               –
//!   20  Run            control  →    0          epoch           –
//!   21  Running        control  ←    seconds    pid here        – (it waits so long behind a lost link, 0: for ever)
//!   22  PageMap        control  →    0          0               bincode PageMap
//!   23  PageMapDone    control  →    0          0               –
//!   24  PushDone       control  →    0          0               –
//!   25  Drained        control  ←    0          0               –
//!   26  Abort          control  ←    0          0               bincode Reason
//!   27  Cancel         control  →    0          0               bincode Reason
//!   28  Failed         control  ↔    0          0               bincode Reason
//!   29  SourceReport   control  →    0          0               bincode SourceReport
//!   30  Content        control  →    what it is index           bincode ContentRecord (between Reserved and Switchover)
//!   31  ContentBytes   control  →    0          offset          bytes of what the last Content has named, ascending
//!
//!       over a new link, once the first is lost
//!   36  Unscanned      control  ←    0          source address  u64 count of pages (nothing is known of them)
//!   37  PageBits       control  ←    0 or 1     source address  bit n: page n is missing, or (1) has arrived
//!   38  Recover        control  ←    0          0               – (that is all that is lacking)
//!
//!       ahead of the switchover, if it was agreed upon
//!   39  RoundEnd       push     →    0          0 or 1          – (1: of the last one, which nobody answers)
//!   40  RoundTaken     control  ←    0          0               – (every page before that RoundEnd is in place)
//!
//!       over a link of their own, if connections are relayed
//!   48  Relayed        –        ↔    0          descriptor      bytes (none: nothing more comes)
//!   49  RelayCredit    –        ↔    0          descriptor      u32 count of bytes that have room
//!   50  RelayReset     –        ↔    0          descriptor      –
//!
//!   32  PageRequest    fault    ←    pages      address         –
//!   33  Pages          f, push  →    pages      source address  pages × 4096 bytes
//!   34  ZeroPages      f, push  →    0          source address  u64 count of pages
//!   35  LostPages      f, push  →    0          source address  u64 count of pages (unreadable: answered by poison)
//!   41  PackedPages    f, push  →    pages      source address  one LZ4 block: pages × 4096 bytes, in fewer
//!   42  Pushed         fault    →    0          source address  u64 count of pages (asked for, and on their way on push)
//! ```
//!
//! What this crate does not do: read or write sockets (`transport`), decide anything (`engine`).
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bits;
mod codec;
mod connection;
mod empty;
mod encoder;
mod frame;
mod ghost;
mod manifest;
mod messages;
pub mod sample;
mod scheduling;
mod socket_options;
mod terminal;
mod text;

pub use bits::encode_bits;
pub use codec::{DecodeError, decode, encode};
pub use connection::Connection;
pub use frame::{Channel, FRAME_HEADER_LEN, Frame, FrameError, Header, Kind};
pub use ghost::{GhostRecord, LockRecord, PROC_VALUES, ProcValue};
pub use manifest::{
    ClockRecord, Credentials, Description, DescriptionKind, Descriptor, FileProof, FileRecord, HostFacts,
    Manifest, MessageRecord, MmFields, ObjectRecord, PipeEnd, PipeRecord, ProcessRecord, ResourceLimit,
    RseqRecord, SignalAction, SignalInfo, SocketRecord, StreamKind, SystemVRecord, SystemVState,
    ThreadRecord, TimerRecord, TimerTimes, VdsoRecord, XsaveLayout,
};
pub use messages::{
    Connections, ContentKind, ContentRecord, FileVerdict, Hello, MAX_PAGES_PER_FRAME, MAX_PAGES_PER_LIST,
    MAX_RELAYED_BYTES, MigrationId, NotAVerdict, PROTOCOL_VERSION, PageMap, Reason, Reserved, SourceReport,
    Travel, Welcome,
};
pub use scheduling::{
    PROCESS_SETTINGS, SCHEDULING_NICE, SCHEDULING_PRIORITY, SCHEDULING_PROCESSORS, SECURE_BITS, Scheduling,
};
pub use socket_options::{SOCKET_OPTIONS, socket_options};
pub use terminal::{TYPED, TerminalEnd, TerminalRecord, Typed};
pub use text::{Piece, Text};
