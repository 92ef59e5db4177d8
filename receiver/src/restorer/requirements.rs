//! What must be so before anything is built: processor, kernel, ids, limits.

use std::collections::BTreeSet;
use std::io;

use memory::PageRange;
use protocol::{Credentials, Manifest, VdsoRecord, XsaveLayout};
use sys::identity;
use sys::proc::maps;

use super::credentials::{self, Change};
use super::{RestoreError, process};
use crate::peer;

/// What this machine is, and what of the address space a new process starts with.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) boot_id: [u8; 16],
    /// This process's mappings, which its child has too until it is blank.
    pub(super) occupied: Vec<PageRange>,
    xsave: XsaveLayout,
    pub(super) vdso: Option<VdsoRecord>,
    credentials: Credentials,
    login_id: Vec<u8>,
}

impl Here {
    /// Looks.
    pub(super) fn look() -> Result<Self, RestoreError> {
        let boot_id = identity::boot_id()
            .map_err(|errno| RestoreError::Host { what: "the boot id", source: io::Error::from(errno) })?;
        let mappings = maps::own_mappings()
            .map_err(|error| RestoreError::Host { what: "the mappings", source: io::Error::other(error) })?;
        Ok(Self {
            boot_id,
            xsave: identity::xsave_layout(),
            vdso: identity::vdso_record(&mappings),
            credentials: credentials::own()?,
            login_id: process::own_login_id(),
            occupied: mappings.iter().map(|mapping| mapping.range).collect(),
        })
    }

    /// Whether `manifest` comes from this running kernel.
    pub(super) fn is_home_of(&self, manifest: &Manifest) -> bool {
        self.boot_id == manifest.host.boot_id
    }

    /// Refuses what this machine is not or cannot give.
    pub(super) fn check(&self, manifest: &Manifest) -> Result<(), RestoreError> {
        let threads = manifest.threads.iter().filter_map(|thread| thread.credentials.as_ref());
        threads.chain([&manifest.process.credentials]).try_for_each(peer::permit)?;
        check_registers(&manifest.host.xsave, &self.xsave)?;
        self.changes(manifest)?;
        check_ids(manifest)
    }

    /// Whether a child's namespaces need a user namespace around them.
    pub(super) const fn needs_user_namespace(&self) -> bool {
        credentials::need_user_namespace(&self.credentials)
    }

    /// Whether the program's threads may be made before the first one is who it was.
    pub(super) fn leaves_threads_alone(&self, manifest: &Manifest) -> bool {
        process::leaves_threads_alone(&self.credentials, &self.login_id, &manifest.process)
    }

    /// How threads get the program's credentials, and each its own if it has others.
    pub(super) fn changes(&self, manifest: &Manifest) -> Result<(Change, Vec<Option<Change>>), RestoreError> {
        let process = peer::brought(&manifest.process.credentials);
        let change = Change::between(&self.credentials, &process)?;
        let own = |theirs: &Credentials| {
            Change::of_thread(&self.credentials, &manifest.process.credentials, &peer::brought(theirs))
        };
        let threads = manifest.threads.iter().map(|thread| thread.credentials.as_ref().map(own).transpose());
        let threads: Vec<Option<Change>> = threads.collect::<Result<_, _>>()?;
        for change in threads.iter().flatten().chain([&change]) {
            process::check_settings(&manifest.process, change)?;
        }
        Ok((change, threads))
    }
}

fn check_registers(theirs: &XsaveLayout, ours: &XsaveLayout) -> Result<(), RestoreError> {
    if theirs.components & !ours.components != 0 || theirs.size > ours.size {
        return Err(RestoreError::Registers {
            components: theirs.components,
            size: theirs.size,
            here: ours.components,
            here_size: ours.size,
        });
    }
    for (word, (theirs, ours)) in theirs.features.iter().zip(ours.features).enumerate() {
        let missing = theirs & !ours & !if word == 0 { KERNEL_ONLY } else { 0 };
        if missing != 0 {
            return Err(RestoreError::Instructions { word, missing });
        }
    }
    Ok(())
}

/// CPUID 1, ECX: what only kernels can use (debug store, monitor, virtual machines, power, `xTPR`, `PDCM`, `PCID`,
/// `x2APIC`, deadline timer, hypervisor).
const KERNEL_ONLY: u32 = 0x1fc | 1 << 14 | 1 << 15 | 1 << 17 | 1 << 18 | 1 << 21 | 1 << 24 | 1 << 31;

/// Refuses ids that cannot be given to threads.
pub(super) fn check_ids(manifest: &Manifest) -> Result<(), RestoreError> {
    let main = manifest.threads.first().ok_or(RestoreError::NoMainThread)?;
    if main.tid != manifest.process.pid {
        return Err(RestoreError::NoMainThread);
    }
    let mut seen = BTreeSet::from([0, 1]);
    match manifest.threads.iter().find(|thread| !seen.insert(thread.tid)) {
        Some(thread) => Err(RestoreError::Id(thread.tid)),
        None => Ok(()),
    }
}

/// Refuses ids that somebody has in the receiver's own PID namespace.
pub(super) fn check_ids_are_free(manifest: &Manifest) -> Result<(), RestoreError> {
    let is_taken = |tid: u32| std::path::Path::new(&format!("/proc/{tid}")).exists();
    match manifest.threads.iter().find(|thread| is_taken(thread.tid)) {
        Some(thread) => Err(RestoreError::IdTaken(thread.tid)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: XsaveLayout = XsaveLayout { components: 0xe7, size: 2696, features: [0xff, 1, 2, 3, 4] };

    #[test]
    fn a_processor_with_more_is_as_good() {
        let theirs = XsaveLayout { components: 0x7, size: 832, features: [0x0f, 1, 2, 3, 0] };
        assert!(check_registers(&theirs, &OURS).is_ok());
    }

    #[test]
    fn a_processor_that_lacks_something_is_refused_by_name() {
        let wider = XsaveLayout { components: 0x2_00e7, ..OURS };
        assert!(matches!(check_registers(&wider, &OURS), Err(RestoreError::Registers { .. })));
        let richer = XsaveLayout { features: [0xff, 1, 2, 3, 5], ..OURS };
        let missing = check_registers(&richer, &OURS);
        assert!(matches!(missing, Err(RestoreError::Instructions { word: 4, missing: 1 })));
    }
}
