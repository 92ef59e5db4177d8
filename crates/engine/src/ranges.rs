//! What both roles ask of lists of ranges.

use memory::PageRange;

/// Whether `runs` are not empty, ascending, without overlap, and all within `within`.
pub(crate) fn are_ascending_runs(runs: &[PageRange], within: PageRange) -> bool {
    let mut from = within.start();
    runs.iter().all(|run| {
        let fits = !run.is_empty() && from <= run.start() && within.covers(*run);
        from = run.end();
        fits
    })
}
