//! A program that follows pointers through its memory in random order while it moves: what serving on demand finds hardest.

use std::time::Duration;

use serde_json::Value;

use super::super::criu::{Daemon, Method};
use super::super::moving::{Look, Moved, Plan};
use super::super::plots::{Kind, Points};
use super::super::programs::{Line, Workload};
use super::super::table::Table;
use super::super::{Bench, PEER_ROUNDS, Results};
use super::{by_criu, carry, note_move};

/// The reader may stall longer at first.
const FIRST: Duration = Duration::from_millis(100);

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let promised = bench.sizes.promised_reader();
    let mut done = Ok(());
    for mib in &bench.sizes.reader {
        done = bench.each_numbered_round(&format!("reader, {mib} MiB"), |round| {
            one_round(bench, results, *mib)?;
            by_peer(bench, results, *mib, round)
        });
        if done.is_err() {
            break;
        }
    }
    table(bench, results);
    done.and_then(|()| charts(bench, results, promised))
}

/// Of the size that is promised, moves in one round of the reader and of what sleeps beside it: how its program, the sender and
/// the receiver share the processors is the kernel's choice anew in each, and tells threefold in what it gets done.
const MOVES: u32 = 3;

fn one_round(bench: &Bench, results: &mut Results, mib: u64) -> anyhow::Result<()> {
    if mib != bench.sizes.promised_reader() {
        return by_us(bench, results, mib);
    }
    for _ in 0..MOVES {
        by_us(bench, results, mib)?;
        let idle = Plan::of(Workload::asleep(mib)).carry_out(&bench.bin)?;
        note_move(results, &format!("reader/{mib}/idle"), &idle);
    }
    let ahead = Plan::of(Workload::counted_reader(mib)).mode("precopy").carry_out(&bench.bin)?;
    note_move(results, &format!("reader/{mib}/precopy"), &ahead);
    let faults = ahead.reported_number("/fault_latency/count").unwrap_or(f64::INFINITY);
    results.figures.add(format!("reader/{mib}/precopy/faults"), faults);
    Ok(())
}

fn by_us(bench: &Bench, results: &mut Results, mib: u64) -> anyhow::Result<()> {
    let moved = Plan::of(Workload::counted_reader(mib)).carry_out(&bench.bin)?;
    let name = format!("reader/{mib}/postcopy");
    note_move(results, &name, &moved);
    if let Some(stall) = moved.longest_gap_later(FIRST) {
        results.figures.add(format!("{name}/stall_ms"), super::super::figures::ms(stall));
    }
    if let Some(rate) = pages_a_second(&moved, mib) {
        results.figures.add(format!("{name}/pages_s"), rate);
    }
    for (figure, path) in [("p50_us", "/fault_latency/p50_us"), ("p99_us", "/fault_latency/p99_us")] {
        let value = moved.reported_number(path);
        value.into_iter().for_each(|us| results.figures.add(format!("{name}/{figure}"), us));
    }
    Ok(())
}

fn by_peer(bench: &Bench, results: &mut Results, mib: u64, round: u32) -> anyhow::Result<()> {
    let promised = bench.sizes.promised_reader();
    if mib > promised || (mib == promised && round > PEER_ROUNDS) {
        return Ok(());
    }
    let workload = Workload::counted_reader(mib);
    by_criu(bench, results, &format!("reader/{mib}/criu"), &workload, Method::LazyPages(Daemon::Criu))
}

/// Steps a second while pages are missing: between its first line at the destination, which began at the source, and the
/// last page. Each is a new page as long as the circle is not closed.
fn pages_a_second(moved: &Moved, mib: u64) -> Option<f64> {
    let until = moved.last_page();
    let (first, last) = (moved.after.first()?, moved.after.iter().rfind(|line| line.at <= until)?);
    let steps = last.count.saturating_sub(first.count).min(mib * 256);
    let seconds = last.at.saturating_duration_since(first.at).as_secs_f64();
    (seconds > 0.0).then(|| steps as f64 / seconds)
}

fn table(bench: &Bench, results: &mut Results) {
    let mut table = Table::new(
        "A random reader",
        &[
            "MiB",
            "downtime, ms",
            "all there, ms",
            "CRIU",
            "ratio",
            "stall later, ms",
            "pages a second",
            "fault p50, µs",
            "p99",
        ],
    );
    let figures = &results.figures;
    for mib in &bench.sizes.reader {
        let name = |of: &str| format!("reader/{mib}/{of}");
        let cell = |of: &str| figures.cell(&name(&format!("postcopy/{of}")));
        table.row([
            mib.to_string(),
            cell("downtime_ms"),
            cell("all_ms"),
            figures.cell(&name("criu/all_ms")),
            figures.ratio_cell(&name("criu/all_ms"), &name("postcopy/all_ms")),
            cell("stall_ms"),
            cell("pages_s"),
            cell("p50_us"),
            cell("p99_us"),
        ]);
    }
    table.note(
        "Stalls are those that begin 100 ms after it goes on and end before the last page is there, a dash if that is too short a \
         time. New pages are counted from its first line here to its last one before that page; a line comes every 2 ms. The \
         size that is promised moves three times in a round by post-copy, and so does what sleeps beside it. CRIU moves what is larger than \
         1 GiB for minutes and is spared that",
    );
    results.tables.push(table);
}

/// Moves once more, with somebody looking.
fn charts(bench: &Bench, results: &mut Results, mib: u64) -> anyhow::Result<()> {
    let reader = Workload::counted_reader(mib);
    for (label, workload) in
        [("ours, asleep", Workload::asleep(mib)), ("ours, random reader", reader.clone())]
    {
        let plan = Plan { look: Look::Resident, ..Plan::of(workload.clone()) };
        let moved = plan.carry_out(&bench.bin)?;
        let resident = moved.resident.iter().filter(|(at, _)| *at <= moved.total());
        results.chart(Kind::Pages).add(label, present(resident));
        if workload == reader {
            results.chart(Kind::Faults).add("random reader, under push", distribution(&moved.report));
            results.chart(Kind::Reader).add("ours", throughput(&moved));
        }
    }
    if let Some(carried) =
        carry(bench, &Workload::asleep(mib), Method::LazyPages(Daemon::Criu), Look::Resident)?
    {
        results.chart(Kind::Pages).add("CRIU lazy-pages, asleep", present(carried.resident.iter()));
    }
    Ok(())
}

fn present<'a>(resident: impl Iterator<Item = &'a (Duration, u64)>) -> Points {
    resident.map(|(at, kib)| (at.as_secs_f64() * 1e3, *kib as f64 / 1024.0)).collect()
}

/// Which share of the faults was answered in which time.
pub(super) fn distribution(report: &Value) -> Points {
    let buckets = report["fault_latency"]["buckets"].as_array().cloned().unwrap_or_default();
    let pairs = buckets.iter().filter_map(|bucket| Some((bucket[0].as_f64()?, bucket[1].as_f64()?)));
    let all: f64 = pairs.clone().map(|(_, count)| count).sum();
    let mut so_far = 0.0;
    let share = pairs.map(|(us, count)| {
        so_far += count;
        (us.max(1.0), 100.0 * so_far / all.max(1.0))
    });
    share.collect()
}

/// Steps a second in each of its lines, from before the move until after it.
fn throughput(moved: &Moved) -> Points {
    let lines: Vec<&Line> = moved.before.iter().chain(&moved.after).collect();
    let rates = lines.windows(2).filter_map(|pair| {
        let [before, line] = pair else { return None };
        let steps = line.count.saturating_sub(before.count) as f64;
        let seconds = (line.at - before.at).as_secs_f64().max(1e-4);
        let since = line.at.saturating_duration_since(moved.signalled).as_secs_f64()
            - moved.signalled.saturating_duration_since(line.at).as_secs_f64();
        Some((since * 1e3, (steps / seconds).max(1.0)))
    });
    rates.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_distribution_adds_up_to_all_faults() {
        let report = json!({ "fault_latency": { "buckets": [[0, 1], [8, 2], [300, 1]] } });
        assert_eq!(distribution(&report), [(1.0, 25.0), (8.0, 75.0), (300.0, 100.0)]);
        assert!(distribution(&json!({})).is_empty());
    }
}
