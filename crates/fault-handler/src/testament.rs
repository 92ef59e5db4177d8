//! What a loop leaves to a copy that was made ahead of the switchover: the final manifest, in memory that both share.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;

use mio::net::TcpStream;
use protocol::Manifest;
use sys::own_memory::nameless_file;
use transport::Connection;

/// A file in memory whose number means the same in both. It is never closed before both have ended.
#[derive(Debug)]
pub(crate) struct Testament {
    file: std::mem::ManuallyDrop<File>,
    is_kept: bool,
}

impl Testament {
    /// An empty one.
    pub(crate) fn new() -> Option<Self> {
        // Linux before 6.3 does not know the seal.
        let file = nameless_file(true).or_else(|_| nameless_file(false)).ok()?;
        let file = File::from(OwnedFd::from(file));
        Some(Self { file: std::mem::ManuallyDrop::new(file), is_kept: false })
    }

    /// Writes down `manifest`, which is the frame in hand on `control`; not one of which anything has come ahead.
    pub(crate) fn keep(mut self, manifest: &Manifest, control: &Connection<TcpStream>) -> Option<Self> {
        if !manifest.kept.is_empty() {
            return None;
        }
        self.file.write_all_at(control.frame()?.body, 0).ok()?;
        self.is_kept = true;
        Some(self)
    }

    /// Whether a manifest was written down.
    pub(crate) const fn is_kept(&self) -> bool {
        self.is_kept
    }

    /// The manifest, in the copy.
    pub(crate) fn open(self) -> Option<Manifest> {
        let len = usize::try_from(self.file.metadata().ok()?.len()).ok()?;
        let mut body = vec![0; len];
        self.file.read_exact_at(&mut body, 0).ok()?;
        protocol::decode(&body).ok()
    }
}
