//! Programs that do nothing but hold memory. One looks at the clock without pause: how long it is away. One sleeps, and
//! leaves the processors to who moves it: when all of it is there.

use super::super::criu::{Daemon, Method};
use super::super::moving::Plan;
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, Results};
use super::{by_criu, floors, note_move};

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut done = Ok(());
    for mib in &bench.sizes.idle {
        done = bench.each_round(&format!("idle, {mib} MiB"), || {
            one_round(bench, results, &format!("idle/{mib}"), &Workload::new("ticks", *mib))?;
            one_round(bench, results, &format!("asleep/{mib}"), &Workload::asleep(*mib))?;
            if *mib == bench.sizes.floor { floors::streams(bench, results) } else { Ok(()) }
        });
        if done.is_err() {
            break;
        }
    }
    let tables = [downtimes(bench, results), totals(bench, results), phases(bench, results)];
    results.tables.extend(tables);
    done
}

fn one_round(bench: &Bench, results: &mut Results, name: &str, workload: &Workload) -> anyhow::Result<()> {
    let moved = Plan::of(workload.clone()).carry_out(&bench.bin)?;
    note_move(results, &format!("{name}/postcopy"), &moved);
    by_criu(bench, results, &format!("{name}/criu"), workload, Method::LazyPages(Daemon::Criu))?;
    by_criu(bench, results, &format!("{name}/criu_whole"), workload, Method::Whole)
}

/// Ours beside both of CRIU's ways.
fn row(results: &Results, program: &str, of: &str) -> [String; 5] {
    let name = |by: &str| format!("{program}/{by}/{of}");
    let [ours, lazy, whole] = ["postcopy", "criu", "criu_whole"].map(name);
    let figures = &results.figures;
    [
        figures.cell(&ours),
        figures.cell(&lazy),
        figures.ratio_cell(&lazy, &ours),
        figures.cell(&whole),
        figures.ratio_cell(&whole, &ours),
    ]
}

fn downtimes(bench: &Bench, results: &Results) -> Table {
    let columns = ["MiB", "gap", "ours", "CRIU lazy-pages", "ratio", "CRIU dump, restore", "ratio"];
    let mut table = Table::new("Downtime of a program that looks at the clock without pause, ms", &columns);
    for mib in &bench.sizes.idle {
        for (gap, of) in [("across the move", "downtime_ms"), ("the longest", "gap_ms")] {
            let what = [mib.to_string(), gap.to_owned()];
            table.row(what.into_iter().chain(row(results, &format!("idle/{mib}"), of)));
        }
    }
    table.note(
        "The longest time between two looks at the clock, as the program itself sees it: in the line that it began before \
         the move and ended after it, and in that and all that follow, up to three lines behind the last page. The promise \
         speaks of the first",
    );
    table
}

fn totals(bench: &Bench, results: &Results) -> Table {
    let columns = ["MiB", "ours", "CRIU lazy-pages", "ratio", "CRIU dump, restore", "ratio"];
    let mut table = Table::new("Until all pages of a sleeping program are there, ms", &columns);
    for mib in &bench.sizes.idle {
        let cells = row(results, &format!("asleep/{mib}"), "all_ms");
        table.row(std::iter::once(mib.to_string()).chain(cells));
    }
    table.note(
        "From the signal, or the beginning of the dump, to the last page; for dump and restore until it goes on. It looks at \
         the clock a hundred times a second",
    );
    table
}

fn phases(bench: &Bench, results: &Results) -> Table {
    let mut table = Table::new(
        "Where the downtime goes, idle, µs",
        &["MiB", "as it sees it, ms", "park", "capture", "send", "rebuild", "resume"],
    );
    for mib in &bench.sizes.idle {
        let cells = ["downtime_ms", "park_us", "capture_us", "send_us", "rebuild_us", "resume_us"]
            .map(|of| results.figures.cell(&format!("idle/{mib}/postcopy/{of}")));
        table.row(std::iter::once(mib.to_string()).chain(cells));
    }
    table
}
