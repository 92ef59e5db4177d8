//! Signal handlers of the program that have interrupted code in which no thread may stand still: such a thread would go on
//! there when its handler returns.

use alloc::string::String;
use alloc::vec;

use protocol::{ThreadRecord, text};
use sys::own_memory::read_own;

use crate::arena::Header;

/// Bytes of a stack that are looked through.
const MOST_BYTES: usize = 1 << 20;
/// Stacks that one thread may have signal frames on.
const MOST_STACKS: usize = 8;
/// Offset of the stack pointer in `struct ucontext`.
const STACK: u64 = 40 + 15 * 8;
/// `cs`, `gs`, `fs` and `ss` of 64-bit code in a signal frame, three words behind its stack pointer.
const SEGMENTS: [u8; 8] = 0x002b_0000_0000_0033_u64.to_ne_bytes();

/// Refuses threads of which that is so.
pub(super) fn check(header: &Header, threads: &[ThreadRecord]) -> Result<(), String> {
    if !header.forbids_any() {
        return Ok(());
    }
    let mut stack = vec![0; MOST_BYTES];
    for thread in threads {
        let mut at = Some(thread.frame.0 + STACK);
        for _ in 0..MOST_STACKS {
            let mut word = [0; 8];
            let Some(start) = at.and_then(|at| read_own(at, &mut word).ok()) else { break };
            if start != word.len() {
                break;
            }
            at = walk(header, u64::from_ne_bytes(word), &mut stack).map_err(|()| {
                text!["a signal handler of thread ", thread.tid, " has interrupted the vDSO: ask again later"]
            })?;
        }
    }
    Ok(())
}

/// Looks through the stack from `from` on; where the stack pointer of a frame that leads to another stack is.
fn walk(header: &Header, from: u64, stack: &mut [u8]) -> Result<Option<u64>, ()> {
    let got = read_own(from, stack).unwrap_or(0);
    let mut elsewhere = None;
    for (at, words) in (from..).step_by(8).zip(stack.get(..got).unwrap_or_default().windows(32).step_by(8)) {
        let Some(([stack, instruction, _], segments)) = words.as_chunks::<8>().0.split_first_chunk::<3>()
        else {
            break;
        };
        if segments.first() != Some(&SEGMENTS) {
            continue;
        }
        if header.forbids(u64::from_ne_bytes(*instruction)) {
            return Err(());
        }
        let stack = u64::from_ne_bytes(*stack);
        if stack < at || stack - from >= MOST_BYTES as u64 {
            elsewhere = Some(at);
        }
    }
    Ok(elsewhere)
}
