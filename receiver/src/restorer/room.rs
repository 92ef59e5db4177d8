//! Whether this machine has room for a process, as far as that can be known beforehand: memory and processes, of the machine
//! and of the control groups that this process is in. (Descriptors: `process`; disk: `contents`.)
//!
//! What comes behind `Run` may need more than was known. Then the process waits at its missing pages (`fault-handler`).

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};
use procfs::process::Process;
use procfs::{Current, Meminfo};
use protocol::Manifest;

use super::{RestoreError, huge};

/// Processes that are made besides the program's threads.
const OTHERS: u64 = 2;

/// Refuses a process that there is no room for. What cannot be found out is no obstacle.
pub(super) fn check(manifest: &Manifest) -> Result<(), RestoreError> {
    let needed = manifest.process.resident_kib.saturating_mul(1024);
    let machine =
        Meminfo::current().ok().and_then(|memory| memory.mem_available.map(|free| free + memory.swap_free));
    let groups = groups(Controller::Memory).iter().filter_map(|group| memory_left(group)).min();
    refuse_beyond("bytes of memory", needed, machine.into_iter().chain(groups).min())?;
    huge::check_room(manifest)?;
    let tasks = groups_left(Controller::Pids).into_iter().chain(own_tasks_left()).min();
    refuse_beyond("threads and processes", manifest.threads.len() as u64 + OTHERS, tasks)
}

fn groups_left(controller: Controller) -> Option<u64> {
    groups(controller).iter().filter_map(|group| left(group, "pids.max", "pids.current")).min()
}

/// What this process's user has left of `RLIMIT_NPROC`, if it holds for it (setrlimit(2)).
fn own_tasks_left() -> Option<u64> {
    const EXEMPT: u64 = 1 << 24 | 1 << 21;
    let (limit, _) = getrlimit(Resource::RLIMIT_NPROC).ok()?;
    let own = Process::myself().ok()?.status().ok()?;
    if own.ruid == 0 || own.capeff & EXEMPT != 0 || limit == RLIM_INFINITY {
        return None;
    }
    let everybody = procfs::process::all_processes().ok()?.flatten();
    let of_user =
        everybody.filter_map(|process| process.status().ok()).filter(|status| status.ruid == own.ruid);
    Some(limit.saturating_sub(of_user.map(|status| status.threads).sum()))
}

fn refuse_beyond(what: &'static str, needed: u64, room: Option<u64>) -> Result<(), RestoreError> {
    match room {
        Some(room) if room < needed => Err(RestoreError::NoRoom { what, needed, room }),
        _ => Ok(()),
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Controller {
    Memory,
    Pids,
}

impl Controller {
    const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// The directories of this process's group and of those around it, in both versions of control groups.
fn groups(controller: Controller) -> Vec<PathBuf> {
    let Ok(own) = Process::myself() else { return Vec::new() };
    let (Ok(memberships), Ok(mounts)) = (own.cgroups(), own.mountinfo()) else { return Vec::new() };
    let mut found = Vec::new();
    for membership in memberships {
        let is_second = membership.hierarchy == 0;
        if !is_second && !membership.controllers.iter().any(|name| name == controller.name()) {
            continue;
        }
        let mount = mounts.0.iter().find(|mount| match mount.fs_type.as_str() {
            "cgroup2" => is_second,
            "cgroup" => !is_second && mount.super_options.contains_key(controller.name()),
            _ => false,
        });
        let Some(mount) = mount else { continue };
        let Ok(inner) = Path::new(&membership.pathname).strip_prefix(&mount.root) else { continue };
        let places = inner.ancestors().map(|place| mount.mount_point.join(place));
        found.extend(places);
    }
    found
}

/// What a group has left of its memory; pages of files are given up where they are in the way.
fn memory_left(group: &Path) -> Option<u64> {
    let plain = left(group, "memory.max", "memory.current")
        .or_else(|| left(group, "memory.limit_in_bytes", "memory.usage_in_bytes"))?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let of_files = statistics.lines().filter_map(|line| {
        let (name, bytes) = line.split_once(' ')?;
        matches!(name, "inactive_file" | "active_file").then(|| bytes.parse::<u64>().ok())?
    });
    Some(plain.saturating_add(of_files.sum()))
}

fn left(group: &Path, limit: &str, used: &str) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    Some(number(limit)?.saturating_sub(number(used)?))
}
