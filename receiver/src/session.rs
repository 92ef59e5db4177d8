//! One migration in a process of its own: from the greeted channels to the end of the migrated program.

use std::process::ExitCode;

use crate::inherited::Inherited;

/// Runs the session whose descriptors were inherited from the daemon.
///
/// # Errors
/// What made the session end early; the daemon tells its user.
pub fn run(inherited: Inherited) -> anyhow::Result<ExitCode> {
    let migration = inherited.migration;
    drop(inherited);
    anyhow::bail!("migration {migration}: sessions are not there yet")
}
