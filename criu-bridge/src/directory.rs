//! A directory of images, as CRIU takes it: an open descriptor that CRIU inherits.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::holder::{Duty, Holder};
use crate::rpc::Options;

/// Options for CRIU that its RPC does not have.
const CONFIGURATION: &str = "criu.conf";

/// A directory that a CRIU which is started meanwhile can use.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    file: File,
    /// Deletes it if this process dies.
    holder: Option<Holder>,
}

impl Directory {
    /// Opens one that is there.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        if !file.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        fcntl(file.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
        Ok(Self { path: path.to_owned(), file, holder: None })
    }

    /// Makes one for root alone, with its parents, unless it is there.
    pub(crate) fn make(path: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        Self::open(path)
    }

    /// Makes a new one for root alone in `parent`, of which nobody else knows the name, and which is gone when this process
    /// is.
    pub(crate) fn private(parent: &Path) -> io::Result<Self> {
        let name: String = sys::random::sixteen_bytes()?.iter().map(|byte| format!("{byte:02x}")).collect();
        let path = parent.join(format!("posthaste-{name}"));
        // It is there first: at no moment is there a directory that nobody deletes.
        let holder = Some(Holder::start(Duty::Delete(&path))?);
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self { holder, ..Self::open(&path)? })
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The open directory, for whoever starts CRIU elsewhere.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Deletes it with all that is in it.
    pub(crate) fn delete(&mut self) {
        // What cannot be deleted stays.
        let _ = std::fs::remove_dir_all(&self.path);
        self.holder = None;
    }

    /// The same for a CRIU in other namespaces, and with `configuration` for what it takes from files only.
    pub(crate) fn options_anywhere(
        &self,
        options: Options,
        configuration: &str,
        log: &str,
    ) -> io::Result<(Options, PathBuf)> {
        std::fs::write(self.path.join(CONFIGURATION), configuration)?;
        let inherited = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        let options = Options {
            images_dir_fd: -1,
            config_file: Some(format!("{inherited}/{CONFIGURATION}")),
            images_dir: Some(inherited),
            log_file: Some(log.to_owned()),
            ..options
        };
        Ok((options, self.path.join(log)))
    }

    /// `options` with this directory for images and log, and the log's path.
    pub(crate) fn options(&self, options: Options, log: &str) -> (Options, PathBuf) {
        let fd = self.file.as_raw_fd();
        let log_file = Some(log.to_owned());
        let options = Options { images_dir_fd: fd, work_dir_fd: Some(fd), log_file, ..options };
        (options, self.path.join(log))
    }
}
