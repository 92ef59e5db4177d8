//! Every bound of the loop, with its unit.

use core::time::Duration;

/// Bytes of address space that one scan looks at: less than a millisecond even where every page is present.
pub(crate) const SCAN_STEP_BYTES: u64 = 64 << 20;

/// Runs of pages that one `PageMap` frame carries: at most 18 bytes each, within the frame's 64 KiB.
pub(crate) const RUNS_PER_PAGE_MAP: usize = 3000;

/// Frames that one turn takes from a connection before it looks at the others.
pub(crate) const FRAMES_PER_TURN: usize = 16;

/// How long the last frames may take to leave, once the migration is over.
pub(crate) const LAST_FLUSH: Duration = Duration::from_secs(2);

/// Characters of the other side's words that are passed on.
pub(crate) const PEER_TEXT_CHARS: usize = 400;
