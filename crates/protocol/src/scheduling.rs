//! How a thread is scheduled: what the kernel says of it, one behind the other, and what that means.

/// Where the nice value is, which the kernel leaves out for real-time threads.
pub const SCHEDULING_NICE: usize = 16;
/// Where the I/O priority is, behind `struct sched_attr` (`sched_getattr(2)`).
pub const SCHEDULING_PRIORITY: usize = 56;
/// Where the processors are that the thread may run on (`sched_getaffinity(2)`), one bit each.
pub const SCHEDULING_PROCESSORS: usize = 64;

/// A thread's scheduling, taken apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scheduling<'a> {
    /// `struct sched_attr` as the kernel wrote it.
    pub attributes: &'a [u8],
    /// `SCHED_*`
    pub policy: u32,
    /// The nice value.
    pub nice: i32,
    /// `ioprio_get(2)`; 0 for none of its own.
    pub io_priority: u32,
    /// Bit n of byte m for processor 8m + n.
    pub processors: &'a [u8],
}

impl<'a> Scheduling<'a> {
    /// `None` for bytes that are no such record.
    #[must_use]
    pub fn of(bytes: &'a [u8]) -> Option<Self> {
        let word = |at: usize| bytes.get(at..)?.first_chunk().copied().map(u32::from_le_bytes);
        let size = usize::try_from(word(0)?).ok()?.clamp(48, SCHEDULING_PRIORITY);
        Some(Self {
            attributes: bytes.get(..size)?,
            policy: word(4)?,
            nice: word(SCHEDULING_NICE)?.cast_signed(),
            io_priority: word(SCHEDULING_PRIORITY)?,
            processors: bytes.get(SCHEDULING_PROCESSORS..)?,
        })
    }
}

/// Settings of a whole process that prctl(2) reads and sets: `PR_GET_*` and `PR_SET_*` of memory that is never both
/// written and executed, of merging all memory, and of what a user id of 0 means.
pub const PROCESS_SETTINGS: [(u32, u32); 3] = [(66, 65), (68, 67), SECURE_BITS];
/// `PR_GET_SECUREBITS` and `PR_SET_SECUREBITS`
pub const SECURE_BITS: (u32, u32) = (27, 28);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_record_is_none() {
        assert_eq!(Scheduling::of(&[0; 63]), None);
        assert!(Scheduling::of(&[0; 64]).is_some_and(|found| found.processors.is_empty()));
    }
}
