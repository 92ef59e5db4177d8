//! What the process that sends a migration has open itself. A program that has given up rights, as a server does that
//! root starts, keeps the files that its user may not open any more.
//!
//! The kernel judges whether that user may look into the process, as it does for debuggers: so a set-uid program that
//! somebody lets hold the connection gives nothing away.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use protocol::Credentials;
use sys::proc::status::Status;
use sys::status::Device;
use sys::{capability, status};

use super::with_its_rights;

/// A process.
#[derive(Debug)]
pub struct Holder {
    /// `/proc/PID`: of this process, even when the number has come to mean another one.
    directory: File,
    /// What it is permitted, so that it may be looked into by somebody with as much.
    permitted: u64,
}

/// What a process may have of a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Held {
    /// It is the program that it runs.
    Program,
    /// It is its working directory.
    WorkingDirectory,
    /// A descriptor is open on it, with these flags.
    Open {
        /// `O_*`
        flags: u32,
        /// Those of them that count.
        among: u32,
    },
}

impl Holder {
    /// The process that `directory` of `/proc` is about.
    pub(super) const fn new(directory: File, permitted: u64) -> Self {
        Self { directory, permitted }
    }

    /// Whether it has `file`, which is open here, and its user may know that.
    pub(super) fn has(&self, held: Held, file: &File) -> bool {
        self.is_judged_twice(|| self.finds(held, file))
    }

    /// Whether something is so in the eyes of its user, and still is: who it was when it was found, it is when that is
    /// believed.
    fn is_judged_twice(&self, found: impl Fn() -> bool) -> bool {
        /// `CAP_SYS_PTRACE` would look into everybody.
        const SYS_PTRACE: u64 = 1 << 19;
        let judged = || capability::with(self.permitted & !SYS_PTRACE, &found);
        (0..2).all(|_| with_its_rights(judged).unwrap_or(false))
    }

    /// Whether one of its threads is who `wanted` is: its user may look into the process, and so has that thread in hand.
    pub(super) fn has_thread(&self, wanted: &Credentials) -> bool {
        /// What groups are in a user namespace that does not know them.
        const OVERFLOW: u32 = 65534;
        let [user, group] = [wanted.user, wanted.group].map(|id| [id; 4]);
        let all_ids =
            |effective: u32, [real, saved, for_files]: [u32; 3]| [real, effective, saved, for_files];
        let is_one = all_ids(wanted.user, wanted.other_users) == user
            && all_ids(wanted.group, wanted.other_groups) == group
            && wanted.capabilities == 0;
        let is_it = |status: &Status| {
            let mut groups = wanted.groups.iter();
            (status.users, status.groups) == (user, group)
                && groups.all(|group| status.supplementary.contains(group) || *group == OVERFLOW)
        };
        is_one && self.is_judged_twice(|| self.identity("exe").is_some() && self.threads().iter().any(is_it))
    }

    fn threads(&self) -> Vec<Status> {
        let entries = std::fs::read_dir(self.path("task")).into_iter().flatten().flatten();
        let texts = entries.filter_map(|entry| std::fs::read(entry.path().join("status")).ok());
        texts.filter_map(|text| sys::proc::status::parse(&text).ok()).collect()
    }

    fn finds(&self, held: Held, file: &File) -> bool {
        match held {
            Held::Program => self.leads_to("exe", file),
            Held::WorkingDirectory => self.leads_to("cwd", file),
            Held::Open { flags, among } => self.descriptors().iter().any(|number| {
                self.leads_to(&format!("fd/{number}"), file)
                    && self.is_open(number, file, flags & among, among).unwrap_or(false)
            }),
        }
    }

    fn descriptors(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path("fd")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }

    /// Whether a link of `/proc/PID` leads to `file`.
    fn leads_to(&self, link: &str, file: &File) -> bool {
        let wanted = status::of_number(file.as_raw_fd().cast_unsigned()).ok();
        self.identity(link)
            .is_some_and(|found| wanted.is_some_and(|wanted| found == (wanted.device, wanted.inode)))
    }

    /// Device and inode of what a link of `/proc/PID` leads to.
    fn identity(&self, link: &str) -> Option<(Device, u64)> {
        let found = status::of_path(&CString::new(self.path(link)).ok()?).ok()?;
        Some((found.device, found.inode))
    }

    /// Whether descriptor `number` is open with these flags and, as the same answer of the kernel's says, on `file`.
    fn is_open(&self, number: &str, file: &File, flags: u32, among: u32) -> Option<bool> {
        let mut text = String::new();
        File::open(self.path(&format!("fdinfo/{number}"))).ok()?.read_to_string(&mut text).ok()?;
        let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let found = u32::from_str_radix(value("flags:")?, 8).ok()?;
        let inode: u64 = value("ino:")?.parse().ok()?;
        let wanted = status::of_number(file.as_raw_fd().cast_unsigned()).ok()?;
        Some(found & among == flags && inode == wanted.inode)
    }

    fn path(&self, name: &str) -> String {
        format!("/proc/self/fd/{}/{name}", self.directory.as_raw_fd())
    }
}
