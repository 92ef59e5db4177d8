//! Files of a store: opened by no link, written for root alone.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use serde::de::DeserializeOwned;

/// What is written there as JSON; none if there is no such file.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match contents(path) {
        Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// All of a file.
pub(super) fn contents(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(File::options().read(true), path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file, all of it, and has it on disk.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = open(File::options().write(true).create(true).truncate(true), path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Opens a file of a shadow, for root alone if it is made by that. A link leads nowhere: what is in the store is written here.
pub(super) fn open(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    options.mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

/// Has the names in a directory on disk.
pub(super) fn sync(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
