//! Programs that do nothing but hold memory. One looks at the clock without pause: how long it is away. One sleeps, and
//! leaves the processors to who moves it: when all of it is there.

use super::super::criu::{Daemon, Method};
use super::super::figures::number;
use super::super::floor::gigabytes;
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
            // In turn, because the machine is not the same from one minute to the next.
            match bench.sizes.promised_asleep() {
                Some(promised) if promised == *mib => floors::streams(results, &beside(promised), promised),
                _ => Ok(()),
            }
        });
        if done.is_err() {
            break;
        }
    }
    let tables = [downtimes(bench, results), totals(bench, results), phases(bench, results)];
    results.tables.extend(tables);
    results.tables.extend(bench.sizes.promised_asleep().map(|mib| limits(results, mib)));
    done
}

/// Under which the floors are noted that took turns with the program asleep.
pub(in crate::bench) fn beside(mib: u64) -> String {
    format!("asleep/{mib}/floor")
}

/// As many pages as the sleeping program has, without any promise.
fn limits(results: &Results, mib: u64) -> Table {
    let columns = ["what", "GB/s", "what ours is of it"];
    let mut table = Table::new(format!("{mib} MiB of a sleeping program, and what limits them"), &columns);
    let figures = &results.figures;
    let ours = figures.median(&format!("asleep/{mib}/postcopy/all_ms")).map(|ms| gigabytes(mib) * 1e3 / ms);
    let share = |of: Option<f64>| ours.zip(of).map_or_else(String::new, |(ours, of)| number(ours / of));
    table.row([
        "ours, from the signal to the last page".to_owned(),
        ours.map_or_else(String::new, number),
        String::new(),
    ]);
    for (what, name) in [
        ("one TCP stream over loopback", "tcp"),
        ("UFFDIO_COPY in blocks of 256 KiB", "copy_blocks"),
        ("both: the bare post-copy loop", "bare"),
    ] {
        let floor = format!("{}/{name}_gb_s", beside(mib));
        table.row([what.to_owned(), figures.cell(&floor), share(figures.median(&floor))]);
    }
    table.note("All took turns. The promises speak of these; the slower of TCP and UFFDIO_COPY is the limit");
    table
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
