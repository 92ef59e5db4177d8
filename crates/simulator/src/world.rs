//! One migration from its first message to the moment when nothing moves any more.

use std::collections::BTreeSet;
use std::ops::Range;

use engine::{Destination, Failure, Instant, Source, SourceInput};
use memory::{Addr, PAGE_SIZE, PageRange};
use protocol::Channel;

use crate::checker::{Checker, Violation};
use crate::counters::Counters;
use crate::destination_side::DestinationSide;
use crate::link::{Link, ToDestination, ToSource};
use crate::mm::{Page, Version, ZERO};
use crate::planted::PlantedFault;
use crate::program::Program;
use crate::random::Random;
use crate::settings::{Disturbance, Settings};
use crate::source_side::{SourceSide, runs};

/// Steps after which a world that still moves is said to move in circles.
const MOST_STEPS: u64 = 200_000;
const START_NS: u64 = 1_000_000_000;
/// Files hold this plus the page's number.
const FILE_VERSIONS: Version = 1 << 24;

/// Everything there is.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) settings: Settings,
    pub(crate) random: Random,
    pub(crate) now: u64,
    pub(crate) source: SourceSide,
    pub(crate) destination: DestinationSide,
    pub(crate) to_source: Link<ToSource>,
    pub(crate) to_destination: Link<ToDestination>,
    pub(crate) program: Program,
    pub(crate) checker: Checker,
    pub(crate) counters: Counters,
    pub(crate) planted: Option<PlantedFault>,
    /// Private file mappings, the same at both ends but for their eager pages.
    pub(crate) files: Vec<Range<Page>>,
    /// How the destination ended, if it did.
    pub(crate) outcome: Option<Option<Failure>>,
    trace: Option<Vec<String>>,
    /// Counts the links; the destination speaks on one of them.
    pub(crate) generation: u64,
    /// No new link will stand.
    pub(crate) link_is_gone: bool,
    source_crashed: bool,
    pub(crate) destination_crashed: bool,
    next_version: Version,
}

impl World {
    pub(crate) fn new(seed: u64, planted: Option<PlantedFault>, traced: bool) -> Self {
        let mut random = Random::new(seed);
        let settings = Settings::new(&mut random);
        let now = Instant(START_NS);
        let destination = Destination::new(settings.config, now);
        let mut world = Self {
            now: now.0,
            source: SourceSide::new(Source::new(settings.config, now)),
            destination: DestinationSide::new(destination),
            to_source: Link::new(settings.latency_ns, settings.jitter_ns),
            to_destination: Link::new(settings.latency_ns, settings.jitter_ns),
            program: Program::new(settings.budget, !settings.careless_at_fork),
            checker: Checker::new(),
            counters: Counters::default(),
            planted,
            files: Vec::new(),
            outcome: None,
            trace: traced.then(Vec::new),
            generation: 0,
            link_is_gone: false,
            source_crashed: false,
            destination_crashed: false,
            next_version: 1,
            settings,
            random,
        };
        world.populate();
        world.source.answers.push_back((START_NS, SourceInput::Connected));
        world
    }

    /// Runs to the end.
    pub(crate) fn run(&mut self) -> Result<Counters, Violation> {
        let mut steps = 0;
        while self.step(steps) {
            steps += 1;
            self.checker.step();
            if let Some(violation) = self.checker.take_violation().or(self.program.violation.take()) {
                return Err(violation);
            }
            if steps >= MOST_STEPS {
                return Err(Violation { invariant: 4, text: String::from("the world moves in circles") });
            }
        }
        self.check_end();
        if let Some(violation) = self.checker.take_violation().or(self.program.violation.take()) {
            return Err(violation);
        }
        self.counters.worlds = 1;
        self.counters.steps = steps;
        self.counters += self.program.counters;
        Ok(self.counters)
    }

    /// What happened, if it was to be written down.
    pub(crate) fn take_trace(&mut self) -> Vec<String> {
        self.trace.take().unwrap_or_default()
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} us  {}", (self.now - START_NS) / 1000, line()));
        }
    }

    pub(crate) const fn file_content(page: Page) -> Version {
        FILE_VERSIONS + page
    }

    /// One move of somebody. False when nobody can move.
    fn step(&mut self, steps: u64) -> bool {
        self.disturb(steps);
        let source_due = if self.source_crashed { None } else { self.source.due(&self.to_source) };
        let frames_due = self.destination.due(&self.to_destination, self.settings.impatient);
        let destination_due = if self.destination_crashed { None } else { frames_due };
        let listens = !self.destination_crashed && !self.destination.finished;
        let mut movers = Vec::with_capacity(4);
        if source_due.is_some_and(|due| due <= self.now) {
            movers.push(Mover::Source);
        }
        if destination_due.is_some_and(|due| due <= self.now) || (listens && self.kernel_calls()) {
            movers.push(Mover::Destination);
        }
        if !self.program.runnable().is_empty() {
            movers.push(Mover::Program);
        }
        if self.checker.source_runs && !self.source.finished && self.random.percent(20) {
            movers.push(Mover::ProgramAtSource);
        }
        match self.random.pick(&movers) {
            Some(Mover::Source) => self.source_turn(),
            Some(Mover::Destination) => self.destination_turn(),
            Some(Mover::Program) => _ = self.program.step(&mut self.random),
            Some(Mover::ProgramAtSource) => self.change_source(),
            None => match source_due.into_iter().chain(destination_due).min() {
                Some(due) => self.now = self.now.max(due),
                None => return false,
            },
        }
        self.now += self.random.below(3000);
        true
    }

    fn disturb(&mut self, steps: u64) {
        let (now, random) = (self.now, &mut self.random);
        match self.settings.disturbance {
            Disturbance::Cut { at, silent } if u64::from(at) == steps => {
                self.link_is_gone = true;
                self.to_source.cut(now, random, (!silent).then_some(&ToSource::Closed));
                self.to_destination.cut(now, random, (!silent).then_some(&ToDestination::Closed));
                self.counters.cuts += u64::from(!silent);
                self.counters.silences += u64::from(silent);
                self.trace(|| String::from("the link is cut"));
            }
            Disturbance::Interruptions { steps: last, permille } if steps < u64::from(last) => {
                let rarely = if self.checker.run_was_sent { 1000 } else { 20_000 };
                if random.below(rarely) < permille {
                    self.interrupt();
                }
            }
            Disturbance::SourceCrash { at } if u64::from(at) == steps && !self.source.finished => {
                self.source_crashed = true;
                self.link_is_gone = true;
                self.checker.source_runs = false;
                self.to_destination.cut(now, random, Some(&ToDestination::Closed));
                self.trace(|| String::from("the source is killed"));
            }
            Disturbance::DestinationCrash { at } if u64::from(at) == steps && !self.destination.finished => {
                self.destination_crashed = true;
                self.checker.destination_runs = false;
                self.program.runs = false;
                self.counters.destination_lost += 1;
                self.to_source.cut(now, random, Some(&ToSource::Closed));
                self.trace(|| String::from("the destination is killed"));
            }
            Disturbance::None
            | Disturbance::Refused
            | Disturbance::CaptureFails
            | Disturbance::MapFails
            | Disturbance::ResumeFails
            | Disturbance::Cut { .. }
            | Disturbance::Interruptions { .. }
            | Disturbance::PagerDies { .. }
            | Disturbance::SourceCrash { .. }
            | Disturbance::DestinationCrash { .. } => {}
        }
    }

    /// The link ends: one connection or all, told to both sides, to one or to none.
    fn interrupt(&mut self) {
        let (now, random) = (self.now, &mut self.random);
        let told = |random: &mut Random| random.percent(85);
        let (to_source, to_destination) = (told(random), told(random));
        let (closed_here, closed_there) = (ToSource::Closed, ToDestination::Closed);
        let closing = (to_source.then_some(&closed_here), to_destination.then_some(&closed_there));
        if random.percent(40)
            && let Some(channel) = random.pick(&Channel::ALL)
        {
            self.to_source.cut_one(channel, now, random, closing.0);
            self.to_destination.cut_one(channel, now, random, closing.1);
        } else {
            self.to_source.cut(now, random, closing.0);
            self.to_destination.cut(now, random, closing.1);
        }
        self.counters.cuts += 1;
        self.trace(|| String::from("the link is interrupted"));
    }

    fn check_end(&mut self) {
        let asleep = self.program.sleepers();
        let waits = self.destination.engine.phase() == "paused" && self.link_is_gone;
        self.counters.waiting += u64::from(waits);
        let is_served = self.program.runs && !self.destination_crashed && !waits;
        let sleepers = if is_served { asleep } else { 0 };
        self.checker.end(self.source_crashed, sleepers);
        match &self.outcome {
            Some(None) => self.counters.completed += 1,
            Some(Some(_)) => self.counters.source_lost += 1,
            None => {
                self.counters.cancelled += u64::from(!self.checker.run_was_sent);
                self.counters.poisoned_on_touch += u64::from(self.destination.engine.phase() == "lost");
                let harmless =
                    matches!(self.settings.disturbance, Disturbance::None | Disturbance::PagerDies { .. });
                if harmless {
                    self.checker.violate(4, "an undisturbed migration did not complete");
                }
            }
        }
        if self.outcome.is_some() && !self.destination_crashed {
            self.program.check_everything();
        }
    }

    /// Lazy ranges with data, zeros and holes; a file mapping with changed pages; now and then a large reservation.
    fn populate(&mut self) {
        let mut lazy = Vec::new();
        let mut at = 0x20;
        for _ in 0..self.random.between(1, 4) {
            let len = self.random.between(4, 100);
            lazy.push(at..at + len);
            at += len + self.random.below(30);
        }
        if self.random.percent(20) {
            let reserved = 1 << self.random.between(8, 12);
            lazy.push(0x10_0000..0x10_0000 + reserved);
        }
        let mut eager = BTreeSet::new();
        for range in &lazy {
            let density = self.random.below(101);
            for page in range.clone().take(100) {
                match self.random.below(100) {
                    0 => _ = self.source.unreadable.insert(page),
                    1..4 => _ = self.source.pages.insert(page, ZERO),
                    roll if roll < density => {
                        self.next_version += 1;
                        self.source.pages.insert(page, self.next_version);
                        if self.random.percent(3) {
                            eager.insert(page);
                        }
                    }
                    _ => {}
                }
            }
        }
        if self.random.percent(50) {
            let file = 0xa00..0xa00 + self.random.between(1, 20);
            for page in file.clone() {
                if self.random.percent(30) {
                    self.next_version += 1;
                    let zero = self.random.percent(10);
                    self.source.pages.insert(page, if zero { ZERO } else { self.next_version });
                    eager.insert(page);
                }
            }
            self.files.push(file);
        }
        self.source.eager = runs(eager.into_iter());
        self.source.lazy = lazy.iter().filter_map(in_bytes).collect();
        self.source.mapped.clone_from(&self.source.lazy);
        if !self.settings.plan.follows {
            // What has to be in place must be readable.
            self.source.unreadable.clear();
        }
    }

    /// The program runs at the source: it writes to a page that it has or to a fresh one, drops one, or maps a range
    /// anew.
    fn change_source(&mut self) {
        let pages: Vec<_> = self.source.pages.keys().copied().collect();
        let Some(page) = self.random.pick(&pages) else { return };
        let source = &mut self.source;
        let is_memory = source.mapped.iter().any(|range| range.contains(Addr(page * PAGE_SIZE)));
        match self.random.below(100) {
            0..70 => source.write(page, &mut self.next_version),
            70..80 if is_memory => {
                let fresh = page + 1;
                if source.mapped.iter().any(|range| range.contains(Addr(fresh * PAGE_SIZE)))
                    && !source.unreadable.contains(&fresh)
                {
                    source.write(fresh, &mut self.next_version);
                }
            }
            80..95 if is_memory => source.drop_page(page),
            95..97 if is_memory => {
                for gone in page..page + 4 {
                    source.drop_page(gone);
                }
                if self.random.percent(50) {
                    source.write(page, &mut self.next_version);
                }
                source.made_anew.extend(in_bytes(&(page..page + 4)));
            }
            _ => {}
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mover {
    Source,
    Destination,
    Program,
    ProgramAtSource,
}

fn in_bytes(range: &Range<Page>) -> Option<PageRange> {
    PageRange::new(Addr(range.start * PAGE_SIZE), Addr(range.end * PAGE_SIZE))
}
