//! What downtime depends on: threads, mappings, and not memory.

use super::super::moving::Plan;
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, Results};
use super::note_move;

/// Threads of the program, itself included.
const THREADS: [u32; 3] = [1, 16, 256];
/// Mappings on top of those that every program has, some fifty.
pub(in crate::bench) const MAPPINGS: [u32; 4] = [0, 1000, 10_000, 20_000];
/// Memory of the programs of which threads and mappings are counted.
const RESIDENT_MIB: u64 = 16;

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut done = bench.each_round("scaling, threads", || {
        for threads in THREADS {
            let workload = Workload::new("ticks", RESIDENT_MIB).with("--sleepers", &(threads - 1));
            one_move(bench, results, &format!("threads/{threads}"), workload)?;
        }
        Ok(())
    });
    done = done.and_then(|()| {
        bench.each_round("scaling, mappings", || {
            for mappings in MAPPINGS {
                let workload = Workload::new("ticks", RESIDENT_MIB).with("--mappings", &mappings);
                one_move(bench, results, &format!("mappings/{mappings}"), workload)?;
            }
            Ok(())
        })
    });
    let memory = memory(bench);
    done = done.and_then(|()| {
        bench.each_round("scaling, memory", || {
            for mib in &memory {
                one_move(bench, results, &format!("memory/{mib}"), Workload::new("ticks", *mib))?;
            }
            Ok(())
        })
    });
    table(results, &memory);
    done
}

/// The largest idle program and the largest that fits, in turn.
fn memory(bench: &Bench) -> Vec<u64> {
    let most = bench.sizes.most.into_iter();
    most.flat_map(|most| bench.sizes.ends().map(|[_, large]| [large, most])).flatten().collect()
}

fn one_move(bench: &Bench, results: &mut Results, name: &str, workload: Workload) -> anyhow::Result<()> {
    let moved = Plan::of(workload).carry_out(&bench.bin)?;
    note_move(results, &format!("scaling/{name}"), &moved);
    Ok(())
}

fn table(results: &mut Results, memory: &[u64]) {
    let mut table = Table::new(
        "What downtime depends on",
        &["the program has", "downtime, ms", "park, µs", "capture", "send", "rebuild", "resume"],
    );
    let threads = THREADS.map(|threads| (format!("{threads} threads"), format!("threads/{threads}")));
    let mappings =
        MAPPINGS.map(|mappings| (format!("{mappings} mappings more"), format!("mappings/{mappings}")));
    let memory = memory.iter().map(|mib| (format!("{mib} MiB"), format!("memory/{mib}")));
    let figures = &results.figures;
    for (what, name) in threads.into_iter().chain(mappings).chain(memory) {
        let phases = ["park", "capture", "send", "rebuild", "resume"]
            .map(|phase| figures.cell(&format!("scaling/{name}/{phase}_us")));
        let downtime = figures.cell(&format!("scaling/{name}/downtime_ms"));
        table.row([what, downtime].into_iter().chain(phases));
    }
    table.note("Source and destination share this machine, so the largest program is half of what is free");
    results.tables.push(table);
}
