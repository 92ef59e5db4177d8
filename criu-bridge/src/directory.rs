//! A directory of images, as CRIU takes it: an open descriptor that CRIU inherits.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::rpc::Options;

/// A directory that a CRIU which is started meanwhile can use.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    file: File,
}

impl Directory {
    /// Opens one that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self { path: path.to_owned(), file })
    }

    /// Makes one for root alone, with its parents, unless it is there.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// `options` with this directory for images and log, and the log's path.
    pub(crate) fn options(&self, options: Options, log: &str) -> (Options, PathBuf) {
        let fd = self.file.as_raw_fd();
        let log_file = Some(log.to_owned());
        let options = Options { images_dir_fd: fd, work_dir_fd: Some(fd), log_file, ..options };
        (options, self.path.join(log))
    }
}
