//! The parasite's capture on the host: the parasite itself is `no_std` and cannot be linked into a test, but capture
//! only looks at the process that it is in. Each scenario runs in a process of its own.
#![allow(dead_code, reason = "the parasite uses what these scenarios do not")]

extern crate alloc;

#[path = "../../../sender-lib/body/src"]
mod parasite {
    pub(crate) mod capture;
}

mod descriptors;
mod mappings;
mod process;

use std::process::{Command, Stdio};
use std::sync::atomic::AtomicU32;

use memory::{Addr, PageRange};
use parasite::capture::{self, Captured, Surroundings};
use protocol::{Description, FileVerdict, Manifest, Piece};

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

fn around() -> Surroundings<'static> {
    let nothing = PageRange::new(Addr(0), Addr(0)).expect("empty");
    Surroundings {
        ranges: &[],
        descriptors: &[],
        state: nothing,
        leaving_gate: Addr(0),
        park_action: None,
        frozen: None,
    }
}

fn running() -> Manifest {
    capture::running(&around()).map_err(|refusal| refusal.in_words()).expect("an ordinary process").manifest
}

/// Why the process as it is cannot be moved.
fn refusal() -> String {
    capture::running(&around()).err().expect("a refusal").in_words()
}

fn stopped() -> Captured {
    stopped_with(None)
}

/// The stopped process, its connections frozen if there is a list for them.
fn stopped_with(frozen: Option<&[AtomicU32]>) -> Captured {
    let before = running();
    let verdicts = vec![FileVerdict::Same; before.files.len()];
    capture::accept(&before, &verdicts).expect("all files are the same");
    *capture::stopped(&Surroundings { frozen, ..around() }, before.threads.clone(), &before, &verdicts)
        .map_err(|refusal| refusal.in_words())
        .expect("an ordinary process")
}

/// The description behind a descriptor, and its index.
fn description(manifest: &Manifest, fd: &impl std::os::fd::AsRawFd) -> (Description, u32) {
    let number = fd.as_raw_fd().cast_unsigned();
    let descriptor = manifest.descriptors.iter().find(|descriptor| descriptor.fd == number).expect("open");
    (manifest.descriptions[descriptor.description as usize].clone(), descriptor.description)
}
