//! `/proc/PID/status`: `Name:<tab>value` lines, of which the kernel adds more with every release.

use alloc::vec::Vec;

use super::{ProcError, ProcFile};
use crate::number::{decimal, field, split_once, value, words};
use crate::path::KernelPath;

const FILE: ProcFile = ProcFile::Status;
const LIMIT: usize = 1 << 20;

/// The lines that matter here; meaning as in proc(5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Status {
    /// `State`, its letter.
    pub state: u8,
    /// `Umask`
    pub umask: u32,
    /// `TracerPid`; 0 for none.
    pub tracer: u64,
    /// `Uid`: real, effective, saved, for file access.
    pub users: [u32; 4],
    /// `Gid`: as `users`.
    pub groups: [u32; 4],
    /// `Groups`: supplementary.
    pub supplementary: Vec<u32>,
    /// `CapInh`, `CapPrm`, `CapEff`, `CapBnd`, `CapAmb`: bit n for capability n.
    pub capabilities: [u64; 5],
    /// `VmRSS` and `VmSwap`: KiB of memory that has been touched.
    pub touched_kib: u64,
    /// `VmPTE`: KiB of page tables.
    pub page_tables_kib: u64,
    /// `SigQ`: signals queued for all processes of this user.
    pub queued: u64,
    /// `RssAnon`, `RssShmem` and `VmSwap`, in KiB.
    pub resident_kib: u64,
    /// `SigPnd`: pending for this thread.
    pub pending: u64,
    /// `ShdPnd`: pending for the whole process.
    pub shared_pending: u64,
    /// `NoNewPrivs`
    pub no_new_privileges: bool,
    /// `Seccomp`: 0 none, 1 strict, 2 filter.
    pub seccomp: u64,
}

/// The status of thread `tid` of the calling process.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn of_thread(tid: u32) -> Result<Status, ProcError> {
    let path = KernelPath::numbered("/proc/self/task/", tid, "/status");
    parse(&super::read(path.as_c_str(), FILE, LIMIT)?)
}

/// The status of the calling thread.
///
/// # Errors
/// The file cannot be read or is not what the kernel writes.
pub fn own() -> Result<Status, ProcError> {
    parse(&super::read(c"/proc/thread-self/status", FILE, LIMIT)?)
}

/// Parses a whole `status` file; a line that an older kernel does not have stays 0.
///
/// # Errors
/// A known line with a value that the kernel would not write.
pub fn parse(text: &[u8]) -> Result<Status, ProcError> {
    lines(text).ok_or(ProcError::Malformed { file: FILE })
}

fn lines(text: &[u8]) -> Option<Status> {
    let mut lines = Lines { text, rest: text };
    // In the kernel's order: then each line is looked at once.
    let mut status = Status {
        umask: u32::try_from(lines.number_of(b"Umask", 8)?).ok()?,
        state: lines.field(b"State").map_or(Some(0), |value| value.first().copied())?,
        tracer: lines.number_of(b"TracerPid", 10)?,
        users: lines.four(b"Uid")?,
        groups: lines.four(b"Gid")?,
        supplementary: ids(lines.field(b"Groups").unwrap_or_default())?,
        touched_kib: lines.kib(b"VmRSS")?,
        resident_kib: lines.kib(b"RssAnon")?.saturating_add(lines.kib(b"RssShmem")?),
        page_tables_kib: lines.kib(b"VmPTE")?,
        ..Status::default()
    };
    let swapped = lines.kib(b"VmSwap")?;
    status.touched_kib = status.touched_kib.saturating_add(swapped);
    status.resident_kib = status.resident_kib.saturating_add(swapped);
    status.queued = lines.field(b"SigQ").map_or(Some(0), |value| decimal(split_once(value, b'/')?.0))?;
    status.pending = lines.number_of(b"SigPnd", 16)?;
    status.shared_pending = lines.number_of(b"ShdPnd", 16)?;
    status.capabilities = lines.capabilities()?;
    status.no_new_privileges = lines.number_of(b"NoNewPrivs", 10)? != 0;
    status.seccomp = lines.number_of(b"Seccomp", 10)?;
    Some(status)
}

/// A file whose lines are asked for one after the other; one that does not come next is looked for everywhere.
struct Lines<'a> {
    text: &'a [u8],
    /// Behind the last one that was found.
    rest: &'a [u8],
}

impl<'a> Lines<'a> {
    fn field(&mut self, name: &[u8]) -> Option<&'a [u8]> {
        let value = field(self.rest, name);
        if let Some(value) = value {
            let behind = value.as_ptr_range().end.addr() - self.rest.as_ptr().addr();
            self.rest = self.rest.get(behind..).unwrap_or_default();
            return Some(value);
        }
        field(self.text, name)
    }

    fn number_of(&mut self, name: &[u8], radix: u32) -> Option<u64> {
        self.field(name).map_or(Some(0), |digits| value(digits, radix))
    }

    /// A line `NAME: 123 kB`; 0 if there is none.
    fn kib(&mut self, name: &[u8]) -> Option<u64> {
        self.field(name).map_or(Some(0), |value| decimal(words(value).next()?))
    }

    fn four(&mut self, name: &[u8]) -> Option<[u32; 4]> {
        self.field(name).map_or(Some([0; 4]), |value| ids(value)?.try_into().ok())
    }

    fn capabilities(&mut self) -> Option<[u64; 5]> {
        const NAMES: [u8; 15] = *b"InhPrmEffBndAmb";
        let mut sets = [0; 5];
        for (set, name) in sets.iter_mut().zip(NAMES.chunks_exact(3)) {
            let mut line = *b"Cap...";
            line.iter_mut().skip(3).zip(name).for_each(|(slot, letter)| *slot = *letter);
            *set = self.number_of(&line, 16)?;
        }
        Some(sets)
    }
}

fn ids(value: &[u8]) -> Option<Vec<u32>> {
    words(value).map(|word| u32::try_from(decimal(word)?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const REAL: &[u8] = b"Name:\tcat\nUmask:\t0022\nState:\tR (running)\nTgid:\t7927\nTracerPid:\t41\n\
Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t24 25 \nRssAnon:\t    8 kB\nVmRSS:\t    5800 kB\nVmPTE:\t      48 kB\n\
VmSwap:\t       4 kB\nCapInh:\t0000000800000000\nCapEff:\t000001fffeffffff\nSigQ:\t3/96365\nSigPnd:\t0000000000000200\nShdPnd:\t8000000000000000\n\
SigBlk:\t0000000000000000\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

    #[test]
    fn a_real_file_gives_its_lines() {
        let expected = Status {
            state: b'R',
            umask: 0o22,
            tracer: 41,
            users: [1, 2, 3, 4],
            groups: [5, 6, 7, 8],
            supplementary: alloc::vec![24, 25],
            capabilities: [1 << 35, 0, 0x1ff_feff_ffff, 0, 0],
            touched_kib: 5804,
            page_tables_kib: 48,
            queued: 3,
            resident_kib: 12,
            pending: 0x200,
            shared_pending: 1 << 63,
            no_new_privileges: true,
            seccomp: 2,
        };
        assert_eq!(parse(REAL), Ok(expected));
    }

    #[test]
    fn a_name_cannot_forge_a_line() {
        // The kernel writes a newline in a name as backslash n.
        let status = parse(b"Name:\ta\\nSeccomp:\t2\nState:\tS (sleeping)\n").expect("well formed");
        assert_eq!((status.seccomp, status.state), (0, b'S'));
    }

    #[test]
    fn a_broken_value_is_an_error() {
        assert!(parse(b"SigPnd:\tnone\n").is_err());
        assert!(parse(b"Umask:\t0999\n").is_err());
        assert!(parse(b"Uid:\t1\t2\n").is_err());
        assert!(parse(b"State:\t\n").is_err());
    }
}
