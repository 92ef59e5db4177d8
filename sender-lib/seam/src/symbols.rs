//! Functions that the compiler calls by name. Hidden: exported from a preloaded library they would replace the
//! host's own.
#![allow(unsafe_code, reason = "they are called by code that knows no references")]

use core::arch::{asm, global_asm};

global_asm!(
    ".hidden memcpy",
    ".hidden memmove",
    ".hidden memset",
    ".hidden memcmp",
    ".hidden bcmp",
    ".hidden rust_eh_personality",
    ".hidden _Unwind_Resume",
);

/// Copies up to this many bytes are cheaper in words than by `rep movsb`, which takes some 30 cycles to start.
const SMALL: usize = 16;

/// memcpy(3)
///
/// # Safety
/// What the manual page asks for.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    // SAFETY: memmove asks for less.
    unsafe { memmove(to, from, len) }
}

/// memmove(3)
///
/// # Safety
/// What the manual page asks for.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(to: *mut u8, from: *const u8, len: usize) -> *mut u8 {
    if len <= SMALL {
        // SAFETY: handed on to the caller.
        unsafe { move_small(to, from, len) };
    } else if to.addr().wrapping_sub(from.addr()) >= len {
        // SAFETY: the caller vouches for both ranges; the target does not begin within the source, so copying
        // upwards reads every byte before it is overwritten.
        unsafe {
            asm!("rep movsb", inout("rcx") len => _, inout("rdi") to => _, inout("rsi") from => _,
                options(nostack, preserves_flags));
        }
    } else {
        let last = len - 1;
        // SAFETY: as above, downwards; the direction flag is cleared again, as the ABI demands.
        unsafe {
            asm!("std", "rep movsb", "cld", inout("rcx") len => _,
                inout("rdi") to.wrapping_add(last) => _, inout("rsi") from.wrapping_add(last) => _,
                options(nostack));
        }
    }
    to
}

/// Moves at most [`SMALL`] bytes: loads everything before it stores anything.
///
/// # Safety
/// As for memmove(3).
#[inline(always)]
unsafe fn move_small(to: *mut u8, from: *const u8, len: usize) {
    /// Copies the first and the last `size_of::<T>()` of `len` bytes.
    ///
    /// # Safety
    /// As for memmove(3), and `len` is at least the size of a `T` and at most twice that.
    #[inline(always)]
    unsafe fn ends<T: Copy>(to: *mut u8, from: *const u8, len: usize) {
        let tail = len - size_of::<T>();
        // SAFETY: within the source.
        let first = unsafe { from.cast::<T>().read_unaligned() };
        // SAFETY: within the source.
        let last = unsafe { from.wrapping_add(tail).cast::<T>().read_unaligned() };
        // SAFETY: within the target.
        unsafe { to.cast::<T>().write_unaligned(first) };
        // SAFETY: within the target.
        unsafe { to.wrapping_add(tail).cast::<T>().write_unaligned(last) };
    }
    match len {
        0 => {}
        // SAFETY: the length fits; the caller vouches for the ranges.
        1 => unsafe { ends::<u8>(to, from, len) },
        // SAFETY: as above.
        2..=3 => unsafe { ends::<u16>(to, from, len) },
        // SAFETY: as above.
        4..=7 => unsafe { ends::<u32>(to, from, len) },
        // SAFETY: as above, the caller has looked at the upper bound.
        _ => unsafe { ends::<u64>(to, from, len) },
    }
}

/// memset(3)
///
/// # Safety
/// What the manual page asks for.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(to: *mut u8, byte: i32, len: usize) -> *mut u8 {
    let [low, ..] = byte.to_le_bytes();
    // SAFETY: the caller vouches for the range.
    unsafe {
        asm!("rep stosb", inout("rcx") len => _, inout("rdi") to => _, in("al") low,
            options(nostack, preserves_flags));
    }
    to
}

/// memcmp(3)
///
/// # Safety
/// What the manual page asks for.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    const WORD: usize = 8;
    let mut at = 0;
    while at + WORD <= len {
        // SAFETY: within the left range.
        let a = unsafe { left.wrapping_add(at).cast::<u64>().read_unaligned() };
        // SAFETY: within the right range.
        let b = unsafe { right.wrapping_add(at).cast::<u64>().read_unaligned() };
        if a != b {
            return if a.swap_bytes() < b.swap_bytes() { -1 } else { 1 };
        }
        at += WORD;
    }
    while at < len {
        // SAFETY: within the left range. Volatile, so that the loop does not become a call of itself.
        let a = unsafe { left.wrapping_add(at).read_volatile() };
        // SAFETY: within the right range.
        let b = unsafe { right.wrapping_add(at).read_volatile() };
        if a != b {
            return i32::from(a) - i32::from(b);
        }
        at += 1;
    }
    0
}

/// bcmp(3)
///
/// # Safety
/// What the manual page asks for.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, len: usize) -> i32 {
    // SAFETY: the contract is the same.
    unsafe { memcmp(left, right, len) }
}

/// The compiler's own crates, which were built with unwinding, name it; with `panic = "abort"` nobody calls it.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    sys::thread::exit_process(70)
}

/// As above.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
