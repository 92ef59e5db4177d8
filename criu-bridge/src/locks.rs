//! Locks on files, as `/proc/locks` tells of them (proc_locks(5)).

/// A process that `is_ours` and waits for a lock, and the one that has it.
///
/// A line with an arrow is about a lock that is waited for, and the lines without one that come before it are about whoever
/// has it.
pub fn awaited(locks: &str, is_ours: impl Fn(u32) -> bool) -> Option<(u32, u32)> {
    let mut holder = None;
    for line in locks.lines() {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        match words.as_slice() {
            [_, "->", _, _, _, pid, ..] => {
                let waiting = pid.parse().ok().filter(|pid| is_ours(*pid));
                if let Some(found) = waiting.zip(holder) {
                    return Some(found);
                }
            }
            // Whoever has a lock that belongs to an open file, or is in another PID namespace, has no number here.
            [_, _, _, _, pid, ..] => holder = Some(pid.parse().unwrap_or(0)),
            _ => {}
        }
    }
    None
}

/// Somebody who waits for a lock on the file with this inode number. Of files with the same number on two file systems
/// either may be meant.
#[must_use]
pub fn waiting(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let [_, "->", _, _, _, pid, file, ..] = words.as_slice() else { return None };
        let (_, number) = file.rsplit_once(':')?;
        (number.parse() == Ok(inode)).then(|| pid.parse().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 4711 fd:00:17 0 EOF\n\
                         2: FLOCK  ADVISORY  WRITE 4712 fd:00:18 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 4713 fd:00:18 0 EOF\n\
                         3: OFDLCK ADVISORY  READ  -1 fd:00:19 0 EOF\n\
                         3: -> OFDLCK ADVISORY  WRITE 4714 fd:00:19 0 EOF\n";

    #[test]
    fn who_waits_for_a_lock_is_told_with_who_has_it() {
        assert_eq!(awaited(LOCKS, |pid| pid == 4713), Some((4713, 4712)));
        assert_eq!(awaited(LOCKS, |pid| pid == 4714), Some((4714, 0)));
        assert_eq!(awaited(LOCKS, |pid| pid == 4711), None);
        assert_eq!(awaited("1: -> what\n\n", |_| true), None);
    }

    #[test]
    fn who_waits_for_a_lock_is_found_by_the_file() {
        assert_eq!((waiting(LOCKS, 18), waiting(LOCKS, 19)), (Some(4713), Some(4714)));
        assert_eq!((waiting(LOCKS, 17), waiting("1: -> what\n\n", 17)), (None, None));
    }
}
