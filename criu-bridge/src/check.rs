//! Whether CRIU can be used here: one finding for each thing that it needs, each problem with its cure.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::criu::{Answer, Criu, prefix};

/// `criu dump --lazy-pages` fills one pipe as large as this for each block of pages.
const PIPE_BYTES: u64 = 16 << 20;

/// Bit of CAP_SYS_RESOURCE in the capability masks of /proc/self/status; it lifts the pipe limit.
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// How much a finding matters.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Grade {
    /// It is there.
    Ok,
    /// Something will not work.
    Warning,
    /// Nothing will work.
    Error,
}

/// One thing that CRIU needs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) name: &'static str,
    /// How it is.
    pub(crate) grade: Grade,
    /// In words.
    pub(crate) text: String,
    /// What to do about it, unless it is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cure: Option<&'static str>,
}

/// The whole answer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct Report {
    /// Version of this form of report.
    schema: u32,
    /// Path of the criu that was asked.
    path: Option<String>,
    /// Its version.
    version: Option<String>,
    /// Whether processes can be dumped, restored and moved.
    pub(crate) usable: bool,
    /// In the order in which they were looked at.
    findings: Vec<Finding>,
}

/// Looks at everything; `criu` is the one to use instead of that on PATH.
pub(crate) fn run(criu: Option<&Path>) -> Report {
    let Some(program) = Criu::find(criu, &prefix(), std::env::var_os("PATH").as_deref()) else {
        return Report::new(None, None, vec![absent(criu)]);
    };
    let Some(version) = program.version() else {
        return Report::new(Some(program.path()), None, vec![strange(program.path())]);
    };
    let feature = |name| program.ask(&["check", "--feature", name]);
    let findings = vec![
        judge(
            "criu check",
            program.ask(&["check"]),
            Grade::Error,
            "run as root; if that is not it, make criu installs a newer one, or the kernel lacks \
             CONFIG_CHECKPOINT_RESTORE",
        ),
        judge(
            "lazy pages",
            feature("uffd-noncoop"),
            Grade::Error,
            "run as root on a kernel with CONFIG_USERFAULTFD and userfaultfd events (4.11 or later)",
        ),
        judge(
            "pre-dump",
            feature("mem_dirty_track"),
            Grade::Warning,
            "the kernel needs CONFIG_MEM_SOFT_DIRTY; without it move programs with post-copy, or by \
             LD_PRELOAD=libsender.so, and never call criu pre-dump",
        ),
        sockets(&version, &std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
        pipe_limit(
            read_number("/proc/sys/fs/pipe-max-size").unwrap_or(PIPE_BYTES),
            effective_capabilities().unwrap_or_default(),
        ),
    ];
    Report::new(Some(program.path()), Some(version), findings)
}

/// From Linux 6.16 on a CRIU before 4.2 cannot read the options of network sockets (criu#2705).
fn sockets(version: &str, kernel: &str) -> Finding {
    let numbers = |text: &str| -> (u32, u32) {
        let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|word| word.parse().unwrap_or(0));
        (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
    };
    let fails = numbers(kernel) >= (6, 16) && numbers(version) < (4, 2);
    let (grade, text, cure) = if fails {
        let text = "this criu is too old to dump programs with network sockets on this kernel";
        (Grade::Warning, text, Some("make criu installs a newer one"))
    } else {
        (Grade::Ok, "programs with network sockets can be dumped", None)
    };
    Finding { name: "sockets", grade, text: text.to_owned(), cure }
}

impl Report {
    fn new(path: Option<&Path>, version: Option<String>, findings: Vec<Finding>) -> Self {
        let usable = findings.iter().all(|finding| finding.grade != Grade::Error);
        let path = path.map(|path| path.display().to_string());
        Self { schema: 1, path, version, usable, findings }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let (Some(path), Some(version)) = (&self.path, &self.version) {
            writeln!(f, "criu {version} ({path})")?;
        }
        for Finding { name, grade, text, cure } in &self.findings {
            let grade = match grade {
                Grade::Ok => "ok",
                Grade::Warning => "warning",
                Grade::Error => "error",
            };
            writeln!(f, "  {grade:<8} {name:<11} {text}")?;
            if let Some(cure) = cure {
                writeln!(f, "  {:<20} {cure}", "")?;
            }
        }
        let usable = if self.usable { "usable" } else { "not usable" };
        writeln!(f, "CRIU is {usable} here.")
    }
}

fn absent(given: Option<&Path>) -> Finding {
    let text = match given {
        Some(path) => format!("{} is not a program", path.display()),
        None => "there is no criu on PATH".to_owned(),
    };
    Finding {
        name: "criu",
        grade: Grade::Error,
        text,
        cure: Some("make criu installs one that works here, or name one with --criu PATH"),
    }
}

fn strange(path: &Path) -> Finding {
    Finding {
        name: "criu",
        grade: Grade::Error,
        text: format!("{} does not tell its version", path.display()),
        cure: Some("name another one with --criu PATH"),
    }
}

/// A finding from criu's own answer; `grade` is what a no means.
fn judge(name: &'static str, answer: std::io::Result<Answer>, grade: Grade, cure: &'static str) -> Finding {
    match answer {
        Ok(Answer { yes: true, .. }) => {
            Finding { name, grade: Grade::Ok, text: "criu says yes".to_owned(), cure: None }
        }
        Ok(answer) => {
            Finding { name, grade, text: format!("criu says: {}", answer.complaint()), cure: Some(cure) }
        }
        Err(error) => Finding { name, grade, text: format!("asking criu: {error}"), cure: Some(cure) },
    }
}

/// Below the limit `criu dump --lazy-pages` ends with "page-pipe: splice: Bad file descriptor".
fn pipe_limit(limit: u64, capabilities: u64) -> Finding {
    let name = "pipe size";
    if limit >= PIPE_BYTES || capabilities & CAP_SYS_RESOURCE != 0 {
        return Finding {
            name,
            grade: Grade::Ok,
            text: "pipes may be as large as it likes".to_owned(),
            cure: None,
        };
    }
    Finding {
        name,
        grade: Grade::Warning,
        text: format!("fs.pipe-max-size is {limit}: dumping large programs with lazy pages will fail"),
        cure: Some("sysctl -w fs.pipe-max-size=16777216"),
    }
}

fn read_number(path: &str) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

fn effective_capabilities() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(mask.trim(), 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_pipe_limit_is_a_warning_unless_the_limit_does_not_hold() {
        assert_eq!(pipe_limit(1 << 20, 0).grade, Grade::Warning);
        assert_eq!(pipe_limit(1 << 20, CAP_SYS_RESOURCE).grade, Grade::Ok);
        assert_eq!(pipe_limit(PIPE_BYTES, 0).grade, Grade::Ok);
    }

    #[test]
    fn warnings_leave_criu_usable_and_errors_do_not() {
        let warning = pipe_limit(1 << 20, 0);
        assert!(Report::new(None, None, vec![warning.clone()]).usable);
        assert!(!Report::new(None, None, vec![warning, absent(None)]).usable);
    }

    #[test]
    fn network_sockets_need_a_newer_criu_on_a_newer_kernel() {
        assert_eq!(sockets("4.1.1", "6.18.44-generic").grade, Grade::Warning);
        assert_eq!(sockets("4.1.1", "6.12.1").grade, Grade::Ok);
        assert_eq!(sockets("4.2.1", "6.18.44").grade, Grade::Ok);
    }
}
