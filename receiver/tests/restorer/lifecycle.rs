//! Who lives and who dies: session, guardian, program.

use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use sys::pidfd;

use super::image::{Code, Image, LAZY};
use super::whole::{main_thread, run};
use super::{Case, Outcome, blank, privileged};

pub(super) const CASES: &[Case] = &[
    ("a_program_dies_with_its_session_before_the_migration_is_complete", dies_with_its_session),
    ("a_program_survives_its_session_once_the_migration_is_complete", survives_its_session),
    ("a_program_that_waits_for_a_page_can_be_killed", waiting_can_be_killed),
    ("what_is_being_made_is_gone_with_the_session", being_made_is_gone),
];

/// The environment variable that makes this test program a session.
pub(super) const ROLE: &str = "POSTHASTE_TEST_SESSION";

/// Plays a session: lets a program run that waits for ever, tells its id, and waits to be killed.
pub(super) fn play(role: &str) {
    let mut code = Code::default();
    if role == "complete" {
        code.call(libc::SYS_pause, &[]);
    }
    code.call(libc::SYS_nanosleep, &[LAZY, 0]).exit(0);
    let image = Image::new(vec![main_thread(code)]);
    let (mut running, uffd) = run(&image);
    if role == "complete" {
        uffd.unregister(memory::PageRange::from_pages(memory::Addr(LAZY), 4).expect("a range"))
            .expect("done");
        running.guardian.complete().expect("the guardian");
    }
    println!("{}", running.pid);
    let _ = poll(&mut [], PollTimeout::from(60_000_u16));
}

fn session(role: &str) -> (Child, OwnedFd) {
    let mut command = Command::new(std::env::current_exe().expect("this program"));
    let mut child = command.env(ROLE, role).stdout(Stdio::piped()).spawn().expect("a session");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let pid: u32 = line.trim().parse().expect("a process id");
    (child, pidfd::open(pid).expect("the program runs"))
}

fn ends_within(pidfd: &OwnedFd, milliseconds: u16) -> bool {
    poll(&mut [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)], PollTimeout::from(milliseconds)).expect("poll")
        > 0
}

fn dies_with_its_session() -> Outcome {
    privileged()?;
    let (mut session, program) = session("incomplete");
    session.kill().expect("ours");
    session.wait().expect("ours");
    assert!(ends_within(&program, 10_000));
    Ok(())
}

fn survives_its_session() -> Outcome {
    privileged()?;
    let (mut session, program) = session("complete");
    session.kill().expect("ours");
    session.wait().expect("ours");
    assert!(!ends_within(&program, 300));
    pidfd::send_signal(program.as_fd(), 9).expect("still there");
    assert!(ends_within(&program, 10_000));
    Ok(())
}

fn waiting_can_be_killed() -> Outcome {
    privileged()?;
    let mut code = Code::default();
    code.call(libc::SYS_nanosleep, &[LAZY, 0]).exit(0);
    let (running, uffd) = run(&Image::new(vec![main_thread(code)]));
    assert!(uffd.wait_readable(10_000).expect("poll"), "it asks for the page");
    let pidfd = running.pidfd.try_clone().expect("a duplicate");
    drop(running);
    assert!(ends_within(&pidfd, 0), "dropping waits for the end");
    Ok(())
}

/// At each moment of making something: before it is there, while only its temporary name is known, and behind that.
fn being_made_is_gone() -> Outcome {
    privileged()?;
    let base = std::env::temp_dir().join(format!("posthaste-made-{}", std::process::id()));
    let create: [&dyn Fn(&Path); 3] = [
        &|path| fs::write(path, "half of it").expect("room"),
        &|path| fs::create_dir(path).expect("room"),
        &|path| symlink("nowhere", path).expect("room"),
    ];
    for create in create {
        for moment in 0..3 {
            fs::create_dir(&base).expect("room");
            let directory = File::open(&base).expect("it is there");
            let mut child = blank::start();
            let guardian = child.guardian();
            let path = base.join(guardian.making_name());
            guardian.expect(directory.as_fd()).expect("the guardian");
            if moment > 0 {
                create(&path);
            }
            if moment > 1 {
                let itself =
                    File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(&path);
                guardian.entrust(itself.expect("made").as_fd()).expect("the guardian");
                fs::rename(&path, base.join("name")).expect("ours");
            }
            drop(child);
            fs::remove_dir(&base).expect("nothing is left in it");
        }
    }
    Ok(())
}
