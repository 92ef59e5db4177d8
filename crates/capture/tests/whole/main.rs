//! Capture looks at the process that it is in, so each scenario runs in a process of its own.

mod descriptors;
mod mappings;
mod process;

use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;

use capture::{Captured, Surroundings};
use memory::{Addr, PageRange};
use protocol::{Description, FileVerdict, Manifest, Piece};
use sys::pagemap::Pagemap;

const MARK: &str = "POSTHASTE_SCENARIO";

/// Runs `scenario` in a new process that has nothing but what the scenario gives it.
fn alone(name: &str, scenario: fn()) {
    if std::env::var_os(MARK).is_some() {
        return scenario();
    }
    let output = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(MARK, "1")
        .stdin(Stdio::null())
        .output()
        .expect("the test itself can be started");
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

/// Looks with a descriptor of its own, which is not the program's.
fn look<T>(around: &Surroundings<'_>, look: impl FnOnce(&mut Pagemap, &Surroundings<'_>) -> T) -> T {
    let mut pagemap = Pagemap::open().expect("the kernel has one");
    let own = [pagemap.descriptor().raw().cast_unsigned()];
    look(&mut pagemap, &Surroundings { descriptors: &own, ..*around })
}

fn around() -> Surroundings<'static> {
    let nothing = PageRange::new(Addr(0), Addr(0)).expect("empty");
    Surroundings {
        ranges: &[],
        room: u64::MAX,
        descriptors: &[],
        state: nothing,
        leaving_gate: Addr(0),
        park_action: None,
        frozen: None,
        relays: false,
    }
}

fn running() -> Manifest {
    look(&around(), capture::running)
        .map_err(|refusal| refusal.in_words())
        .expect("an ordinary process")
        .manifest
}

/// Why the process as it is cannot be moved.
fn refusal() -> String {
    look(&around(), capture::running).expect_err("a refusal").in_words()
}

fn stopped() -> Captured {
    stopped_with(None)
}

/// The stopped process, its connections frozen if there is a list for them.
fn stopped_with(frozen: Option<&[AtomicU32]>) -> Captured {
    let before = running();
    let verdicts = vec![FileVerdict::Same; before.files.len()];
    capture::accept(&before, &verdicts).expect("all files are the same");
    let captured = look(&Surroundings { frozen, ..around() }, |pagemap, around| {
        let verdicts = capture::Verdicts { files: &verdicts, same_kernel: false, look: None };
        capture::stopped(pagemap, around, before.threads.clone(), &before, verdicts)
    });
    *captured.map_err(|refusal| refusal.in_words()).expect("an ordinary process")
}

/// The description behind a descriptor, and its index.
fn description(manifest: &Manifest, fd: &impl std::os::fd::AsRawFd) -> (Description, u32) {
    let number = fd.as_raw_fd().cast_unsigned();
    let descriptor = manifest.descriptors.iter().find(|descriptor| descriptor.fd == number).expect("open");
    (manifest.descriptions[descriptor.description as usize].clone(), descriptor.description)
}
