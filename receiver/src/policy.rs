//! What the user of this receiver permits and wants: handed from the daemon to its sessions as an argument.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use protocol::{Connections, Travel};

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
    /// When memory travels: postcopy, hybrid, precopy or stop
    ///
    /// postcopy: after the program goes on here, as it touches it. hybrid: ahead, while it
    /// still runs at the source, and what it changes all the time after it. precopy: ahead,
    /// and the rest while it stands still. stop: all of it while it stands still.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "postcopy",
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    pub mode: Mode,
    /// With --mode precopy, how long a program may stand still for the rest, in milliseconds
    ///
    /// Memory is sent in rounds until the rest is expected to take less. If a program
    /// changes it faster than it can be sent, it is stopped after a few rounds all the same.
    #[arg(long, value_name = "MS", default_value_t = 300, verbatim_doc_comment)]
    pub max_downtime: u32,
    /// Bytes of memory a second that may travel while a program runs, such as 100M
    ///
    /// K, M and G are 2 to the power of 10, 20 and 30. What a program waits for is not
    /// held back. 0: no limit.
    #[arg(long, value_name = "BYTES", default_value = "0", value_parser = parse_bytes, verbatim_doc_comment)]
    pub bandwidth: u64,
    /// Whether pages come compressed: auto, off
    ///
    /// auto: over a link that is slow enough, if they get smaller by it. Pages of
    /// zeros take no bytes in either case.
    #[arg(
        long,
        value_name = "MODE",
        default_value = "auto",
        hide_possible_values = true,
        verbatim_doc_comment
    )]
    pub compress: Compress,
}

/// Whether pages come compressed.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Compress {
    /// Where it pays.
    #[default]
    Auto,
    /// Never.
    Off,
}

/// When memory travels.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// After the program goes on here.
    #[default]
    Postcopy,
    /// Ahead, and the rest after.
    Hybrid,
    /// Ahead, and the rest while it stands still.
    Precopy,
    /// While it stands still.
    Stop,
}

fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift));
    bytes.ok_or_else(|| "it must be a number of bytes".to_owned())
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
        let mut options = vec![
            option("tcp", &self.tcp),
            option("files", &self.files),
            option("pid", &self.pid),
            option("mode", &self.mode),
            option("compress", &self.compress),
            format!("--max-downtime={}", self.max_downtime).into_bytes(),
            format!("--bandwidth={}", self.bandwidth).into_bytes(),
        ];
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

    /// Whether pages come ahead of the switchover.
    #[must_use]
    pub const fn takes_ahead(&self) -> bool {
        matches!(self.mode, Mode::Hybrid | Mode::Precopy)
    }

    /// What the source is told of when its pages are to travel.
    #[must_use]
    pub const fn travel(&self) -> Travel {
        Travel {
            ahead: self.takes_ahead(),
            none_after: matches!(self.mode, Mode::Precopy | Mode::Stop),
            max_downtime_ms: self.max_downtime,
            bandwidth: self.bandwidth,
            packed: matches!(self.compress, Compress::Auto),
        }
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
        let defaults = Policy { max_downtime: 300, ..Policy::default() };
        let other = Policy {
            tcp: Tcp::Move,
            files: Files::Ship,
            pid: Pid::Keep,
            root: Some(PathBuf::from("/a place/ü")),
            mode: Mode::Hybrid,
            max_downtime: 20,
            bandwidth: 100 << 20,
            compress: Compress::Off,
        };
        let relayed = Policy { tcp: Tcp::Relay, ..defaults.clone() };
        for policy in [defaults, other, relayed] {
            assert_eq!(Policy::from_argument(&policy.argument()), Some(policy));
        }
        assert_eq!(Policy::from_argument(OsStr::new("--tcp=keep")), None);
    }

    #[test]
    fn a_bandwidth_is_bytes_with_or_without_a_unit() {
        assert_eq!(parse_bytes("12345"), Ok(12345));
        assert_eq!(parse_bytes("100M"), Ok(100 << 20));
        assert_eq!(parse_bytes("2g"), Ok(2 << 30));
        for wrong in ["", "M", "1T", "-1", "99999999999G"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }
}
