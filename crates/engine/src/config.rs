//! Every bound of the engine, with its unit and default.

use core::time::Duration;

/// Limits and deadlines of one migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// From the first `Hello` to `Reserved`. Default 30 s: hashing large files takes its time.
    pub setup_deadline: Duration,
    /// From the park signal to `Ready`. Default 5 s.
    pub switchover_deadline: Duration,
    /// Without a byte from the other side after `Run`. Default 5 min.
    pub silence_deadline: Duration,
    /// Pages that one push frame carries, 1 to 64. Default 64.
    pub push_pages: u64,
    /// Push frames on their way to the socket at a time. Default 2.
    pub push_window: u32,
    /// Pages that one page request asks for beyond the faulting one. Default 15.
    pub prefetch_pages: u64,
    /// Bytes of address space that one scan covers. Default 1 GiB.
    pub scan_bytes: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            setup_deadline: Duration::from_secs(30),
            switchover_deadline: Duration::from_secs(5),
            silence_deadline: Duration::from_secs(300),
            push_pages: 64,
            push_window: 2,
            prefetch_pages: 15,
            scan_bytes: 1 << 30,
        }
    }
}
