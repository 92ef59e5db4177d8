//! Every bound of the loop, with its unit.

use core::time::Duration;

/// Pages that one scan looks at, 64 MiB: less than a millisecond even where all of them are present.
pub(crate) const SCAN_PAGES: u64 = 16 << 10;

/// Pages that one scan looks at behind others that found nothing, 512 MiB.
pub(crate) const SCAN_PAGES_LARGEST: u64 = 128 << 10;

/// Frames that one turn takes from a connection before it looks at the others.
pub(crate) const FRAMES_PER_TURN: usize = 16;

/// Pages that nobody has asked for, and that wait in the kernel for a slow link, in bytes: what is asked for meanwhile is
/// sent twice.
pub(crate) const PUSH_UNSENT_BYTES: u32 = 128 << 10;

/// How long the destination may leave a piece of content lying.
pub(crate) const CONTENT_STANDSTILL: Duration = Duration::from_secs(10);

/// How long nothing may come over any connection, not even from the other machine's kernel, before the link counts as
/// lost, in milliseconds.
pub(crate) const SILENCE_MS: u32 = 12_000;

/// How often this is looked at.
pub(crate) const LISTEN_INTERVAL: Duration = Duration::from_secs(2);

/// How long the last frames may take to leave, once the migration is over.
pub(crate) const LAST_FLUSH: Duration = Duration::from_secs(2);

/// How long the loop looks for requests without sleeping while they keep coming, in nanoseconds: several times what a
/// program needs to touch the next missing page.
pub(crate) const VIGIL_NS: u64 = 1_000_000;

/// For how long it sleeps whenever there is nothing to do, after that was in vain.
pub(crate) const REST_NS: u64 = 20_000_000;
