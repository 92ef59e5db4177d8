//! Looks at processes from outside while they move: how much of their memory is there, and what moving takes.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;

/// Between two looks at how much is there.
const LOOK: Duration = Duration::from_millis(5);
/// Between two looks at what everything takes, each of which walks through page tables.
const LONG_LOOK: Duration = Duration::from_millis(10);

/// What receiver and parasite took at most, beyond the process itself.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Footprint {
    /// All processes of the receiver together, each shared page counted once (`Pss`), in KiB.
    pub(super) receiver_kib: u64,
    /// By how much the program grew at the source, in KiB.
    pub(super) parasite_kib: u64,
}

/// A thread that looks until it is told to end.
#[derive(Debug)]
pub(super) struct Watch<T> {
    end: Sender<()>,
    looking: JoinHandle<T>,
}

impl<T: Default + Send + 'static> Watch<T> {
    fn start(interval: Duration, mut look: impl FnMut(&mut T) + Send + 'static) -> anyhow::Result<Self> {
        let (end, ended) = channel();
        let looking = thread::Builder::new().name("watch".to_owned()).spawn(move || {
            let mut found = T::default();
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                look(&mut found);
            }
            found
        })?;
        Ok(Self { end, looking })
    }

    /// What it has found.
    pub(super) fn end(self) -> T {
        drop(self.end);
        self.looking.join().unwrap_or_default()
    }
}

impl Watch<Vec<(Duration, u64)>> {
    /// Notes how much memory of the process is there, in KiB, with the time since `begin`.
    ///
    /// # Errors
    /// No thread.
    pub(super) fn resident(pid: u32, begin: Instant) -> anyhow::Result<Self> {
        Self::start(LOOK, move |found| found.extend(resident_kib(pid).map(|kib| (begin.elapsed(), kib))))
    }
}

impl Watch<Footprint> {
    /// Notes what the receiver and its children take, and by how much the program grows at its source.
    ///
    /// # Errors
    /// The program's memory cannot be looked at.
    pub(super) fn footprint(receiver: u32, program: u32) -> anyhow::Result<Self> {
        // From here on its peak is that of the move.
        fs::write(format!("/proc/{program}/clear_refs"), "5").context("resetting the program's peak")?;
        let status =
            fs::read_to_string(format!("/proc/{program}/status")).context("looking at the program")?;
        let before = kib_of(&status, "VmRSS:").context("the program has memory")?;
        Self::start(LONG_LOOK, move |found| {
            let status = fs::read_to_string(format!("/proc/{program}/status")).unwrap_or_default();
            let grown = kib_of(&status, "VmHWM:").map_or(0, |peak| peak.saturating_sub(before));
            found.parasite_kib = found.parasite_kib.max(grown);
            let takes = receivers(receiver).into_iter().filter_map(proportional_kib).sum();
            found.receiver_kib = found.receiver_kib.max(takes);
        })
    }
}

/// The resident memory of a process, in KiB.
pub(super) fn resident_kib(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    status.split(' ').nth(1)?.parse::<u64>().ok().map(|pages| pages * 4)
}

/// The process that runs this program and that `root` has started, or what it has started has.
pub(super) fn newcomer(program: &Path, root: u32) -> Option<u32> {
    let runs = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    descendants(root).into_iter().find(runs)
}

/// All processes that a process has started, and that these have started, as far as their parents still live.
pub(super) fn descendants(root: u32) -> Vec<u32> {
    let parents: BTreeMap<u32, u32> = processes().filter_map(|pid| Some((pid, parent(pid)?))).collect();
    let descends = |pid: u32| {
        let ancestors = std::iter::successors(parents.get(&pid).copied(), |pid| parents.get(pid).copied());
        ancestors.take(parents.len()).any(|ancestor| ancestor == root)
    };
    parents.keys().copied().filter(|pid| descends(*pid)).collect()
}

/// The receiver and all of its children that run the same program: not those that it moves.
fn receivers(root: u32) -> Vec<u32> {
    let Ok(program) = fs::read_link(format!("/proc/{root}/exe")) else { return Vec::new() };
    let runs = |pid: &u32| fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == program);
    std::iter::once(root).chain(descendants(root)).filter(runs).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn parent(pid: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it may hold anything.
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn proportional_kib(pid: u32) -> Option<u64> {
    kib_of(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// The field of this name, in KiB, in a file of `/proc` that has such.
pub(super) fn kib_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().trim_end_matches(" kB").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_read_in_kibibytes() {
        let text = "Name:\tx\nVmHWM:\t    1234 kB\nVmRSS:\t     99 kB\n";
        assert_eq!((kib_of(text, "VmHWM:"), kib_of(text, "VmSwap:")), (Some(1234), None));
    }

    #[test]
    fn this_process_has_a_parent_and_memory() {
        let pid = std::process::id();
        assert!(parent(pid).is_some() && resident_kib(pid).is_some_and(|kib| kib > 0));
        assert!(receivers(pid).contains(&pid));
    }
}
