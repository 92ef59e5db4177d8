//! `deep_stack`: recursion that goes a little deeper in every round, so that the stack grows beyond what it ever
//! was, and that compares each frame while it unwinds.

use std::hint::black_box;

use anyhow::{Result, ensure};

use crate::progress::Progress;
use crate::random::mix;

const FRAME_WORDS: usize = 64;
/// The deepest recursion uses this much of the usual 8 MiB.
const MOST_BYTES: usize = 6 << 20;
const FIRST_BYTES: usize = 256 << 10;
/// A little more in each round, so that the stack still grows after some seconds.
const BYTES_PER_ROUND: usize = 1 << 10;

/// Recurses deeper and deeper, then at full depth.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let mut bytes = FIRST_BYTES;
    let mut round = 0;
    while progress.goes_on() {
        let top = 0_u8;
        let limit = (&raw const top).addr() - bytes;
        let (depth, found) = descend(round, 1, limit)?;
        let expected = (1..=depth).fold(0, |sum: u64, level| sum.wrapping_add(mix(round ^ level)));
        ensure!(found == expected, "the sum over {depth} frames is {found:#x}, not {expected:#x}");
        bytes = (bytes + BYTES_PER_ROUND).min(MOST_BYTES);
        round += 1;
        progress.round_ok()?;
    }
    Ok(())
}

/// Leaves a pattern in its frame, goes on down to the address `limit` and checks the pattern on the way back.
/// Returns the number of frames and the sum of their patterns.
#[inline(never)]
fn descend(round: u64, level: u64, limit: usize) -> Result<(u64, u64)> {
    let pattern = mix(round ^ level);
    let frame = black_box([pattern; FRAME_WORDS]);
    let (depth, sum) =
        if (&raw const frame).addr() > limit { descend(round, level + 1, limit)? } else { (level, 0) };
    for found in black_box(&frame) {
        ensure!(*found == pattern, "the frame at level {level} holds {found:#x}, not {pattern:#x}");
    }
    Ok((depth, sum.wrapping_add(pattern)))
}
