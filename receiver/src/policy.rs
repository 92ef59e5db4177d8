//! What the user of this receiver permits and wants: handed from the daemon to its sessions as an argument.

use std::ffi::{OsStr, OsString};

use clap::{Parser, ValueEnum};
use protocol::Connections;

/// What holds for every migration that comes in.
#[derive(Parser, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// What becomes of open TCP connections
    ///
    /// reset: they are reset, which the source says beforehand. move: they go on
    /// here, and the other side does not notice; the address must come here too,
    /// and program and receiver must be root.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "reset",
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    pub tcp: Tcp,
}

/// What becomes of open TCP connections.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tcp {
    /// They are reset.
    #[default]
    Reset,
    /// They go on.
    Move,
}

impl Policy {
    /// The argument that says the same.
    #[must_use]
    pub fn argument(self) -> OsString {
        let tcp = match self.tcp {
            Tcp::Reset => "reset",
            Tcp::Move => "move",
        };
        OsString::from(format!("--tcp={tcp}"))
    }

    /// Reads what [`Self::argument`] wrote; `None` if it is something else.
    #[must_use]
    pub fn from_argument(argument: &OsStr) -> Option<Self> {
        Self::try_parse_from([OsStr::new("receiver"), argument]).ok()
    }

    /// What the source is told of its connections.
    #[must_use]
    pub const fn connections(self) -> Connections {
        match self.tcp {
            Tcp::Reset => Connections::Reset,
            Tcp::Move => Connections::Move,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_reads_what_the_daemon_wrote() {
        for tcp in [Tcp::Reset, Tcp::Move] {
            let policy = Policy { tcp };
            assert_eq!(Policy::from_argument(&policy.argument()), Some(policy));
        }
        assert_eq!(Policy::from_argument(OsStr::new("--tcp=keep")), None);
    }
}
