//! Memory between CRIU's dump and CRIU's restore: served by CRIU's own daemon, and by ours in its place; and the whole move
//! by `criu-bridge send` and `receive`.

use anyhow::Context as _;

use super::super::criu::{Daemon, Method};
use super::super::moving::Look;
use super::super::programs::Workload;
use super::super::table::Table;
use super::super::{Bench, PEER_ROUNDS, Results, machine};
use super::carry;

/// Who moves: under which name, and what it is called.
const MOVERS: [(Method, &str, &str); 3] = [
    (Method::LazyPages(Daemon::Criu), "criu", "criu lazy-pages"),
    (Method::LazyPages(Daemon::Ours), "ours", "criu-bridge lazy-pages"),
    (Method::Sent, "sent", "criu-bridge send, receive"),
];

/// The programs, and what they do.
const PROGRAMS: [(&str, &str); 2] = [("asleep", "sleeps"), ("reader", "reads at random")];

pub(super) fn measure(bench: &Bench, results: &mut Results) -> anyhow::Result<()> {
    let mib = bench.sizes.instances;
    let done = bench.each_numbered_round(&format!("instances, {mib} MiB"), |round| {
        for (program, _) in PROGRAMS {
            for (method, by, words) in MOVERS {
                if round <= PEER_ROUNDS || (program, by) != ("reader", "criu") {
                    one_move(bench, results, program, method, by)
                        .with_context(|| format!("{program} by {words}"))?;
                }
            }
        }
        Ok(())
    });
    table(mib, results);
    done
}

fn one_move(
    bench: &Bench,
    results: &mut Results,
    program: &str,
    method: Method,
    by: &str,
) -> anyhow::Result<()> {
    let mib = bench.sizes.instances;
    let workload = match program {
        "asleep" => Workload::asleep(mib),
        _ => Workload::new("chase", mib).telling("--waits"),
    };
    machine::warm_memory(bench.sizes.memory_of(super::Part::Instances));
    let Some(carried) = carry(bench, &workload, method, Look::Away)? else { return Ok(()) };
    let mut add = |of: &str, value: f64| results.figures.add(format!("instances/{program}/{by}/{of}"), value);
    let seconds = carried.total.as_secs_f64();
    add("all_s", seconds);
    add("mb_s", (mib << 20) as f64 / 1e6 / seconds);
    for (of, percent) in [("p50_us", 50), ("p99_us", 99)] {
        let us = carried.waits.percentile(percent).filter(|_| program == "reader");
        us.into_iter().for_each(|us| add(of, us as f64));
    }
    if program == "reader" {
        add("waits", carried.waits.count() as f64);
    }
    Ok(())
}

fn table(mib: u64, results: &mut Results) {
    let columns = ["the program", "by", "all there, s", "ratio", "MB/s", "waits", "a wait, p50, µs", "p99"];
    let mut table = Table::new(format!("{mib} MiB that CRIU has dumped, until all is restored"), &columns);
    let figures = &results.figures;
    for (program, does) in PROGRAMS {
        for (_, by, words) in MOVERS {
            let name = |of: &str| format!("instances/{program}/{by}/{of}");
            let ratio = figures.ratio_cell(&format!("instances/{program}/criu/all_s"), &name("all_s"));
            let [mb, waits, p50, p99] =
                ["mb_s", "waits", "p50_us", "p99_us"].map(|of| figures.cell(&name(of)));
            table.row([
                does.to_owned(),
                words.to_owned(),
                figures.cell(&name("all_s")),
                ratio,
                mb,
                waits,
                p50,
                p99,
            ]);
        }
    }
    table.note(format!(
        "From the beginning of the dump to the last page, with the same dump and the same restore of CRIU's on both sides of \
         both daemons; where criu lazy-pages serves the reader, {PEER_ROUNDS} rounds at most. A wait is a step of the \
         reader's own that took 8 µs or more, from the move to the last page"
    ));
    results.tables.push(table);
}
