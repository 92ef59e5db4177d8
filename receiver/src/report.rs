//! The report of one migration, as JSON and as a short table.
//!
//! Names and units follow QEMU's `query-migrate` where it has them (kebab-case, milliseconds); what it does
//! not have, or has too coarse, is ours (snake_case, unit last).

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a migration took. Filled by the session from both sides' measurements.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// `completed`, or `failed` if pages were lost.
    pub status: String,
    /// From the first connection to the last page, in milliseconds.
    #[serde(rename = "total-time")]
    pub total_time: u64,
    /// The process ran nowhere, in milliseconds.
    pub downtime: u64,
    /// From the first connection to the accepted reservation, in milliseconds; the process runs.
    #[serde(rename = "setup-time")]
    pub setup_time: u64,
    /// Memory, in QEMU's words.
    pub ram: Ram,
    /// Sum over all faults of the time that a thread waited, in milliseconds.
    #[serde(rename = "postcopy-blocktime")]
    pub postcopy_blocktime: u64,
    /// `total-time` in microseconds.
    pub total_us: u64,
    /// `downtime` in microseconds.
    pub downtime_us: u64,
    /// Where the time went.
    pub phases: Phases,
    /// Why pages came, and what they were.
    pub pages: Pages,
    /// How long threads waited for a page.
    pub fault_latency: FaultLatency,
    /// TCP connections that stayed at the source, which has to stay as long as one of them is open.
    #[serde(default)]
    pub relayed_connections: u64,
}

/// QEMU's `MigrationStats`, as far as they apply.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Ram {
    /// Bytes that arrived, headers included.
    pub transferred: u64,
    /// Bytes that are still to come.
    pub remaining: u64,
    /// Bytes of all pages of the process that hold something here or there.
    pub total: u64,
    /// Pages that are all zero.
    pub duplicate: u64,
    /// Pages that came with their bytes.
    pub normal: u64,
    /// Bytes of those.
    pub normal_bytes: u64,
    /// Bytes of one page.
    pub page_size: u64,
    /// Page requests sent.
    pub postcopy_requests: u64,
    /// Bytes that arrived after the process had been let go here.
    pub postcopy_bytes: u64,
    /// Bytes that arrived while the process ran nowhere.
    pub downtime_bytes: u64,
    /// Pages a second, over the whole of post-copy.
    pub pages_per_second: u64,
    /// Megabits a second, over the whole of post-copy.
    pub mbps: f64,
}

/// Phases, in microseconds, in the order in which they happen.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Phases {
    /// From the signal to the accepted reservation; the program runs.
    pub setup_us: u64,
    /// Pages ahead of the stop; the program runs.
    #[serde(default)]
    pub ahead_us: u64,
    /// Bringing every thread to rest.
    pub park_us: u64,
    /// Reading registers, mappings and descriptors.
    pub capture_us: u64,
    /// From the captured image to `Run`: `send_us` and `rebuild_us`.
    pub switchover_us: u64,
    /// Of that, the image on its way and the word that it is built.
    #[serde(default)]
    pub send_us: u64,
    /// Of that, building the process here, with what must be in place before it goes on.
    #[serde(default)]
    pub rebuild_us: u64,
    /// From `Run` to the first instruction here.
    pub resume_us: u64,
    /// Looking for pages that hold data; the program runs here already.
    pub scan_us: u64,
    /// From the first instruction here to the last page.
    pub postcopy_us: u64,
}

/// Numbers of pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Pages {
    /// Came while the process ran at the source, and still held when it stood.
    #[serde(default)]
    pub ahead: u64,
    /// In place before the process was let go.
    pub eager: u64,
    /// Came because a thread waited for them.
    pub fault: u64,
    /// Came with a page that a thread waited for.
    pub prefetch: u64,
    /// Came without being asked for.
    pub push: u64,
    /// Came with their bytes.
    pub data: u64,
    /// Are all zero.
    pub zero: u64,
    /// Were taken from the same file here.
    pub same_file: u64,
    /// Could not be had: touching them gives SIGBUS.
    pub lost: u64,
}

/// Fault latencies in microseconds.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct FaultLatency {
    /// Faults that were measured.
    pub count: u64,
    /// Half of them were answered in this time.
    pub p50_us: u64,
    /// All but one in a hundred.
    pub p99_us: u64,
    /// All.
    pub max_us: u64,
    /// The distribution, ascending: a latency, and how many faults took at most that long but longer than the one
    /// before.
    #[serde(default)]
    pub buckets: Vec<(u64, u64)>,
}

impl fmt::Display for Report {
    /// A table of a few lines, indented, without a final newline.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (phases, pages, latency) = (self.phases, self.pages, &self.fault_latency);
        let us = |us| Micros(us);
        writeln!(f, "  downtime        {} of {} in all", us(self.downtime_us), us(self.total_us))?;
        writeln!(
            f,
            "  while it ran    set up {}, look for data {}, fetch pages {}",
            us(phases.setup_us),
            us(phases.scan_us),
            us(phases.postcopy_us)
        )?;
        writeln!(
            f,
            "  while it stood  park {}, capture {}, send {}\n                  rebuild {}, resume {}",
            us(phases.park_us),
            us(phases.capture_us),
            us(phases.send_us),
            us(phases.rebuild_us),
            us(phases.resume_us)
        )?;
        let Pages { ahead, eager, fault, prefetch, push, data, zero, same_file, lost } = pages;
        if ahead > 0 {
            writeln!(f, "  sent ahead      {ahead} pages in {}", us(phases.ahead_us))?;
        }
        writeln!(f, "  pages, why      {eager} eager, {fault} faults, {prefetch} prefetched, {push} pushed")?;
        writeln!(f, "  pages, what     {data} data, {zero} zero, {same_file} same file, {lost} lost")?;
        writeln!(f, "  on the wire     {}, {:.0} Mbit/s", Bytes(self.ram.transferred), self.ram.mbps)?;
        write!(
            f,
            "  fault latency   p50 {}, p99 {}, max {} ({} faults)",
            us(latency.p50_us),
            us(latency.p99_us),
            us(latency.max_us),
            latency.count
        )?;
        match self.relayed_connections {
            0 => Ok(()),
            count => {
                write!(f, "\n  still tied      {count} connections; the source stays until they are closed")
            }
        }
    }
}

struct Micros(u64);

impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, us) = (Duration::from_micros(self.0), self.0);
        match us {
            0..10_000 => write!(f, "{us} us"),
            10_000..10_000_000 => write!(f, "{:.1} ms", whole.as_secs_f64() * 1e3),
            _ => write!(f, "{:.1} s", whole.as_secs_f64()),
        }
    }
}

struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            bytes @ 0..10_240 => write!(f, "{bytes} bytes"),
            bytes @ 10_240..10_485_760 => write!(f, "{} KiB", bytes >> 10),
            bytes => write!(f, "{} MiB", bytes >> 20),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_has_qemus_names_where_qemu_has_one() {
        let json = serde_json::to_value(Report::default()).unwrap();
        for name in ["status", "total-time", "downtime", "setup-time", "ram", "postcopy-blocktime"] {
            assert!(json.get(name).is_some(), "{name}");
        }
        let ram = &json["ram"];
        for name in
            ["transferred", "total", "duplicate", "normal", "normal-bytes", "postcopy-requests", "page-size"]
        {
            assert!(ram.get(name).is_some(), "{name}");
        }
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), Report::default());
    }

    #[test]
    fn the_table_fits_a_terminal_even_with_large_numbers() {
        let mut report = Report { total_us: 59_999_999, downtime_us: 99_999, ..Report::default() };
        report.pages = Pages {
            ahead: 99_999_999,
            eager: 9_999,
            fault: 99_999,
            prefetch: 999_999,
            push: 99_999_999,
            ..report.pages
        };
        report.ram.transferred = u64::MAX;
        let table = report.to_string();
        assert!(table.lines().all(|line| line.len() <= 80), "{table}");
        assert!(table.contains("100.0 ms of 60.0 s in all"), "{table}");
    }
}
