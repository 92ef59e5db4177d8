//! What the receiver tells: one JSON object a line, from a session to the daemon and from there to `--events`.
//!
//! ```text
//! listening  address, port, pid, version          the daemon accepts connections
//! connected  migration, peer                      the three channels of a migration are open
//! refused    reason, peer?, migration?            nothing was stopped; the program goes on at the source
//! resumed    pid, source_pid, downtime_us         the process runs here
//! succeeded  reason                               what served its memory was killed; something else goes on
//! paused     reason                               the link is lost; the source may connect again
//! recovered                                       it has
//! complete   report                               it has all its memory; source and receiver may go away, the source
//!                                                 not before `untied` if the report counts `relayed_connections`
//! untied                                          no connection is relayed any more
//! lost       pages, ranges                        of its memory, pages that never came; `failed` follows
//! failed     reason, process                      `process` says where it lives: source, here, lost, in_doubt
//! stored     shadow, epoch, by_value, by_reference,   an epoch of a shadow is complete: its pages, how long its tree stood
//!            zero, wire_bytes, freeze_us, lag_us      still, and how old it was when it was complete
//! missed     shadow, reason                           a shadow's source has gone without a complete epoch
//! exited     pid, exit_code | signal              the moved process has ended
//! ```
//! Every line also has `time` (RFC 3339, UTC) and, from `connected` on, `migration`.

use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::report::Report;

/// What a session tells the daemon; all but [`SessionEvent::Progress`], [`SessionEvent::Committed`],
/// [`SessionEvent::Introduced`] and [`SessionEvent::StandsBy`] are passed on to `--events`.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum SessionEvent {
    /// The process cannot be had here; the source was told before it stopped anything.
    Refused {
        /// One line for the user.
        reason: String,
    },
    /// The source has said to run the process: from here on it never goes on there.
    Committed,
    /// The source has said what its process is.
    Introduced,
    /// A copy of the session waits for its death, to go on in its place.
    StandsBy {
        /// Its process id.
        pid: u32,
        /// That of the session.
        of: u32,
    },
    /// The session was killed and another one goes on.
    Succeeded {
        /// How the one before ended.
        reason: String,
    },
    /// The link to the source is lost. The process goes on as far as its memory reaches.
    Paused {
        /// One line for the user.
        reason: String,
    },
    /// The source has connected again.
    Recovered,
    /// The first thread has been let go here.
    Resumed {
        /// Process id here, as the daemon sees it.
        pid: u32,
        /// Process id at the source, which it keeps inside its own PID namespace.
        source_pid: u32,
        /// From the last instruction at the source to the first one here.
        downtime_us: u64,
    },
    /// How far post-copy is; at most some ten a second.
    Progress {
        /// Bytes that are in place.
        done_bytes: u64,
        /// Bytes that will have been moved at the end, as far as is known yet.
        total_bytes: u64,
    },
    /// Every page is here; the process depends on nobody any more.
    Complete {
        /// What it took.
        report: Box<Report>,
    },
    /// The last connection that stayed at the source has ended.
    Untied,
    /// Memory of the process that neither side has any more: touching it gives SIGBUS.
    Lost {
        /// Pages; what nobody had looked at yet counts whole.
        pages: u64,
        /// Where they are, as `/proc/PID/maps` writes it; the first ones.
        ranges: Vec<String>,
    },
    /// An epoch of a shadow is complete.
    Stored {
        /// The shadow's name.
        shadow: String,
        /// The epoch's number.
        epoch: u64,
        /// Pages that came.
        by_value: u64,
        /// Pages that are those of the epoch before.
        by_reference: u64,
        /// Pages that are zero.
        zero: u64,
        /// Bytes that came over the link.
        wire_bytes: u64,
        /// How long the tree stood still.
        freeze_us: u64,
        /// From the tree's stop until the epoch was complete.
        lag_us: u64,
    },
    /// A shadow's source has gone without a complete epoch; those before it are kept.
    Missed {
        /// The shadow's name.
        shadow: String,
        /// One line for the user.
        reason: String,
    },
    /// The migration has failed.
    Failed {
        /// One line for the user.
        reason: String,
        /// Where the process lives.
        process: Whereabouts,
    },
    /// The moved process itself has ended.
    Exited {
        /// Process id here, as in `Resumed`.
        pid: u32,
        /// How it ended.
        #[serde(flatten)]
        status: Status,
    },
}

/// Where a process lives after a failure.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Whereabouts {
    /// At the source, as if nothing had happened.
    Source,
    /// Here, although part of its memory is lost: touching it gives SIGBUS.
    Here,
    /// Nowhere.
    Lost,
    /// Here it never ran; the source stands still until it knows.
    InDoubt,
}

/// How a process ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Status {
    /// It exited.
    Exited {
        /// With this status, 0 to 255.
        exit_code: u8,
    },
    /// It was killed.
    Killed {
        /// By this signal.
        signal: u8,
    },
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { exit_code } => write!(f, "exit status {exit_code}"),
            Self::Killed { signal } => write!(f, "killed by signal {signal}"),
        }
    }
}

impl SessionEvent {
    /// Writes the event as one line in one `write`.
    ///
    /// # Errors
    /// The write; `BrokenPipe` means that the daemon is gone.
    pub fn write_to(&self, mut pipe: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        pipe.write_all(&line)
    }
}

/// What the daemon itself has to tell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum DaemonEvent {
    /// Connections are accepted from here on.
    Listening {
        /// Where, without the port.
        address: IpAddr,
        /// The port, the real one if 0 was asked for.
        port: u16,
        /// Process id of the daemon.
        pid: u32,
        /// Version of this program.
        version: &'static str,
    },
    /// The three channels of a migration are open.
    Connected {
        /// Where the source is.
        peer: SocketAddr,
    },
    /// A connection was turned away before it had a session.
    Refused {
        /// Where it came from.
        peer: SocketAddr,
        /// What it was told.
        reason: String,
    },
}
