//! Findings as lines for people, and as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::Verdict;
use super::findings::{Finding, Findings};

/// Lines: those of what does not simply move, or of `all`; sums; the verdict last.
pub(super) fn text(findings: &Findings, all: bool) -> String {
    let mut text = String::new();
    match &findings.signal {
        Ok(number) => line(&mut text, format_args!("signal {number}: reaches the library")),
        Err(obstacle) => {
            line(&mut text, format_args!("not deliverable: {}{}", obstacle.reason, cure(obstacle.cure)));
        }
    }
    for finding in &findings.process {
        line(
            &mut text,
            format_args!("process {}: refused: {}{}", finding.what, finding.reason, cure(&finding.cure)),
        );
    }
    let mut sums = Vec::new();
    for (kind, parts) in parts(findings) {
        for finding in parts.iter().filter(|finding| all || finding.verdict != Verdict::Moves) {
            line(&mut text, format_args!("{kind} {}", of_part(finding)));
        }
        let moving = parts.iter().filter(|finding| finding.verdict == Verdict::Moves).count();
        sums.push(format!("{moving} of {} {kind}s", parts.len()));
    }
    line(&mut text, format_args!("{} simply move", sums.join(", ")));
    let outcome = match (&findings.signal, findings.verdict()) {
        (Err(_), _) => "not deliverable",
        (Ok(_), verdict) => verdict.words(),
    };
    line(&mut text, format_args!("process {} ({}): {outcome}", findings.pid, findings.name));
    text
}

fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    // Into memory: it cannot fail.
    let _ = writeln!(text, "{words}");
}

fn cure(cure: &str) -> String {
    if cure.is_empty() { String::new() } else { format!("; {cure}") }
}

fn of_part(finding: &Finding) -> String {
    let Finding { what, of, verdict, reason, cure: remedy } = finding;
    let of = if of.is_empty() { String::new() } else { format!(" ({of})") };
    let why = if reason.is_empty() { String::new() } else { format!(": {reason}{}", cure(remedy)) };
    format!("{what}{of}: {}{why}", verdict.words())
}

fn parts(findings: &Findings) -> [(&'static str, &[Finding]); 3] {
    [("thread", &findings.threads), ("mapping", &findings.mappings), ("descriptor", &findings.descriptors)]
}

/// Everything, as one object.
pub(super) fn json(findings: &Findings) -> String {
    let list = |parts: &[Finding]| parts.iter().map(object).collect::<Vec<Value>>();
    let signal = match &findings.signal {
        Ok(number) => json!({ "deliverable": true, "number": number }),
        Err(obstacle) => {
            json!({ "deliverable": false, "reason": obstacle.reason, "cure": obstacle.cure })
        }
    };
    let whole = json!({
        "pid": findings.pid,
        "name": findings.name,
        "verdict": findings.verdict(),
        "signal": signal,
        "process": list(&findings.process),
        "threads": list(&findings.threads),
        "mappings": list(&findings.mappings),
        "descriptors": list(&findings.descriptors),
    });
    format!("{whole}\n")
}

fn object(finding: &Finding) -> Value {
    json!({
        "what": finding.what,
        "of": finding.of,
        "verdict": finding.verdict,
        "reason": finding.reason,
        "cure": finding.cure,
    })
}
