//! Runs of pages as bits: one for each page from the first to the last.

use alloc::vec::Vec;

use memory::{Addr, PAGE_SIZE, PageRange};

/// The first page of ascending runs, and the bits from there on; `None` if there is none, or if they reach over more
/// than [`crate::MAX_PAGES_PER_LIST`] pages.
#[must_use]
pub fn encode_bits(runs: &[PageRange]) -> Option<(Addr, Vec<u8>)> {
    let start = runs.first()?.start();
    let mut bits = Vec::new();
    for run in runs {
        let first = usize::try_from(run.start().0.checked_sub(start.0)? / PAGE_SIZE).ok()?;
        let last = first + usize::try_from(run.pages()).ok()?;
        if last as u64 > crate::MAX_PAGES_PER_LIST {
            return None;
        }
        bits.resize(bits.len().max(last.div_ceil(8)), 0);
        for page in first..last {
            *bits.get_mut(page / 8)? |= 1 << (page % 8);
        }
    }
    Some((start, bits))
}

/// The runs that `bits` name, the first of which stands for the page at `start`; `None` if they are no user pages.
pub(crate) fn decode_bits(start: Addr, bits: &[u8]) -> Option<Vec<PageRange>> {
    let mut runs: Vec<PageRange> = Vec::new();
    let (mut at, mut run_pages) = (start.0, 0);
    // A byte of zeros behind the last one ends the last run.
    for byte in bits.iter().copied().chain([0]) {
        for bit in 0..8 {
            if byte >> bit & 1 == 1 {
                run_pages += 1;
            } else if run_pages > 0 {
                runs.push(PageRange::from_pages(Addr(at.checked_sub(run_pages * PAGE_SIZE)?), run_pages)?);
                run_pages = 0;
            }
            at = at.checked_add(PAGE_SIZE)?;
        }
    }
    Some(runs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(start: u64, pages: u64) -> PageRange {
        PageRange::from_pages(Addr(start * PAGE_SIZE), pages).expect("a small range")
    }

    proptest! {
        #[test]
        fn runs_come_back_as_they_went(gaps in prop::collection::vec((1_u64..40, 1_u64..40), 1..50)) {
            let mut at = 16;
            let runs: Vec<_> = gaps.iter().map(|(gap, pages)| {
                let run = range(at + gap, *pages);
                at += gap + pages;
                run
            }).collect();
            let (start, bits) = encode_bits(&runs).expect("short");
            prop_assert_eq!(decode_bits(start, &bits), Some(runs));
        }
    }

    #[test]
    fn a_list_that_reaches_too_far_is_not_encoded_and_bits_beyond_user_space_are_not_decoded() {
        assert_eq!(encode_bits(&[]), None);
        assert_eq!(encode_bits(&[range(16, 1), range(16 + crate::MAX_PAGES_PER_LIST, 1)]), None);
        assert_eq!(decode_bits(Addr(u64::MAX - 8191), &[2]), None);
        assert_eq!(decode_bits(Addr(0x1001), &[1]), None);
        assert_eq!(decode_bits(Addr(0x1000), &[0; 9]), Some(Vec::new()));
    }
}
