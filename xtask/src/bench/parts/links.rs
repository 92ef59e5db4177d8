//! Slow and long links: how much of the time that its bytes would take a process needs, and how long it waits for a page.

use std::time::Duration;

use super::super::figures::ms;
use super::super::moving::Plan;
use super::super::programs::Workload;
use super::super::relay::Link;
use super::super::table::Table;
use super::super::{Bench, Results};

/// One way of the long link.
pub(in crate::bench) const LONG_DELAY: Duration = Duration::from_millis(20);

/// The memory of which a promise speaks.
const PROMISED: &str = "heap";
/// A move that takes less is repeated whatever it is.
const SHORT: Duration = Duration::from_secs(5);

const LINKS: [(&str, &str, Link); 2] = [
    ("gigabit", "1 Gbit/s", Link { rate: 1_000_000_000, delay: Duration::ZERO }),
    ("long", "20 Mbit/s, 20 ms each way", Link { rate: 20_000_000, delay: LONG_DELAY }),
];

/// What the memory holds, and what that is called.
const CONTENTS: [(&str, &str); 2] = [
    ("heap", "a quarter zero, a quarter text, half pointers and numbers"),
    ("half", "a quarter zero, a quarter text, half random"),
];

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mut done = Ok(());
    for ((name, in_words, link), mib) in LINKS.into_iter().zip(bench.sizes.links) {
        done = bench.each_round(&format!("link of {in_words}, {mib} MiB"), || {
            for (content, _) in CONTENTS {
                // What no promise speaks of takes minutes on a slow link: once is enough.
                let is_known = results.figures.median(&format!("links/{name}/{content}/all_ms")).is_some();
                if content != PROMISED && link.time_of(mib << 20) > SHORT && is_known {
                    continue;
                }
                one_move(bench, results, &format!("links/{name}/{content}"), link, content, mib)?;
            }
            Ok(())
        });
        if done.is_err() {
            break;
        }
    }
    table(bench, results);
    done
}

/// The counter verifies its memory at leisure, from the beginning to the end: each look may wait for a page.
fn one_move(
    bench: &Bench,
    results: &mut Results,
    name: &str,
    link: Link,
    content: &str,
    mib: u64,
) -> anyhow::Result<()> {
    let workload = Workload::new("counter", mib).with("--content", &content);
    let plan = Plan { link: Some(link), ..Plan::of(workload) };
    let moved = plan.carry_out(&bench.bin)?;
    let figures = &mut results.figures;
    figures.add(format!("{name}/downtime_ms"), ms(moved.reported));
    figures.add(format!("{name}/all_ms"), ms(moved.total()));
    figures.add(format!("{name}/share_percent"), 100.0 * ms(moved.total()) / ms(link.time_of(mib << 20)));
    let transferred = moved.reported_number("/ram/transferred").unwrap_or(f64::INFINITY);
    figures.add(format!("{name}/sent_ratio"), transferred / (mib << 20) as f64);
    for percent in ["p50_us", "p99_us"] {
        let value = moved.reported_number(&format!("/fault_latency/{percent}"));
        value.into_iter().for_each(|us| figures.add(format!("{name}/fault_{percent}"), us));
    }
    Ok(())
}

fn table(bench: &Bench, results: &mut Results) {
    let mut table = Table::new(
        "Links",
        &[
            "link",
            "MiB",
            "memory",
            "downtime, ms",
            "all there, ms",
            "% of its bytes' time",
            "sent / memory",
            "fault p50, µs",
            "p99",
        ],
    );
    for ((name, in_words, _), mib) in LINKS.into_iter().zip(bench.sizes.links) {
        for (content, holds) in CONTENTS {
            let cell = |of: &str| results.figures.cell(&format!("links/{name}/{content}/{of}"));
            let cells =
                ["downtime_ms", "all_ms", "share_percent", "sent_ratio", "fault_p50_us", "fault_p99_us"]
                    .map(cell);
            let what = [in_words.to_owned(), mib.to_string(), holds.to_owned()];
            table.row(what.into_iter().chain(cells));
        }
    }
    let [fast, slow] = LINKS.map(|(_, _, link)| link.queue().as_millis());
    table.note(format!(
        "A relay of the benchmark's own between the two ends, like one plain router: each way one queue for all connections, \
         first come, first out, {fast} ms long on the first link and {slow} ms on the second, then the rate, then the delay; \
         what finds it full waits in its sender's socket, nothing is lost, and TCP itself ends at the relay"
    ));
    results.tables.push(table);
}
