//! Single faults while next to nothing else travels, beside the floor where everybody runs on the same processors.

use super::super::moving::Plan;
use super::super::place::Place;
use super::super::plots::Kind;
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, Results, machine};
use super::reader::distribution;

/// Bytes a second that may be pushed: next to nothing, so that the reader makes every page come.
const PUSH: &str = "256K";

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mib = bench.sizes.faults;
    let places = || Place::ALL.into_iter().filter(|place| place.is_possible(machine::processors()));
    let mut last = Vec::new();
    let done = bench.each_round(&format!("single faults, {mib} MiB"), || {
        last.clear();
        for place in places() {
            let receiver = ["--bandwidth", PUSH].map(str::to_owned).to_vec();
            let plan = Plan { place, receiver, ..Plan::of(Workload::new("chase", mib)) };
            let moved = plan.carry_out(&bench.bin)?;
            for percent in ["p50_us", "p99_us"] {
                let value = moved.reported_number(&format!("/fault_latency/{percent}"));
                let name = format!("faults/{}/{percent}", place.name());
                value.into_iter().for_each(|us| results.figures.add(name.clone(), us));
            }
            last.push((place, distribution(&moved.report)));
        }
        Ok(())
    });
    for (place, points) in last {
        results.chart(Kind::Faults).add(format!("alone, {}", place.in_words()), points);
    }
    table(results, places());
    done
}

fn table(results: &mut Results, places: impl Iterator<Item = Place>) {
    let mut table = Table::new(
        "A single fault, next to no push, µs",
        &["who runs where", "p50", "floor", "ratio", "p99", "floor", "ratio"],
    );
    let figures = &results.figures;
    for place in places {
        let place_name = place.name();
        let cells = ["p50", "p99"].map(|percent| {
            let ours = format!("faults/{place_name}/{percent}_us");
            let floor = format!("floor/fault/{place_name}/served_{percent}_us");
            [figures.cell(&ours), figures.cell(&floor), figures.ratio_cell(&ours, &floor)]
        });
        table.row(std::iter::once(place.in_words().to_owned()).chain(cells.into_iter().flatten()));
    }
    table.note("From the kernel's event to the installed page, as the receiver sees it, while 256 KiB a second are pushed; the floor asks for one page at a time and pushes nothing");
    results.tables.push(table);
}
