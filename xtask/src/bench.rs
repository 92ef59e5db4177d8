//! The benchmark: what a move costs, beside what the peers take for it and what the machine can do, in one run.
//!
//! ```text
//! part (idle, reader, …)  ──►  figures: name → a value for every round  ──►  tables, promises  ──►  terminal, JSON, page
//!                         ──►  charts                                   ──►  plots             ──►  page
//! ```
//!
//! Who is compared takes turns within a round, so that whatever else the machine does meets all of them. It tunes
//! nothing but the limit of pipes, which CRIU needs raised, and what becomes of free memory, and leaves nothing behind.

mod criu;
mod document;
mod figures;
mod floor;
mod interruption;
mod machine;
mod moving;
mod parts;
mod place;
mod plots;
mod programs;
mod promises;
mod relay;
mod setting;
mod sizes;
mod table;
mod waits;
mod watch;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;

use self::criu::Criu;
use self::figures::Figures;
pub(crate) use self::floor::Floor;
use self::machine::Machine;
use self::parts::Part;
use self::plots::{Chart, Kind};
use self::promises::Promise;
use self::setting::Setting;
use self::sizes::Sizes;
use self::table::Table;

/// Rounds of what takes CRIU minutes, at most.
const PEER_ROUNDS: u32 = 3;

/// What to measure, and where to say it.
#[derive(clap::Args, Clone, Debug)]
pub(crate) struct Options {
    /// Smaller programs and fewer rounds: less than five minutes
    #[arg(long)]
    quick: bool,
    /// Rounds of everything; the median counts (default: 5, with --quick 3)
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: Option<u32>,
    /// Measure these only
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', value_enum)]
    only: Vec<Part>,
    /// Write every figure of every round as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a page in Markdown, and plots into a directory of the same name beside it
    #[arg(long, value_name = "FILE.md")]
    docs: Option<PathBuf>,
}

/// What a part measures with.
#[derive(Debug)]
struct Bench {
    bin: PathBuf,
    /// None if there is none: then the peers are missing.
    criu: Option<Criu>,
    rounds: u32,
    sizes: Sizes,
}

/// What has been found so far.
#[derive(Debug, Default)]
struct Results {
    figures: Figures,
    tables: Vec<Table>,
    charts: Vec<Chart>,
    /// What could not be measured, and why.
    troubles: Vec<String>,
}

/// Measures and says what was found; whether every promise that was measured is kept and nothing failed.
///
/// # Errors
/// Programs that are not built, files that cannot be written. A part that fails is told of and the others go on.
pub(crate) fn run(root: &Path, options: &Options) -> anyhow::Result<bool> {
    let bin = root.join("bin");
    anyhow::ensure!(bin.join("libsender.so").exists(), "bin/libsender.so is not there: run make first");
    let machine = Machine::here();
    machine.warn_of_load();
    let mut results = Results::default();
    let peers = Criu::find().and_then(|criu| Ok((criu, Setting::large_pipes()?)));
    let peers = peers.map_err(|error| results.trouble(format!("the peers are missing: {error:#}"))).ok();
    let (criu, pipes) = peers.unzip();
    let free_memory = Setting::keep_free_memory();
    if let Err(error) = &free_memory {
        let _ = writeln!(io::stderr(), "free memory may go back to a host, if there is one: {error:#}");
    }
    let free_memory = free_memory.ok();
    let keeps_memory = free_memory.is_some();
    let settings: Vec<Setting> = pipes.into_iter().chain(free_memory).collect();
    let rounds = options.rounds.unwrap_or(if options.quick { 3 } else { 5 });
    let sizes = Sizes::new(options.quick, machine::room_mib());
    let bench = Bench { bin, criu, rounds, sizes };
    interruption::clean_up_after(settings.clone(), parts::images())?;
    let header = Header { machine, rounds, quick: options.quick, keeps_memory };
    let is_wanted = |part| options.only.is_empty() || options.only.contains(&part);
    for part in Part::ALL.into_iter().filter(|part| is_wanted(*part)) {
        let begin = Instant::now();
        part.measure(&bench, &mut results);
        let _ = writeln!(io::stderr(), "{part:?}: {} s", begin.elapsed().as_secs());
        interruption::wait_if_ended();
        // A run takes long: what has been found so far is not lost if it ends.
        write(options, &header, &results, &promises::judge(&results.figures, &bench.sizes))?;
    }
    let promises = promises::judge(&results.figures, &bench.sizes);
    promises::missing(&promises, is_wanted).into_iter().for_each(|text| results.trouble(text));
    write(options, &header, &results, &promises)?;
    say(&results, &promises)?;
    Ok(results.troubles.is_empty() && promises::all_kept(&promises))
}

/// What holds for all figures.
#[derive(Debug)]
struct Header {
    machine: Machine,
    rounds: u32,
    quick: bool,
    /// Free memory stays with the machine.
    keeps_memory: bool,
}

fn write(options: &Options, header: &Header, results: &Results, promises: &[Promise]) -> anyhow::Result<()> {
    if let Some(path) = &options.json {
        let all = json!({
            "machine": header.machine.as_json(), "rounds": header.rounds, "quick": header.quick,
            "keeps_memory": header.keeps_memory,
            "figures": results.figures.as_json(), "promises": promises::as_json(promises),
            "troubles": results.troubles,
        });
        std::fs::write(path, format!("{all:#}\n")).with_context(|| format!("writing {}", path.display()))?;
    }
    options.docs.as_ref().map_or(Ok(()), |path| document::write(path, header, results, promises))
}

fn say(results: &Results, promises: &[Promise]) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    for table in std::iter::once(&promises::table(promises)).chain(&results.tables) {
        writeln!(out, "{}", table.as_text()).context("printing the tables")?;
    }
    for trouble in &results.troubles {
        writeln!(out, "not measured: {trouble}").context("printing the tables")?;
    }
    Ok(())
}

impl Results {
    /// The chart of this kind.
    fn chart(&mut self, kind: Kind) -> &mut Chart {
        let at = self.charts.iter().position(|chart| chart.kind() == kind).unwrap_or_else(|| {
            self.charts.push(Chart::new(kind));
            self.charts.len() - 1
        });
        &mut self.charts[at]
    }

    /// Notes what could not be measured, and says so at once.
    fn trouble(&mut self, text: String) {
        let _ = writeln!(io::stderr(), "{text}");
        self.troubles.push(text);
    }
}

impl Bench {
    /// Does something once in every round, and says which one it is.
    fn each_round(&self, what: &str, mut act: impl FnMut() -> anyhow::Result<()>) -> anyhow::Result<()> {
        self.each_numbered_round(what, |_| act())
    }

    /// The same, for who does not do everything in every round: they count from 1.
    fn each_numbered_round(
        &self,
        what: &str,
        mut act: impl FnMut(u32) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        for round in 1..=self.rounds {
            let _ = write!(io::stderr(), "\r\x1b[K{what}: round {round} of {}", self.rounds);
            let done = act(round).with_context(|| format!("{what}, round {round}"));
            if done.is_err() || round == self.rounds {
                let _ = writeln!(io::stderr());
            }
            done?;
        }
        Ok(())
    }
}
