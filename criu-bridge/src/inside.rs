//! CRIU in the namespaces of the tree that it dumps: what is a world of its own from outside is nothing to tell from
//! inside.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::process::{Command, ExitCode};

use anyhow::{Context, anyhow};
use nix::sched::{CloneFlags, setns};

/// The first argument of whoever enters.
pub(crate) const OPTION: &str = "--inside";

/// Namespaces that are entered; others come along, with the System V objects and the host name in them. The mount namespace comes last: from there on `/proc` is another one.
const KINDS: [(&str, CloneFlags); 3] =
    [("net", CloneFlags::CLONE_NEWNET), ("pid", CloneFlags::CLONE_NEWPID), ("mnt", CloneFlags::CLONE_NEWNS)];

/// The words that run a command in those namespaces of process `pid` that are not this process's own; none if there are
/// no such, or if it is the first process of its own, whose namespaces are part of what is dumped.
pub(crate) fn wrapper(pid: u32, inner: u32) -> io::Result<Vec<String>> {
    const FIRST: u32 = 1;
    let mut others = Vec::new();
    for (kind, _) in KINDS {
        if fs::read_link(format!("/proc/{pid}/ns/{kind}"))? != fs::read_link(format!("/proc/self/ns/{kind}"))?
        {
            others.push(kind);
        }
    }
    if others.is_empty() || inner == FIRST {
        return Ok(Vec::new());
    }
    Ok(vec!["/proc/self/exe".to_owned(), OPTION.to_owned(), pid.to_string(), others.join(",")])
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
        setns(namespace.with_context(entering)?, *flag).with_context(entering)?;
    }
    let status = Command::new(program).args(rest).status().context("starting criu there")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
