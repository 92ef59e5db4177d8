//! What the pages of the last epoch were, in 32 bytes each.
//!
//! The digest is NH, the universal hash function of UMAC, with words of 64 bits and twice under keys that overlap. The key
//! is random, made for this process, and never leaves it; nor does a digest. Then two pages that differ, whoever has
//! chosen them, have the same one with a probability of at most 2^-128 (Black, Halevi, Krawczyk, Krovetz, Rogaway: *UMAC:
//! Fast and Secure Message Authentication*, theorem 4.2 and section 4.4). It is as fast as memory is read.

use std::collections::HashMap;
use std::io;

use memory::PAGE_SIZE;

use super::epoch::{EpochId, PageSource};

const PAGE_BYTES: usize = 4096;
const _: () = assert!(PAGE_BYTES as u64 == PAGE_SIZE);
/// Words of a page, and by how many the second key is behind the first.
const WORDS: usize = PAGE_BYTES / 8;
const SHIFT: usize = 2;

/// Of a page. That of a zero page is never asked for.
pub(crate) type Digest = [u128; 2];

static ZERO_PAGE: [u8; PAGE_BYTES] = [0; PAGE_BYTES];
const NOTHING: Digest = [0; 2];

/// The key.
pub(crate) struct Digester(Box<[u64; WORDS + SHIFT]>);

impl std::fmt::Debug for Digester {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Digester")
    }
}

impl Digester {
    /// One of its own.
    pub(crate) fn new() -> io::Result<Self> {
        let mut key = Box::new([0; WORDS + SHIFT]);
        for word in key.iter_mut() {
            let mut bytes = [0; 8];
            sys::random::fill(&mut bytes).map_err(io::Error::from)?;
            *word = u64::from_ne_bytes(bytes);
        }
        Ok(Self(key))
    }

    fn digest(&self, page: &[u8]) -> Digest {
        let (words, _) = page.as_chunks::<16>();
        let (one, _) = self.0.as_chunks::<2>();
        let other = one.get(SHIFT / 2..).unwrap_or_default();
        let mut sums = NOTHING;
        for ((pair, one), other) in words.iter().zip(one).zip(other) {
            let (low, high) = pair.split_at(8);
            let word = |bytes: &[u8]| bytes.first_chunk().map_or(0, |word| u64::from_le_bytes(*word));
            let (low, high) = (word(low), word(high));
            for (sum, [a, b]) in sums.iter_mut().zip([one, other]) {
                let product = u128::from(low.wrapping_add(*a)) * u128::from(high.wrapping_add(*b));
                *sum = sum.wrapping_add(product);
            }
        }
        sums
    }
}

/// The pages of an epoch that is complete at the destination.
#[derive(Debug)]
pub(crate) struct Known {
    /// Which epoch.
    pub(crate) id: EpochId,
    pages: Vec<Digest>,
    /// The last page that has a digest which ends so.
    by_digest: HashMap<u64, usize>,
}

/// The pages of an epoch that is being taken, in order.
#[derive(Debug)]
pub(crate) struct Taking<'known> {
    digester: &'known Digester,
    known: Option<&'known Known>,
    pages: Vec<Digest>,
    /// The page of the known epoch behind the one that was found last.
    next: usize,
}

impl<'known> Taking<'known> {
    pub(crate) fn new(digester: &'known Digester, known: Option<&'known Known>) -> Self {
        Self { digester, known, pages: Vec::new(), next: 0 }
    }

    /// Where the bytes of the next page are to be had.
    pub(crate) fn look(&mut self, page: &[u8]) -> PageSource {
        if page == ZERO_PAGE {
            self.pages.push(NOTHING);
            return PageSource::Zero;
        }
        let digest = self.digester.digest(page);
        self.pages.push(digest);
        let found = self.known.and_then(|known| {
            let is_at = |page: &usize| known.pages.get(*page) == Some(&digest);
            Some(self.next)
                .filter(is_at)
                .or_else(|| known.by_digest.get(&end_of(&digest)).copied().filter(is_at))
        });
        match found {
            Some(page) => {
                self.next = page + 1;
                PageSource::Reference(page as u64)
            }
            None => PageSource::Value,
        }
    }

    /// The digests of all that was looked at.
    pub(crate) fn into_pages(self) -> Vec<Digest> {
        self.pages
    }
}

impl Known {
    pub(crate) fn new(id: EpochId, pages: Vec<Digest>) -> Self {
        let data = pages.iter().enumerate().filter(|(_, digest)| **digest != NOTHING);
        let by_digest = data.map(|(number, digest)| (end_of(digest), number)).collect();
        Self { id, pages, by_digest }
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a part of it is what is wanted")]
const fn end_of([sum, _]: &Digest) -> u64 {
    *sum as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_makes_another_digest() {
        let digester = Digester::new().expect("random numbers");
        let mut page = vec![0x5a; PAGE_BYTES];
        let mut seen = std::collections::HashSet::from([digester.digest(&page)]);
        for bit in 0..PAGE_BYTES * 8 {
            page[bit / 8] ^= 1 << (bit % 8);
            assert!(seen.insert(digester.digest(&page)), "bit {bit}");
            page[bit / 8] ^= 1 << (bit % 8);
        }
        let other = Digester::new().expect("random numbers");
        assert!(!seen.contains(&other.digest(&page)), "the key is of no use");
    }

    #[test]
    fn a_page_that_was_there_before_is_found_wherever_it_is_now() {
        let digester = Digester::new().expect("random numbers");
        let page = |byte: u8| vec![byte; PAGE_BYTES];
        let mut first = Taking::new(&digester, None);
        for byte in [1, 2, 0, 3, 3] {
            let wanted = if byte == 0 { PageSource::Zero } else { PageSource::Value };
            assert_eq!(first.look(&page(byte)), wanted);
        }
        let known = Known::new([7; 16], first.into_pages());
        let mut second = Taking::new(&digester, Some(&known));
        let mut nearly = page(2);
        nearly[4095] = 3;
        assert_eq!(second.look(&page(0)), PageSource::Zero);
        assert_eq!(second.look(&page(1)), PageSource::Reference(0));
        assert_eq!(second.look(&page(2)), PageSource::Reference(1));
        assert_eq!(second.look(&nearly), PageSource::Value);
        assert_eq!(second.look(&page(3)), PageSource::Reference(4));
    }
}
