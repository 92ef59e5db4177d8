//! Tells what happens, to people on standard error and to programs in the journal.

use std::fmt;
use std::time::Instant;

use protocol::MigrationId;

use crate::events::{DaemonEvent, SessionEvent, Whereabouts};
use crate::journal::Journal;
use crate::progress::Bars;

/// Ranges of lost memory that people are told of; programs are told of more.
const SHOWN_RANGES: usize = 4;

/// The daemon's voice. Standard output is not its own: it belongs to the moved programs.
#[derive(Debug)]
pub struct Announcer {
    name: &'static str,
    journal: Journal,
    bars: Bars,
}

impl Announcer {
    /// An announcer that speaks as `name` and also writes to `journal`.
    #[must_use]
    pub fn new(name: &'static str, journal: Journal) -> Self {
        Self { name, journal, bars: Bars::default() }
    }

    /// Says something that no program waits for.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        self.bars.print(format_args!("{}: {text}", self.name));
    }

    /// Tells an event of the daemon.
    pub fn daemon(&mut self, migration: Option<MigrationId>, event: &DaemonEvent) {
        match event {
            DaemonEvent::Listening { address, port, .. } => {
                self.note(format_args!("listening on {address}:{port}"));
            }
            DaemonEvent::Connected { peer } => {
                self.note(format_args!("{}connected from {peer}", Label(migration)));
            }
            DaemonEvent::Refused { peer, reason } => {
                self.note(format_args!("{}{peer} is turned away: {reason}", Label(migration)));
            }
        }
        self.record(migration, event);
    }

    /// Tells an event of a session.
    pub fn session(&mut self, migration: MigrationId, event: &SessionEvent, now: Instant) {
        let label = Label(Some(migration));
        match event {
            SessionEvent::Progress { done_bytes, total_bytes } => {
                self.bars.update(migration, *done_bytes, *total_bytes, now);
                return;
            }
            SessionEvent::Committed | SessionEvent::Introduced | SessionEvent::StandsBy { .. } => return,
            SessionEvent::Succeeded { reason } => {
                self.note(format_args!("{label}what served its memory has died ({reason}); another one goes on"));
            }
            SessionEvent::Paused { reason } => self.note(format_args!(
                "{label}paused: {reason}; the process waits where memory is missing until its source connects again"
            )),
            SessionEvent::Recovered => self.note(format_args!("{label}its source is there again")),
            SessionEvent::Resumed { pid, source_pid, downtime_us } => self.note(format_args!(
                "{label}process {source_pid} goes on here as {pid}, it stood still for {downtime_us} us"
            )),
            SessionEvent::Complete { report } => {
                self.bars.remove(migration);
                self.note(format_args!("{label}all of its memory is here\n{report}"));
            }
            SessionEvent::Untied => self.note(format_args!("{label}no connection needs its source any more")),
            SessionEvent::Refused { reason } => self.note(format_args!("{label}refused: {reason}")),
            SessionEvent::Lost { pages, ranges } => {
                let more = if ranges.len() > SHOWN_RANGES { " and more" } else { "" };
                let ranges = ranges.iter().take(SHOWN_RANGES).map(String::as_str).collect::<Vec<_>>().join(" ");
                self.note(format_args!("{label}{pages} pages are lost: {ranges}{more}"));
            }
            SessionEvent::Stored { shadow, epoch, by_value, by_reference, zero, freeze_us, lag_us, .. } => {
                self.note(format_args!(
                    "{label}shadow {shadow}, epoch {epoch}: {by_value} pages by value, {by_reference} by reference, \
                     {zero} zero; it stood still for {freeze_us} us, complete after {lag_us} us"
                ));
            }
            SessionEvent::Missed { shadow, reason } => {
                self.note(format_args!("{label}shadow {shadow}, no epoch: {reason}"));
            }
            SessionEvent::Failed { reason, process } => {
                self.bars.remove(migration);
                self.note(format_args!("{label}failed: {reason}; {}", whereabouts(*process)));
            }
            SessionEvent::Exited { pid, status } => {
                self.bars.remove(migration);
                self.note(format_args!("{label}process {pid} has ended: {status}"));
            }
        }
        self.record(Some(migration), event);
    }

    fn record<E: serde::Serialize>(&mut self, migration: Option<MigrationId>, event: &E) {
        if let Err(error) = self.journal.write(migration, event) {
            self.note(format_args!("writing to the events file: {error}; it ends here"));
        }
    }
}

const fn whereabouts(process: Whereabouts) -> &'static str {
    match process {
        Whereabouts::Source => "the process goes on at the source",
        Whereabouts::Here => "the process goes on here and gets SIGBUS where it touches what is lost",
        Whereabouts::Lost => "the process is lost",
        Whereabouts::InDoubt => "the process stands still at the source",
    }
}

/// The beginning of a migration's id, enough to tell those on one screen apart.
struct Label(Option<MigrationId>);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(MigrationId([a, b, c, d, ..])) = self.0 else { return Ok(()) };
        write!(f, "[{a:02x}{b:02x}{c:02x}{d:02x}] ")
    }
}
