//! The page that the benchmark writes: tables, plots, day and machine.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::promises::{self, Promise};
use super::{Header, PEER_ROUNDS, Results};

/// Writes the page, and its plots into the directory of its name.
///
/// # Errors
/// A file that cannot be written.
pub(super) fn write(
    path: &Path,
    header: &Header,
    results: &Results,
    promises: &[Promise],
) -> anyhow::Result<()> {
    let plots = path.with_extension("");
    let name = plots.file_name().and_then(|name| name.to_str()).context("the page needs a name")?.to_owned();
    fs::create_dir_all(&plots).with_context(|| format!("making {}", plots.display()))?;
    for chart in &results.charts {
        chart.draw(&plots)?;
    }
    let text = page(&name, header, results, promises);
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

fn page(name: &str, header: &Header, results: &Results, promises: &[Promise]) -> String {
    let command = if header.quick { "cargo xtask bench --quick" } else { "make bench" };
    let mut text = format!(
        "# Benchmarks\n\nWritten by `{command}`; do not edit. {}\n\nEvery figure is the median of {} rounds \
         (of {PEER_ROUNDS} at most where CRIU's daemon takes minutes, with a random reader of a GiB), in brackets the least and the most; what has no brackets was measured once, a ratio is that of two medians. Who is \
         compared took turns in the same run. CRIU is the one that `make criu` installs; pipes were allowed to be as large as \
         it wants them{}. Memory is incompressible unless its row says otherwise.\n",
        header.machine.in_words(),
        header.rounds,
        if header.keeps_memory {
            ", and the machine kept its free memory, which its host would have taken back"
        } else {
            ""
        },
    );
    for table in std::iter::once(&promises::table(promises)).chain(&results.tables) {
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
    use super::super::machine::Machine;
    use super::super::plots::Kind;
    use super::super::table::Table;
    use super::*;

    #[test]
    fn the_page_has_the_tables_the_plots_and_what_is_missing() {
        let mut results = Results::default();
        results.tables.push(Table::new("Sizes", &["MiB"]));
        results.chart(Kind::Pages).add("ours", vec![(0.0, 1.0)]);
        results.troubles.push("no peer".to_owned());
        let header = Header { machine: Machine::here(), rounds: 5, quick: false, keeps_memory: true };
        let page = page("numbers", &header, &results, &[]);
        for part in ["## Sizes", "(numbers/pages.svg)", "- no peer", "median of 5", "kept its free memory"] {
            assert!(page.contains(part), "{part} in {page}");
        }
    }
}
