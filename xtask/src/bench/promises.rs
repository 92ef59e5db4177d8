//! What the project promises, and whether it is kept here: every line with what was measured and where the limit lies.

use serde_json::{Value, json};

use super::figures::{Figures, number};
use super::parts::{LONG_DELAY, MAPPINGS};
use super::place::Place;
use super::sizes::{MOST, Sizes};
use super::table::Table;

/// Per cent that rounds may differ by and still show that nothing was lost.
const MOST_NOISE: f64 = 5.0;

/// A promise and what came of it.
#[derive(Clone, Debug)]
pub(super) struct Promise {
    what: String,
    measured: Option<f64>,
    limit: Limit,
    unit: &'static str,
}

/// On which side of the number the promise is kept.
#[derive(Clone, Copy, Debug)]
enum Limit {
    AtMost(f64),
    AtLeast(f64),
}

impl Promise {
    fn at_most(what: impl Into<String>, measured: Option<f64>, limit: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, limit: Limit::AtMost(limit), unit }
    }

    fn at_least(what: impl Into<String>, measured: Option<f64>, limit: f64, unit: &'static str) -> Self {
        Self { what: what.into(), measured, limit: Limit::AtLeast(limit), unit }
    }

    /// None if it was not measured.
    fn is_kept(&self) -> Option<bool> {
        self.measured.map(|measured| match self.limit {
            Limit::AtMost(limit) => measured <= limit,
            Limit::AtLeast(limit) => measured >= limit,
        })
    }

    fn verdict(&self) -> &'static str {
        match self.is_kept() {
            Some(true) => "kept",
            Some(false) => "NOT KEPT",
            None => "not measured",
        }
    }

    fn limit_in_words(&self) -> String {
        match self.limit {
            Limit::AtMost(limit) => format!("at most {}{}", number(limit), self.unit),
            Limit::AtLeast(limit) => format!("at least {}{}", number(limit), self.unit),
        }
    }
}

/// Every promise, with what the figures say of it.
pub(super) fn judge(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let mut promises = downtime(figures, sizes);
    promises.extend(arrival(figures, sizes));
    promises.extend(reader(figures, sizes));
    promises.extend(single_faults(figures));
    promises.extend(ahead(figures, sizes));
    promises.extend(scaling(figures, sizes));
    promises.extend(links(figures, sizes));
    promises.extend(costs(figures, sizes));
    promises
}

fn downtime(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let ours = |mib: u64| format!("idle/{mib}/postcopy/downtime_ms");
    let gain = |mib: u64| figures.ratio(&format!("idle/{mib}/criu/gap_ms"), &ours(mib));
    let Some([small, large]) = sizes.ends() else { return Vec::new() };
    let all: Option<Vec<f64>> = sizes.idle.iter().map(|mib| figures.median(&ours(*mib))).collect();
    let worst = all.and_then(|all| all.into_iter().max_by(f64::total_cmp));
    vec![
        Promise::at_most(format!("downtime, idle, {small} to {large} MiB, the worst"), worst, 3.0, " ms"),
        Promise::at_least(
            format!("shorter than by CRIU lazy-pages, {small} MiB"),
            gain(small),
            25.0,
            " times",
        ),
        Promise::at_least(
            format!("shorter than by CRIU lazy-pages, {large} MiB"),
            gain(large),
            100.0,
            " times",
        ),
    ]
}

/// The size is the one that is nearest to a GiB.
fn arrival(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let Some(mib) = sizes.idle.iter().copied().filter(|mib| *mib <= 1024).max() else { return Vec::new() };
    let ours = format!("idle/{mib}/postcopy/all_ms");
    let rate = figures.median(&ours).map(|ms| (mib << 20) as f64 / 1e6 / ms);
    let limit = figures.median("floor/tcp_gb_s").zip(figures.median("floor/copy_blocks_gb_s"));
    let limit = limit.map(|(tcp, copy)| tcp.min(copy));
    let share = |of: Option<f64>| rate.zip(of).map(|(rate, of)| rate / of);
    vec![
        Promise::at_least(
            format!("sooner there than by CRIU lazy-pages, {mib} MiB idle"),
            figures.ratio(&format!("idle/{mib}/criu/all_ms"), &ours),
            2.5,
            " times",
        ),
        Promise::at_least("share of the slower of TCP and UFFDIO_COPY", share(limit), 0.5, ""),
        Promise::at_least("share of the bare loop", share(figures.median("floor/bare_gb_s")), 0.9, ""),
    ]
}

fn reader(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let mib = sizes.promised_reader();
    let name = |of: &str| format!("reader/{mib}/{of}");
    let all = name("postcopy/all_ms");
    vec![
        Promise::at_least(
            format!("random reader, {mib} MiB, sooner there than by CRIU lazy-pages"),
            figures.ratio(&name("criu/all_ms"), &all),
            50.0,
            " times",
        ),
        Promise::at_most(
            "of the time that it takes idle",
            figures.ratio(&all, &name("idle/all_ms")),
            1.5,
            " times",
        ),
        Promise::at_most(
            "its longest stall after 100 ms",
            figures.median(&name("postcopy/stall_ms")),
            20.0,
            " ms",
        ),
        Promise::at_least(
            "new pages that it gets",
            figures.median(&name("postcopy/pages_s")),
            50_000.0,
            " a second",
        ),
    ]
}

fn single_faults(figures: &Figures) -> Vec<Promise> {
    let places = [Place::OneCore, Place::Apart].map(|place| {
        let name = place.name();
        let ours = format!("faults/{name}/p50_us");
        let floor = format!("floor/fault/{name}/served_p50_us");
        let what = format!("a single fault, {}, p50 of the floor", place.in_words());
        Promise::at_most(what, figures.ratio(&ours, &floor), 1.5, " times")
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
        ),
        Promise::at_most("sent of its memory", figures.median(&hybrid("sent_ratio")), 1.5, " times"),
        Promise::at_most("of the faults of plain post-copy", share, 0.1, ""),
        Promise::at_most(
            format!("reader, {read} MiB, precopy: downtime"),
            precopy("downtime_ms"),
            5.0,
            " ms",
        ),
        Promise::at_most("its faults", precopy("faults"), 0.0, ""),
    ]
}

fn scaling(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let downtime = |name: &str| figures.median(&format!("scaling/{name}/downtime_ms"));
    let [few, some, many] = MAPPINGS.map(|count| (f64::from(count), downtime(&format!("mappings/{count}"))));
    let each = |(count, time): (f64, Option<f64>)| Some((time? - few.1?) / (count - few.0));
    // Where a thousand cost nothing that could be told from what else happens, there is nothing to compare with.
    let growth = each(many).zip(each(some).filter(|some| *some > 0.0)).map(|(many, some)| many / some);
    let larger = sizes.most.zip(sizes.ends()).and_then(|(most, [_, large])| {
        Some(downtime(&format!("memory/{most}"))? - downtime(&format!("memory/{large}"))?)
    });
    let most = sizes.most.map_or_else(
        || "the most memory".to_owned(),
        |mib| match mib {
            MOST.. => format!("{mib} MiB"),
            _ => format!("{mib} MiB ({MOST} do not fit twice)"),
        },
    );
    vec![
        Promise::at_most("downtime with 20,000 mappings more", many.1, 60.0, " ms"),
        Promise::at_most("what each of them costs, of what each of 1,000 costs", growth, 1.25, " times"),
        Promise::at_most("downtime with 256 threads", downtime("threads/256"), 15.0, " ms"),
        Promise::at_most(format!("downtime with {most}, more than with 4 GiB"), larger, 1.0, " ms"),
    ]
}

fn links(figures: &Figures, sizes: &Sizes) -> Vec<Promise> {
    let [_, mib] = sizes.links;
    let p99 = figures.median("links/long/heap/fault_p99_us").map(|us| us / 1e3);
    let round_trips = 3.0 * 2.0 * LONG_DELAY.as_secs_f64() * 1e3;
    vec![
        Promise::at_most(
            format!("20 Mbit/s, {mib} MiB, half zero or text, of the time that its bytes would take"),
            figures.median("links/long/heap/share_percent"),
            45.0,
            " %",
        ),
        Promise::at_most("p99 of a fault there, three round trips", p99, round_trips, " ms"),
    ]
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
        Promise::at_most("memory of receiver and parasite, the most at any size", took, 32.0, " MiB"),
        Promise::at_most(
            "throughput lost while pages go ahead",
            figures.median("throughput/held/loss_percent"),
            10.0,
            " %",
        ),
        Promise::at_most(
            "throughput lost by preloading (limit: what the rounds differ by)",
            lost,
            noise.clamp(1.0, MOST_NOISE),
            " %",
        ),
    ]
}

/// Whether nothing that was measured misses its limit.
pub(super) fn all_kept(promises: &[Promise]) -> bool {
    promises.iter().all(|promise| promise.is_kept() != Some(false))
}

/// The promises as a table.
pub(super) fn table(promises: &[Promise]) -> Table {
    let mut table = Table::new("Promises", &["promise", "measured", "limit", "verdict"]);
    for promise in promises {
        let measured = promise.measured.map_or_else(|| "–".to_owned(), |value| number(value) + promise.unit);
        let verdict = promise.verdict().to_owned();
        table.row([promise.what.clone(), measured, promise.limit_in_words(), verdict]);
    }
    table
}

/// The same for programs.
pub(super) fn as_json(promises: &[Promise]) -> Value {
    let each = promises.iter().map(|promise| {
        let (Limit::AtMost(limit) | Limit::AtLeast(limit)) = promise.limit;
        json!({
            "promise": promise.what, "measured": promise.measured, "limit": limit, "unit": promise.unit.trim(),
            "verdict": promise.verdict(),
        })
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(promises: &[Promise], what: &str) -> &'static str {
        promises.iter().find(|promise| promise.what.contains(what)).map_or("missing", Promise::verdict)
    }

    #[test]
    fn a_miss_is_a_miss_and_what_was_not_measured_is_neither() {
        let mut figures = Figures::default();
        figures.add("idle/1/postcopy/downtime_ms", 2.0);
        figures.add("idle/1/criu/gap_ms", 75.0);
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
        let mut figures = Figures::default();
        for (count, ms) in MAPPINGS.iter().zip([2.0, 3.0, 23.0]) {
            figures.add(format!("scaling/mappings/{count}/downtime_ms"), ms);
        }
        let promises = judge(&figures, &Sizes::new(true, 100_000));
        let each = promises.iter().find(|promise| promise.what.contains("each of them")).unwrap();
        assert!((each.measured.unwrap() - 1.05).abs() < 1e-9 && each.is_kept() == Some(true), "{each:?}");
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
    fn nothing_measured_breaks_no_promise() {
        let promises = judge(&Figures::default(), &Sizes::new(true, 100_000));
        assert!(promises.len() > 20 && all_kept(&promises));
        assert!(promises.iter().all(|promise| promise.is_kept().is_none()));
    }
}
