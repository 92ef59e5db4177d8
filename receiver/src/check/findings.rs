//! The rules, applied to the facts.

use std::collections::BTreeMap;

use capture::refusal::Refusal;
use capture::survey;
use protocol::{DescriptionKind, Piece, StreamKind};

use super::Verdict;
use super::delivery::{self, Obstacle};
use super::facts::Facts;

/// What would become of a process.
pub(super) struct Findings {
    pub(super) pid: u32,
    pub(super) name: String,
    pub(super) signal: Result<u32, Obstacle>,
    /// What stands in the way of the process as a whole.
    pub(super) process: Vec<Finding>,
    pub(super) threads: Vec<Finding>,
    pub(super) mappings: Vec<Finding>,
    pub(super) descriptors: Vec<Finding>,
}

/// What would become of one part of it.
pub(super) struct Finding {
    /// How it is called: a number, a range of addresses.
    pub(super) what: String,
    /// What it is: a name, a file.
    pub(super) of: String,
    pub(super) verdict: Verdict,
    /// Why, unless it simply moves; empty then.
    pub(super) reason: String,
    /// What to do about it, if there is anything.
    pub(super) cure: String,
}

impl Finding {
    fn new(what: &impl ToString, of: &str, result: Result<(), Refusal>) -> Self {
        let (what, of) = (what.to_string(), of.to_owned());
        let (verdict, (reason, cure)) = match result {
            Ok(()) => (Verdict::Moves, Default::default()),
            Err(refusal) => (Verdict::Refused, refusal.reason_and_cure()),
        };
        Self { what, of, verdict, reason, cure }
    }
}

impl Findings {
    /// Applies the rules.
    pub(super) fn of(facts: &Facts) -> Self {
        let signal = delivery::signal(facts);
        let mut found = Self {
            pid: facts.pid,
            name: facts.name.clone(),
            signal,
            process: Vec::new(),
            threads: Vec::new(),
            mappings: Vec::new(),
            descriptors: Vec::new(),
        };
        if facts.executable.is_none() {
            return found;
        }
        if let Some(main) = facts.main() {
            let all = survey::process(facts.pid, &main.status, facts.has_children);
            let system_v = facts.system_v.clone().err();
            found.process = all
                .into_iter()
                .chain(system_v)
                .map(|refusal| Finding::new(&facts.pid, &facts.name, Err(refusal)))
                .collect();
        }
        for thread in &facts.threads {
            let result = survey::thread(thread.own_tid, thread.tid == facts.pid, &thread.status);
            found.threads.push(Finding::new(&thread.tid, &thread.name, result));
        }
        let mut descriptors = survey::descriptors(facts.pid, &facts.duplicates);
        descriptors.segments.clone_from(&facts.segments);
        facts.mappings.iter().for_each(|(mapping, _)| descriptors.see(mapping));
        for (mapping, attributes) in &facts.mappings {
            let result = survey::mapping(mapping, attributes, &descriptors);
            let name = String::from_utf8_lossy(&mapping.name);
            let name: String = name.chars().filter(|c| !c.is_control()).collect();
            found.mappings.push(Finding::new(&mapping.range, &name, result));
        }
        found.descriptors = of_descriptors(descriptors, &facts.links);
        found
    }

    /// Everything in one word.
    pub(super) fn verdict(&self) -> Verdict {
        let parts = [&self.process, &self.threads, &self.mappings, &self.descriptors];
        let worst = parts.into_iter().flatten().map(|finding| finding.verdict).max();
        let delivered = if self.signal.is_ok() { Verdict::Moves } else { Verdict::Refused };
        worst.unwrap_or(Verdict::Moves).max(delivered)
    }
}

fn of_descriptors(descriptors: survey::Descriptors, links: &BTreeMap<u32, String>) -> Vec<Finding> {
    let survey::Descriptors { found, notes, .. } = descriptors;
    let one = |(fd, what): (u32, Result<DescriptionKind, Refusal>)| {
        let of = links.get(&fd).map_or("", String::as_str);
        let stream = match &what {
            Ok(DescriptionKind::Stream(stream)) => Some(*stream),
            _ => None,
        };
        let mut finding = Finding::new(&fd, of, what.map(|_| ()));
        if let Some(stream) = stream {
            finding.of.push_str(becomes(stream));
        }
        if let Some(note) = notes.iter().find(|note| note.fd() == fd) {
            finding.verdict = Verdict::Loses;
            finding.reason = note.in_words();
            note.cure().clone_into(&mut finding.cure);
        }
        finding
    };
    found.into_iter().map(one).collect()
}

const fn becomes(stream: StreamKind) -> &'static str {
    match stream {
        StreamKind::Input => ", there the receiver's standard input",
        StreamKind::Output => ", there the receiver's standard output",
        StreamKind::Error => ", there the receiver's standard error",
    }
}
