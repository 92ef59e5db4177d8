//! What the daemon is told of one migration, whoever builds what comes in.

use std::time::Duration;

use engine::{Failure, Progress};
use fault_handler::{Ended, HandlerError, Measurement, Outcome};
use memory::PAGE_SIZE;
use protocol::SourceReport;

use super::report::{downtime_us, lost, report};
use super::teller::Teller;
use crate::events::{SessionEvent, Status, Whereabouts};
use crate::guardian::ExitStatus;

/// The account of a process, or of a tree by its root, from its reservation to its end.
#[derive(Debug)]
pub struct Account {
    /// To whom it is told.
    pub teller: Teller,
    /// Its id at the source, which it keeps in its own PID namespace.
    pub source_pid: u32,
    /// Its id here, once it runs.
    pub pid: Option<u32>,
    /// It was refused while it still ran at the source.
    pub refused: bool,
    /// From here on the source may have let go of it.
    pub prepared: bool,
    source: Option<SourceReport>,
    resume_was_told: bool,
}

/// What the loop cannot know of what came.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Figures {
    /// Pages of files that are the same here.
    pub same_file_pages: u64,
    /// Connections that stayed at the source.
    pub relayed: u64,
}

impl Account {
    /// Nothing has been told yet.
    #[must_use]
    pub fn new(teller: Teller) -> Self {
        Self {
            teller,
            source_pid: 0,
            pid: None,
            refused: false,
            prepared: false,
            source: None,
            resume_was_told: false,
        }
    }

    /// Tells how the migration ended; an error of the loop has cost what `has_run` here, or may have.
    pub fn conclude(&mut self, ended: Result<Ended, HandlerError>, has_run: bool, figures: Figures) {
        let event = match ended {
            Err(error) => {
                let is_lost = has_run || matches!(error, HandlerError::Torn);
                let process = if is_lost { Whereabouts::Lost } else { Whereabouts::Source };
                SessionEvent::Failed { reason: error.in_full(), process }
            }
            Ok(Ended { outcome: Outcome::Discarded(failure), .. }) => self.discarded(&failure),
            Ok(Ended { outcome: Outcome::Killed(failure), .. }) => {
                SessionEvent::Failed { reason: failure.to_string(), process: Whereabouts::Lost }
            }
            Ok(Ended { outcome: Outcome::Completed(Some(failure)), engine, .. }) => {
                self.tell_resumed(engine.report().downtime);
                self.teller.tell(&lost(&engine.report().lost));
                SessionEvent::Failed { reason: failure.to_string(), process: Whereabouts::Here }
            }
            Ok(Ended { outcome: outcome @ Outcome::Completed(None), engine, traffic }) => {
                self.tell_resumed(engine.report().downtime);
                let source = self.source.as_ref();
                let mut report = report(&outcome, engine.report(), &traffic, source, figures.same_file_pages);
                report.relayed_connections = figures.relayed;
                SessionEvent::Complete { report: Box::new(report) }
            }
        };
        self.teller.tell(&event);
    }

    /// Tells how it ended, if it ever ran.
    pub fn tell_exit(&self, status: ExitStatus) {
        if let Some(pid) = self.pid {
            self.teller.tell(&SessionEvent::Exited { pid, status: status_of(status) });
        }
    }

    /// Tells what the loop has measured.
    pub fn measured(&mut self, measurement: Measurement) {
        match measurement {
            Measurement::Source(report) => {
                self.source = Some(report);
                self.tell_resumed(Duration::ZERO);
            }
            Measurement::Paused(failure) => {
                self.teller.tell(&SessionEvent::Paused { reason: failure.to_string() });
            }
            Measurement::Recovered => self.teller.tell(&SessionEvent::Recovered),
            Measurement::Progress(progress) => self.tell_progress(progress),
        }
    }

    /// Tells once that it runs here, with `here` as the downtime if the source has not told its own.
    fn tell_resumed(&mut self, here: Duration) {
        let Some(pid) = self.pid.filter(|_| !self.resume_was_told) else { return };
        self.resume_was_told = true;
        let downtime_us = downtime_us(self.source.as_ref(), here);
        self.teller.tell(&SessionEvent::Resumed { pid, source_pid: self.source_pid, downtime_us });
    }

    fn tell_progress(&self, progress: Progress) {
        if self.resume_was_told {
            self.teller.tell_in_passing(&SessionEvent::Progress {
                done_bytes: progress.done_pages * PAGE_SIZE,
                total_bytes: progress.total_pages * PAGE_SIZE,
            });
        }
    }

    /// It never ran here.
    fn discarded(&self, failure: &Failure) -> SessionEvent {
        let reason = failure.to_string();
        let in_doubt = self.prepared && matches!(failure, Failure::LinkLost(_) | Failure::Deadline(_));
        match (self.refused, in_doubt) {
            (true, _) => SessionEvent::Refused { reason },
            (false, true) => SessionEvent::Failed { reason, process: Whereabouts::InDoubt },
            (false, false) => SessionEvent::Failed { reason, process: Whereabouts::Source },
        }
    }
}

fn status_of(status: ExitStatus) -> Status {
    match status {
        ExitStatus::Code(code) => Status::Exited { exit_code: u8::try_from(code & 0xff).unwrap_or(u8::MAX) },
        ExitStatus::Signal(signal) => {
            Status::Killed { signal: u8::try_from(signal & 0x7f).unwrap_or(u8::MAX) }
        }
    }
}
