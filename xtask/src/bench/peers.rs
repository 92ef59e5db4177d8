//! The same programs moved by us and by CRIU's lazy pages, in turn: downtime, and the time until every page is there.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use super::criu::Criu;
use super::session::{self, Sample, Workload};
use super::{check_memory, median, warn_of_load};

/// What to measure.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Peers {
    /// Moves of each kind; the median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Memory of the idle program, in MiB
    #[arg(long, value_name = "MIB,…", value_delimiter = ',', default_values_t = [1, 64, 1024, 4096])]
    idle: Vec<u64>,
    /// Memory of the program that chases pointers through it, in MiB
    #[arg(long, value_name = "MIB,…", value_delimiter = ',', default_values_t = [64, 1024])]
    chase: Vec<u64>,
    /// Three rounds, at most 1 GiB idle and 256 MiB chased
    #[arg(long)]
    quick: bool,
    /// Write the results as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// One workload, moved by both.
struct Row {
    workload: Workload,
    ours: Vec<Sample>,
    theirs: Vec<Sample>,
}

/// Measures and prints.
///
/// # Errors
/// A move that fails, programs that are not built, no CRIU, too little memory.
pub(crate) fn peers(root: &Path, what: &Peers) -> anyhow::Result<()> {
    let bin = root.join("bin");
    anyhow::ensure!(bin.join("libsender.so").exists(), "bin/libsender.so is not there: run make first");
    let workloads = workloads(what);
    check_memory(workloads.iter().map(|workload| workload.resident_mib).max().unwrap_or(0))?;
    warn_of_load();
    let criu = Criu::find()?;
    let rounds = if what.quick { what.rounds.min(3) } else { what.rounds };
    let mut rows = Vec::new();
    for workload in workloads {
        rows.push(measure(&bin, &criu, workload, rounds)?);
    }
    print(&rows, rounds)?;
    if let Some(path) = &what.json {
        std::fs::write(path, format!("{:#}\n", as_json(&rows, rounds)))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

fn workloads(what: &Peers) -> Vec<Workload> {
    const MOST_IDLE: u64 = 1024;
    const MOST_CHASED: u64 = 256;
    let limit = |sizes: &[u64], most: u64| {
        let mut sizes: Vec<u64> =
            sizes.iter().map(|mib| if what.quick { (*mib).min(most) } else { *mib }).collect();
        sizes.dedup();
        sizes
    };
    let idle = limit(&what.idle, MOST_IDLE).into_iter().map(|mib| ("ticks", mib));
    let chase = limit(&what.chase, MOST_CHASED).into_iter().map(|mib| ("chase", mib));
    idle.chain(chase).map(|(name, resident_mib)| Workload { name, resident_mib }).collect()
}

fn measure(bin: &Path, criu: &Criu, workload: Workload, rounds: u32) -> anyhow::Result<Row> {
    let mut row = Row { workload, ours: Vec::new(), theirs: Vec::new() };
    let Workload { name, resident_mib } = workload;
    for round in 1..=rounds {
        let context = |who: &str| format!("round {round} of {name} with {resident_mib} MiB, moved by {who}");
        row.ours.push(session::move_once(bin, workload).with_context(|| context("us"))?);
        let directory = std::env::temp_dir().join(format!("posthaste-bench-{}-{round}", std::process::id()));
        let theirs = criu.move_once(bin, workload, &directory);
        row.theirs.push(theirs.with_context(|| context("criu"))?);
        let _ = write!(io::stderr(), "\r{name} {resident_mib} MiB: round {round} of {rounds}    ");
    }
    let _ = writeln!(io::stderr());
    Ok(row)
}

fn print(rows: &[Row], rounds: u32) -> anyhow::Result<()> {
    let mut text = format!(
        "medians of {rounds}, ms: the longest gap that the program sees, and the time until every page is there\n\
         {:>8} {:>6}  {:>10} {:>10} {:>7}  {:>10} {:>10} {:>7}\n",
        "program", "MiB", "gap, ours", "criu", "ratio", "all, ours", "criu", "ratio"
    );
    for Row { workload, ours, theirs } in rows {
        let [gap, their_gap] = [ours, theirs].map(|samples| median(samples, |sample| sample.longest));
        let [all, their_all] = [ours, theirs].map(|samples| median(samples, |sample| sample.total));
        writeln!(
            text,
            "{:>8} {:>6}  {:>10.1} {:>10.1} {:>6.1}x  {:>10.0} {:>10.0} {:>6.1}x",
            workload.name,
            workload.resident_mib,
            ms(gap),
            ms(their_gap),
            ratio(their_gap, gap),
            ms(all),
            ms(their_all),
            ratio(their_all, all),
        )?;
    }
    io::stdout().write_all(text.as_bytes()).context("printing the table")
}

fn as_json(rows: &[Row], rounds: u32) -> serde_json::Value {
    let side = |samples: &[Sample]| {
        json!({
            "gap_us": samples.iter().map(|sample| sample.longest.as_micros()).collect::<Vec<_>>(),
            "all_us": samples.iter().map(|sample| sample.total.as_micros()).collect::<Vec<_>>(),
        })
    };
    let rows: Vec<_> = rows
        .iter()
        .map(|Row { workload, ours, theirs }| {
            let Workload { name, resident_mib } = workload;
            json!({ "program": name, "resident_mib": resident_mib, "us": side(ours), "criu": side(theirs) })
        })
        .collect();
    json!({ "rounds": rounds, "rows": rows })
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn ratio(theirs: Duration, ours: Duration) -> f64 {
    theirs.as_secs_f64() / ours.as_secs_f64().max(f64::MIN_POSITIVE)
}
