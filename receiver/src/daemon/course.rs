//! The course of one migration as its session tells it: what may still happen, and how it is to be judged.

use crate::events::{SessionEvent, Whereabouts};

/// How far a migration is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Stage {
    /// The process still runs at the source.
    #[default]
    Preparing,
    /// It runs here and some of its memory is still at the source.
    Resumed,
    /// It runs here and nothing more will come for it.
    Settled,
    /// Refused, failed, or the process has ended.
    Over,
}

/// What has been told so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Course {
    pub(super) stage: Stage,
    /// Process id here of the process, from the moment it runs here.
    pub(super) program: Option<u32>,
    /// The source has said what its process is.
    introduced: bool,
    /// The source has said to run it: it goes on there no more.
    committed: bool,
    /// The session has said that it never ran here.
    never_ran: bool,
    failed: bool,
    exited: bool,
}

/// How a migration ended, for a source that has not heard it and asks.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// The process has never run here and never will.
    Aborted,
    /// It needs nothing more from its source.
    Drained,
    /// It is lost, in part or whole.
    Failed,
}

impl Course {
    /// Takes note of an event; whether it is news. A second failure is none.
    pub(super) fn advance(&mut self, event: &SessionEvent) -> bool {
        match event {
            SessionEvent::Refused { .. } | SessionEvent::Failed { .. } if self.stage == Stage::Over => {
                return false;
            }
            // A copy of a session that was killed behind its last word says it again.
            SessionEvent::Complete { .. } | SessionEvent::Failed { process: Whereabouts::Here, .. }
                if self.stage == Stage::Settled =>
            {
                return false;
            }
            SessionEvent::Progress { .. }
            | SessionEvent::Paused { .. }
            | SessionEvent::Recovered
            | SessionEvent::Untied
            | SessionEvent::Lost { .. }
            | SessionEvent::StandsBy { .. }
            | SessionEvent::Succeeded { .. } => {}
            SessionEvent::Committed => self.committed = true,
            SessionEvent::Introduced => self.introduced = true,
            // Who goes on in the place of another session may not know that it was told.
            SessionEvent::Resumed { .. } if self.program.is_some() => return false,
            SessionEvent::Resumed { pid, .. } => {
                self.program = Some(*pid);
                self.stage = Stage::Resumed;
            }
            // The process may have ended before its last page was of use to anybody.
            SessionEvent::Complete { .. } if self.stage == Stage::Over => {}
            SessionEvent::Complete { .. } => self.stage = Stage::Settled,
            SessionEvent::Failed { process: Whereabouts::Here, .. } => {
                self.failed = true;
                self.stage = Stage::Settled;
            }
            SessionEvent::Refused { .. } | SessionEvent::Failed { .. } => {
                let lost = matches!(event, SessionEvent::Failed { process: Whereabouts::Lost, .. });
                self.never_ran = !lost && self.program.is_none();
                self.failed = true;
                self.stage = Stage::Over;
            }
            SessionEvent::Stored { .. } | SessionEvent::Missed { .. } => self.stage = Stage::Over,
            SessionEvent::Exited { .. } => {
                self.exited = true;
                self.stage = Stage::Over;
            }
        }
        true
    }

    /// Whether its source has not said yet what it brings: it gives way to others.
    pub(super) fn is_silent(&self) -> bool {
        self.stage == Stage::Preparing && !self.introduced
    }

    /// Whether this is, or may become, the one process that `--once` takes.
    pub(super) fn counts(&self) -> bool {
        self.program.is_some() || self.stage != Stage::Over
    }

    /// Where the process lives if its session ends here and now, without another word; `None` if there is nothing
    /// to add to what was told.
    pub(super) fn whereabouts_if_cut_short(&self) -> Option<Whereabouts> {
        match self.stage {
            Stage::Preparing if self.committed => Some(Whereabouts::Lost),
            Stage::Preparing => Some(Whereabouts::Source),
            Stage::Resumed => Some(Whereabouts::Lost),
            Stage::Settled | Stage::Over => None,
        }
    }

    /// What a source is told that connects again when its session has nothing more to do with it.
    pub(super) const fn fate(&self) -> Fate {
        match (self.committed && !self.never_ran, self.failed) {
            (false, _) => Fate::Aborted,
            (true, true) => Fate::Failed,
            (true, false) => Fate::Drained,
        }
    }

    /// Once all is over: whether the process had moved completely and its end was seen. `None` if it never ran
    /// here.
    pub(super) fn verdict(&self) -> Option<bool> {
        self.program.map(|_| self.exited && !self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Status;
    use crate::report::Report;

    fn after(events: &[SessionEvent]) -> Course {
        let mut course = Course::default();
        assert!(events.iter().all(|event| course.advance(event)));
        course
    }

    fn resumed() -> SessionEvent {
        SessionEvent::Resumed { pid: 7, source_pid: 8, downtime_us: 9 }
    }

    fn complete() -> SessionEvent {
        SessionEvent::Complete { report: Box::new(Report::default()) }
    }

    fn failed(process: Whereabouts) -> SessionEvent {
        SessionEvent::Failed { reason: "a test".to_owned(), process }
    }

    fn exited() -> SessionEvent {
        SessionEvent::Exited { pid: 7, status: Status::Exited { exit_code: 3 } }
    }

    #[test]
    fn a_process_that_moved_and_ended_has_moved_whatever_its_exit_status() {
        let course = after(&[resumed(), complete(), exited()]);
        assert_eq!((course.stage, course.verdict()), (Stage::Over, Some(true)));
    }

    #[test]
    fn a_process_that_ends_before_its_last_page_has_moved_too() {
        for events in [&[resumed(), exited(), complete()][..], &[resumed(), exited()]] {
            let course = after(events);
            assert_eq!((course.stage, course.verdict()), (Stage::Over, Some(true)));
        }
    }

    #[test]
    fn what_never_ran_here_is_no_process_of_this_receiver() {
        let refused = SessionEvent::Refused { reason: "a test".to_owned() };
        for events in [&[refused][..], &[failed(Whereabouts::Source)], &[]] {
            assert_eq!(after(events).verdict(), None);
        }
        assert!(!after(&[failed(Whereabouts::Source)]).counts());
        assert!(after(&[]).counts());
        assert_eq!(after(&[]).whereabouts_if_cut_short(), Some(Whereabouts::Source));
    }

    #[test]
    fn lost_pages_leave_a_process_that_lives_on_and_has_not_moved_completely() {
        let course = after(&[resumed(), failed(Whereabouts::Here)]);
        assert_eq!((course.stage, course.whereabouts_if_cut_short()), (Stage::Settled, None));
        assert_eq!(after(&[resumed(), failed(Whereabouts::Here), exited()]).verdict(), Some(false));
    }

    #[test]
    fn a_second_failure_is_no_news() {
        let mut course = after(&[failed(Whereabouts::Source)]);
        assert!(!course.advance(&failed(Whereabouts::Lost)));
    }

    #[test]
    fn an_end_that_is_told_again_is_no_news() {
        for end in [complete(), failed(Whereabouts::Here)] {
            let mut course = after(&[resumed(), end.clone()]);
            assert!(!course.advance(&end));
        }
    }

    #[test]
    fn a_source_is_not_told_that_a_process_has_moved_which_is_lost() {
        let course = after(&[SessionEvent::Committed, resumed(), failed(Whereabouts::Lost)]);
        assert_eq!(course.fate(), Fate::Failed);
    }

    #[test]
    fn a_session_that_is_cut_short_after_the_switch_takes_the_process_along() {
        let course = after(&[resumed()]);
        assert_eq!(course.whereabouts_if_cut_short(), Some(Whereabouts::Lost));
        assert_eq!(course.verdict(), Some(false));
    }
}
