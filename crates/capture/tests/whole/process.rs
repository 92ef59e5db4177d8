//! The process as a whole.

use memory::VmaName;
use nix::sys::signal::Signal;
use nix::sys::timer::{Expiration, Timer, TimerSetTimeFlags};
use protocol::{DescriptionKind, Manifest, StreamKind};

use crate::{alone, description, refusal, running, stopped};
use capture::Captured;
use capture::refusal::Note;

#[test]
fn an_ordinary_process_is_captured_whole() {
    alone("process::an_ordinary_process_is_captured_whole", || {
        let Captured { manifest, notes, contents } = stopped();
        assert!(contents.is_empty());
        // Whoever runs the tests may have left descriptors of his own open.
        assert!(notes.iter().all(|note| matches!(note, Note::LostPipe(3..) | Note::LostConnection(3..))));
        assert_eq!(manifest.process.pid, std::process::id());
        assert!(manifest.vmas.iter().any(|vma| vma.name == VmaName::Stack && vma.flags.grows_down));
        assert!(manifest.vmas.windows(2).all(|pair| pair[0].range.end() <= pair[1].range.start()));
        let kind = |fd| description(&manifest, &fd).0.kind;
        assert_eq!(kind(0), DescriptionKind::Device { path: b"/dev/null".to_vec() });
        assert_eq!(kind(1), DescriptionKind::Stream(StreamKind::Output));
        assert_eq!(kind(2), DescriptionKind::Stream(StreamKind::Error));
        let encoded = protocol::encode(&manifest).expect("within the limit");
        assert_eq!(protocol::decode::<Manifest>(&encoded), Ok(manifest));
    });
}

#[test]
fn threads_are_listed_main_thread_first() {
    alone("process::threads_are_listed_main_thread_first", || {
        let (_keep, wait) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || wait.recv());
        let manifest = running();
        let tids: Vec<u32> = manifest.threads.iter().map(|thread| thread.tid).collect();
        // The thread that captures is not the program's.
        assert_eq!(tids.first(), Some(&std::process::id()));
        assert_eq!(tids.len(), 2);
        assert!(!tids.contains(&sys::thread::thread_id()));
    });
}

#[test]
fn a_child_is_refused_until_it_is_waited_for() {
    alone("process::a_child_is_refused_until_it_is_waited_for", || {
        let mut child = std::process::Command::new("true").spawn().expect("true is everywhere");
        assert!(refusal().contains("children"));
        child.wait().expect("it ends");
        running();
    });
}

#[test]
fn a_timer_is_kept_with_its_id_and_the_time_that_is_left() {
    alone("process::a_timer_is_kept_with_its_id_and_the_time_that_is_left", || {
        let event = nix::sys::signal::SigEvent::new(nix::sys::signal::SigevNotify::SigevSignal {
            signal: Signal::SIGUSR1,
            si_value: 77,
        });
        let mut timer = Timer::new(nix::time::ClockId::CLOCK_MONOTONIC, event).expect("a timer");
        let hour = Expiration::OneShot(std::time::Duration::from_secs(3600).into());
        timer.set(hour, TimerSetTimeFlags::empty()).expect("armed");
        let manifest = running();
        let [record] = manifest.process.timers.as_slice() else { panic!("one timer") };
        assert_eq!((record.signal, record.value, record.clock, record.notify), (10, 77, 1, 0));
        assert_eq!(record.times.interval_ns, 0);
        assert!((1..=3_600_000_000_000).contains(&record.times.remaining_ns));
    });
}

#[test]
fn signal_actions_and_limits_are_as_the_kernel_has_them() {
    alone("process::signal_actions_and_limits_are_as_the_kernel_has_them", || {
        let manifest = running();
        assert_eq!(manifest.process.actions.len(), 64);
        // Rust's start-up ignores SIGPIPE.
        assert_eq!(manifest.process.actions[12].handler, 1);
        assert_eq!(manifest.process.limits.len(), 16);
        assert!(manifest.process.mm.brk >= manifest.process.mm.start_brk);
        assert_eq!(manifest.process.auxv.len() % 16, 0);
    });
}
