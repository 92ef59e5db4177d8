//! What the calling thread may do at the moment: its effective capabilities (capabilities(7)).

use crate::Errno;
use crate::raw::{nr, syscall3};

/// Effective, permitted and inheritable capabilities of the calling thread, each in two halves: the lower 32 first.
type Sets = [[u32; 3]; 2];

/// `_LINUX_CAPABILITY_VERSION_3`, and the calling thread.
const HEADER: [u32; 2] = [0x2008_0522, 0];

/// Does something with the effective capabilities `wanted`, as far as they are permitted.
///
/// # Errors
/// Those of capget(2) and capset(2), before anything was done.
pub fn with<T>(wanted: u64, work: impl FnOnce() -> T) -> Result<T, Errno> {
    let before = get()?;
    let mut during = before;
    for (half, shift) in during.iter_mut().zip([0, 32]) {
        let [effective, permitted, _] = half;
        *effective = *permitted & lower_half(wanted >> shift);
    }
    set(&during)?;
    let result = work();
    // What was there before, and is still permitted, cannot be refused.
    let _ = set(&before);
    Ok(result)
}

/// Gives up `capabilities`, bit n for capability n, for good, as far as there are any.
///
/// # Errors
/// Those of capget(2) and capset(2).
pub fn give_up(capabilities: u64) -> Result<(), Errno> {
    let mut sets = get()?;
    for (half, shift) in sets.iter_mut().zip([0, 32]) {
        for set in half {
            *set &= !lower_half(capabilities >> shift);
        }
    }
    set(&sets)
}

#[allow(clippy::cast_possible_truncation, reason = "the upper half is asked for by shifting")]
const fn lower_half(word: u64) -> u32 {
    word as u32
}

fn get() -> Result<Sets, Errno> {
    let (mut header, mut sets) = (HEADER, Sets::default());
    let header = header.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel reads the header, may write the version into it, and writes two structures of three words.
    unsafe { syscall3(nr::CAPGET, header, sets.as_mut_ptr().expose_provenance(), 0) }?;
    Ok(sets)
}

fn set(sets: &Sets) -> Result<(), Errno> {
    let mut header = HEADER;
    let header = header.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel reads the header, may write the version into it, and reads two structures of three words.
    unsafe { syscall3(nr::CAPSET, header, sets.as_ptr().expose_provenance(), 0) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_are_given_up_for_a_moment() {
        let before = get().expect("own");
        let during = with(0, get).expect("less is always permitted").expect("own");
        assert_eq!(during.map(|[effective, ..]| effective), [0, 0]);
        assert_eq!(during.map(|[_, permitted, _]| permitted), before.map(|[_, permitted, _]| permitted));
        assert_eq!(get(), Ok(before));
    }

    #[test]
    fn what_is_given_up_is_gone_and_all_else_stays() {
        const LOST: u64 = 1 << 12 | 1 << 35;
        let change = || {
            let mut left = get().expect("own");
            for (half, lost) in left.iter_mut().zip([1 << 12, 1 << 3]) {
                half.iter_mut().for_each(|set| *set &= !lost);
            }
            give_up(LOST).expect("less is always permitted");
            assert_eq!(get(), Ok(left));
        };
        std::thread::spawn(change).join().expect("it does not panic");
    }
}
