//! `hash_chain`: random reads and writes over a large buffer, where one wrong word changes every later one.
//!
//! The chain is computed a second time without the buffer: from the formula of its first content and a sparse
//! record of what was written since.

use std::collections::HashMap;

use anyhow::{Result, ensure};

use crate::progress::Progress;
use crate::random::{index, mix};

/// 16 MiB of words.
const WORDS: usize = 2 << 20;
const STEPS_PER_ROUND: usize = 20_000;
/// After so many rounds the whole buffer is compared and a new chain begun.
const ROUNDS_PER_CHAIN: u64 = 64;

/// Runs chain after chain, all in one buffer: its memory is there at every moment.
pub(crate) fn run(progress: &mut Progress) -> Result<()> {
    let mut buffer = vec![0; WORDS];
    let mut seed = 0;
    while progress.goes_on() {
        run_chain(progress, &mut buffer, seed)?;
        seed += 1;
    }
    Ok(())
}

fn run_chain(progress: &mut Progress, buffer: &mut [u64], seed: u64) -> Result<()> {
    for (place, word) in buffer.iter_mut().enumerate() {
        *word = first_content(seed, place);
    }
    let mut written = HashMap::new();
    let (mut hash, mut recomputed) = (seed, seed);
    for _ in 0..ROUNDS_PER_CHAIN {
        if !progress.goes_on() {
            break;
        }
        for _ in 0..STEPS_PER_ROUND {
            hash = step_in_buffer(buffer, hash);
        }
        for _ in 0..STEPS_PER_ROUND {
            recomputed = step_in_record(&mut written, seed, recomputed);
        }
        ensure!(hash == recomputed, "the chain is at {hash:#x}, recomputed {recomputed:#x}");
        progress.round_ok()?;
    }
    for (place, found) in buffer.iter().enumerate() {
        let expected = read_record(&written, seed, place);
        ensure!(*found == expected, "word {place} is {found:#x}, not {expected:#x}");
    }
    Ok(())
}

fn first_content(seed: u64, place: usize) -> u64 {
    mix(seed << 32 ^ place as u64)
}

/// One step: reads at a place that the hash names, writes at one that the read word names.
fn step_in_buffer(buffer: &mut [u64], hash: u64) -> u64 {
    let next = mix(hash ^ buffer[index(hash, WORDS)]);
    buffer[index(next >> 7, WORDS)] = next;
    next
}

fn step_in_record(written: &mut HashMap<usize, u64>, seed: u64, hash: u64) -> u64 {
    let next = mix(hash ^ read_record(written, seed, index(hash, WORDS)));
    written.insert(index(next >> 7, WORDS), next);
    next
}

fn read_record(written: &HashMap<usize, u64>, seed: u64, place: usize) -> u64 {
    written.get(&place).copied().unwrap_or_else(|| first_content(seed, place))
}
