//! What a session process inherits from the daemon: three channels, the event pipe and the migration's id.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use engine::OnLoss;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use protocol::MigrationId;

use crate::daemon::Fate;
use crate::policy::Policy;

/// The hidden option that turns the receiver into a session.
pub const SESSION_OPTION: &str = "--session";

/// What a session is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Purpose {
    /// To take in a process.
    Receive {
        /// What becomes of it when its missing pages do not come.
        on_loss: OnLoss,
        /// How long it waits for them, in seconds.
        patience_s: u16,
    },
    /// To tell a source, which asks again, how its migration ended.
    Tell(Fate),
}

impl Purpose {
    fn to_argument(self) -> OsString {
        match self {
            Self::Receive { on_loss, patience_s } => format!("{on_loss:?}:{patience_s}").into(),
            Self::Tell(fate) => format!("{fate:?}").into(),
        }
    }

    fn from_argument(argument: &OsStr) -> Option<Self> {
        let text = argument.to_str()?;
        let fates = [Fate::Aborted, Fate::Drained, Fate::Failed];
        let Some((on_loss, patience_s)) = text.split_once(':') else {
            return fates.into_iter().find(|fate| format!("{fate:?}") == text).map(Self::Tell);
        };
        let all = [OnLoss::Wait, OnLoss::Poison, OnLoss::Kill];
        let on_loss = all.into_iter().find(|each| format!("{each:?}") == on_loss)?;
        Some(Self::Receive { on_loss, patience_s: patience_s.parse().ok()? })
    }
}

/// Descriptors and identity of a session. The channels are greeted (`Hello` read, `Welcome` sent, not a byte
/// more read), non-blocking and have `TCP_NODELAY`; all descriptors are close-on-exec.
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
    /// What it is for.
    pub purpose: Purpose,
    /// The session's end of the line on which the daemon hands over channels of a source that connects again.
    pub line: OwnedFd,
    /// Reading end of a pipe with a [`crate::sealing::Sealing`], if the channels are to be sealed.
    pub sealing: Option<OwnedFd>,
    /// Writing end of the event pipe; blocking. Its reader hangs up when the daemon ends.
    pub events: OwnedFd,
    /// What the daemon's user permits and wants.
    pub policy: Policy,
}

impl Inherited {
    /// The arguments that hand all of this to a session; the descriptors survive the next `exec` from here on.
    ///
    /// # Errors
    /// The `fcntl` that clears close-on-exec.
    pub fn hand_over(&self) -> io::Result<Vec<OsString>> {
        let mut arguments = vec![SESSION_OPTION.into(), self.migration.to_string().into()];
        arguments.push(self.purpose.to_argument());
        arguments.push(self.policy.argument());
        for fd in [&self.control, &self.fault, &self.push, &self.line, &self.events]
            .into_iter()
            .chain(&self.sealing)
        {
            fcntl(fd.as_fd(), FcntlArg::F_SETFD(FdFlag::empty()))?;
            arguments.push(fd.as_raw_fd().to_string().into());
        }
        Ok(arguments)
    }

    /// Reads what [`Self::hand_over`] wrote, the option itself left out; `None` if it is something else.
    pub fn take_over(arguments: &[OsString]) -> Option<Self> {
        let [migration, purpose, policy, fds @ ..] = arguments else { return None };
        let [control, fault, push, line, events, sealing @ ..] = fds else { return None };
        let sealing = match sealing {
            [] => None,
            [sealing] => Some(claim(sealing)?),
            _ => return None,
        };
        Some(Self {
            migration: parse_id(migration)?,
            purpose: Purpose::from_argument(purpose)?,
            control: claim(control)?,
            fault: claim(fault)?,
            push: claim(push)?,
            line: claim(line)?,
            sealing,
            events: claim(events)?,
            policy: Policy::from_argument(policy)?,
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
