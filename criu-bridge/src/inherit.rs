//! Descriptors that a restored tree gets in the place of something that was outside of it, such as its terminal.

use std::fmt;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::Args;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use sys::descriptor::terminal::{set_window, window};

use crate::rpc::InheritFd;

/// The standard streams: CRIU has them anyway.
const STREAMS: u16 = 3;

/// The option, as CRIU has it.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Inherit {
    /// Give the tree descriptor N in the place of something external, such as a terminal: `fd[0]:tty[RDEV:DEV]`
    #[arg(long, value_name = "fd[N]:WHAT")]
    pub(crate) inherit_fd: Vec<Heir>,
}

/// One descriptor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Heir {
    number: u16,
    /// In CRIU's words.
    key: String,
}

impl FromStr for Heir {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.strip_prefix("fd[").and_then(|rest| rest.split_once("]:"));
        let heir =
            parts.and_then(|(number, key)| Some(Self { number: number.parse().ok()?, key: key.to_owned() }));
        heir.filter(|heir| !heir.key.is_empty()).ok_or_else(|| "it has the form fd[N]:WHAT".to_owned())
    }
}

impl fmt::Display for Heir {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "fd[{}]:{}", self.number, self.key)
    }
}

impl Heir {
    /// For a request.
    pub(crate) fn option(&self) -> InheritFd {
        InheritFd { key: self.key.clone(), fd: self.number.into() }
    }

    /// The first of `heirs` that this process was not started with. Asked first of all: later on the number may be that of
    /// something else.
    pub(crate) fn missing(heirs: &[Self]) -> Option<&Self> {
        let is_open = |heir: &Self| fs::symlink_metadata(format!("/proc/self/fd/{}", heir.number)).is_ok();
        heirs.iter().find(|heir| !is_open(heir))
    }

    /// Whether it takes the place of a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.key.starts_with("tty[")
    }

    /// The descriptor; whatever this process starts inherits it.
    ///
    /// # Errors
    /// It is not open.
    pub(crate) fn claim(&self) -> anyhow::Result<Claimed> {
        let number = u32::from(self.number);
        if self.number < STREAMS {
            return Ok(Claimed { fd: None, number, window: window(number).ok() });
        }
        let claimed = sys::inherited::claim(self.number).map_err(|errno| anyhow!("{errno}"));
        let fd = claimed.with_context(|| format!("descriptor of --inherit-fd {self}"))?;
        fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))
            .with_context(|| format!("having descriptor {} inherited", fd.as_raw_fd()))?;
        Ok(Claimed { fd: Some(fd), number, window: window(number).ok() })
    }
}

/// A descriptor that is ready to be handed on.
#[derive(Debug)]
pub(crate) struct Claimed {
    /// None for a standard stream.
    fd: Option<OwnedFd>,
    number: u32,
    /// If it is a terminal.
    window: Option<u64>,
}

impl Claimed {
    /// The terminal of this process, which a program gets that was started from a shell.
    pub(crate) fn own_terminal() -> Self {
        Self { fd: None, number: 0, window: window(0).ok() }
    }

    /// It, unless everybody has it anyway.
    pub(crate) fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.fd.as_ref().map(AsFd::as_fd)
    }

    /// CRIU gives a terminal the size of that at the source; this undoes it.
    pub(crate) fn restore_window(&self) {
        // Nobody may look at it any more.
        let _ = self.window.map(|window| set_window(self.number, window));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_missing() {
        let (reader, _writer) = std::io::pipe().expect("a pipe");
        let heir = |number: i32| format!("fd[{number}]:pipe[5]").parse::<Heir>().expect("CRIU's own form");
        let (open, closed) = (heir(reader.as_raw_fd()), heir(9999));
        assert_eq!(Heir::missing(std::slice::from_ref(&open)), None);
        assert_eq!(Heir::missing(&[open, closed.clone()]), Some(&closed));
    }

    #[test]
    fn a_pipe_is_no_terminal() {
        let is_terminal = |text: &str| text.parse::<Heir>().expect("CRIU's own form").is_terminal();
        assert!(is_terminal("fd[0]:tty[8803:1b]") && !is_terminal("fd[7]:pipe[4711]"));
    }

    #[test]
    fn it_is_written_as_for_criu() {
        let heir: Heir = "fd[17]:tty[8803:1b]".parse().expect("CRIU's own form");
        assert_eq!(heir, Heir { number: 17, key: "tty[8803:1b]".to_owned() });
        assert_eq!(heir.to_string().parse(), Ok(heir));
        for wrong in ["", "17:tty[1:2]", "fd[x]:tty[1:2]", "fd[1]:", "fd[1]tty", "fd[99999]:tty"] {
            assert!(wrong.parse::<Heir>().is_err(), "{wrong}");
        }
    }
}
