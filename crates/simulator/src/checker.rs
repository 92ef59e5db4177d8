//! The nine invariants of the design, and how each is checked.
//!
//! | # | invariant | how |
//! |---|---|---|
//! | 1 | never do both sides run the process; `Run` is sent once; who has promised `Abort` never runs it | [`Checker::step`] after every step, [`Checker::run_sent`] |
//! | 2 | before `Run` every failure leaves it running at the source; after it, never there again without `Abort` | [`Checker::step`], [`Checker::end`] |
//! | 3 | after `Run` every page ends present, zero or gone; none is installed twice | `Program::check_everything`, [`Checker::installed`]; nor pushed twice: [`Checker::pushed`] |
//! | 4 | every fault is answered, or the migration ended with a reason | after each turn of the loop nobody sleeps at a page that is there (`Program::sleeps_at_present_page`); when nothing moves any more, nobody sleeps at all, and an undisturbed migration has completed ([`Checker::end`]) |
//! | 5 | a page sent before the switchover and dirtied since is dropped | when the threads go on, what is in place is what the source held at the stop: `World::resume`; and nothing is sent before the stop but what goes ahead by agreement: [`Checker::page_sent`] |
//! | 6 | each page's bytes are those of the source at the stop | every touch of every thread, `Program::check_everything` |
//! | 7 | nothing in the engine blocks, allocates without bound or reads a clock | the engine is `no_std` without a system call; [`Checker::bounded`] holds actions per input, frames and lists to their limits, [`Checker::asked`] the pages in flight |
//! | 8 | the parasite writes nothing that it migrates, and leaves no trace | [`Checker::released`]: the source's pages after a cancelled migration are those of the stop, and it runs. The rest is the parasite's own test |
//! | 9 | no page content is logged | inputs, actions and failures have no field that could hold any: `engine/tests/nothing_to_log.rs` |

use std::collections::{BTreeMap, BTreeSet};

use crate::mm::{MmId, Page, Version};

/// A broken promise.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Violation {
    /// Which of the nine invariants.
    pub invariant: u8,
    /// What happened.
    pub text: String,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "invariant {} is broken: {}", self.invariant, self.text)
    }
}

/// Actions that one input may give rise to: a page request of 64 pages, or all requests that fit into the window.
const MOST_ACTIONS_PER_INPUT: usize = 5000;

/// Who runs, and what has been done to whom.
#[derive(Clone, Debug, Default)]
pub(crate) struct Checker {
    pub(crate) source_runs: bool,
    pub(crate) destination_runs: bool,
    pub(crate) run_was_sent: bool,
    /// The destination has given its word that it never runs the process.
    pub(crate) abort_was_promised: bool,
    stopped: bool,
    pages_at_stop: BTreeMap<Page, Version>,
    installed: BTreeSet<(MmId, Page)>,
    pushed: BTreeSet<Page>,
    in_flight: BTreeSet<Page>,
    violation: Option<Violation>,
}

impl Checker {
    /// The process runs at the source.
    pub(crate) fn new() -> Self {
        Self { source_runs: true, ..Self::default() }
    }

    /// The process stands still at the source; these are its pages.
    pub(crate) fn stopped(&mut self, pages: &BTreeMap<Page, Version>) {
        self.source_runs = false;
        self.stopped = true;
        self.pages_at_stop.clone_from(pages);
    }

    pub(crate) fn run_sent(&mut self) {
        if self.run_was_sent {
            self.violate(1, "Run was sent twice");
        }
        self.run_was_sent = true;
    }

    pub(crate) fn page_sent(&mut self, goes_ahead: bool) {
        if !self.stopped && !goes_ahead {
            self.violate(5, "a page was sent while the process could still change it");
        }
    }

    /// A page goes out though nobody has asked for it.
    pub(crate) fn pushed(&mut self, page: Page) {
        if !self.pushed.insert(page) {
            self.violate(3, &format!("page {page:#x} was pushed twice"));
        }
    }

    /// The link is lost, and with it what was on its way.
    pub(crate) fn link_lost(&mut self) {
        self.pushed.clear();
        self.in_flight.clear();
    }

    /// A page is asked for.
    pub(crate) fn asked(&mut self, page: Page, most: u64) {
        if !self.in_flight.insert(page) {
            self.violate(7, &format!("page {page:#x} was asked for while it was on its way"));
        }
        self.bounded("pages in flight", self.in_flight.len(), usize::try_from(most).unwrap_or(usize::MAX));
    }

    /// A page that was asked for has come, or comes by the push.
    pub(crate) fn answered(&mut self, page: Page) {
        self.in_flight.remove(&page);
    }

    /// A page of the source has been put into a space.
    pub(crate) fn installed(&mut self, space: MmId, page: Page) {
        if !self.installed.insert((space, page)) {
            self.violate(3, &format!("page {page:#x} was installed twice in space {space}"));
        }
    }

    /// One input gave rise to so many actions.
    pub(crate) fn bounded(&mut self, what: &str, is: usize, limit: usize) {
        if is > limit {
            self.violate(7, &format!("{is} {what}, the limit is {limit}"));
        }
    }

    pub(crate) fn actions(&mut self, count: usize) {
        self.bounded("actions from one input", count, MOST_ACTIONS_PER_INPUT);
    }

    /// Holds after every step.
    pub(crate) fn step(&mut self) {
        if self.source_runs && self.destination_runs {
            self.violate(1, "both sides run the process");
        }
        if self.destination_runs && self.abort_was_promised {
            self.violate(1, "the destination runs what it has promised never to run");
        }
        if self.source_runs && self.run_was_sent && !self.abort_was_promised {
            self.violate(2, "the process runs at the source after Run");
        }
    }

    /// The process goes on at the source; these are its pages.
    pub(crate) fn released(&mut self, pages: &BTreeMap<Page, Version>) {
        if self.stopped && *pages != self.pages_at_stop {
            self.violate(8, "the stopped process has been changed");
        }
        self.source_runs = true;
    }

    /// Holds when nothing moves any more.
    pub(crate) fn end(&mut self, source_crashed: bool, sleepers: usize) {
        if sleepers > 0 {
            self.violate(4, &format!("{sleepers} threads sleep for ever"));
        }
        if !self.run_was_sent && !source_crashed && !self.source_runs {
            self.violate(2, "no Run was sent, and the process does not run at the source");
        }
    }

    pub(crate) fn violate(&mut self, invariant: u8, text: &str) {
        self.violation.get_or_insert(Violation { invariant, text: text.into() });
    }

    pub(crate) fn take_violation(&mut self) -> Option<Violation> {
        self.violation.take()
    }
}
