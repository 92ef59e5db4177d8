//! Every bound of the daemon, with its unit and value.

use std::time::Duration;

/// Where sources look for a receiver when nobody told them otherwise.
pub const DEFAULT_PORT: u16 = 43000;
/// From the connection to the last byte of its `Hello`, and from there to the last of the three channels.
pub const GREETING_DEADLINE: Duration = Duration::from_secs(10);
/// Connections without a session; the oldest gives way to a newcomer.
pub const MAX_UNFINISHED: usize = 256;
/// Sessions at a time, from the third channel to the end of the migrated process; the oldest one whose source has not
/// said what it brings gives way to a newcomer.
pub const MAX_SESSIONS: usize = 256;
/// Migrations whose end is remembered for sources that ask later.
pub const MAX_FATES: usize = 4096;
/// Bytes of one event line from a session.
pub const MAX_EVENT_BYTES: usize = 64 << 10;
/// What a session that is told to end may still take before it is killed.
pub const FAREWELL_DEADLINE: Duration = Duration::from_secs(2);
/// Strangers (connections without a greeting) are told of once in this time, with a count.
pub const STRANGER_INTERVAL: Duration = Duration::from_secs(1);
/// A progress bar appears only when pages are still missing after this time.
pub const PROGRESS_DELAY: Duration = Duration::from_millis(300);

/// How long the link over which connections are relayed may come behind the manifest that needs it.
pub const RELAY_DEADLINE: Duration = Duration::from_secs(5);
