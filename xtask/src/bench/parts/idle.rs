//! A program that looks at the clock without pause and holds memory: how long it is away, and when all of it is there.

use super::super::criu::Method;
use super::super::figures::number;
use super::super::moving::Plan;
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, Results};
use super::{by_criu, note_move};

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut done = Ok(());
    for mib in &bench.sizes.idle {
        let workload = Workload::new("ticks", *mib);
        done = bench.each_round(&format!("idle, {mib} MiB"), || {
            let moved = Plan::of(workload.clone()).carry_out(&bench.bin)?;
            note_move(results, &format!("idle/{mib}/postcopy"), &moved);
            by_criu(bench, results, &format!("idle/{mib}/criu"), &workload, Method::LazyPages)?;
            by_criu(bench, results, &format!("idle/{mib}/criu_whole"), &workload, Method::Whole)
        });
        if done.is_err() {
            break;
        }
    }
    tables(bench, results);
    done
}

fn tables(bench: &Bench, results: &mut Results) {
    let columns = ["MiB", "ours", "CRIU lazy-pages", "ratio", "CRIU dump, restore", "ratio"];
    let mut gaps = Table::new("Downtime of an idle program, ms", &columns);
    let mut totals = Table::new("Until all pages are there, idle, ms", &columns);
    let mut phases = Table::new(
        "Where the downtime goes, idle, µs",
        &["MiB", "as it sees it, ms", "park", "capture", "send", "rebuild", "resume"],
    );
    let figures = &results.figures;
    for mib in &bench.sizes.idle {
        let name = |of: &str| format!("idle/{mib}/{of}");
        let row = |ours: &str, theirs: &str| {
            let [ours, lazy, whole] =
                [name(ours), name(&format!("criu/{theirs}")), name(&format!("criu_whole/{theirs}"))];
            [
                mib.to_string(),
                figures.cell(&ours),
                figures.cell(&lazy),
                figures.ratio_cell(&lazy, &ours),
                figures.cell(&whole),
                figures.ratio_cell(&whole, &ours),
            ]
        };
        gaps.row(row("postcopy/downtime_ms", "gap_ms"));
        totals.row(row("postcopy/all_ms", "all_ms"));
        let phase = ["park", "capture", "send", "rebuild", "resume"].map(|phase| {
            figures.median(&name(&format!("postcopy/{phase}_us"))).map_or_else(String::new, number)
        });
        let seen = figures.cell(&name("postcopy/downtime_ms"));
        phases.row([mib.to_string(), seen].into_iter().chain(phase));
    }
    gaps.note(
        "The longest time between two looks at the clock, across the move, as the program itself sees it",
    );
    totals.note("From the signal, or the beginning of the dump, to the last page; for dump and restore to its next line");
    results.tables.extend([gaps, totals, phases]);
}
