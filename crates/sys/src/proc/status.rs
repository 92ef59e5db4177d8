//! `/proc/PID/status`: `Name:<tab>value` lines, of which the kernel adds more with every release.

use alloc::vec::Vec;

use super::{ProcError, ProcFile};
use crate::number::{decimal, field, number_of, split_once, words};
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
    Some(Status {
        state: field(text, b"State").map_or(Some(0), |value| value.first().copied())?,
        umask: u32::try_from(number_of(text, b"Umask", 8)?).ok()?,
        tracer: number_of(text, b"TracerPid", 10)?,
        users: four(text, b"Uid")?,
        groups: four(text, b"Gid")?,
        supplementary: ids(field(text, b"Groups").unwrap_or_default())?,
        capabilities: capabilities(text)?,
        touched_kib: kib(text, b"VmRSS")?.saturating_add(kib(text, b"VmSwap")?),
        page_tables_kib: kib(text, b"VmPTE")?,
        queued: field(text, b"SigQ").map_or(Some(0), |value| decimal(split_once(value, b'/')?.0))?,
        resident_kib: kib(text, b"RssAnon")? + kib(text, b"RssShmem")? + kib(text, b"VmSwap")?,
        pending: number_of(text, b"SigPnd", 16)?,
        shared_pending: number_of(text, b"ShdPnd", 16)?,
        no_new_privileges: number_of(text, b"NoNewPrivs", 10)? != 0,
        seccomp: number_of(text, b"Seccomp", 10)?,
    })
}

/// A line `NAME: 123 kB`; 0 if there is none.
fn kib(text: &[u8], name: &[u8]) -> Option<u64> {
    field(text, name).map_or(Some(0), |value| decimal(words(value).next()?))
}

fn capabilities(text: &[u8]) -> Option<[u64; 5]> {
    const NAMES: [u8; 15] = *b"InhPrmEffBndAmb";
    let mut sets = [0; 5];
    for (set, name) in sets.iter_mut().zip(NAMES.chunks_exact(3)) {
        let mut line = *b"Cap...";
        line.iter_mut().skip(3).zip(name).for_each(|(slot, letter)| *slot = *letter);
        *set = number_of(text, &line, 16)?;
    }
    Some(sets)
}

fn four(text: &[u8], name: &[u8]) -> Option<[u32; 4]> {
    field(text, name).map_or(Some([0; 4]), |value| ids(value)?.try_into().ok())
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
