//! Every bound of the transport, with its unit.

/// Bytes that one connection keeps for a socket that does not take them: two of the longest frames.
pub const SEND_QUEUE_BYTES: usize = 16 << 20;

/// Bytes that one sealed record carries at most: little enough that the other side opens one while this side seals the
/// next.
pub(crate) const RECORD_BYTES: usize = 32 << 10;

/// Bytes that a receive buffer starts with.
pub(crate) const FIRST_BUFFER_BYTES: usize = 8 << 10;

/// Bytes that may be read beyond the frame that is being collected: never much to move to the front of the buffer.
pub(crate) const READ_AHEAD_BYTES: usize = 4 << 10;

/// The same of a frame of at most [`SHORT_FRAME_BYTES`], and of one of which nothing is known: others of its kind may follow,
/// and one system call brings several.
pub(crate) const READ_AHEAD_SHORT_BYTES: usize = 32 << 10;

/// Bytes of a frame of few pages.
pub(crate) const SHORT_FRAME_BYTES: usize = 16 << 10;

/// Bytes that an idle buffer keeps: one page frame and some. What a manifest needed is given back.
pub(crate) const KEPT_BUFFER_BYTES: usize = 512 << 10;

/// Bytes of pages that are copied rather than sent by themselves.
pub(crate) const FEW_BYTES: usize = 8 << 10;
