//! What the process that sends a migration has open itself. A program that has given up rights, as a server does that
//! root starts, keeps the files that its user may not open any more.
//!
//! The kernel judges whether that user may look into the process, as it does for debuggers: so a set-uid program that
//! somebody lets hold the connection gives nothing away.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

use sys::capability;
use sys::status;

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
        /// `CAP_SYS_PTRACE` would look into everybody.
        const SYS_PTRACE: u64 = 1 << 19;
        let judged = || capability::with(self.permitted & !SYS_PTRACE, || self.finds(held, file));
        // Twice: it is still who it was when what was found is believed.
        (0..2).all(|_| with_its_rights(judged).unwrap_or(false))
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
        let found = CString::new(self.path(link)).ok().and_then(|path| status::of_path(&path).ok());
        let wanted = status::of_number(file.as_raw_fd().cast_unsigned());
        found
            .zip(wanted.ok())
            .is_some_and(|(found, wanted)| (found.device, found.inode) == (wanted.device, wanted.inode))
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
