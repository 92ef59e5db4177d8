//! What a session process inherits from the daemon: three channels, the event pipe and the migration's id.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use protocol::MigrationId;

/// The hidden option that turns the receiver into a session.
pub const SESSION_OPTION: &str = "--session";

/// Descriptors and identity of a session. The channels are greeted (`Hello` read, `Welcome` sent, not a byte
/// more read), non-blocking and have `TCP_NODELAY`; all four descriptors are close-on-exec.
#[derive(Debug)]
pub struct Inherited {
    /// Which migration this is.
    pub migration: MigrationId,
    /// Channel `control`.
    pub control: OwnedFd,
    /// Channel `fault`.
    pub fault: OwnedFd,
    /// Channel `push`.
    pub push: OwnedFd,
    /// Writing end of the event pipe; blocking. Its reader hangs up when the daemon ends.
    pub events: OwnedFd,
}

impl Inherited {
    /// The arguments that hand all of this to a session; the descriptors survive the next `exec` from here on.
    ///
    /// # Errors
    /// The `fcntl` that clears close-on-exec.
    pub fn hand_over(&self) -> io::Result<Vec<OsString>> {
        let mut arguments = vec![SESSION_OPTION.into(), self.migration.to_string().into()];
        for fd in [&self.control, &self.fault, &self.push, &self.events] {
            fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
            arguments.push(fd.as_raw_fd().to_string().into());
        }
        Ok(arguments)
    }

    /// Reads what [`Self::hand_over`] wrote, the option itself left out; `None` if it is something else.
    pub fn take_over(arguments: &[OsString]) -> Option<Self> {
        let [migration, fds @ ..] = arguments else { return None };
        let [control, fault, push, events] = fds else { return None };
        Some(Self {
            migration: parse_id(migration)?,
            control: claim(control)?,
            fault: claim(fault)?,
            push: claim(push)?,
            events: claim(events)?,
        })
    }
}

fn claim(number: &OsStr) -> Option<OwnedFd> {
    sys::inherited::claim(number.to_str()?.parse().ok()?).ok()
}

fn parse_id(text: &OsStr) -> Option<MigrationId> {
    let text = text.to_str().filter(|text| text.len() == 32 && text.is_ascii())?;
    let mut id = [0; 16];
    for (byte, at) in id.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(MigrationId(id))
}
