//! What the project promises, and whether it is kept here: every line with what was measured and where the limit lies.

mod promise;

use serde_json::Value;

pub(super) use self::promise::Promise;
use super::figures::Figures;
use super::machine;
use super::parts::{LONG_DELAY, MAPPINGS, Part, beside};
use super::place::Place;
use super::sizes::{MOST, Sizes};
use super::table::Table;

/// Per cent that rounds may differ by and still show that nothing was lost.
const MOST_NOISE: f64 = 5.0;

/// Every promise, with what the figures say of it.
pub(super) fn judge(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let mut promises = downtime(figures, sizes);
    promises.extend(arrival(figures, sizes));
    promises.extend(reader(figures, sizes));
    promises.extend(instances(figures, sizes));
    promises.extend(single_faults(figures));
    promises.extend(ahead(figures, sizes));
    promises.extend(scaling(figures, sizes));
    promises.extend(links(figures, sizes));
    promises.extend(costs(figures, sizes));
    promises
}

fn downtime(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let ours = |mib: u64| format!("idle/{mib}/postcopy/downtime_ms");
    let gain = |mib: u64, of: &str| {
        figures.ratio(&format!("idle/{mib}/criu/{of}"), &format!("idle/{mib}/postcopy/{of}"))
    };
    let shorter = |mib: u64, times: f64| {
        let first = format!("shorter than by CRIU lazy-pages, {mib} MiB");
        let longest = format!("the same of the longest gap until the last page, {mib} MiB");
        [
            Promise::at_least(first, gain(mib, "downtime_ms"), times, " times").by(&[Part::Idle]),
            Promise::shown(longest, gain(mib, "gap_ms"), " times").by(&[Part::Idle]),
        ]
    };
    let Some([small, large]) = sizes.ends() else { return Vec::new() };
    let all: Option<Vec<f64>> = sizes.idle.iter().map(|mib| figures.median(&ours(*mib))).collect();
    let worst = all.and_then(|all| all.into_iter().max_by(f64::total_cmp));
    let worst =
        Promise::at_most(format!("downtime, idle, {small} to {large} MiB, the worst"), worst, 3.0, " ms");
    std::iter::once(worst.by(&[Part::Idle]))
        .chain(shorter(small, 25.0))
        .chain(shorter(large, 100.0))
        .collect()
}

fn arrival(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let Some(mib) = sizes.promised_asleep() else { return Vec::new() };
    let ours = format!("asleep/{mib}/postcopy/all_ms");
    let rate = figures.median(&ours).map(|ms| (mib << 20) as f64 / 1e6 / ms);
    let floor = |name: &str| figures.median(&format!("{}/{name}_gb_s", beside(mib)));
    let limit = floor("tcp").zip(floor("copy_blocks"));
    let limit = limit.map(|(tcp, copy)| tcp.min(copy));
    let share = |of: Option<f64>| rate.zip(of).map(|(rate, of)| rate / of);
    vec![
        Promise::at_least(
            format!("sooner there than by CRIU lazy-pages, {mib} MiB asleep"),
            figures.ratio(&format!("asleep/{mib}/criu/all_ms"), &ours),
            2.5,
            " times",
        )
        .by(&[Part::Idle]),
        Promise::at_least("share of the slower of TCP and UFFDIO_COPY", share(limit), 0.5, "")
            .by(&[Part::Idle]),
        Promise::at_least("share of the bare loop", share(floor("bare")), 0.9, "").by(&[Part::Idle]),
    ]
}

fn reader(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let mib = sizes.promised_reader();
    let name = |of: &str| format!("reader/{mib}/{of}");
    let all = name("postcopy/all_ms");
    let promises = [
        Promise::at_least(
            format!("random reader, {mib} MiB, sooner there than by CRIU lazy-pages"),
            figures.ratio(&name("criu/all_ms"), &all),
            50.0,
            " times",
        ),
        Promise::at_most(
            "of the time that as much takes asleep",
            figures.ratio(&all, &name("idle/all_ms")),
            1.5,
            " times",
        ),
        Promise::at_most(
            "its longest stall after 100 ms",
            figures.median(&name("postcopy/stall_ms")),
            20.0,
            " ms",
        )
        .unless(mib < 1024, "a smaller one is there before"),
        Promise::at_least(
            "new pages that it gets",
            figures.median(&name("postcopy/pages_s")),
            50_000.0,
            " a second",
        ),
    ];
    promises.map(|promise| promise.by(&[Part::Reader])).into()
}

fn instances(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let mib = sizes.instances;
    let gain = |program: &str| {
        let [criu, ours] = ["criu", "ours"].map(|by| format!("instances/{program}/{by}/all_s"));
        figures.ratio(&criu, &ours)
    };
    let p99 = |by: &str| figures.median(&format!("instances/reader/{by}/p99_us"));
    // CRIU's dump and restore are most of what a smaller one takes.
    let gains = |what: String, measured, times| match mib {
        1024.. => Promise::at_least(what, measured, times, " times"),
        _ => Promise::shown(what, measured, " times"),
    };
    let sooner =
        format!("{mib} MiB between CRIU's dump and restore, sooner there by ours than by criu lazy-pages");
    let promises = [
        gains(format!("{sooner}, random reader"), gain("reader"), 15.0),
        gains(format!("{sooner}, asleep"), gain("asleep"), 1.0),
        Promise::shown("that reader's waits for memory, p99, by ours", p99("ours"), " µs"),
        Promise::shown("the same by criu lazy-pages", p99("criu"), " µs"),
    ];
    promises.map(|promise| promise.by(&[Part::Instances])).into()
}

fn single_faults(figures: &Figures) -> Vec<Promise> {
    let places = [Place::OneCore, Place::Apart].map(|place| {
        let name = place.name();
        let ours = format!("faults/{name}/p50_us");
        let floor = format!("floor/fault/{name}/served_p50_us");
        let what = format!("a single fault, next to no push, {}, p50 of the floor", place.in_words());
        Promise::at_most(what, figures.ratio(&ours, &floor), 1.5, " times")
            .unless(!place.is_possible(machine::processors()), "it takes two processors")
            .by(&[Part::Floors, Part::Faults])
    });
    places.into()
}

fn ahead(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let (mib, read) = (sizes.promised_writer, sizes.promised_reader());
    let hybrid = |of: &str| format!("writer/{mib}/hybrid/{of}");
    let [faults, plain] =
        [hybrid("faults"), format!("writer/{mib}/postcopy/faults")].map(|name| figures.median(&name));
    let share = faults.zip(plain).map(|(faults, plain)| faults / plain.max(1.0));
    let precopy = |of: &str| figures.median(&format!("reader/{read}/precopy/{of}"));
    vec![
        Promise::at_most(
            format!("writer at 200 MB/s, {mib} MiB, hybrid: downtime"),
            figures.median(&hybrid("downtime_ms")),
            10.0,
            " ms",
        )
        .by(&[Part::Writer]),
        Promise::at_most("sent of its memory", figures.median(&hybrid("sent_ratio")), 1.5, " times")
            .by(&[Part::Writer]),
        Promise::at_most("of the faults of plain post-copy", share, 0.1, "").by(&[Part::Writer]),
        Promise::at_most(
            format!("reader, {read} MiB, precopy: downtime"),
            precopy("downtime_ms"),
            5.0,
            " ms",
        )
        .by(&[Part::Reader]),
        Promise::at_most("its faults", precopy("faults"), 0.0, "").by(&[Part::Reader]),
    ]
}

fn scaling(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let downtime = |name: &str| figures.median(&format!("scaling/{name}/downtime_ms"));
    let by_mappings = MAPPINGS.map(|count| (f64::from(count), downtime(&format!("mappings/{count}"))));
    let [few, some, half, many] = by_mappings;
    let each =
        |less: (f64, Option<f64>), more: (f64, Option<f64>)| Some((more.1? - less.1?) / (more.0 - less.0));
    let ratio = |more: Option<f64>, less: Option<f64>| Some(more? / less.filter(|cost| *cost > 0.0)?);
    // What the first thousand cost is less than a millisecond, and each of them less than of those that follow: how much
    // less depends on the processor's caches.
    let (growth, beside_few) =
        (ratio(each(half, many), each(few, half)), ratio(each(few, many), each(few, some)));
    let larger = sizes.most.zip(sizes.ends()).and_then(|(most, [_, large])| {
        Some(downtime(&format!("memory/{most}"))? - downtime(&format!("memory/{large}"))?)
    });
    let most = sizes.most.map_or_else(
        || "the most memory".to_owned(),
        |mib| match mib {
            MOST.. => in_gib(mib),
            _ => format!("{} ({} do not fit twice)", in_gib(mib), in_gib(MOST)),
        },
    );
    let than = sizes.ends().map_or_else(|| "the largest idle one".to_owned(), |[_, large]| in_gib(large));
    let promises = [
        Promise::at_most("downtime with 20,000 mappings more", many.1, 60.0, " ms"),
        Promise::at_most(
            "what each of the second 10,000 costs, of each of the first",
            growth,
            1.25,
            " times",
        ),
        Promise::shown("what each of 20,000 costs, of each of 1,000", beside_few, " times")
            .unless(each(few, some).is_some_and(|cost| cost <= 0.0), "1,000 cost nothing that can be told"),
        Promise::at_most("downtime with 256 threads", downtime("threads/256"), 15.0, " ms"),
        Promise::at_most(format!("downtime with {most}, beyond that with {than}"), larger, 1.0, " ms")
            .unless(sizes.most.is_none(), "no larger program is moved"),
    ];
    promises.map(|promise| promise.by(&[Part::Scaling])).into()
}

fn in_gib(mib: u64) -> String {
    if mib.is_multiple_of(1024) { format!("{} GiB", mib / 1024) } else { format!("{mib} MiB") }
}

fn links(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let [_, mib] = sizes.links;
    let p99 = figures.median("links/long/heap/fault_p99_us").map(|us| us / 1e3);
    let round_trips = 3.0 * 2.0 * LONG_DELAY.as_secs_f64() * 1e3;
    let promises = [
        Promise::at_most(
            format!("20 Mbit/s, {mib} MiB, half zero or text, of the time that its bytes would take"),
            figures.median("links/long/heap/share_percent"),
            45.0,
            " %",
        ),
        Promise::at_most("p99 of a fault there, three round trips", p99, round_trips, " ms"),
    ];
    promises.map(|promise| promise.by(&[Part::Links])).into()
}

fn costs(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let took: Option<Vec<f64>> =
        sizes.idle.iter().map(|mib| figures.median(&format!("footprint/{mib}/both_mib"))).collect();
    let took = took.and_then(|took| took.into_iter().max_by(f64::total_cmp));
    let [plain, preloaded] = ["throughput/plain_mb_s", "throughput/preloaded_mb_s"];
    let lost = figures.ratio(preloaded, plain).map(|kept| 100.0 * (1.0 - kept));
    // What can be measured is what the rounds without it do not differ by themselves; if that is much, nothing was shown.
    let noise = figures
        .spread(plain)
        .zip(figures.median(plain))
        .map_or(0.0, |(spread, median)| 100.0 * spread / median);
    vec![
        Promise::at_most("memory of receiver and parasite, the most at any size", took, 32.0, " MiB")
            .by(&[Part::Footprint]),
        Promise::at_most(
            "throughput lost while pages go ahead, writer held at 200 MB/s",
            figures.median("throughput/held/loss_percent"),
            10.0,
            " %",
        )
        .by(&[Part::Throughput]),
        Promise::shown(
            "the same of a writer that writes flat out",
            figures.median("throughput/flat_out/loss_percent"),
            " %",
        )
        .by(&[Part::Throughput]),
        Promise::at_most(
            "throughput lost by preloading (limit: what the rounds differ by)",
            lost,
            noise.clamp(1.0, MOST_NOISE),
            " %",
        )
        .by(&[Part::Throughput]),
    ]
}

/// Promises of which all parts have run and which have no figure, in words.
pub(super) fn missing(promises: &[Promise], ran: impl Fn(Part) -> bool) -> Vec<String> {
    let missing = promises.iter().filter(|promise| promise.is_missing(&ran));
    missing.map(|promise| format!("there is no figure for a promise: {}", promise.what())).collect()
}

/// Whether nothing that was measured misses its limit.
pub(super) fn all_kept(promises: &[Promise]) -> bool {
    promises.iter().all(|promise| promise.is_kept() != Some(false))
}

/// The promises as a table.
pub(super) fn table(promises: &[Promise]) -> Table {
    let mut table = Table::new("Promises", &["promise", "measured", "limit", "verdict"]);
    promises.iter().for_each(|promise| table.row(promise.cells()));
    table
}

/// The same for programs.
pub(super) fn as_json(promises: &[Promise]) -> Value {
    promises.iter().map(Promise::as_json).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(promises: &[Promise], what: &str) -> String {
        let promise = promises.iter().find(|promise| promise.what().contains(what));
        promise.map_or_else(|| "missing".to_owned(), Promise::verdict)
    }

    #[test]
    fn a_miss_is_a_miss_and_what_was_not_measured_is_neither() {
        let mut figures = Figures::default();
        figures.add("idle/1/postcopy/downtime_ms", 2.0);
        figures.add("idle/1/criu/downtime_ms", 75.0);
        for mib in [64, 1024, 4096] {
            figures.add(format!("idle/{mib}/postcopy/downtime_ms"), 3.1);
        }
        let promises = judge(&figures, &Sizes::new(false, 100_000));
        assert_eq!(verdict(&promises, "the worst"), "NOT KEPT");
        assert_eq!(verdict(&promises, "lazy-pages, 1 MiB"), "kept");
        assert_eq!(verdict(&promises, "lazy-pages, 4096 MiB"), "not measured");
        assert!(!all_kept(&promises));
    }

    #[test]
    fn mappings_are_linear_if_each_costs_the_same() {
        let judged = |downtimes: [f64; 4]| {
            let mut figures = Figures::default();
            for (count, ms) in MAPPINGS.iter().zip(downtimes) {
                figures.add(format!("scaling/mappings/{count}/downtime_ms"), ms);
            }
            judge(&figures, &Sizes::new(true, 100_000))
        };
        let promises = judged([2.0, 2.5, 12.0, 22.5]);
        let measured = |what| promises.iter().find(|promise| promise.what().contains(what)).unwrap().measured;
        assert!((measured("second 10,000").unwrap() - 1.05).abs() < 1e-9);
        assert!((measured("of each of 1,000").unwrap() - 2.05).abs() < 1e-9);
        assert_eq!(verdict(&promises, "second 10,000"), "kept");
        // Twice the mappings, four times the time.
        assert_eq!(verdict(&judged([2.0, 2.1, 12.0, 42.0]), "second 10,000"), "NOT KEPT");
    }

    #[test]
    fn a_loss_is_not_hidden_by_rounds_that_differ() {
        let mut figures = Figures::default();
        [100.0, 60.0, 140.0].into_iter().for_each(|rate| figures.add("throughput/plain_mb_s", rate));
        figures.add("throughput/preloaded_mb_s", 90.0);
        let promises = judge(&figures, &Sizes::new(true, 100_000));
        assert_eq!(verdict(&promises, "preloading"), "NOT KEPT");
    }

    #[test]
    fn our_daemon_is_judged_where_what_it_serves_is_most_of_the_time() {
        let mut figures = Figures::default();
        for (name, seconds) in
            [("reader/criu", 40.0), ("reader/ours", 4.0), ("asleep/criu", 2.0), ("asleep/ours", 2.0)]
        {
            figures.add(format!("instances/{name}/all_s"), seconds);
        }
        let judged = judge(&figures, &Sizes::new(false, 100_000));
        assert_eq!(verdict(&judged, "lazy-pages, random reader"), "NOT KEPT");
        assert_eq!(verdict(&judged, "lazy-pages, asleep"), "kept");
        let judged = judge(&figures, &Sizes::new(true, 100_000));
        assert_eq!(verdict(&judged, "lazy-pages, random reader"), "nothing promised");
    }

    #[test]
    fn what_ran_and_has_no_figure_is_missing_unless_there_is_a_reason() {
        let promises = judge(&Figures::default(), &Sizes::new(true, 100_000));
        let missing = |ran: &[Part]| missing(&promises, |part| ran.contains(&part));
        assert!(missing(&[]).is_empty());
        assert!(
            missing(&[Part::Links]).iter().all(|text| text.contains("20 Mbit/s") || text.contains("p99"))
        );
        assert_eq!(missing(&[Part::Links]).len(), 2);
        // Programs of this size are there before the stall that it speaks of, and none is larger than the largest.
        assert!(missing(&Part::ALL).iter().all(|text| !text.contains("stall") && !text.contains("beyond")));
    }

    #[test]
    fn what_stands_beside_a_promise_breaks_none() {
        let mut figures = Figures::default();
        figures.add("throughput/held/loss_percent", 4.0);
        figures.add("throughput/flat_out/loss_percent", 60.0);
        let promises = judge(&figures, &Sizes::new(true, 100_000));
        assert_eq!(verdict(&promises, "held at 200"), "kept");
        assert_eq!(verdict(&promises, "flat out"), "nothing promised");
        assert!(all_kept(&promises));
    }

    #[test]
    fn nothing_measured_breaks_no_promise() {
        let promises = judge(&Figures::default(), &Sizes::new(true, 100_000));
        assert!(promises.len() > 20 && all_kept(&promises));
        assert!(promises.iter().all(|promise| promise.is_kept().is_none()));
    }
}
