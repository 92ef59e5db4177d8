//! Benchmarks that print a table and fail when a promise is broken.
//!
//! `downtime`: the time for which a program stands still must not grow with its memory. Small and large take
//! turns in one run, so that whatever else the machine does meets both. `peers`: the same moves by us and by CRIU.

mod criu;
mod peers;
mod session;

use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;

pub(crate) use peers::{Peers, peers};
use session::{Sample, Workload};

/// By how much the medians of small and large may differ, as the program itself sees it.
const LIMIT: Duration = Duration::from_millis(2);

/// What to measure.
#[derive(clap::Args, Clone, Copy, Debug)]
pub(crate) struct Downtime {
    /// Moves of each size; the median counts
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..=999))]
    rounds: u32,
    /// Memory of the small program, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 1)]
    small: u64,
    /// Memory of the large program, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    large: u64,
}

/// Moves `target ticks` with little and with much memory; whether the promise holds.
///
/// # Errors
/// A move that fails, programs that are not built, too little memory.
pub(crate) fn downtime(root: &Path, what: Downtime) -> anyhow::Result<bool> {
    let bin = root.join("bin");
    anyhow::ensure!(bin.join("libsender.so").exists(), "bin/libsender.so is not there: run make first");
    check_memory(what.large)?;
    warn_of_load();
    let mut samples: [Vec<Sample>; 2] = [Vec::new(), Vec::new()];
    for round in 1..=what.rounds {
        for (samples, resident) in samples.iter_mut().zip([what.small, what.large]) {
            let workload = Workload { name: "ticks", resident_mib: resident };
            let sample = session::move_once(&bin, workload)
                .with_context(|| format!("round {round} with {resident} MiB resident"))?;
            samples.push(sample);
        }
        let _ = write!(io::stderr(), "\rround {round} of {}", what.rounds);
    }
    let _ = writeln!(io::stderr());
    let [small, large] = samples;
    let difference = median(&small, seen).abs_diff(median(&large, seen));
    let kept = difference < LIMIT;
    let mut out = io::stdout().lock();
    writeln!(out, "downtime of target ticks, medians of {} (least to most), in microseconds", what.rounds)?;
    writeln!(
        out,
        "{:>12}  {:>24}  {:>24}  {:>12}",
        "resident MiB", "as it sees it", "as the report says", "move in ms"
    )?;
    for (resident, samples) in [(what.small, &small), (what.large, &large)] {
        let total = median(samples, |sample| sample.total).as_millis();
        writeln!(
            out,
            "{resident:>12}  {:>24}  {:>24}  {total:>12}",
            spread(samples, seen),
            spread(samples, reported)
        )?;
    }
    let verdict = if kept { "less" } else { "not less" };
    let (difference, limit) = (difference.as_micros(), LIMIT.as_micros());
    writeln!(out, "the medians that the program sees differ by {difference}, {verdict} than {limit}")?;
    Ok(kept)
}

fn seen(sample: &Sample) -> Duration {
    sample.seen
}

fn reported(sample: &Sample) -> Duration {
    sample.reported
}

fn median(samples: &[Sample], value: fn(&Sample) -> Duration) -> Duration {
    let values = sorted(samples, value);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn spread(samples: &[Sample], value: fn(&Sample) -> Duration) -> String {
    let values = sorted(samples, value);
    let (least, most) = (values.first(), values.last());
    let us = |value: Option<&Duration>| value.map_or(0, Duration::as_micros);
    format!("{} ({} to {})", median(samples, value).as_micros(), us(least), us(most))
}

fn sorted(samples: &[Sample], value: fn(&Sample) -> Duration) -> Vec<Duration> {
    let mut values: Vec<Duration> = samples.iter().map(value).collect();
    values.sort();
    values
}

/// The memory is there twice while it moves.
fn check_memory(large: u64) -> anyhow::Result<()> {
    let text = std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo")?;
    let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib: u64 =
        available.and_then(|text| text.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(u64::MAX);
    let needed = large * 2 + 512;
    anyhow::ensure!(
        kib / 1024 >= needed,
        "{needed} MiB of free memory are needed and {} are there: take less with --large",
        kib / 1024
    );
    Ok(())
}

/// Others that want the processors show up in every gap.
fn warn_of_load() {
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let load: Option<f64> = load.and_then(|text| text.split(' ').next()?.parse().ok());
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if let Some(load) = load.filter(|load| *load > 1.0) {
        let _ = writeln!(
            io::stderr(),
            "load {load} on {processors} processors: others will be part of the result"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_the_spread_its_neighbourhood() {
        let samples = [5, 1, 9].map(|us| Sample { seen: Duration::from_micros(us), ..Sample::default() });
        assert_eq!(median(&samples, seen), Duration::from_micros(5));
        assert_eq!(spread(&samples, seen), "5 (1 to 9)");
    }
}
