//! A tree that CRIU has let go of, and that must not run all the same.
//!
//! CRIU lets go when it dies. Behind `Run` a stop signal waits for each process then, but any SIGCONT would undo that:
//! so this process takes CRIU's place as the tracer of every thread.

use std::fs;

use nix::errno::Errno;
use nix::poll::{PollTimeout, poll};
use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::config::{LET_GO_ATTEMPTS, LET_GO_PAUSE_MS};
use crate::members::Member;

/// Threads that stand still because this thread traces them; nobody else can have them go on.
#[derive(Debug)]
pub(crate) struct Hold(Vec<Pid>);

impl Hold {
    /// Takes all threads of `members`. Those that have ended need none, and their ids may be somebody else's by now.
    pub(crate) fn take<'members>(members: impl Iterator<Item = &'members Member> + Clone) -> Self {
        // First of all, as it works at once.
        members.clone().for_each(|member| member.signal(Signal::SIGSTOP));
        let mut held = Vec::new();
        for member in members.filter(|member| !member.has_ended(PollTimeout::ZERO)) {
            for entry in fs::read_dir(format!("/proc/{}/task", member.pid())).into_iter().flatten().flatten()
            {
                let name = entry.file_name();
                let Some(thread) = name.to_str().and_then(|name| name.parse().ok()).map(Pid::from_raw) else {
                    continue;
                };
                if ptrace::seize(thread, ptrace::Options::empty()).is_ok() {
                    // It is told to stop, and is for SIGCONT to no avail.
                    let _ = ptrace::interrupt(thread);
                    held.push(thread);
                }
            }
        }
        Self(held)
    }

    /// Lets all of them go on as they would without it.
    pub(crate) fn release(self) {
        for thread in self.0 {
            for _ in 0..LET_GO_ATTEMPTS {
                if has_ended(thread) {
                    break;
                }
                match ptrace::detach(thread, None) {
                    // It has not come to its stop yet.
                    Err(Errno::ESRCH) => _ = poll(&mut [], PollTimeout::from(LET_GO_PAUSE_MS)),
                    _ => break,
                }
            }
        }
    }

    /// They were killed: waits for their end, for as long as it takes to let them go at most. A thread that is traced is there
    /// until its tracer has heard of it, and its process with it.
    pub(crate) fn bury(self) {
        let mut left = self.0;
        for _ in 0..LET_GO_ATTEMPTS {
            left.retain(|thread| !has_ended(*thread));
            if left.is_empty() {
                break;
            }
            let _ = poll(&mut [], PollTimeout::from(LET_GO_PAUSE_MS));
        }
    }
}

/// Hears of the end of a thread that is traced; one that nobody knows has ended before.
fn has_ended(thread: Pid) -> bool {
    let flags = WaitPidFlag::WNOHANG | WaitPidFlag::__WALL;
    match waitpid(thread, Some(flags)) {
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(Errno::ECHILD) => true,
        // It stops, or nothing has become of it.
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    use super::*;

    fn state(pid: u32) -> Option<char> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    }

    fn comes_to(pid: u32, states: &str) -> bool {
        (0..1000).any(|_| {
            let _ = poll(&mut [], PollTimeout::from(5_u16));
            state(pid).is_some_and(|state| states.contains(state))
        })
    }

    #[test]
    fn who_is_held_does_not_go_on_for_a_signal_and_does_when_let_go() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
        let member = Member::hold(child.id()).expect("it runs");
        let hold = Hold::take([&member].into_iter());
        assert!(comes_to(child.id(), "t"), "{:?}", state(child.id()));
        member.signal(Signal::SIGCONT);
        assert!(comes_to(child.id(), "t"), "{:?}", state(child.id()));
        hold.release();
        member.signal(Signal::SIGCONT);
        assert!(comes_to(child.id(), "SR"), "{:?}", state(child.id()));
        drop(child.stdin.take());
        assert!(child.wait().expect("it ends").success());
    }

    #[test]
    fn threads_that_were_killed_are_gone_when_they_are_buried() {
        const THREADS: &str = "import threading\nthreading.Thread(target=threading.Event().wait).start()\nprint(flush=True)\nthreading.Event().wait()";
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", THREADS]).stdout(Stdio::piped()).spawn().expect("python3");
        let mut said = BufReader::new(child.stdout.take().expect("a pipe"));
        said.read_line(&mut String::new()).expect("that its threads are there");
        let member = Member::hold(child.id()).expect("it runs");
        let hold = Hold::take([&member].into_iter());
        assert!(hold.0.len() > 1, "{hold:?}");
        member.signal(Signal::SIGKILL);
        hold.bury();
        assert!(member.has_ended(PollTimeout::ZERO));
        assert!(child.try_wait().is_err(), "somebody else has heard of it");
    }

    #[test]
    fn one_that_has_ended_is_let_go_of() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("cat");
        let member = Member::hold(child.id()).expect("it runs");
        let hold = Hold::take([&member].into_iter());
        member.signal(Signal::SIGKILL);
        assert!(member.has_ended(PollTimeout::from(10_000_u16)));
        hold.release();
        // It was heard of above.
        assert!(child.try_wait().is_err());
    }
}
