//! The parasite's capture on the host: the parasite itself is `no_std` and cannot be linked into a test, but capture
//! only looks at the process that it is in. Each scenario runs in a process of its own.
#![allow(dead_code, reason = "the parasite uses what these scenarios do not")]

extern crate alloc;

#[path = "../../sender-lib/src"]
mod parasite {
    pub(crate) mod capture;
}

use std::process::{Command, Stdio};

use memory::{Addr, PageRange, VmaName};
use parasite::capture::refusal::Note;
use parasite::capture::{self, Captured, Surroundings};
use protocol::{DescriptionKind, FileVerdict, Manifest, StreamKind};

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
    Surroundings { ranges: &[], descriptors: &[], state: nothing, leaving_gate: Addr(0), park_action: None }
}

fn running() -> Manifest {
    capture::running(&around()).map_err(|refusal| refusal.to_string()).expect("an ordinary process").manifest
}

fn stopped() -> Captured {
    let before = running();
    let verdicts = vec![FileVerdict::Same; before.files.len()];
    capture::accept(&before, &verdicts).expect("all files are the same");
    capture::stopped(&around(), before.threads.clone(), &before, &verdicts)
        .map_err(|refusal| refusal.to_string())
        .expect("an ordinary process")
}

fn kind_of(manifest: &Manifest, fd: u32) -> DescriptionKind {
    let descriptor = manifest.descriptors.iter().find(|descriptor| descriptor.fd == fd).expect("open");
    manifest.descriptions[descriptor.description as usize].kind.clone()
}

#[test]
fn an_ordinary_process_is_captured_whole() {
    alone("an_ordinary_process_is_captured_whole", || {
        let started = std::time::Instant::now();
        let before = running();
        let middle = std::time::Instant::now();
        let Captured { manifest, notes } = stopped();
        println!("running {:?}, both {:?}", middle - started, middle.elapsed());
        // Whoever runs the tests may have left descriptors of his own open.
        assert!(notes.iter().all(|note| matches!(note, Note::LostPipe(3..) | Note::LostConnection(3..))));
        assert_eq!(manifest.process.pid, std::process::id());
        assert!(manifest.vmas.iter().any(|vma| vma.name == VmaName::Stack && vma.flags.grows_down));
        assert!(manifest.vmas.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start()));
        assert_eq!(kind_of(&manifest, 0), DescriptionKind::Device { path: b"/dev/null".to_vec() });
        assert_eq!(kind_of(&manifest, 1), DescriptionKind::Stream(StreamKind::Output));
        assert_eq!(kind_of(&manifest, 2), DescriptionKind::Stream(StreamKind::Error));
        assert_eq!(before.vmas.len(), before.vmas.iter().filter(|vma| vma.range.pages() > 0).count());
        let encoded = protocol::encode(&manifest).expect("within the limit");
        println!("{} bytes, {} eager runs", encoded.len(), manifest.eager.len());
        assert_eq!(protocol::decode::<Manifest>(&encoded), Ok(manifest));
    });
}
