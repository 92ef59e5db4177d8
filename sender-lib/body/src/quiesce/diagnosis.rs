//! Why a thread does not come to rest, in words for the user.

use alloc::string::String;
use alloc::vec::Vec;

use protocol::text;
use sys::number::words;
use sys::path::KernelPath;
use sys::{file, thread};

/// The letter of proc(5)'s `stat`, field 3; 0 if it cannot be read.
fn state(tid: u32) -> u8 {
    let stat = read(tid, "/stat");
    // The name in parentheses may hold anything, also parentheses. Behind it are a blank and the letter.
    let name_end = stat.iter().rposition(|byte| *byte == b')');
    name_end.and_then(|at| stat.get(at + 2)).copied().unwrap_or(0)
}

/// Whether the thread sits in vfork(2) or a clone(2) that waits for its child.
fn waits_for_vfork_child(tid: u32) -> bool {
    const CLONE: &[u8] = b"56";
    const VFORK: &[u8] = b"58";
    const CLONE3: &[u8] = b"435";
    matches!(words(&read(tid, "/syscall")).next(), Some(CLONE | VFORK | CLONE3))
}

fn read(tid: u32, what: &str) -> Vec<u8> {
    const LIMIT: usize = 4096;
    file::read_file(KernelPath::numbered("/proc/self/task/", tid, what).as_c_str(), LIMIT).unwrap_or_default()
}

/// The reason, if it is final or the deadline is over (`late`).
pub(super) fn why_not_at_rest(tid: u32, late: bool) -> Option<String> {
    let main = tid == thread::process_id();
    let state = if late || main { state(tid) } else { 0 };
    if main && matches!(state, b'Z' | b'X') {
        return Some(text![
            "the main thread has ended (pthread_exit) while others run on, which cannot be rebuilt"
        ]);
    }
    if !late {
        return None;
    }
    let why = match state {
        b'D' if waits_for_vfork_child(tid) => "waits for a child that it made with vfork",
        b'D' => "sleeps uninterruptibly (state D)",
        b'T' => "is stopped (state T)",
        b't' => "is held by a debugger (state t)",
        b'Z' | b'X' => "is ending and does not end",
        _ => "does not react to the park signal",
    };
    Some(text!["thread ", tid, " ", why])
}
