//! Threads in the manifest: what each one recorded of itself when it was parked, completed by what only
//! `/proc` knows. Does not park anything.

use alloc::vec::Vec;

use memory::Addr;
use protocol::ThreadRecord;
use sys::proc::status;

use super::refusal::Refusal;

/// What a parked thread recorded of itself. `pending` is 0: [`complete`] reads it from `/proc`.
pub(crate) type Parked = ThreadRecord;

/// The records of parked threads with their pending signals.
pub(crate) fn complete(mut parked: Vec<Parked>) -> Result<Vec<ThreadRecord>, Refusal> {
    for thread in &mut parked {
        thread.pending = status::of_thread(thread.tid)?.pending;
    }
    Ok(parked)
}

/// Records of threads that still run: nothing but their ids is known.
pub(crate) fn listed(tids: &[u32]) -> Vec<ThreadRecord> {
    let record = |tid: &u32| ThreadRecord {
        tid: *tid,
        frame: Addr(0),
        frame_len: 0,
        fs_base: 0,
        gs_base: 0,
        clear_child_tid: Addr(0),
        robust_list: (Addr(0), 0),
        rseq: None,
        name: [0; 16],
        pending: 0,
    };
    tids.iter().map(record).collect()
}
