//! Every bound of the engine, with its unit and default.

use core::time::Duration;

/// Limits and deadlines of one migration.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// From the first `Hello` to `Reserved`. Default 30 s: hashing large files takes its time.
    pub setup_deadline: Duration,
    /// From the captured image, or the last eager page that left, to `Ready` at the source. Default 5 s. The destination
    /// is twice as patient, so that it is the source that decides.
    pub switchover_deadline: Duration,
    /// Bytes a second at which the destination puts the content of memory objects in place, at the least: so much longer
    /// may it take until `Ready`. Default 100 MiB.
    pub content_rate: u64,
    /// Without a sign of life from the other side after `Run`, or without the answer to a page request: the link
    /// counts as lost then. Default 1 min.
    pub silence_deadline: Duration,
    /// How long a process waits for pages behind a lost link, unless [`OnLoss::Wait`]. Default 5 min.
    pub recovery_deadline: Duration,
    /// What becomes of it then.
    pub on_loss: OnLoss,
    /// How much longer than the destination the source waits, so that it is told how it ended. Default 10 s.
    pub recovery_grace: Duration,
    /// From a lost link to the source's first attempt to connect again, and from one attempt to the next: twice as
    /// long each time, up to `reconnect_delay_longest`. Default 100 ms.
    pub reconnect_delay: Duration,
    /// Default 2 s.
    pub reconnect_delay_longest: Duration,
    /// For so long after it heard that the process runs, the source sends only what is asked for, unless nothing is
    /// asked for during `head_start_pause`; zero is no head start at all. Default 10 ms.
    pub head_start: Duration,
    /// Default 1 ms.
    pub head_start_pause: Duration,
    /// Rounds of pages that go ahead of the switchover at most. Default 30.
    pub precopy_rounds: u32,
    /// Rounds in a row that gain little, beyond which the process is stopped however much is left, if nothing may
    /// follow. Default 5.
    pub precopy_idle_rounds: u32,
    /// What is left after a round is little if it is expected to take so long. Default 2 ms.
    pub precopy_rest: Duration,
    /// Or if it is so few pages. Default 64.
    pub precopy_rest_pages: u64,
    /// The destination takes pages ahead of the switchover. Default false.
    pub takes_ahead: bool,
    /// Pages that one push frame carries, 1 to 64. Default 64.
    pub push_pages: u64,
    /// Pages of a push frame that the destination installs before it looks who waits, while page requests go out. Default 32.
    pub install_pages_under_fire: u64,
    /// How long after the last page request that is. Default 5 ms.
    pub under_fire: Duration,
    /// Push frames on their way to the socket at a time. Default 2.
    pub push_window: u32,
    /// Pages that one page request asks for beyond the faulting one, at most 63, as long as nothing is known of how the
    /// program goes about its memory. Zero: never any. Default 15.
    pub prefetch_pages: u64,
    /// Bytes of address space that one scan or one poison covers. Scans grow where they find nothing.
    /// Default 1 GiB.
    pub scan_bytes: u64,
    /// Runs of data pages in one `PageMap`: 18 bytes each at most, so that it stays below 64 KiB. Default 3000.
    pub page_map_runs: usize,
    /// Pages that have been requested and not yet answered, beyond which the destination asks for no more.
    /// Default 4096 (16 MiB).
    pub pages_in_flight: u64,
    /// Pages around a touched page without content that are made zero with it. Default 16 (64 KiB, as the
    /// kernel's own fault-around).
    pub zero_fill_pages: u64,
    /// How long after the last pushed page the destination asks for what has not come; twice as long each time
    /// from there on. Default 100 ms.
    pub leftover_delay: Duration,
    /// Pages that the source may say to hold data, and as many that must be in place: one bit each is kept. Default
    /// 2^29 (2 TiB).
    pub data_pages: u64,
    /// Pages never looked at that are poisoned when the source is lost; were there more, each is when it is touched,
    /// and the migration ends only with the process. Default 2^22 (16 GiB, 32 MiB of page tables).
    pub poison_pages: u64,
    /// Ranges of lost pages that the report lists; more are only counted. Default 1024.
    pub lost_ranges: usize,
    /// Moves of the program whose unmapping is still awaited, in one address space. Default 1024.
    pub moves_awaited: usize,
}

/// What becomes of a process whose missing pages do not come.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnLoss {
    /// It waits for as long as it takes.
    Wait,
    /// It gets SIGBUS where it touches what is lost.
    #[default]
    Poison,
    /// It is killed.
    Kill,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            setup_deadline: Duration::from_secs(30),
            switchover_deadline: Duration::from_secs(5),
            content_rate: 100 << 20,
            silence_deadline: Duration::from_secs(60),
            recovery_deadline: Duration::from_secs(300),
            on_loss: OnLoss::default(),
            recovery_grace: Duration::from_secs(10),
            reconnect_delay: Duration::from_millis(100),
            reconnect_delay_longest: Duration::from_secs(2),
            head_start: Duration::from_millis(10),
            head_start_pause: Duration::from_millis(1),
            precopy_rounds: 30,
            precopy_idle_rounds: 5,
            precopy_rest: Duration::from_millis(2),
            precopy_rest_pages: 64,
            takes_ahead: false,
            push_pages: 64,
            install_pages_under_fire: 32,
            under_fire: Duration::from_millis(5),
            push_window: 2,
            prefetch_pages: 15,
            scan_bytes: 1 << 30,
            page_map_runs: 3000,
            pages_in_flight: 4096,
            zero_fill_pages: 16,
            leftover_delay: Duration::from_millis(100),
            data_pages: 1 << 29,
            poison_pages: 1 << 22,
            lost_ranges: 1024,
            moves_awaited: 1024,
        }
    }
}
