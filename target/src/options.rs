//! The command line. `c/main.c` reads `--count` and `--threads` for the workloads written in C.

use clap::Parser;

use crate::pattern::Content;

/// Workloads that can tell whether they survived being moved to another machine.
#[derive(Debug, Parser)]
#[command(version, about, max_term_width = 100)]
pub(crate) struct Options {
    /// What to run; see --list
    #[arg(default_value = "counter")]
    pub(crate) workload: String,

    /// Print the names of the workloads and what each of them checks
    #[arg(long)]
    pub(crate) list: bool,

    /// End after N rounds (default: at SIGTERM or SIGINT)
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,

    /// Threads to keep busy (threads, robust_mutex)
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) threads: u32,

    /// Time between two lines (counter, ticks, chase, writer)
    #[arg(long, value_name = "MS", default_value_t = 200)]
    pub(crate) interval_ms: u64,

    /// Hold so many MiB of patterned memory and verify it (counter, ticks, chase, writer)
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    pub(crate) resident_mib: usize,

    /// What that memory looks like (counter, ticks)
    #[arg(long, value_enum, default_value_t = Content::Random)]
    pub(crate) content: Content,

    /// Print as well how often it has waited for memory, and how long (chase)
    #[arg(long)]
    pub(crate) waits: bool,

    /// Megabytes to write in a second, 0 for as many as there can be (writer)
    #[arg(long, value_name = "MB", default_value_t = 200)]
    pub(crate) rate_mb: u64,

    /// Sleep so long after each look at the clock (ticks)
    #[arg(long, value_name = "MS", default_value_t = 0)]
    pub(crate) rest_ms: u64,

    /// Threads that wait for the end (ticks)
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) sleepers: u32,

    /// Hold so many mappings of one page each as well, which are verified at the end
    // c/main.c has made them when this is read.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) mappings: u64,
}
