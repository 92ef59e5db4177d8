//! A manifest without a process: what is filled in is what counts.

use alloc::vec::Vec;

use memory::{Addr, PageRange};

use crate::{Credentials, HostFacts, Manifest, MmFields, ProcessRecord, VdsoRecord, XsaveLayout};

impl Manifest {
    /// No process, no file, no page.
    ///
    /// # Panics
    /// Never: an empty range is a range.
    #[must_use]
    pub fn empty() -> Self {
        let nothing = PageRange::new(Addr(0), Addr(0)).expect("an empty range is a range");
        Self {
            host: HostFacts {
                boot_id: [0; 16],
                xsave: XsaveLayout { components: 0, size: 0, features: [0; 5] },
                clocks: Default::default(),
                processors: Vec::new(),
                vdso: VdsoRecord { range: nothing, code: Addr(0), image: Vec::new() },
            },
            process: nobody(),
            threads: Vec::new(),
            files: Vec::new(),
            objects: Vec::new(),
            vmas: Vec::new(),
            pipes: Vec::new(),
            terminals: Vec::new(),
            ghosts: Vec::new(),
            locks: Vec::new(),
            system_v: Vec::new(),
            descriptions: Vec::new(),
            descriptors: Vec::new(),
            eager: Vec::new(),
            lazy: Vec::new(),
            kept: Vec::new(),
            parasite_state: nothing,
            guards: Vec::new(),
            leaving_gate: Addr(0),
            instance: Vec::new(),
        }
    }
}

fn nobody() -> ProcessRecord {
    ProcessRecord {
        pid: 0,
        session_and_group: [0; 2],
        executable: 0,
        mm: MmFields::default(),
        auxv: Vec::new(),
        resident_kib: 0,
        working_directory: Vec::new(),
        working_ghost: None,
        credentials: Credentials::default(),
        umask: 0,
        personality: 0,
        limits: Vec::new(),
        actions: Vec::new(),
        pending: Vec::new(),
        dumpable: 0,
        keep_capabilities: false,
        child_subreaper: false,
        interval_timers: Default::default(),
        timers: Vec::new(),
        thp_disable: false,
        barriers: 0,
        proc_values: Vec::new(),
        settings: Vec::new(),
    }
}
