//! Whether the signal that starts a move would reach the parasite, by what the kernel tells.
//!
//! Not seen from outside: which handler a handled signal has. A program that has put its own there is not found out.

use std::fs::File;
use std::os::unix::fs::FileExt;

use protocol::Piece;
use sys::signal_name;

use super::facts::Facts;

/// `AT_SECURE`: the program has more rights than whoever started it.
const SECURE: u64 = 23;

/// Why the signal does not reach the parasite: reason and cure.
pub(super) struct Obstacle {
    pub(super) reason: String,
    pub(super) cure: &'static str,
}

/// The signal that would start a move.
///
/// # Errors
/// Why there is none, or why it would not reach the parasite.
pub(super) fn signal(facts: &Facts) -> Result<u32, Obstacle> {
    if let Some(reason) = without_memory(facts) {
        return Err(Obstacle { reason: reason.to_owned(), cure: "" });
    }
    let parasite = |name: &[u8]| {
        name.rsplit(|byte| *byte == b'/').next().is_some_and(|file| file.starts_with(b"libsender"))
    };
    if !facts.mappings.iter().any(|(mapping, _)| parasite(mapping.path())) {
        return Err(not_loaded(facts));
    }
    let name = facts.variable("POSTHASTE_SIGNAL").unwrap_or_default();
    let number = signal_name::number(name).map_err(|reason| Obstacle {
        reason: format!("POSTHASTE_SIGNAL {}", reason.in_words()),
        cure: "start the program with another POSTHASTE_SIGNAL",
    })?;
    if facts.threads.iter().any(|thread| thread.name == "posthaste") {
        let reason = "a move of it is under way".to_owned();
        return Err(Obstacle { reason, cure: "wait until it is over" });
    }
    handled(facts, number).map(|()| number)
}

fn without_memory(facts: &Facts) -> Option<&'static str> {
    match facts.main()?.status.state {
        b'Z' | b'X' if facts.threads.len() == 1 => Some("the process has ended and is not yet waited for"),
        _ if facts.executable.is_none() && facts.threads.len() == 1 => Some("it is a thread of the kernel"),
        _ => None,
    }
}

/// Why the parasite is not in the program.
fn not_loaded(facts: &Facts) -> Obstacle {
    let wanted = facts.variable("LD_PRELOAD").unwrap_or_default();
    let wanted = String::from_utf8_lossy(wanted);
    let deadly = "the signal would end it";
    let (reason, cure) = if facts.auxiliary(SECURE).is_some_and(|secure| secure != 0) {
        (
            format!(
                "the program is set-uid, set-gid or has file capabilities, so nothing is preloaded: {deadly}"
            ),
            "",
        )
    } else if is_static(facts.pid) {
        let cure = "link it dynamically";
        (format!("the program is linked statically, so nothing can be preloaded: {deadly}"), cure)
    } else if wanted.contains("libsender") {
        let cure = "start it again with the library's whole path";
        (
            format!("LD_PRELOAD names the library, but it was not found when the program started: {deadly}"),
            cure,
        )
    } else {
        let cure = "start it again with LD_PRELOAD=libsender.so";
        (format!("the program was started without libsender.so: {deadly}"), cure)
    };
    Obstacle { reason, cure }
}

/// Whether the program's file names no interpreter that could load anything.
fn is_static(pid: u32) -> bool {
    const PT_INTERP: u32 = 3;
    let Ok(file) = File::open(format!("/proc/{pid}/exe")) else { return false };
    let mut header = [0; 64];
    if file.read_exact_at(&mut header, 0).is_err() || !header.starts_with(b"\x7fELF") {
        return false;
    }
    let number = |at: usize, len: usize| {
        let bytes = header.get(at..at + len).unwrap_or_default();
        bytes.iter().rev().fold(0_u64, |number, byte| number << 8 | u64::from(*byte))
    };
    let (start, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    (0..count).all(|index| {
        let mut kind = [0; 4];
        let at = start.saturating_add(index * size);
        file.read_exact_at(&mut kind, at).is_err() || u32::from_le_bytes(kind) != PT_INTERP
    })
}

/// Whether the process handles the signal, and some thread takes it.
fn handled(facts: &Facts, number: u32) -> Result<(), Obstacle> {
    let bit = 1 << (number - 1);
    let Some(main) = facts.main() else { return Ok(()) };
    let cure = "do not let the program change it, or choose another with POSTHASTE_SIGNAL";
    let reason = if main.signals.ignored & bit != 0 {
        format!("the program ignores signal {number}")
    } else if main.signals.handled & bit == 0 {
        format!("the program has taken signal {number} back: it would end it")
    } else if facts.threads.iter().all(|thread| thread.signals.blocked & bit != 0) {
        format!("every thread of the program blocks signal {number}")
    } else {
        return Ok(());
    };
    Err(Obstacle { reason, cure })
}
