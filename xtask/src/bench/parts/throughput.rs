//! What a program loses of its throughput while pages go ahead, and when the library is only there.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sys::signal::Signal;

use super::super::figures::number;
use super::super::moving::{Moved, Plan};
use super::super::programs::{Running, Workload};
use super::super::table::Table;
use super::super::{Bench, Results};
use super::writer::writer;

/// Lines before the move: half a second.
const LINES_BEFORE: usize = 50;
/// How long a program that is not moved is measured.
const ALONE: Duration = Duration::from_secs(1);

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mib = bench.sizes.promised_writer;
    let flat_out = Workload::new("writer", mib).with("--rate-mb", &0);
    let done = bench.each_round(&format!("throughput, {mib} MiB"), || {
        under_precopy(bench, results, "held", writer(mib))?;
        under_precopy(bench, results, "flat_out", flat_out.clone())?;
        for (name, preload) in [("plain", false), ("preloaded", true)] {
            let rate = alone(bench, &flat_out, preload)?;
            results.figures.add(format!("throughput/{name}_mb_s"), rate);
        }
        Ok(())
    });
    table(results);
    done
}

fn under_precopy(bench: &Bench, results: &mut Results, name: &str, workload: Workload) -> anyhow::Result<()> {
    let plan = Plan { warm_lines: LINES_BEFORE, ..Plan::of(workload).mode("precopy") };
    let moved = plan.carry_out(&bench.bin)?;
    let stopped = moved.resumed.checked_sub(moved.reported).context("the clock has begun before")?;
    let first = moved.before.first().context("it has printed before")?.at;
    let before = Moved::rate(&moved.before, first, moved.signalled).context("it has written before")?;
    let during = Moved::rate(&moved.before, moved.signalled, stopped);
    let during = during.context("pages went ahead for too short a time to count what it wrote")?;
    let figures = &mut results.figures;
    figures.add(format!("throughput/{name}/before_mb_s"), mb(before));
    figures.add(format!("throughput/{name}/during_mb_s"), mb(during));
    figures.add(format!("throughput/{name}/loss_percent"), 100.0 * (before - during) / before);
    Ok(())
}

/// MB/s of a program that is left alone.
fn alone(bench: &Bench, workload: &Workload, preload: bool) -> anyhow::Result<f64> {
    let mut command = workload.command(&bench.bin);
    if preload {
        command.env("LD_PRELOAD", bench.bin.join("libsender.so"));
    }
    let mut program = Running::start(&mut command, None)?;
    program.wait_printed(1)?;
    let begin = Instant::now();
    program.listen(ALONE)?;
    let rate = Moved::rate(&program.lines, begin, Instant::now()).context("it has written")?;
    program.signal(Signal::SIGTERM)?;
    anyhow::ensure!(program.wait()?, "the writer has found a mistake");
    Ok(mb(rate))
}

fn mb(kib_a_second: f64) -> f64 {
    kib_a_second * 1024.0 / 1e6
}

fn table(results: &mut Results) {
    let mut table = Table::new("What the program loses, MB/s", &["writer", "without", "with", "loss, %"]);
    let figures = &results.figures;
    for (what, name) in
        [("held at 200 MB/s, pages go ahead", "held"), ("flat out, pages go ahead", "flat_out")]
    {
        let cells = ["before_mb_s", "during_mb_s", "loss_percent"]
            .map(|of| figures.cell(&format!("throughput/{name}/{of}")));
        table.row(std::iter::once(what.to_owned()).chain(cells));
    }
    let [plain, preloaded] = ["throughput/plain_mb_s", "throughput/preloaded_mb_s"];
    let loss =
        figures.ratio(preloaded, plain).map_or_else(|| "–".to_owned(), |kept| number(100.0 * (1.0 - kept)));
    let cells = [figures.cell(plain), figures.cell(preloaded), loss];
    table.row(std::iter::once("flat out, library only preloaded".to_owned()).chain(cells));
    table.note("The writer's own count; time that it could not write in is not made up for");
    results.tables.push(table);
}
