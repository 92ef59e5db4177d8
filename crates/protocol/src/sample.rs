//! A manifest of nothing in particular, for tests of the crates above.

use alloc::vec::Vec;

use crate::{FileProof, FileRecord, HostFacts, Manifest, ProcessRecord, XsaveLayout};

/// A process with one file, its executable, and nothing else: the test adds what it is about.
#[must_use]
pub fn manifest() -> Manifest {
    let empty = Manifest::empty();
    Manifest {
        host: HostFacts { xsave: XsaveLayout { components: 3, size: 576, features: [0; 5] }, ..empty.host },
        process: ProcessRecord {
            pid: 100,
            working_directory: b"/".to_vec(),
            umask: 0o22,
            dumpable: 1,
            ..empty.process
        },
        files: Vec::from([executable()]),
        ..Manifest::empty()
    }
}

fn executable() -> FileRecord {
    FileRecord { path: b"/bin/true".to_vec(), size: 1, identity: (1, 1), proof: FileProof::None }
}
