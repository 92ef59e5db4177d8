//! Threads in the manifest of a process that still runs. Those that rest have told all themselves (`quiesce`).

use alloc::vec::Vec;

use memory::Addr;
use protocol::ThreadRecord;

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
        timer_slack_ns: 0,
        scheduling: sys::thread::scheduling(*tid),
        death_signal: 0,
        no_new_privileges: false,
        memory_policy: (0, 0),
        credentials: None,
        pending: Vec::new(),
    };
    tids.iter().map(record).collect()
}
