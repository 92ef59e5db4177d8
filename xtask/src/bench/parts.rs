//! The parts of the benchmark, each of which measures one thing and can be had alone.

mod faults;
mod floors;
mod footprint;
mod idle;
mod instances;
mod links;
mod reader;
mod scaling;
mod throughput;
mod writer;

pub(super) use self::idle::beside;
pub(super) use self::links::LONG_DELAY;
pub(super) use self::scaling::MAPPINGS;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;

use super::criu::{self, Carried, Method};
use super::figures::ms;
use super::moving::{Look, Moved};
use super::programs::Workload;
use super::{Bench, Results, machine};

/// What can be measured alone.
#[derive(clap::ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Part {
    /// What the machine can do
    Floors,
    /// A program that looks at the clock without pause, and one that sleeps
    Idle,
    /// One that touches its memory in random order
    Reader,
    /// Memory between CRIU's dump and CRIU's restore, served by its own daemon and by ours
    Instances,
    /// One that writes 200 MB/s
    Writer,
    /// Single faults while next to nothing else travels
    Faults,
    /// Threads, mappings, memory
    Scaling,
    /// Slow and long links
    Links,
    /// What moving takes of memory
    Footprint,
    /// What the program loses meanwhile
    Throughput,
}

impl Part {
    /// All of them, in the order in which they are measured.
    pub(super) const ALL: [Self; 10] = [
        Self::Floors,
        Self::Idle,
        Self::Reader,
        Self::Instances,
        Self::Writer,
        Self::Faults,
        Self::Scaling,
        Self::Links,
        Self::Footprint,
        Self::Throughput,
    ];

    /// Measures it; what fails is noted, and what was found before stays.
    pub(super) fn measure(self, bench: &Bench, results: &mut Results) {
        machine::warm_memory(bench.sizes.memory_of(self));
        let measured = match self {
            Self::Floors => floors::measure(bench, results),
            Self::Idle => idle::measure(bench, results),
            Self::Reader => reader::measure(bench, results),
            Self::Instances => instances::measure(bench, results),
            Self::Writer => writer::measure(bench, results),
            Self::Faults => faults::measure(bench, results),
            Self::Scaling => scaling::measure(bench, results),
            Self::Links => links::measure(bench, results),
            Self::Footprint => footprint::measure(bench, results),
            Self::Throughput => throughput::measure(bench, results),
        };
        if let Err(error) = measured {
            results.trouble(format!("{self:?}: {error:#}"));
        }
    }
}

/// Notes what every move is asked: downtime in two words, the longest gap, the time until all of it was there.
fn note_move(results: &mut Results, name: &str, moved: &Moved) {
    let figures = &mut results.figures;
    let mut add = |what: &str, time: Option<Duration>| {
        time.into_iter().for_each(|time| figures.add(format!("{name}/{what}"), ms(time)));
    };
    add("downtime_ms", moved.downtime());
    add("gap_ms", moved.longest_gap());
    add("reported_ms", Some(moved.reported));
    add("all_ms", Some(moved.total()));
    for phase in ["park", "capture", "send", "rebuild", "resume"] {
        let us = moved.reported_number(&format!("/phases/{phase}_us"));
        us.into_iter().for_each(|us| figures.add(format!("{name}/{phase}_us"), us));
    }
}

/// Moves a program by CRIU, if there is one, and notes the same but for the phases.
fn by_criu(
    bench: &Bench,
    results: &mut Results,
    name: &str,
    workload: &Workload,
    method: Method,
) -> anyhow::Result<()> {
    let Some(carried) = carry(bench, workload, method, Look::Away)? else { return Ok(()) };
    results.figures.add(format!("{name}/downtime_ms"), ms(carried.downtime));
    results.figures.add(format!("{name}/gap_ms"), ms(carried.longest));
    results.figures.add(format!("{name}/all_ms"), ms(carried.total));
    Ok(())
}

/// The same without noting anything; a `look` at its memory takes a little.
fn carry(bench: &Bench, workload: &Workload, method: Method, look: Look) -> anyhow::Result<Option<Carried>> {
    let Some(criu) = &bench.criu else { return Ok(None) };
    let directory = images();
    let carried = criu.move_once(&bench.bin, workload, method, look, &directory);
    if carried.is_ok() {
        return carried.map(Some);
    }
    let complaint = criu::complaint(&directory);
    // Memory's worth of images may lie there.
    let _ = std::fs::remove_dir_all(&directory);
    carried.with_context(|| format!("moved by CRIU, which says: {complaint}")).map(Some)
}

/// Where CRIU writes: into memory, so that no disk slows it down.
pub(super) fn images() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    let place = if memory.is_dir() { memory } else { std::env::temp_dir() };
    place.join(format!("posthaste-bench-{}", std::process::id()))
}
