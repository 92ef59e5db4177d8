//! What the kernel keeps for the calling thread, and futexes.

use alloc::vec::Vec;
use core::ffi::CStr;
use core::marker::PhantomData;
use core::sync::atomic::AtomicU32;

use protocol::{SCHEDULING_NICE, SCHEDULING_PRIORITY, SCHEDULING_PROCESSORS};

use crate::Errno;
use crate::raw::{nr, syscall, syscall3};

/// Bytes of a set of processors: more than any kernel has.
const MASK_BYTES: usize = 1024;

/// The process id.
#[must_use]
pub fn process_id() -> u32 {
    // SAFETY: no arguments.
    number(unsafe { syscall3(nr::GETPID, 0, 0, 0) })
}

/// The id of the calling thread.
#[must_use]
pub fn thread_id() -> u32 {
    // SAFETY: no arguments.
    number(unsafe { syscall3(nr::GETTID, 0, 0, 0) })
}

fn number(result: Result<usize, Errno>) -> u32 {
    result.ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0)
}

/// FS base of the calling thread.
///
/// # Errors
/// None that are known.
pub fn fs_base() -> Result<u64, Errno> {
    const ARCH_GET_FS: usize = 0x1003;
    base(ARCH_GET_FS)
}

/// GS base of the calling thread.
///
/// # Errors
/// None that are known.
pub fn gs_base() -> Result<u64, Errno> {
    const ARCH_GET_GS: usize = 0x1004;
    base(ARCH_GET_GS)
}

fn base(which: usize) -> Result<u64, Errno> {
    let mut value = 0_u64;
    // SAFETY: the pointer is valid for the kernel's write of one word.
    unsafe { syscall3(nr::ARCH_PRCTL, which, (&raw mut value).expose_provenance(), 0) }?;
    Ok(value)
}

/// What set_tid_address(2) was given by the calling thread (`PR_GET_TID_ADDRESS`).
///
/// # Errors
/// `EINVAL` on a kernel without `CONFIG_CHECKPOINT_RESTORE`.
pub fn clear_child_tid() -> Result<u64, Errno> {
    const PR_GET_TID_ADDRESS: usize = 40;
    let mut value = 0_u64;
    // SAFETY: the pointer is valid for the kernel's write of one word.
    unsafe { syscall3(nr::PRCTL, PR_GET_TID_ADDRESS, (&raw mut value).expose_provenance(), 0) }?;
    Ok(value)
}

/// Head and length of the calling thread's robust list.
///
/// # Errors
/// None that are known.
pub fn robust_list() -> Result<(u64, u64), Errno> {
    let (mut head, mut len) = (0_u64, 0_u64);
    let (head_at, len_at) = ((&raw mut head).expose_provenance(), (&raw mut len).expose_provenance());
    // SAFETY: both pointers are valid for the kernel's write of one word.
    unsafe { syscall3(nr::GET_ROBUST_LIST, 0, head_at, len_at) }?;
    Ok((head, len))
}

/// The calling thread's name, padded with zeros.
///
/// # Errors
/// None that are known.
pub fn name() -> Result<[u8; 16], Errno> {
    const PR_GET_NAME: usize = 16;
    let mut name = [0; 16];
    // SAFETY: the pointer is valid for the sixteen bytes that the kernel writes.
    unsafe { syscall3(nr::PRCTL, PR_GET_NAME, name.as_mut_ptr().expose_provenance(), 0) }?;
    Ok(name)
}

/// Names the calling thread; the kernel keeps 15 bytes.
pub fn set_name(name: &CStr) {
    const PR_SET_NAME: usize = 15;
    // SAFETY: the name is a valid C string.
    let named = unsafe { syscall3(nr::PRCTL, PR_SET_NAME, name.as_ptr().expose_provenance(), 0) };
    debug_assert!(named.is_ok(), "a valid pointer is all that it takes");
}

/// By how many nanoseconds the kernel may delay the calling thread's timers.
///
/// # Errors
/// None that are known.
pub fn timer_slack_ns() -> Result<u64, Errno> {
    const PR_GET_TIMERSLACK: usize = 30;
    // SAFETY: plain numbers.
    unsafe { syscall3(nr::PRCTL, PR_GET_TIMERSLACK, 0, 0) }.map(|slack| slack as u64)
}

/// How the kernel answers the question whether the calling thread has registered these restartable sequences.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RseqAnswer {
    /// Yes, with exactly this address, length and signature.
    Registered,
    /// No, or with another address, length or signature.
    Different,
}

/// Asks whether the calling thread has registered `addr`, `len` and `signature` with rseq(2).
///
/// The only way to ask is to register again: `EBUSY` means yes. Where nothing was registered the kernel does
/// register, and this function takes that back at once; so `addr` should look like a live `struct rseq`.
#[must_use]
pub fn ask_rseq(addr: u64, len: u32, signature: u32) -> RseqAnswer {
    const UNREGISTER: usize = 1;
    let Ok(at) = usize::try_from(addr) else { return RseqAnswer::Different };
    let arguments = |flags| [at, len as usize, flags, signature as usize, 0, 0];
    // SAFETY: the area belongs to the calling thread's libc, which made it for this call; what the kernel
    // writes there (the CPU number) is what it always writes there.
    match unsafe { syscall(nr::RSEQ, arguments(0)) } {
        Err(Errno::EBUSY) => RseqAnswer::Registered,
        Err(_) => RseqAnswer::Different,
        Ok(_) => {
            // SAFETY: takes back exactly what the call above did.
            let undone = unsafe { syscall(nr::RSEQ, arguments(UNREGISTER)) };
            debug_assert!(undone.is_ok(), "what was just registered can be unregistered");
            RseqAnswer::Different
        }
    }
}

/// Whether the calling thread has registered any area for restartable sequences.
///
/// Asks for an area in the kernel's half of the address space: a thread that has one is told `EINVAL` before the
/// kernel looks at the address.
#[must_use]
pub fn has_rseq() -> bool {
    const KERNEL_ADDRESS: usize = !0xfff;
    // SAFETY: the kernel never takes such an address.
    let answer = unsafe { syscall(nr::RSEQ, [KERNEL_ADDRESS, 32, 0, 0, 0, 0]) };
    answer == Err(Errno::EINVAL)
}

/// How thread `tid` of this PID namespace is scheduled, as [`protocol::Scheduling`] takes it apart; zeros for what the
/// kernel does not tell.
#[must_use]
pub fn scheduling(tid: u32) -> Vec<u8> {
    const IOPRIO_WHO_PROCESS: usize = 1;
    let mut bytes = alloc::vec![0; SCHEDULING_PROCESSORS + MASK_BYTES];
    let tid = tid as usize;
    let at = bytes.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes at most that many bytes of a struct sched_attr.
    let _ = unsafe { syscall(nr::SCHED_GETATTR, [tid, at, SCHEDULING_PRIORITY, 0, 0, 0]) };
    // SAFETY: plain numbers.
    let priority = unsafe { syscall3(nr::IOPRIO_GET, IOPRIO_WHO_PROCESS, tid, 0) }.unwrap_or(0);
    // SAFETY: plain numbers; 1 to 40 for a nice value of 19 to -20, which a real-time thread has too.
    let unkind = unsafe { syscall3(nr::GETPRIORITY, 0, tid, 0) }.unwrap_or(20);
    for (at, word) in [(SCHEDULING_PRIORITY, priority), (SCHEDULING_NICE, 20_usize.wrapping_sub(unkind))] {
        let [a, b, c, d, ..] = word.to_le_bytes();
        for (slot, byte) in bytes.iter_mut().skip(at).zip([a, b, c, d]) {
            *slot = byte;
        }
    }
    // SAFETY: the kernel writes at most that many bytes behind the first ones.
    let mask =
        unsafe { syscall3(nr::SCHED_GETAFFINITY, tid, MASK_BYTES, at + SCHEDULING_PROCESSORS) }.unwrap_or(0);
    bytes.truncate(SCHEDULING_PROCESSORS + mask);
    bytes
}

/// The signal that the calling thread gets when its parent ends (`PR_GET_PDEATHSIG`); 0 for none.
#[must_use]
pub fn death_signal() -> u32 {
    const PR_GET_PDEATHSIG: usize = 2;
    let mut signal = 0_u32;
    // SAFETY: the kernel writes one int through the pointer.
    let _ = unsafe { syscall3(nr::PRCTL, PR_GET_PDEATHSIG, (&raw mut signal).expose_provenance(), 0) };
    signal
}

/// Where the calling thread wants its memory (`get_mempolicy(2)`): mode and flags, and the first 64 nodes; 0 for wherever,
/// and where the kernel has more nodes than that.
#[must_use]
pub fn memory_policy() -> (u32, u64) {
    /// One more than there are bits: the kernel takes one away.
    const BITS: usize = 65;
    let (mut mode, mut nodes) = (0_u32, 0_u64);
    let at = (&raw mut nodes).expose_provenance();
    // SAFETY: the kernel writes one int and one word.
    let told =
        unsafe { syscall(nr::GET_MEMPOLICY, [(&raw mut mode).expose_provenance(), at, BITS, 0, 0, 0]) };
    if told.is_ok() { (mode, nodes) } else { (0, 0) }
}

/// The processor on which the calling thread runs at the moment.
#[must_use]
pub fn processor() -> Option<u32> {
    let mut processor = 0_u32;
    // SAFETY: the kernel writes one int through the pointer.
    let told = unsafe { syscall3(nr::GETCPU, (&raw mut processor).expose_provenance(), 0, 0) };
    told.ok().map(|_| processor)
}

/// Lets whoever waits for the processor of the calling thread run first (`sched_yield(2)`).
pub fn let_others_run() {
    // SAFETY: no arguments.
    let _ = unsafe { syscall3(nr::SCHED_YIELD, 0, 0, 0) };
}

/// Longer time slices for the calling thread, until this is dropped: whoever wakes up beside it and has usual ones need not
/// wait until the kernel thinks that it has run for long enough (Linux 6.12). It gets no less and no more of the processor.
#[derive(Debug)]
pub struct LongSlices {
    /// What they were, in nanoseconds.
    before: u64,
    /// Of this thread alone.
    _thread: PhantomData<*const ()>,
}

impl LongSlices {
    /// As long as `ns` nanoseconds; `None` if the kernel refuses.
    #[must_use]
    pub fn of(ns: u64) -> Option<Self> {
        set_slice(ns).ok().map(|before| Self { before, _thread: PhantomData })
    }
}

impl Drop for LongSlices {
    fn drop(&mut self) {
        let _ = set_slice(self.before);
    }
}

/// Returns what the time slices of the calling thread were.
fn set_slice(ns: u64) -> Result<u64, Errno> {
    // A struct sched_attr, first version: length and policy, flags, nice value and priority, then three times, of which the
    // first is the slice.
    let mut attributes = [0_u64; 6];
    let at = attributes.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes at most that many bytes.
    unsafe { syscall(nr::SCHED_GETATTR, [0, at, size_of_val(&attributes), 0, 0, 0]) }?;
    let [_, _, _, slice, ..] = &mut attributes;
    let before = core::mem::replace(slice, ns);
    // SAFETY: the kernel reads as many bytes as the first of them say.
    unsafe { syscall3(nr::SCHED_SETATTR, 0, attributes.as_ptr().expose_provenance(), 0) }?;
    Ok(before)
}

/// Runs `action` on `processor`, at the beginning of a time slice, and lets the calling thread run where it could before.
/// `None` if it may not run there.
pub fn on_processor<T>(processor: u32, action: impl FnOnce() -> Option<T>) -> Option<T> {
    const WORDS: usize = 128;
    let index = usize::try_from(processor / 64).ok()?;
    let (mut allowed, mut only) = ([0_u64; WORDS], [0_u64; WORDS]);
    *only.get_mut(index)? = 1 << (processor % 64);
    let pointer = allowed.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes at most that many bytes.
    let bytes = unsafe { syscall3(nr::SCHED_GETAFFINITY, 0, WORDS * 8, pointer) }.ok()?;
    let run_on = |set: &[u64; WORDS]| {
        // SAFETY: the kernel reads that many bytes.
        unsafe { syscall3(nr::SCHED_SETAFFINITY, 0, bytes, set.as_ptr().expose_provenance()) }
    };
    run_on(&only).ok()?;
    let_others_run();
    let result = action();
    // They were allowed a moment ago; if some are not any more, the kernel takes the rest.
    let _ = run_on(&allowed);
    result
}

/// Moves the calling thread to `processor`, from where the kernel may move it on; not if it was told not to run there.
pub fn go_to(processor: u32) {
    let index = usize::try_from(processor / 64).unwrap_or(usize::MAX);
    let (mut allowed, mut only) = ([0_u64; MASK_BYTES / 8], [0_u64; MASK_BYTES / 8]);
    let pointer = allowed.as_mut_ptr().expose_provenance();
    // SAFETY: the kernel writes at most that many bytes.
    let told = unsafe { syscall3(nr::SCHED_GETAFFINITY, 0, MASK_BYTES, pointer) };
    let Some((told, (word, may))) = told.ok().zip(only.get_mut(index).zip(allowed.get(index))) else {
        return;
    };
    *word = may & (1 << (processor % 64));
    for set in [&only, &allowed] {
        // SAFETY: the kernel reads that many bytes. A set that is empty is an error, which changes nothing.
        let _ = unsafe { syscall3(nr::SCHED_SETAFFINITY, 0, told, set.as_ptr().expose_provenance()) };
    }
}

/// Sleeps while `word` holds `expected`, at most `timeout_ns` (`None`: for ever). Returns on a wake, a signal,
/// the time-out or a changed word alike: look again.
pub fn wait_on(word: &AtomicU32, expected: u32, timeout_ns: Option<u64>) {
    const FUTEX_WAIT_PRIVATE: usize = 128;
    const SECOND: u64 = 1_000_000_000;
    let time = timeout_ns.map(|ns| [ns / SECOND, ns % SECOND]);
    let time_at = time.as_ref().map_or(0, |time| time.as_ptr().expose_provenance());
    let arguments = [word.as_ptr().expose_provenance(), FUTEX_WAIT_PRIVATE, expected as usize, time_at, 0, 0];
    // SAFETY: the word is valid, the time is null or a valid timespec.
    let _ = unsafe { syscall(nr::FUTEX, arguments) };
}

/// Wakes every thread that sleeps on `word`.
pub fn wake_all(word: &AtomicU32) {
    const FUTEX_WAKE_PRIVATE: usize = 129;
    const ALL: usize = 0x7fff_ffff;
    // SAFETY: the word is valid.
    let _ = unsafe { syscall3(nr::FUTEX, word.as_ptr().expose_provenance(), FUTEX_WAKE_PRIVATE, ALL) };
}

/// Ends the whole process at once: no exit handler runs, no buffer is flushed.
pub fn exit_process(status: u8) -> ! {
    loop {
        // SAFETY: the call does not return.
        let _ = unsafe { syscall3(nr::EXIT_GROUP, usize::from(status), 0, 0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_calling_thread_knows_itself() {
        assert_ne!(process_id(), 0);
        assert_ne!(thread_id(), 0);
        assert_ne!(fs_base(), Ok(0));
        assert!(robust_list().is_ok_and(|(head, len)| head != 0 && len == 24));
    }

    #[test]
    fn a_thread_is_scheduled_somehow_on_some_processor() {
        let bytes = scheduling(thread_id());
        let found = protocol::Scheduling::of(&bytes).expect("what a kernel wrote");
        assert_eq!(found.policy, 0);
        assert!((-20..=19).contains(&found.nice), "{}", found.nice);
        assert!(found.processors.iter().any(|byte| *byte != 0));
        assert_eq!(death_signal(), 0);
    }

    #[test]
    fn slices_are_longer_for_a_time_and_nothing_else_changes() {
        let told =
            || scheduling(thread_id()).get(..SCHEDULING_PRIORITY).expect("a struct sched_attr").to_vec();
        let slice =
            |told: &[u8]| u64::from_ne_bytes(*told.get(24..).and_then(<[u8]>::first_chunk).expect("long"));
        let before = told();
        let longer = LongSlices::of(8_000_000).expect("a thread may");
        let during = told();
        // Older kernels do not tell.
        if slice(&before) != 0 {
            assert_eq!(slice(&during), 8_000_000);
        }
        assert_eq!((&before[..24], &before[32..]), (&during[..24], &during[32..]));
        drop(longer);
        assert_eq!(told(), before);
    }

    fn processors() -> [u64; MASK_BYTES / 8] {
        let mut set = [0; MASK_BYTES / 8];
        let pointer = set.as_mut_ptr().expose_provenance();
        // SAFETY: the kernel writes at most that many bytes.
        unsafe { syscall3(nr::SCHED_GETAFFINITY, 0, MASK_BYTES, pointer) }.expect("room for the set");
        set
    }

    #[test]
    fn a_thread_goes_where_it_may_run_and_nowhere_else() {
        let before = processors();
        let may = |processor: u32| before[processor as usize / 64] & (1 << (processor % 64)) != 0;
        for there in (0..256).filter(|processor| may(*processor)) {
            // The kernel may move it on at once, but not each time.
            let arrived = (0..100).any(|_| {
                go_to(there);
                processor() == Some(there)
            });
            assert!(arrived, "{there}");
            assert_eq!(processors(), before, "what it may do is as before");
        }
        let here = (0..256).find(|processor| may(*processor)).expect("it runs somewhere");
        let stayed = on_processor(here, || {
            (0..256).for_each(go_to);
            Some((processor(), processors().iter().map(|word| word.count_ones()).sum::<u32>()))
        });
        assert_eq!(stayed, Some((Some(here), 1)));
        go_to(u32::MAX);
        assert_eq!(processors(), before);
    }

    #[test]
    fn waiting_on_a_changed_word_returns_at_once() {
        wait_on(&AtomicU32::new(1), 0, None);
    }
}
