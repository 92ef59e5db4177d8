//! What CRIU does only if the user says so, under CRIU's own option names.

use clap::Args;
use serde::{Deserialize, Serialize};

use crate::rpc::Options;

/// Options that dumps and restores share.
#[derive(Args, Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Consent {
    /// Move open TCP connections; the address has to move along
    #[arg(long)]
    pub tcp_established: bool,
    /// Move programs that were started from a shell, with its terminal
    #[arg(long, short = 'j')]
    pub shell_job: bool,
    /// Cut Unix sockets whose other end does not move
    #[arg(long)]
    pub ext_unix_sk: bool,
    /// Move locks on files
    #[arg(long)]
    pub file_locks: bool,
    /// Move deleted files that have another name elsewhere
    #[arg(long)]
    pub link_remap: bool,
    /// Something outside that the tree uses, in CRIU's words, such as `tty[RDEV:DEV]`
    #[arg(long, value_name = "WHAT")]
    #[serde(with = "crate::text::list")]
    pub external: Vec<String>,
    /// Where the root directory of a tree with a mount namespace of its own lies when it is restored
    #[arg(long, value_name = "DIR")]
    #[serde(with = "crate::text::option")]
    pub root: Option<String>,
    /// Open TCP connections are closed in the copy; the tree that goes on keeps them.
    #[arg(skip)]
    pub tcp_close: bool,
}

impl Consent {
    /// The same for a request.
    pub(crate) fn options(&self) -> Options {
        let yes = |consent: bool| consent.then_some(true);
        Options {
            images_dir_fd: -1,
            tcp_established: yes(self.tcp_established),
            // Whatever its own default is: these are the rules that `quiet` can take back.
            network_lock: Some(IPTABLES),
            shell_job: yes(self.shell_job),
            ext_unix_sk: yes(self.ext_unix_sk),
            file_locks: yes(self.file_locks),
            link_remap: yes(self.link_remap),
            tcp_close: yes(self.tcp_close),
            tcp_skip_in_flight: yes(self.tcp_close),
            external: self.external.clone(),
            root: self.root.clone(),
            log_level: Some(LOG_LEVEL),
            ..Options::default()
        }
    }
}

/// CRIU's `-v4`: what it takes to find out afterwards.
const LOG_LEVEL: i32 = 4;

/// `IPTABLES` of `criu_network_lock_method`.
const IPTABLES: i32 = 1;
