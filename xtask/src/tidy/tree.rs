//! Names of files, and what no file may say.

use super::Finding;

/// Names that say nothing about what is inside.
const EMPTY_NAMES: [&str; 5] = ["utils", "helpers", "common", "misc", "types"];

/// Places of somebody's machine; in pieces, so that this file does not name them itself.
const MACHINE_PATHS: [&str; 5] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("/Us", "ers/"),
    concat!("/tmp", "/b-"),
];

const ARCHITECTURE_LINES: usize = 300;

/// Checks the list of files.
pub(super) fn check(files: &[String], tracked: &[String]) -> Vec<Finding> {
    let mut findings: Vec<Finding> = files.iter().filter_map(|path| check_name(path)).collect();
    if !tracked.iter().any(|path| path.starts_with("target/src/")) {
        findings.push(Finding {
            path: "target/src".to_owned(),
            line: 1,
            text: "is not tracked: an ignore rule for cargo's output has swallowed the crate".to_owned(),
        });
    }
    findings
}

fn check_name(path: &str) -> Option<Finding> {
    let name = path.rsplit('/').next().unwrap_or(path);
    let stem = name.split('.').next().unwrap_or(name);
    let in_tests = path.split('/').any(|part| part == "tests");
    let text = match stem {
        // Beside tests/, cargo would take common.rs for a test of its own.
        "mod" if path.ends_with("/tests/common/mod.rs") => return None,
        "mod" if name == "mod.rs" => "use foo.rs beside foo/ instead of mod.rs",
        "common" if in_tests => return None,
        stem if EMPTY_NAMES.contains(&stem) => "the name does not say what is inside",
        _ => return None,
    };
    Some(Finding { path: path.to_owned(), line: 1, text: text.to_owned() })
}

/// Checks a text file of any kind.
pub(super) fn check_text(path: &str, text: &str) -> Vec<Finding> {
    let finding = |line, text| Finding { path: path.to_owned(), line, text };
    let mut findings: Vec<Finding> = text
        .lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let found = MACHINE_PATHS.iter().find(|machine| names_path(line, machine))?;
            Some(finding(index + 1, format!("{found}… is a place of one machine only")))
        })
        .collect();
    let lines = text.lines().count();
    if path == "ARCHITECTURE.md" && lines > ARCHITECTURE_LINES {
        findings.push(finding(1, format!("has {lines} lines, {ARCHITECTURE_LINES} are the limit")));
    }
    findings
}

/// Whether `line` names something below `machine`, and not a relative path that only ends like it.
fn names_path(line: &str, machine: &str) -> bool {
    line.match_indices(machine).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        !before.is_some_and(|before| before.is_alphanumeric() || "_-.}*)".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(findings: &[Finding]) -> Vec<&str> {
        findings.iter().map(|finding| finding.path.as_str()).collect()
    }

    #[test]
    fn names_that_say_nothing_are_found_but_for_those_of_tests() {
        let files = [
            "a/src/utils.rs",
            "a/src/mod.rs",
            "a/tests/common/mod.rs",
            "a/src/common.rs",
            "target/src/main.rs",
        ];
        let files = files.map(str::to_owned);
        assert_eq!(names(&check(&files, &files)), ["a/src/utils.rs", "a/src/mod.rs", "a/src/common.rs"]);
    }

    #[test]
    fn a_demo_that_is_not_tracked_is_found() {
        assert_eq!(names(&check(&[], &[])), ["target/src"]);
    }

    #[test]
    fn places_of_one_machine_are_found_and_relative_paths_are_not() {
        let text = format!(
            "cd {}x\nls some{}x\nls ${{dir}}{}x\n",
            MACHINE_PATHS[0], MACHINE_PATHS[0], MACHINE_PATHS[2]
        );
        let findings = check_text("README.md", &text);
        assert_eq!(findings.len(), 1);
        assert_eq!(findings[0].line, 1);
    }

    #[test]
    fn a_long_architecture_is_found() {
        assert_eq!(check_text("ARCHITECTURE.md", &"line\n".repeat(301)).len(), 1);
        assert!(check_text("ARCHITECTURE.md", &"line\n".repeat(300)).is_empty());
    }
}
