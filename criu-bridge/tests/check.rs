//! `criu-bridge check` beside a criu that answers as told.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A directory of the test's own with a shell script named `criu` in it.
struct FakeCriu(PathBuf);

impl FakeCriu {
    fn new(test: &str, script: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("criu-bridge-{test}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("a temporary directory");
        let path = dir.join("criu");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("it is ours");
        Self(dir)
    }

    fn path(&self) -> PathBuf {
        self.0.join("criu")
    }
}

impl Drop for FakeCriu {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn check(path: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_criu-bridge"));
    command
        .arg("check")
        .args(arguments)
        .env("PATH", path)
        .env("CRIU_PREFIX", "/nonexistent")
        .output()
        .expect("it runs")
}

fn text(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[test]
fn a_criu_that_can_everything_is_usable() {
    let criu = FakeCriu::new("good", "echo 'Version: 4.1.1'");
    let output = check(&criu.0, &[]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(text(&output).contains("criu 4.1.1"));
    assert!(text(&output).contains("CRIU is usable here"));
}

#[test]
fn what_is_missing_is_named_with_its_cure() {
    let script = r#"case "$*" in
        --version) echo "Version: 3.17.1";;
        *mem_dirty_track) echo "Error (criu/cr-check.c:1): Dirty tracking is OFF" >&2; exit 1;;
        "check") echo "Error (criu/vdso.c:2): Unexpected rt vDSO area bounds" >&2; exit 1;;
    esac"#;
    let criu = FakeCriu::new("lacking", script);
    let output = check(&criu.0, &[]);
    assert_eq!(output.status.code(), Some(1));
    for part in [
        "Unexpected rt vDSO",
        "make criu installs a newer one",
        "Dirty tracking is OFF",
        "CONFIG_MEM_SOFT_DIRTY",
        "not usable",
    ] {
        assert!(text(&output).contains(part), "{part} is missing:\n{}", text(&output));
    }
}

#[test]
fn json_says_the_same() {
    let criu = FakeCriu::new("json", "echo 'Version: 4.2.1'");
    let path = criu.path();
    let output = check(Path::new("/nonexistent"), &["--json", "--criu", path.to_str().expect("text")]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(json["version"], "4.2.1");
    assert_eq!(json["usable"], true);
    assert_eq!(json["schema"], 1);
    assert_eq!(json["findings"][0]["grade"], "ok");
}

#[test]
fn without_criu_it_says_where_to_get_one() {
    let output = check(Path::new("/nonexistent"), &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("make criu"));
    let output = check(Path::new("/nonexistent"), &["--criu", "/nonexistent/criu"]);
    assert!(text(&output).contains("/nonexistent/criu is not a program"));
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2() {
    let output = check(Path::new("/nonexistent"), &["--quickly"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
}
