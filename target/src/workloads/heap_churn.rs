//! `heap_churn`: malloc, realloc and free in random order, from one byte to beyond the size that gets a mapping of
//! its own, with every byte of every block known.

use anyhow::{Context as _, Result};

use crate::pattern;
use crate::progress::Progress;
use crate::random::Random;

const BLOCKS: usize = 512;
const CHANGES_PER_ROUND: usize = 100;
/// Sizes are spread evenly over the powers of two up to 1 MiB.
const SIZE_BITS: usize = 20;

struct Block {
    seed: u64,
    bytes: Vec<u8>,
}

/// Changes blocks one after another; each is verified before it is changed, all of them at the end.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let mut random = Random::new(1);
    let mut blocks: Vec<Block> = (0..BLOCKS).map(|_| new_block(&mut random)).collect();
    while progress.goes_on() {
        for _ in 0..CHANGES_PER_ROUND {
            let place = random.below(BLOCKS);
            verify(place, &blocks[place])?;
            change(&mut blocks[place], &mut random);
        }
        progress.round_ok()?;
    }
    blocks.iter().enumerate().try_for_each(|(place, block)| verify(place, block))
}

fn change(block: &mut Block, random: &mut Random) {
    if random.below(2) == 0 {
        *block = new_block(random);
        return;
    }
    let size = random_size(random);
    let kept = size.min(block.bytes.len());
    block.bytes.resize(size, 0);
    block.bytes.shrink_to_fit();
    if kept < size {
        // The kept part was verified before; growing must have brought it along.
        pattern::fill_from(block.seed, kept, &mut block.bytes);
    }
}

fn new_block(random: &mut Random) -> Block {
    let seed = random.next();
    let mut bytes = vec![0; random_size(random)];
    pattern::fill_from(seed, 0, &mut bytes);
    Block { seed, bytes }
}

fn random_size(random: &mut Random) -> usize {
    let most = 1 << random.below(SIZE_BITS + 1);
    1 + random.below(most)
}

fn verify(place: usize, block: &Block) -> Result<()> {
    pattern::verify(block.seed, &block.bytes)
        .with_context(|| format!("block {place} of {} bytes", block.bytes.len()))
}
