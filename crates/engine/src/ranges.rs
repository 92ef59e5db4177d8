//! What both roles ask of lists of ranges.

use alloc::vec::Vec;

use memory::{PAGE_SIZE, PageRange};

/// Whether `runs` are not empty, ascending, without overlap, and all within `within`.
pub(crate) fn are_ascending_runs(runs: &[PageRange], within: PageRange) -> bool {
    let mut from = within.start();
    runs.iter().all(|run| {
        let fits = !run.is_empty() && from <= run.start() && within.covers(*run);
        from = run.end();
        fits
    })
}

/// Groups ascending runs into lists that reach over at most `most_pages` each, from the first page to the last.
pub(crate) fn spans(runs: Vec<PageRange>, most_pages: u64) -> Vec<Vec<PageRange>> {
    let mut lists: Vec<Vec<PageRange>> = Vec::new();
    for run in runs {
        let mut rest = run;
        while !rest.is_empty() {
            let list = lists.last_mut().and_then(|list| Some((list.first()?.start(), list)));
            let taken = list.as_ref().map_or(0, |(start, _)| (rest.start().0 - start.0) / PAGE_SIZE);
            let (part, behind) = rest.split_at_pages(most_pages.saturating_sub(taken));
            match list {
                Some((_, list)) if !part.is_empty() => list.push(part),
                _ => {
                    let (part, behind) = rest.split_at_pages(most_pages);
                    lists.push(alloc::vec![part]);
                    rest = behind;
                    continue;
                }
            }
            rest = behind;
        }
    }
    lists
}

#[cfg(test)]
mod tests {
    use super::*;
    use memory::Addr;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    #[test]
    fn a_list_ends_where_it_would_reach_too_far() {
        let runs = alloc::vec![range(3, 2), range(9, 1), range(12, 20), range(40, 1)];
        let expected = [
            alloc::vec![range(3, 2), range(9, 1), range(12, 1)],
            alloc::vec![range(13, 10)],
            alloc::vec![range(23, 9)],
            alloc::vec![range(40, 1)],
        ];
        assert_eq!(spans(runs, 10), expected);
        assert!(spans(Vec::new(), 10).is_empty());
    }
}
