//! What the kernel tells of a process to whoever may look.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use anyhow::{Context, anyhow, bail, ensure};
use capture::refusal::Refusal;
use capture::survey::{self, Duplicate};
use nix::sched::{CloneFlags, setns};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sys::number::{field, number_of, words};
use sys::proc::maps::Mapping;
use sys::proc::smaps::{self, Attributes};
use sys::proc::status::{self, Status};

/// See the module.
pub(super) struct Facts {
    pub(super) pid: u32,
    /// The name of its main thread.
    pub(super) name: String,
    /// Ascending by id; the main thread is among them.
    pub(super) threads: Vec<Thread>,
    pub(super) has_children: bool,
    pub(super) mappings: Vec<(Mapping, Attributes)>,
    pub(super) duplicates: Vec<Duplicate>,
    /// What its System V semaphores and messages stand in the way of.
    pub(super) system_v: Result<(), Refusal>,
    /// `/proc/sysvipc/shm` as the process sees it, if it has attached any of that.
    pub(super) segments: Vec<u8>,
    /// What each descriptor is open on.
    pub(super) links: BTreeMap<u32, String>,
    /// `NAME=VALUE`, as the program was started.
    pub(super) environment: Vec<Vec<u8>>,
    pub(super) auxv: Vec<u8>,
    /// The program's file; none of a thread of the kernel.
    pub(super) executable: Option<String>,
    /// Keeps the duplicates open.
    _held: Vec<OwnedFd>,
}

/// One thread.
pub(super) struct Thread {
    /// Its id here.
    pub(super) tid: u32,
    /// Its id as it sees it itself.
    pub(super) own_tid: u32,
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) signals: Signals,
}

/// Sets of signals, bit n for signal n + 1.
#[derive(Clone, Copy, Default)]
pub(super) struct Signals {
    pub(super) blocked: u64,
    pub(super) ignored: u64,
    pub(super) handled: u64,
}

impl Facts {
    /// Looks at process `pid`. This process's number of open files grows by that of the other's, and it joins the
    /// other's network, where alone the kernel tells what sockets are connected to.
    pub(super) fn look(pid: u32) -> anyhow::Result<Self> {
        let main = fs::read(format!("/proc/{pid}/status")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => anyhow!("there is no process {pid}"),
            _ => anyhow!("looking at process {pid}: {error}"),
        })?;
        let leader = number_of(&main, b"Tgid", 10).unwrap_or(u64::from(pid));
        ensure!(leader == u64::from(pid), "{pid} is a thread of process {leader}: check that");
        let forbidden = || format!("process {pid} is not yours to look at: run this as root");
        let threads = threads(pid)?;
        let mut facts = Self {
            pid,
            name: text(field(&main, b"Name").unwrap_or_default()),
            has_children: has_children(pid, &threads),
            threads,
            mappings: Vec::new(),
            duplicates: Vec::new(),
            segments: Vec::new(),
            system_v: Ok(()),
            links: BTreeMap::new(),
            environment: Vec::new(),
            auxv: Vec::new(),
            executable: None,
            _held: Vec::new(),
        };
        // Threads of the kernel, and the dead, have no memory.
        if field(&main, b"VmSize").is_none() {
            return Ok(facts);
        }
        let executable = fs::read_link(format!("/proc/{pid}/exe")).with_context(forbidden)?;
        facts.executable = Some(text(executable.as_os_str().as_bytes()));
        let environment = fs::read(format!("/proc/{pid}/environ")).with_context(forbidden)?;
        facts.environment = environment.split(|byte| *byte == 0).map(<[u8]>::to_vec).collect();
        facts.auxv = fs::read(format!("/proc/{pid}/auxv")).with_context(forbidden)?;
        let (mappings, attributes) = smaps::mappings_of(pid).with_context(forbidden)?;
        facts.mappings = mappings.into_iter().zip(attributes).collect();
        facts.take_descriptors().with_context(forbidden)?;
        enter(pid, "net", CloneFlags::CLONE_NEWNET)
            .with_context(|| format!("entering the network of process {pid}: run this as root"))?;
        enter(pid, "ipc", CloneFlags::CLONE_NEWIPC)
            .with_context(|| format!("entering the IPC namespace of process {pid}: run this as root"))?;
        facts.system_v = survey::system_v(pid);
        if facts.mappings.iter().any(|(mapping, _)| mapping.name.starts_with(b"/SYSV")) {
            facts.segments = fs::read("/proc/sysvipc/shm")?;
        }
        Ok(facts)
    }

    /// Duplicates every descriptor. One that is closed meanwhile is left out.
    fn take_descriptors(&mut self) -> anyhow::Result<()> {
        if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
            let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        }
        let process = sys::pidfd::open(self.pid)?;
        let mut numbers = Vec::new();
        for entry in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            numbers.extend(entry?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
        }
        numbers.sort_unstable();
        for fd in numbers {
            let Ok(link) = fs::read_link(format!("/proc/{}/fd/{fd}", self.pid)) else { continue };
            let held = match sys::birth::fetch_descriptor(process.as_fd(), fd) {
                Ok(held) => held,
                Err(sys::Errno::EBADF) => continue,
                Err(errno) => bail!("duplicating descriptor {fd}: {errno}"),
            };
            self.links.insert(fd, text(link.as_os_str().as_bytes()));
            self.duplicates.push(Duplicate { fd, here: held.as_raw_fd().cast_unsigned() });
            self._held.push(held);
        }
        Ok(())
    }

    /// The main thread.
    pub(super) fn main(&self) -> Option<&Thread> {
        self.threads.iter().find(|thread| thread.tid == self.pid)
    }

    /// The value of a variable that the program was started with.
    pub(super) fn variable(&self, name: &str) -> Option<&[u8]> {
        let value =
            |entry: &'_ Vec<u8>| entry.starts_with(name.as_bytes()) && entry.get(name.len()) == Some(&b'=');
        let entry = self.environment.iter().find(|entry| value(entry))?;
        entry.get(name.len() + 1..)
    }

    /// An entry of its auxiliary vector.
    pub(super) fn auxiliary(&self, key: u64) -> Option<u64> {
        let (pairs, _) = self.auxv.as_chunks::<16>();
        let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_ne_bytes);
        let (keys, values) = (|pair: &[u8; 16]| word(&pair[..8]), |pair: &[u8; 16]| word(&pair[8..]));
        pairs.iter().find(|pair| keys(pair) == key).map(values)
    }
}

fn threads(pid: u32) -> anyhow::Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for entry in
        fs::read_dir(format!("/proc/{pid}/task")).with_context(|| format!("there is no process {pid}"))?
    {
        let Some(tid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // One that has ended meanwhile is not there any more.
        let Ok(text_of_it) = fs::read(format!("/proc/{pid}/task/{tid}/status")) else { continue };
        let status = status::parse(&text_of_it).with_context(|| format!("the status of thread {tid}"))?;
        let set = |name: &[u8]| number_of(&text_of_it, name, 16).unwrap_or(0);
        let innermost = field(&text_of_it, b"NSpid").and_then(|ids| words(ids).last());
        threads.push(Thread {
            tid,
            own_tid: innermost.and_then(|id| std::str::from_utf8(id).ok()?.parse().ok()).unwrap_or(tid),
            name: text(field(&text_of_it, b"Name").unwrap_or_default()),
            status,
            signals: Signals { blocked: set(b"SigBlk"), ignored: set(b"SigIgn"), handled: set(b"SigCgt") },
        });
    }
    threads.sort_unstable_by_key(|thread| thread.tid);
    Ok(threads)
}

/// Children of any of its threads, dead ones that nobody has waited for among them.
fn has_children(pid: u32, threads: &[Thread]) -> bool {
    threads.iter().any(|thread| {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{}/children", thread.tid));
        children.is_ok_and(|children| !children.trim().is_empty())
    })
}

/// Joins a namespace of process `pid`, if it is another one.
fn enter(pid: u32, name: &str, kind: CloneFlags) -> io::Result<()> {
    let theirs = format!("/proc/{pid}/ns/{name}");
    if fs::read_link(&theirs)? == fs::read_link(format!("/proc/self/ns/{name}"))? {
        return Ok(());
    }
    Ok(setns(fs::File::open(theirs)?, kind)?)
}

/// Bytes of the kernel's as they may be shown: without what could steer a terminal.
fn text(bytes: &[u8]) -> String {
    let shown = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    String::from_utf8_lossy(bytes).chars().map(shown).collect()
}
