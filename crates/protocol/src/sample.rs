//! A manifest of nothing in particular, for tests of the crates above (feature `sample`).

use alloc::vec::Vec;

use memory::{Addr, PageRange};

use crate::{
    Credentials, FileProof, FileRecord, HostFacts, Manifest, MmFields, ProcessRecord, VdsoRecord, XsaveLayout,
};

/// A process with one file, its executable, and nothing else: the test adds what it is about.
#[must_use]
pub fn manifest() -> Manifest {
    let nothing = PageRange::new(Addr(0), Addr(0)).expect("an empty range is a range");
    Manifest {
        host: HostFacts {
            boot_id: [0; 16],
            xsave: XsaveLayout { components: 3, size: 576, features: [0; 5] },
            clocks: Default::default(),
            processors: Vec::new(),
            vdso: VdsoRecord { range: nothing, code: Addr(0), build_id: Vec::new() },
        },
        process: process(),
        threads: Vec::new(),
        files: Vec::from([executable()]),
        objects: Vec::new(),
        vmas: Vec::new(),
        pipes: Vec::new(),
        ghosts: Vec::new(),
        locks: Vec::new(),
        descriptions: Vec::new(),
        descriptors: Vec::new(),
        eager: Vec::new(),
        lazy: Vec::new(),
        parasite_state: nothing,
        guards: Vec::new(),
        leaving_gate: Addr(0),
    }
}

fn process() -> ProcessRecord {
    ProcessRecord {
        pid: 100,
        executable: 0,
        mm: MmFields::default(),
        auxv: Vec::new(),
        resident_kib: 0,
        working_directory: b"/".to_vec(),
        working_ghost: None,
        credentials: Credentials::default(),
        umask: 0o22,
        personality: 0,
        limits: Vec::new(),
        actions: Vec::new(),
        pending: Vec::new(),
        dumpable: 1,
        keep_capabilities: false,
        no_new_privileges: false,
        child_subreaper: false,
        interval_timers: Default::default(),
        timers: Vec::new(),
        thp_disable: false,
        barriers: 0,
        settings: Vec::new(),
        proc_values: Vec::new(),
    }
}

fn executable() -> FileRecord {
    FileRecord { path: b"/bin/true".to_vec(), size: 1, identity: (1, 1), proof: FileProof::None }
}
