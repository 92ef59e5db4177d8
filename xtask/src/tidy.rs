//! The rules of the house as a test: what the compiler and clippy cannot see.
//!
//! Each rule is a function from a file (or from the workspace) to findings; the table of files is git's, so that
//! what a build leaves behind is not looked at.

mod layers;
mod rust_file;
mod tree;

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

/// One place that breaks one rule.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Finding {
    path: String,
    /// 1 for the first; 1 also for what concerns the whole file.
    line: usize,
    text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.text)
    }
}

/// What tidy has found.
#[derive(Debug)]
pub(crate) struct Report {
    /// Sorted by place.
    pub(crate) findings: Vec<Finding>,
    /// Files that were looked at.
    pub(crate) files: usize,
}

/// Checks the repository at `root`.
///
/// # Errors
/// git or cargo does not answer, or a file cannot be read.
pub(crate) fn check(root: &Path) -> anyhow::Result<Report> {
    let files = listed(root, &["--cached", "--others", "--exclude-standard"])?;
    let tracked = listed(root, &["--cached"])?;
    let mut findings = tree::check(&files, &tracked);
    for path in &files {
        // Deleted, but not yet for git; or no text.
        let Ok(text) = std::fs::read_to_string(root.join(path)) else { continue };
        findings.extend(tree::check_text(path, &text));
        if path.ends_with(".rs") {
            findings.extend(rust_file::check(path, &text));
        }
    }
    findings.extend(layers::check(root)?);
    findings.sort();
    Ok(Report { findings, files: files.len() })
}

fn listed(root: &Path, which: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = run(Command::new("git").arg("-C").arg(root).args(["ls-files", "-z"]).args(which))?;
    Ok(output.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("starting {name}"))?;
    anyhow::ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).with_context(|| format!("reading what {name} says"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_follows_its_rules() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let findings = check(root).unwrap().findings;
        let lines: Vec<String> = findings.iter().map(Finding::to_string).collect();
        assert!(lines.is_empty(), "\n{}", lines.join("\n"));
    }
}
