//! The page that the benchmark writes: tables, plots, day and machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::Results;
use super::machine::Machine;

/// Writes the page, and its plots into the directory of its name.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(
    path: &Path,
    machine: &Machine,
    rounds: u32,
    quick: bool,
    results: &Results,
) -> anyhow::Result<()> {
    let plots = path.with_extension("");
    let name = plots.file_name().and_then(|name| name.to_str()).context("the page needs a name")?.to_owned();
    fs::create_dir_all(&plots).with_context(|| format!("making {}", plots.display()))?;
    for chart in &results.charts {
        chart.draw(&plots)?;
    }
    let text = page(&name, machine, rounds, quick, results);
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn page(name: &str, machine: &Machine, rounds: u32, quick: bool, results: &Results) -> String {
    let command = if quick { "cargo xtask bench --quick" } else { "make bench" };
    let mut text = format!(
        "# Benchmarks\n\nWritten by `{command}`; do not edit. {}\n\nEvery figure is the median of {rounds} rounds, in \
         brackets the least and the most; who is compared took turns in the same run. CRIU is the one that `make criu` \
         installs. Memory is incompressible unless its row says otherwise.\n",
        machine.in_words()
    );
    for table in &results.tables {
        let _ = write!(text, "\n{}", table.as_markdown());
    }
    for chart in &results.charts {
        let title = chart.title();
        let _ = write!(text, "\n## {title}\n\n![{title}]({name}/{})\n", chart.file());
    }
    if !results.troubles.is_empty() {
        text.push_str("\n## Not measured\n\n");
        for trouble in &results.troubles {
            let _ = writeln!(text, "- {}", trouble.replace('\n', " "));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::plots::Kind;
    use super::super::table::Table;
    use super::*;

    #[test]
    fn the_page_has_the_tables_the_plots_and_what_is_missing() {
        let mut results = Results::default();
        results.tables.push(Table::new("Sizes", &["MiB"]));
        results.chart(Kind::Pages).add("ours", vec![(0.0, 1.0)]);
        results.troubles.push("no peer".to_owned());
        let page = page("numbers", &Machine::here(), 5, false, &results);
        for part in ["## Sizes", "(numbers/pages.svg)", "- no peer", "median of 5"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
