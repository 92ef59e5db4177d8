//! The blank child and its trampoline.

use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};

use memory::{Addr, PageRange};
use nix::libc;
use receiver::guardian::{Identity, Namespaces};
use receiver::restorer::{BlankChild, ChildError, Hole, Step};

use super::{Case, Outcome, privileged};

pub(super) const CASES: &[Case] = &[
    ("a_blank_child_has_only_the_hole_and_its_control_socket", a_blank_child_is_blank),
    ("calls_run_in_order_and_their_results_come_back", results_come_back),
    ("a_result_can_become_a_later_argument", a_result_can_become_a_later_argument),
    ("a_failed_call_is_reported_with_its_step_and_ends_the_child", a_failed_call_is_reported),
    ("a_child_that_dies_is_reported", a_child_that_dies_is_reported),
    ("the_child_is_dead_when_its_handle_is_dropped", dropped_means_dead),
    ("descriptors_arrive_in_order", descriptors_arrive_in_order),
];

const PID: u32 = 4242;
const CONTROL: u32 = 700;

fn own_mappings() -> Vec<PageRange> {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("own maps");
    let range = |line: &str| {
        let (start, rest) = line.split_once('-')?;
        let start = u64::from_str_radix(start, 16).ok()?;
        let end = u64::from_str_radix(rest.split_once(' ')?.0, 16).ok()?;
        PageRange::new(Addr(start), Addr(end))
    };
    maps.lines().filter_map(range).collect()
}

pub(super) fn start() -> BlankChild {
    let hole = Hole::find(&own_mappings(), 4).expect("there is a gap");
    let identity = Identity { pid: PID, session: PID, group: PID, outside_too: false };
    BlankChild::start(identity, hole, CONTROL, Namespaces::default()).expect("a blank child")
}

fn a_blank_child_is_blank() -> Outcome {
    privileged()?;
    let child = start();
    let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.pid())).expect("its maps");
    let foreign: Vec<&str> =
        maps.lines().filter(|line| !line.contains("memfd:posthaste") && !line.contains("vsyscall")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    let fds = std::fs::read_dir(format!("/proc/{}/fd", child.pid())).expect("its descriptors");
    let fds: Vec<_> = fds.map(|entry| entry.expect("an entry").file_name()).collect();
    assert_eq!(fds, ["700"]);
    Ok(())
}

fn results_come_back() -> Outcome {
    privileged()?;
    let child = start();
    for _ in 0..100 {
        let mut program = child.program();
        let pid = program.call(libc::SYS_getpid, []);
        let wrong = program.attempt(libc::SYS_close, [999]);
        let results = child.run(program, &[]).expect("runs");
        assert_eq!(results.of(pid).expect("has a pid"), u64::from(PID));
        assert_eq!(results.of(wrong).expect_err("is not open"), sys::Errno::EBADF);
    }
    Ok(())
}

fn a_result_can_become_a_later_argument() -> Outcome {
    privileged()?;
    let child = start();
    let mut program = child.program();
    let pid = program.call(libc::SYS_getpid, []);
    let group = program.call_with(libc::SYS_getpgid, [1 << 22], &[(0, program.result(pid))]);
    let results = child.run(program, &[]).expect("runs");
    assert_eq!(results.of(group).expect("a group"), u64::from(PID));
    Ok(())
}

fn a_failed_call_is_reported() -> Outcome {
    privileged()?;
    let child = start();
    let mut program = child.program();
    program.call(libc::SYS_getpid, []);
    program.step(Step::Descriptor(17));
    program.call(libc::SYS_close, [17]);
    program.step(Step::Leave);
    program.call(libc::SYS_getpid, []);
    match child.run(program, &[]) {
        Err(ChildError::Refused { step: Step::Descriptor(17), errno }) => {
            assert_eq!(errno, sys::Errno::EBADF);
        }
        other => panic!("{other:?}"),
    }
    Ok(())
}

fn a_child_that_dies_is_reported() -> Outcome {
    privileged()?;
    let child = start();
    let mut program = child.program();
    program.call(libc::SYS_exit_group, [3]);
    assert!(matches!(child.run(program, &[]), Err(ChildError::Died { step: Step::Probe })));
    Ok(())
}

fn dropped_means_dead() -> Outcome {
    privileged()?;
    let child = start();
    let status = format!("/proc/{}/stat", child.pid());
    assert!(std::fs::exists(&status).expect("/proc"));
    drop(child);
    assert!(!std::fs::exists(&status).expect("/proc"));
    Ok(())
}

fn descriptors_arrive_in_order() -> Outcome {
    privileged()?;
    let child = start();
    let (mut first, first_end) = std::io::pipe().map(|(r, w)| (w, r)).expect("a pipe");
    let (reader, second) = std::io::pipe().expect("a pipe");
    first.write_all(b"x").expect("a byte");
    let mut program = child.program();
    program.receive(child.control_number(), true);
    program.receive(child.control_number(), false);
    let flags = [program.call(libc::SYS_fcntl, [0, 1]), program.call(libc::SYS_fcntl, [1, 1])];
    let byte = program.data(&[0; 8]);
    program.call(libc::SYS_read, [0, byte.0, 1]);
    program.call(libc::SYS_write, [1, byte.0, 1]);
    let results = child.run(program, &[first_end.as_fd(), second.as_fd()]).expect("runs");
    assert_eq!(flags.map(|slot| results.of(slot).expect("open")), [1, 0]);
    let mut got = [0; 1];
    assert_eq!(nix::unistd::read(&reader, &mut got).expect("a byte"), 1, "{}", reader.as_raw_fd());
    assert_eq!(&got, b"x");
    Ok(())
}
