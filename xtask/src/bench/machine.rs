//! The machine that is measured, in words that do not name it, and what else it has to do.

use std::fs;
use std::io::{self, Write as _};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::watch::kib_of;

/// Memory that everything else on the machine keeps, in MiB.
const MARGIN_MIB: u64 = 1536;

/// What figures depend on.
#[derive(Clone, Debug)]
pub(super) struct Machine {
    processors: usize,
    model: String,
    governor: Option<String>,
    memory_mib: u64,
    kernel: String,
    /// The load of the last minute before anything was measured.
    load: f64,
    /// The day of the measurement, `YYYY-MM-DD`, UTC.
    date: String,
}

impl Machine {
    /// This one, today.
    pub(super) fn here() -> Self {
        let cpuinfo = text("/proc/cpuinfo");
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self {
            processors: processors(),
            model: model.map_or_else(|| "unknown".to_owned(), |(_, model)| model.to_owned()),
            governor: fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
                .ok()
                .map(|governor| governor.trim().to_owned()),
            memory_mib: meminfo_mib(&text("/proc/meminfo"), "MemTotal:"),
            kernel: text("/proc/sys/kernel/osrelease").trim().to_owned(),
            load: text("/proc/loadavg").split(' ').next().and_then(|load| load.parse().ok()).unwrap_or(0.0),
            date: date(since.as_secs() / 86_400),
        }
    }

    /// Others that want the processors show up in every figure.
    pub(super) fn warn_of_load(&self) {
        if self.load > 1.0 {
            let _ = writeln!(
                io::stderr(),
                "load {} on {} processors: others will be part of the result",
                self.load,
                self.processors
            );
        }
    }

    /// One paragraph for the page.
    pub(super) fn in_words(&self) -> String {
        let Self { processors, model, memory_mib, kernel, load, date, .. } = self;
        let governor = self.governor.as_deref().unwrap_or("unknown");
        format!(
            "{date}; {processors} processors ({model}, governor {governor}), {} GiB of memory, Linux {kernel}, load {load} \
             before the run; both ends on this machine, over loopback.",
            memory_mib.div_ceil(1024)
        )
    }

    /// The same for programs.
    pub(super) fn as_json(&self) -> Value {
        json!({
            "date": self.date, "processors": self.processors, "model": self.model, "governor": self.governor,
            "memory_mib": self.memory_mib, "kernel": self.kernel, "load": self.load,
        })
    }
}

/// Processors that may be used.
pub(super) fn processors() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Touches so much memory and gives it back, but never more than three quarters of what is available: a virtual machine may
/// have to get memory from its host that nobody has touched for long, seconds for a GiB.
pub(super) fn warm_memory(mib: u64) {
    let mib = mib.min(meminfo_mib(&text("/proc/meminfo"), "MemAvailable:") / 4 * 3);
    let mut memory = Vec::new();
    let len = usize::try_from(mib << 20).unwrap_or(0);
    // Where so much cannot be had at once, a move finds it by itself.
    if memory.try_reserve_exact(len).is_err() {
        return;
    }
    memory.resize(len, 0_u8);
    std::hint::black_box(&memory);
}

/// How large a process may be that is here twice while it moves, in MiB.
pub(super) fn room_mib() -> u64 {
    let available = meminfo_mib(&text("/proc/meminfo"), "MemAvailable:");
    available.saturating_sub(MARGIN_MIB) / 2
}

fn meminfo_mib(meminfo: &str, name: &str) -> u64 {
    kib_of(meminfo, name).unwrap_or(0) / 1024
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The day that is so many days behind 1970-01-01.
fn date(days: u64) -> String {
    let (year, month, day) = sys::clock::civil_date(days);
    format!("{year:04}-{month:02}-{day:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_dates() {
        let dates = [0, 59, 11_016, 19_782, 20_778].map(date);
        let expected = ["1970-01-01", "1970-03-01", "2000-02-29", "2024-02-29", "2026-11-21"];
        assert_eq!(dates, expected.map(str::to_owned));
    }

    #[test]
    fn memory_is_read_in_mebibytes() {
        let meminfo = "MemTotal:       24576000 kB\nMemAvailable:   2048 kB\n";
        assert_eq!((meminfo_mib(meminfo, "MemAvailable:"), meminfo_mib(meminfo, "Swap:")), (2, 0));
    }
}
