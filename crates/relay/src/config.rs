//! Every bound of the relay, with its unit.

/// Bytes that all connections of a relay may have in its memory, in each direction.
const MEMORY_BYTES: usize = 16 << 20;
/// Bytes that one connection may have there at least, and at most.
const WINDOW_BYTES: (usize, usize) = (4 << 10, 1 << 20);
/// Frames that are taken from the link in one turn.
pub(crate) const FRAMES_PER_TURN: usize = 16;
/// How long the other side may take nothing that is on its way before the link counts as lost, in milliseconds.
pub(crate) const SILENCE_MS: u32 = 30_000;

/// Bytes that each of `count` connections may have on its way to here.
pub(crate) fn window(count: usize) -> usize {
    (MEMORY_BYTES / count.max(1)).clamp(WINDOW_BYTES.0, WINDOW_BYTES.1)
}
