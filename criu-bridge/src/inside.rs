//! CRIU in the namespaces of the tree that it dumps: what is a world of its own from outside is nothing to tell from
//! inside.
//!
//! There CRIU, its loader and its libraries are looked up in the tree's own file system. That is right where root has made it, and
//! nowhere else: a mount namespace of another user namespace's is not entered.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, setns};

use crate::members;

/// The first argument of whoever enters.
pub(crate) const OPTION: &str = "--inside";

/// Namespaces that are entered; others come along, with the System V objects and the host name in them. The mount namespace comes last: from there on `/proc` is another one.
const KINDS: [(&str, CloneFlags); 3] =
    [("net", CloneFlags::CLONE_NEWNET), ("pid", CloneFlags::CLONE_NEWPID), ("mnt", CloneFlags::CLONE_NEWNS)];

/// The one in which names of files are looked up.
const FILES: &str = "mnt";

/// Refuses a mount namespace that was not made with this process's rights.
fn look_whose(namespace: &File) -> io::Result<()> {
    let own = File::open("/proc/self/ns/user")?.metadata()?;
    // The kernel does not tell of those beyond this process's own.
    let owner = sys::namespace::owner(namespace.as_fd()).map(File::from).ok();
    let owner = owner.map(|owner| owner.metadata()).transpose()?;
    if owner.is_some_and(|owner| (owner.dev(), owner.ino()) == (own.dev(), own.ino())) {
        return Ok(());
    }
    Err(io::Error::other("its mount namespace is another user namespace's, whose files root does not run"))
}

/// Where a tree is dumped.
#[derive(Debug)]
pub(crate) struct Standpoint {
    /// The words that run a command there; none if it is here.
    pub(crate) wrapper: Vec<String>,
    /// The id that the tree's root has there.
    pub(crate) root: u32,
}

/// From where process `pid` is dumped: its own namespaces, or if it is the first process of its PID namespace, which is part
/// of what is dumped then, those of its parent.
pub(crate) fn standpoint(pid: u32) -> io::Result<Standpoint> {
    const FIRST: u32 = 1;
    let ids = members::ids(pid)?;
    let (host, root) = match ids.as_slice() {
        [.., root, FIRST] => (members::parent_of(pid)?, *root),
        [.., root] => (pid, *root),
        [] => return Err(io::ErrorKind::InvalidData.into()),
    };
    // A parent that nobody may look at is the first process of this machine.
    let wrapper = match wrapper(host) {
        Err(error) if host != pid && error.kind() == io::ErrorKind::PermissionDenied => Vec::new(),
        found => found?,
    };
    Ok(if wrapper.is_empty() { Standpoint { wrapper, root: pid } } else { Standpoint { wrapper, root } })
}

/// The words that run a command in those namespaces of process `pid` that are not this process's own.
fn wrapper(pid: u32) -> io::Result<Vec<String>> {
    let mut others = Vec::new();
    for (kind, _) in KINDS {
        if fs::read_link(format!("/proc/{pid}/ns/{kind}"))? != fs::read_link(format!("/proc/self/ns/{kind}"))?
        {
            others.push(kind);
        }
    }
    if others.is_empty() {
        return Ok(Vec::new());
    }
    if others.contains(&FILES) {
        look_whose(&File::open(format!("/proc/{pid}/ns/{FILES}"))?)?;
    }
    Ok(vec!["/proc/self/exe".to_owned(), OPTION.to_owned(), pid.to_string(), others.join(",")])
}

/// The words that run a command in the network namespace of process `pid`.
pub(crate) fn network_of(pid: u32) -> Vec<String> {
    let [(network, _), ..] = KINDS;
    ["/proc/self/exe", OPTION, &pid.to_string(), network].map(str::to_owned).to_vec()
}

/// Does what [`wrapper`] has asked for, and ends when the command ends.
///
/// # Errors
/// They cannot be entered, or the command cannot be started.
pub(crate) fn run(arguments: &[OsString]) -> anyhow::Result<ExitCode> {
    let [pid, kinds, program, rest @ ..] = arguments else {
        return Err(anyhow!("{OPTION} is for criu-bridge's own use"));
    };
    let (pid, kinds) = (pid.to_string_lossy(), kinds.to_string_lossy());
    let mut entered = Vec::new();
    for (kind, flag) in KINDS.iter().filter(|(kind, _)| kinds.split(',').any(|wanted| wanted == *kind)) {
        entered.push((File::open(format!("/proc/{pid}/ns/{kind}")), kind, flag));
    }
    for (namespace, kind, flag) in entered {
        let entering = || format!("entering the {kind} namespace of process {pid}");
        let namespace = namespace.with_context(entering)?;
        if *kind == FILES {
            // It may have become another one meanwhile.
            look_whose(&namespace).with_context(entering)?;
        }
        setns(namespace, *flag).with_context(entering)?;
    }
    let starting = || {
        let program = program.display();
        format!("starting '{program}', which has to be in the file system that process {pid} sees as well")
    };
    let status = Command::new(program).args(rest).status().with_context(starting)?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
