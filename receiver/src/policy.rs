//! What the user of this receiver permits and wants: handed from the daemon to its sessions as an argument.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use protocol::Connections;

/// Stands between two options in the argument that holds all of them.
const SEPARATOR: u8 = 0x1f;

/// What holds for every migration that comes in.
#[derive(Parser, Clone, PartialEq, Eq, Debug, Default)]
pub struct Policy {
    /// What becomes of open TCP connections
    ///
    /// reset: they are reset, which the source says beforehand. move: they go on
    /// here, and the other side does not notice; the address must come here too,
    /// and program and receiver must be root. relay: they go on here by way of
    /// the source, which stays until they are closed.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "reset",
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    pub tcp: Tcp,
    /// What becomes of open files that are not here
    ///
    /// refuse: a program with one is refused. ship: their content comes along while
    /// the program stands still, and they are made here under the same path. A file
    /// that is here and is not the same is never overwritten: it is refused.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "refuse",
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    pub files: Files,
    /// Which ids a process has here, seen from outside of its own PID namespace
    ///
    /// any: the next that are free. keep: its own, and those of its threads; where
    /// one is taken, it is refused. Needs root. Inside it sees its own ids in either case.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "any",
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    pub pid: Pid,
    /// Look up every file name of a process in DIR, and let it see nothing else
    ///
    /// DIR becomes the root directory of each process that comes in. It needs what
    /// the program needs, and an empty directory proc. Needs root.
    #[arg(long, value_name = "DIR", verbatim_doc_comment)]
    pub root: Option<PathBuf>,
}

/// What becomes of open TCP connections.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Tcp {
    /// They are reset.
    #[default]
    Reset,
    /// They go on.
    Move,
    /// They go on by way of the source.
    Relay,
}

/// What becomes of open files that are not here.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Files {
    /// A program with one is refused.
    #[default]
    Refuse,
    /// They come along.
    Ship,
}

/// Which ids a process has here.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Pid {
    /// The next that are free.
    #[default]
    Any,
    /// Its own.
    Keep,
}

impl Policy {
    /// The argument that says the same.
    #[must_use]
    pub fn argument(&self) -> OsString {
        let mut options =
            vec![option("tcp", &self.tcp), option("files", &self.files), option("pid", &self.pid)];
        if let Some(root) = &self.root {
            options.push([b"--root=", root.as_os_str().as_bytes()].concat());
        }
        OsString::from_vec(options.join(&SEPARATOR))
    }

    /// Reads what [`Self::argument`] wrote; `None` if it is something else.
    #[must_use]
    pub fn from_argument(argument: &OsStr) -> Option<Self> {
        let options = argument.as_bytes().split(|byte| *byte == SEPARATOR).map(OsStr::from_bytes);
        Self::try_parse_from(std::iter::once(OsStr::new("receiver")).chain(options)).ok()
    }

    /// What the source is told of its connections.
    #[must_use]
    pub const fn connections(&self) -> Connections {
        match self.tcp {
            Tcp::Reset => Connections::Reset,
            Tcp::Move => Connections::Move,
            Tcp::Relay => Connections::Relay,
        }
    }
}

fn option(name: &str, value: &impl ValueEnum) -> Vec<u8> {
    let value = value.to_possible_value();
    let value = value.as_ref().map_or("", |value| value.get_name());
    format!("--{name}={value}").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_reads_what_the_daemon_wrote() {
        for (tcp, files, pid) in [
            (Tcp::Reset, Files::Ship, Pid::Any),
            (Tcp::Move, Files::Refuse, Pid::Keep),
            (Tcp::Relay, Files::Refuse, Pid::Any),
        ] {
            let root = (pid == Pid::Keep).then(|| PathBuf::from("/a place/ü"));
            let policy = Policy { tcp, files, pid, root };
            assert_eq!(Policy::from_argument(&policy.argument()), Some(policy));
        }
        assert_eq!(Policy::from_argument(OsStr::new("--tcp=keep")), None);
    }
}
