//! The end of the daemon: who may live on without it, and who may not.
//!
//! A process that has all its memory needs nobody. One that does not would block on its next missing page for
//! ever, or worse read a zero: its session and guardian end it. SIGINT comes from a terminal, and means the
//! programs that use this terminal as much as the daemon itself; SIGTERM means the daemon alone.

use std::process::ExitCode;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::Daemon;
use super::child::Session;
use super::course::Stage;
use crate::config::FAREWELL_DEADLINE;
use crate::events::SessionEvent;

const FAREWELL: &str = "the receiver was told to end before all of the process's memory had come";

/// A daemon that is about to end.
#[derive(Debug)]
pub(super) struct Shutdown {
    /// When it ends at the latest.
    pub(super) deadline: Instant,
    /// Whether moved programs were told to end as well.
    interrupted: bool,
    /// Whether a migration was ended that was under way.
    lossy: bool,
}

impl Daemon {
    /// Begins to end; a second signal ends at once.
    pub(super) fn shut_down(&mut self, signal: Signal, now: Instant) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.deadline = now;
            return;
        }
        let interrupted = signal == Signal::SIGINT;
        let mut lossy = false;
        for session in self.sessions.values_mut() {
            match session.course.stage {
                Stage::Preparing | Stage::Resumed => {
                    lossy = true;
                    session.terminate();
                    if let Some(process) = session.course.whereabouts_if_cut_short() {
                        let failed = SessionEvent::Failed { reason: FAREWELL.to_owned(), process };
                        session.advance(&failed);
                        self.announcer.session(session.migration, &failed, now);
                    }
                }
                Stage::Settled if interrupted => session.interrupt_program(),
                Stage::Settled | Stage::Over => {}
            }
        }
        while self.lobby.evict_oldest().is_some() {}
        self.shutdown = Some(Shutdown { deadline: now + FAREWELL_DEADLINE, interrupted, lossy });
    }

    /// Ends once everybody who was told to end has done so, or time is up.
    pub(super) fn go_on_shutting_down(&mut self, now: Instant) {
        let Some(shutdown) = &self.shutdown else { return };
        let awaited = |session: &Session| match session.course.stage {
            Stage::Settled => shutdown.interrupted,
            Stage::Preparing | Stage::Resumed | Stage::Over => true,
        };
        if now < shutdown.deadline && self.sessions.values().any(awaited) {
            return;
        }
        for session in self.sessions.values() {
            match (session.course.stage, session.course.program) {
                (Stage::Settled, Some(pid)) => self.announcer.note(format_args!("process {pid} lives on")),
                (Stage::Settled, None) => {}
                (Stage::Preparing | Stage::Resumed | Stage::Over, _) => session.kill(),
            }
        }
        self.verdict = Some(if shutdown.lossy { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
}
