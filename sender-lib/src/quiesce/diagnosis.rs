//! Why a thread does not come to rest, in words for the user.

use alloc::format;
use alloc::string::String;
use core::ffi::CStr;

use sys::{file, thread};

/// The letter of proc(5)'s `stat`, field 3.
fn state(tid: u32) -> Option<char> {
    let stat = read(tid, "stat")?;
    // The name in parentheses may hold anything, also parentheses.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    rest.trim_start().chars().next()
}

/// Whether the thread sits in vfork(2) or a clone(2) that waits for its child.
fn waits_for_vfork_child(tid: u32) -> bool {
    const CLONE: &str = "56";
    const VFORK: &str = "58";
    const CLONE3: &str = "435";
    let call = read(tid, "syscall").unwrap_or_default();
    matches!(call.split(' ').next(), Some(CLONE | VFORK | CLONE3))
}

fn read(tid: u32, what: &str) -> Option<String> {
    const LIMIT: usize = 4096;
    let path = format!("/proc/self/task/{tid}/{what}\0");
    let content = file::read_file(CStr::from_bytes_with_nul(path.as_bytes()).ok()?, LIMIT).ok()?;
    Some(String::from_utf8_lossy(&content).into_owned())
}

/// The reason, if it is final or the deadline is over (`late`).
pub(super) fn why_not_at_rest(tid: u32, late: bool) -> Option<String> {
    let main = tid == thread::process_id();
    let state = if late || main { state(tid) } else { None };
    if main && matches!(state, Some('Z' | 'X')) {
        return Some(String::from(
            "the main thread has ended (pthread_exit) while others run on, which cannot be rebuilt",
        ));
    }
    if !late {
        return None;
    }
    let why = match state {
        Some('D') if waits_for_vfork_child(tid) => "waits for a child that it made with vfork",
        Some('D') => "sleeps uninterruptibly (state D)",
        Some('T') => "is stopped (state T)",
        Some('t') => "is held by a debugger (state t)",
        Some('Z' | 'X') => "is ending and does not end",
        Some(_) => "does not react to the park signal",
        None => "cannot be looked at",
    };
    Some(format!("thread {tid} {why}"))
}
