//! The floors: what TCP over loopback, the installing of pages, both together and a single fault take at least here.

use serde_json::Value;

use super::super::floor::{Passage, gigabytes, install_gb_per_s};
use super::super::place::Place;
use super::super::table::Table;
use super::super::{Bench, Results, machine};

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mib = bench.sizes.floor;
    let stormed = Passage { install: true, reader: true, ..stream(mib) };
    bench.each_round(&format!("floors, {mib} MiB"), || {
        streams(results, "floor", mib)?;
        results.figures.add("floor/copy_pages_gb_s", install_gb_per_s(mib, false)?);
        let done = stormed.carry_out()?;
        results.figures.add("floor/bare_reader_gb_s", gb_per_s(mib, &done));
        let touched = done["touched"].as_f64().unwrap_or(0.0);
        results.figures.add("floor/bare_reader/pages_s", touched * 1e3 / all_ms(&done));
        add_latency(results, "floor/bare_reader", &done);
        Ok(())
    })?;
    single_faults(bench, results)?;
    tables(results);
    Ok(())
}

/// What a program that is moved without being touched stands beside, under names that begin with `name`.
pub(super) fn streams(results: &mut Results, name: &str, mib: u64) -> anyhow::Result<()> {
    let figures = &mut results.figures;
    figures.add(format!("{name}/tcp_gb_s"), gb_per_s(mib, &stream(mib).carry_out()?));
    figures.add(format!("{name}/copy_blocks_gb_s"), install_gb_per_s(mib, true)?);
    let bare = Passage { install: true, ..stream(mib) };
    figures.add(format!("{name}/bare_gb_s"), gb_per_s(mib, &bare.carry_out()?));
    Ok(())
}

/// Sent, received and forgotten.
const fn stream(mib: u64) -> Passage {
    Passage { mib, push: true, install: false, reader: false, place: Place::Free }
}

fn gb_per_s(mib: u64, done: &Value) -> f64 {
    gigabytes(mib) * 1e3 / all_ms(done)
}

fn all_ms(done: &Value) -> f64 {
    done["all_ms"].as_f64().unwrap_or(f64::INFINITY)
}

/// No push: the reader makes every page come.
fn single_faults(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mib = bench.sizes.faults;
    bench.each_round(&format!("floors, single faults, {mib} MiB"), || {
        for place in Place::ALL.into_iter().filter(|place| place.is_possible(machine::processors())) {
            let alone = Passage { mib, push: false, install: true, reader: true, place };
            let done = alone.carry_out()?;
            add_latency(results, &format!("floor/fault/{}", place.name()), &done);
        }
        Ok(())
    })
}

/// As the receiver sees it, from the event to the installed page, and as the reader does.
fn add_latency(results: &mut Results, name: &str, done: &Value) {
    for (seen_by, figure) in [("served_us", "served"), ("fault_us", "touch")] {
        for percent in ["p50", "p99"] {
            let value = done[seen_by][percent].as_f64();
            value.into_iter().for_each(|us| results.figures.add(format!("{name}/{figure}_{percent}_us"), us));
        }
    }
}

fn tables(results: &mut Results) {
    let figures = &results.figures;
    let mut limits = Table::new(
        "What this machine can do",
        &["floor", "GB/s", "new pages a second", "fault p50, µs", "p99"],
    );
    let stormed = ["pages_s", "served_p50_us", "served_p99_us"];
    for (what, name) in [
        ("one TCP stream over loopback", "tcp"),
        ("UFFDIO_COPY in blocks of 256 KiB", "copy_blocks"),
        ("UFFDIO_COPY page by page", "copy_pages"),
        ("both: the bare post-copy loop, idle", "bare"),
        ("the same under a random reader", "bare_reader"),
    ] {
        let rate = figures.cell(&format!("floor/{name}_gb_s"));
        let cells = stormed.map(|of| match name {
            "bare_reader" => figures.cell(&format!("floor/bare_reader/{of}")),
            _ => String::new(),
        });
        limits.row([what.to_owned(), rate].into_iter().chain(cells));
    }
    results.tables.push(limits);
}
