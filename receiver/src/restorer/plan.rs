//! All that a manifest decides by itself, before anything here is looked at or touched.

use protocol::{DescriptionKind, FileVerdict, Manifest};
use sys::proc::fdinfo;

use super::layout::{Hole, Layout};
use super::{Program, RestoreError, mappings, process, requirements, threads, timers};

/// Makes the plans for a process of `manifest` and drops them: as if every file were here and every id free.
///
/// # Errors
/// What the manifest contradicts itself in, or asks for that nobody has.
pub fn plan(manifest: &Manifest) -> Result<(), RestoreError> {
    requirements::check_ids(manifest)?;
    let verdicts = vec![FileVerdict::Same; manifest.files.len()];
    mappings::ahead(manifest, &verdicts)?;
    mappings::last(manifest)?;
    mappings::check_files(manifest, &|_| FileVerdict::Same)?;
    let occupied: Vec<_> = manifest.vmas.iter().map(|vma| vma.range).collect();
    let hole = Hole::find(&occupied, manifest.threads.len() as u64).ok_or(RestoreError::NoHole)?;
    let layout = Layout::new(hole);
    let mut program = Program::at(layout.program(), layout.data());
    threads::become_main(&mut program, manifest)?;
    process::set_limits(&mut program, &manifest.process, &process::OTHER_LIMITS)?;
    timers::arm(&mut program, manifest);
    for description in &manifest.descriptions {
        if matches!(description.kind, DescriptionKind::Anonymous { .. }) {
            fdinfo::parse(&description.info)
                .map_err(|_| RestoreError::Dangling { what: "the state of descriptor", index: 0 })?;
        }
    }
    Ok(())
}
