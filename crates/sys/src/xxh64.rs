//! XXH64 as its specification has it (xxHash's `doc/xxhash_spec.md`), over content that comes in large pieces.
//!
//! By hand: the published crate takes pieces of any length, which is four times the code, with panics that the parasite
//! has no use for. The tests compare the two.

const P1: u64 = 0x9e37_79b1_85eb_ca87;
const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
const P3: u64 = 0x1656_67b1_9e37_79f9;
const P4: u64 = 0x85eb_ca77_c2b2_ae63;
const P5: u64 = 0x27d4_eb2f_1656_67c5;

/// Bytes that the four lanes take at a time.
pub(crate) const STRIPE: usize = 32;

/// A hash under way.
pub(crate) struct Xxh64 {
    seed: u64,
    lanes: [u64; 4],
    len: u64,
}

impl Xxh64 {
    /// The hash of nothing yet.
    pub(crate) const fn new(seed: u64) -> Self {
        let first = seed.wrapping_add(P1).wrapping_add(P2);
        Self { seed, lanes: [first, seed.wrapping_add(P2), seed, seed.wrapping_sub(P1)], len: 0 }
    }

    /// Takes a piece that is not the last; whole stripes.
    pub(crate) fn take(&mut self, piece: &[u8]) {
        let (stripes, _) = piece.as_chunks::<STRIPE>();
        for stripe in stripes {
            let (words, _) = stripe.as_chunks();
            for (lane, word) in self.lanes.iter_mut().zip(words) {
                *lane = round(*lane, u64::from_le_bytes(*word));
            }
        }
        self.len = self.len.wrapping_add(piece.len() as u64);
    }

    /// The hash, with the last piece, of any length.
    pub(crate) fn finish(&mut self, piece: &[u8]) -> u64 {
        self.take(piece);
        let mut hash = self.seed.wrapping_add(P5);
        if self.len >= STRIPE as u64 {
            hash = 0;
            for (lane, turn) in self.lanes.iter().zip([1, 7, 12, 18]) {
                hash = hash.wrapping_add(lane.rotate_left(turn));
            }
            for lane in self.lanes {
                hash = (hash ^ round(0, lane)).wrapping_mul(P1).wrapping_add(P4);
            }
        }
        hash = hash.wrapping_add(self.len);
        let (_, rest) = piece.as_chunks::<STRIPE>();
        let (words, rest) = rest.as_chunks();
        for word in words {
            hash = mix(hash ^ round(0, u64::from_le_bytes(*word)), 27, P1, P4);
        }
        let (halves, rest) = rest.as_chunks();
        for half in halves {
            hash = mix(hash ^ u64::from(u32::from_le_bytes(*half)).wrapping_mul(P1), 23, P2, P3);
        }
        for byte in rest {
            hash = mix(hash ^ u64::from(*byte).wrapping_mul(P5), 11, P1, 0);
        }
        hash = (hash ^ hash >> 33).wrapping_mul(P2);
        hash = (hash ^ hash >> 29).wrapping_mul(P3);
        hash ^ hash >> 32
    }
}

const fn round(lane: u64, word: u64) -> u64 {
    mix(lane.wrapping_add(word.wrapping_mul(P2)), 31, P1, 0)
}

const fn mix(hash: u64, turn: u32, factor: u64, summand: u64) -> u64 {
    hash.rotate_left(turn).wrapping_mul(factor).wrapping_add(summand)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_gives_what_the_published_crate_gives() {
        let content: alloc::vec::Vec<u8> = (0..300_u32).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
        for len in 0..content.len() {
            let (piece, last) = content[..len].split_at(len / 2 / STRIPE * STRIPE);
            for seed in [0, 1, u64::MAX] {
                let mut hash = Xxh64::new(seed);
                hash.take(piece);
                assert_eq!(hash.finish(last), xxhash_rust::xxh64::xxh64(&content[..len], seed), "{len}");
            }
        }
    }
}
