//! Making a block: greedy, with a table of where each four bytes were seen last.

use alloc::boxed::Box;

/// Bytes that one block holds at most: as far as a match reaches back, and what sixteen bits count.
pub const MOST_BYTES: usize = 64 << 10;

const SLOT_BITS: u32 = 12;
const SHORTEST_MATCH: usize = 4;
/// The format wants these at the end of every block as literals.
const LAST_LITERALS: usize = 5;
/// And no match to begin in these.
const LAST_START: usize = 12;
/// Lengths from here on take further bytes.
const LONG: usize = 15;
/// After 2 to the power of this many bytes without a match every other byte is looked at, then every third.
const PATIENCE_BITS: usize = 6;

/// Makes blocks; keeps its table from one to the next.
#[derive(Debug)]
pub struct Packer {
    /// Where four bytes with this hash were last.
    seen: Box<[u16; 1 << SLOT_BITS]>,
}

impl Default for Packer {
    fn default() -> Self {
        Self { seen: Box::new([0; 1 << SLOT_BITS]) }
    }
}

impl Packer {
    /// Packs `plain` into the front of `block`; returns how many bytes that takes, or `None` if `block` has not that
    /// many, or `plain` is more than [`MOST_BYTES`].
    pub fn pack(&mut self, plain: &[u8], block: &mut [u8]) -> Option<usize> {
        if plain.len() > MOST_BYTES {
            return None;
        }
        self.seen.fill(0);
        let mut block = Block { rest: block, len: 0 };
        let (mut literals, mut at, mut misses) = (0, 1, 0);
        while at + LAST_START <= plain.len() {
            let word = word_at(plain, at)?;
            let earlier = self.note(word, at)?;
            if word_at(plain, earlier) == Some(word) {
                let end = at + SHORTEST_MATCH + alike(plain, earlier + SHORTEST_MATCH, at + SHORTEST_MATCH);
                block.literals(plain.get(literals..at)?, end - at - SHORTEST_MATCH)?;
                block.matched(at - earlier, end - at - SHORTEST_MATCH)?;
                (literals, at, misses) = (end, end, 0);
                if let Some(word) = word_at(plain, end - 2) {
                    self.note(word, end - 2)?;
                }
            } else {
                misses += 1;
                at += 1 + (misses >> PATIENCE_BITS);
            }
        }
        block.literals(plain.get(literals..)?, 0)?;
        Some(block.len)
    }

    /// Notes that `word` is at `at`; returns where its like was before.
    fn note(&mut self, word: u32, at: usize) -> Option<usize> {
        let hash = word.wrapping_mul(2_654_435_761) >> (u32::BITS - SLOT_BITS);
        let slot = self.seen.get_mut(hash as usize)?;
        Some(usize::from(core::mem::replace(slot, u16::try_from(at).ok()?)))
    }
}

fn word_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|word| u32::from_le_bytes(*word))
}

/// How many bytes from `earlier` and from `at` on are the same, before the last literals.
fn alike(plain: &[u8], earlier: usize, at: usize) -> usize {
    let limit = plain.len().saturating_sub(LAST_LITERALS);
    let one = plain.get(earlier..limit).unwrap_or_default();
    let two = plain.get(at..limit).unwrap_or_default();
    let (words, _) = one.as_chunks::<8>();
    let (others, rest) = two.as_chunks::<8>();
    let mut len = 0;
    for (word, other) in words.iter().zip(others) {
        let difference = u64::from_le_bytes(*word) ^ u64::from_le_bytes(*other);
        if difference != 0 {
            return len + (difference.trailing_zeros() / 8) as usize;
        }
        len += word.len();
    }
    let tail = one.get(len..).unwrap_or_default();
    len + tail.iter().zip(rest).take_while(|(byte, other)| byte == other).count()
}

/// The block in the making.
struct Block<'a> {
    rest: &'a mut [u8],
    len: usize,
}

impl Block<'_> {
    /// Literals, and how much longer than the shortest the match is that follows them; 0 if none does.
    fn literals(&mut self, literals: &[u8], longer: usize) -> Option<()> {
        let token = literals.len().min(LONG) << 4 | longer.min(LONG);
        self.put(&[low_byte(token)])?;
        self.length(literals.len())?;
        self.put(literals)
    }

    fn matched(&mut self, offset: usize, longer: usize) -> Option<()> {
        self.put(&[low_byte(offset), low_byte(offset >> 8)])?;
        self.length(longer)
    }

    /// What of a length does not fit into the token.
    fn length(&mut self, length: usize) -> Option<()> {
        let Some(mut left) = length.checked_sub(LONG) else { return Some(()) };
        while left >= 255 {
            self.put(&[255])?;
            left -= 255;
        }
        self.put(&[low_byte(left)])
    }

    fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let (now, later) = core::mem::take(&mut self.rest).split_at_mut_checked(bytes.len())?;
        now.copy_from_slice(bytes);
        (self.rest, self.len) = (later, self.len + bytes.len());
        Some(())
    }
}

const fn low_byte(number: usize) -> u8 {
    let [low, ..] = number.to_le_bytes();
    low
}
