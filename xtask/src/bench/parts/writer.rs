//! A program that writes 200 MB/s while it moves: what pages ahead of the stop are worth.

use super::super::criu::{Daemon, Method};
use super::super::moving::Plan;
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, Results};
use super::{by_criu, note_move};

const MODES: [&str; 3] = ["postcopy", "hybrid", "precopy"];

/// The writer of the promises.
pub(super) fn writer(mib: u64) -> Workload {
    Workload::new("writer", mib).with("--rate-mb", &200)
}

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut done = Ok(());
    for mib in &bench.sizes.writer {
        done = bench.each_round(&format!("writer, {mib} MiB"), || {
            for mode in MODES {
                one_move(bench, results, *mib, mode)?;
            }
            by_criu(
                bench,
                results,
                &format!("writer/{mib}/criu"),
                &writer(*mib),
                Method::LazyPages(Daemon::Criu),
            )
        });
        if done.is_err() {
            break;
        }
    }
    table(bench, results);
    done
}

fn one_move(bench: &Bench, results: &mut Results, mib: u64, mode: &'static str) -> anyhow::Result<()> {
    let moved = Plan::of(writer(mib)).mode(mode).carry_out(&bench.bin)?;
    let name = format!("writer/{mib}/{mode}");
    note_move(results, &name, &moved);
    let transferred = moved.reported_number("/ram/transferred").unwrap_or(f64::INFINITY);
    results.figures.add(format!("{name}/sent_ratio"), transferred / (mib << 20) as f64);
    let faults = moved.reported_number("/fault_latency/count").unwrap_or(f64::INFINITY);
    results.figures.add(format!("{name}/faults"), faults);
    Ok(())
}

fn table(bench: &Bench, results: &mut Results) {
    let mut table = Table::new(
        "A writer at 200 MB/s",
        &["MiB", "by", "downtime, ms", "all there, ms", "sent / memory", "faults"],
    );
    let figures = &results.figures;
    for mib in &bench.sizes.writer {
        for mode in MODES {
            let cell = |of: &str| figures.cell(&format!("writer/{mib}/{mode}/{of}"));
            let cells = ["downtime_ms", "all_ms", "sent_ratio", "faults"].map(cell);
            table.row([mib.to_string(), mode.to_owned()].into_iter().chain(cells));
        }
        let cell = |of: &str| figures.cell(&format!("writer/{mib}/criu/{of}"));
        let cells = ["downtime_ms", "all_ms"].map(cell);
        table.row([mib.to_string(), "CRIU lazy-pages".to_owned()].into_iter().chain(cells));
    }
    table.note("It sleeps for up to a millisecond between two of its slices, which the downtime as it sees it contains");
    results.tables.push(table);
}
