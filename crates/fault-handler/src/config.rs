//! Every bound of the loop, with its unit.

use std::time::Duration;

/// Messages that one read(2) of a userfaultfd may return.
pub(crate) const EVENTS_PER_READ: usize = 128;
/// Messages and notes that are kept for whoever goes on if the loop dies; three quarters of them, and the loop is copied
/// anew. 32 bytes each.
pub(crate) const LOG_SLOTS: usize = 1 << 20;
/// How often another loop may go on in the place of one that has died: more than that is no accident.
pub(crate) const MAX_SUCCESSIONS: u64 = 1000;
/// Messages of one userfaultfd that are handed in before anything else gets its turn; what is left is read
/// in the next turn.
pub(crate) const EVENTS_PER_TURN: usize = 4096;
/// Address spaces at a time: the process and the children that it forked before all pages were there. One
/// more ends the migration, because a child without a server would read zeros.
pub(crate) const MAX_SPACES: usize = 4096;
/// Frames of pages between two looks at everything else, at most: of those that come ahead of the process, and of short ones.
pub(crate) const FRAMES_AHEAD: usize = 16;
/// Pages in short frames behind one another, beyond which the next frame waits for a look at everything else.
pub(crate) const SHORT_FRAMES_PAGES: u64 = 32;
/// How long a refused request waits for the event that stands behind the refusal, in milliseconds.
pub(crate) const CHANGE_WAIT_MS: u32 = 1;
/// How long a page for which there is no memory waits before it is tried again, in milliseconds.
pub(crate) const SHORTAGE_WAIT_MS: u32 = 50;
/// How long the last frames may take to leave, and the other side to hang up, once the engine is done.
pub(crate) const FAREWELL: Duration = Duration::from_secs(2);
/// How long nothing may come over any connection, not even from the other machine's kernel, before the link counts as
/// lost, in milliseconds.
pub(crate) const SILENCE_MS: u32 = 12_000;
/// How often this is looked at.
pub(crate) const LISTEN_INTERVAL: Duration = Duration::from_secs(2);
/// Descriptors whose readiness one wait reports.
pub(crate) const READY_PER_WAIT: usize = 256;
/// How often progress is told at most.
pub(crate) const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);
/// How often the loop goes to another processor at most: coming to rest there takes milliseconds if it was in use.
pub(crate) const PLACEMENT_INTERVAL: Duration = Duration::from_millis(5);
/// For how long it goes nowhere once it had to wait for as long as that for its turn on another processor.
pub(crate) const PLACEMENT_REST: Duration = Duration::from_secs(1);
