//! One line out of what CRIU says when something went wrong, with the cure where one is known.

use std::path::Path;

use nix::sys::statvfs::statvfs;

/// Errors that are none, or only repeat that there was one.
const NOISE: [&str; 4] = ["Can't setup RLIMIT_NOFILE", "FAILED", "BUG at", "Unable to detach from"];

/// Parts of errors, and what to do about them.
const CURES: [(&str, &str); 8] = [
    ("page-pipe: splice", "raise the limit of pipes: sysctl -w fs.pipe-max-size=16777216"),
    ("File exists", "a process of this machine has this id: restore in a PID namespace of its own"),
    (
        "Can't get 1:16 opt",
        "this criu is too old for network sockets on this kernel: make criu installs a newer one",
    ),
    ("Can't get rlimit", "a process of another user's moves only if root has CAP_SYS_RESOURCE"),
    ("tcp established", "open TCP connections move with --tcp-established only"),
    ("TCP established", "open TCP connections move with --tcp-established only"),
    ("shell-job", "a program started from a shell moves with --shell-job only"),
    ("external socket is used", "a Unix socket to somebody who does not move is cut with --ext-unix-sk only"),
];

/// What CRIU may be unable to say.
const FULL: &str = "no room is left where its images lie";

/// The first error that means something in CRIU's log, or else `said`, which is what it answered; fit for a terminal,
/// although names that a program has chosen may be in it.
#[must_use]
pub fn of_log(log: &Path, said: Option<&str>) -> Option<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    // The log lies beside the images: it may be cut off then, in the middle of a word.
    let is_full = is_full(log).then_some(FULL);
    let Some(error) = first_error(&text).or_else(|| said.and_then(first_error)) else {
        return is_full.map(str::to_owned);
    };
    let cure = CURES.iter().find(|(part, _)| error.contains(part)).map(|(_, cure)| *cure).or(is_full);
    let printable = |letter: char| if letter.is_control() { '?' } else { letter };
    let error: String = error.chars().map(printable).collect();
    Some(cure.map_or_else(|| error.clone(), |cure| format!("{error} ({cure})")))
}

/// Whether nothing more can be written beside this file.
fn is_full(file: &Path) -> bool {
    statvfs(file).is_ok_and(|system| system.blocks_available() == 0)
}

/// The first line with an error that is no noise, without time and place.
fn first_error(text: &str) -> Option<&str> {
    let errors = text.lines().filter_map(|line| {
        let (_, error) = line.split_once("Error (").or_else(|| line.split_once("Error  ("))?;
        error.split_once("): ").map(|(_, error)| error.trim())
    });
    let mut errors = errors.filter(|error| !NOISE.iter().any(|noise| error.contains(noise)));
    errors.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_that_means_something_is_told_without_time_and_place() {
        let log = "(00.01) Error (criu/util.c:1533): rlimit: Can't setup RLIMIT_NOFILE for self: no\n\
                   (00.02) mnt: nothing\n\
                   (00.03) Error (criu/files.c:9): Can't open file /gone: No such file\n\
                   (00.04) Error (criu/cr-restore.c:2320): Restoring FAILED.\n";
        assert_eq!(first_error(log), Some("Can't open file /gone: No such file"));
        assert_eq!(first_error("(00.01) all is well\n"), None);
        let told = of_log(Path::new("/nonexistent"), Some("Error (criu/files.c:9): Can't open /\u{1b}[2J"));
        assert_eq!(told.as_deref(), Some("Can't open /?[2J"));
    }

    #[test]
    fn a_known_error_comes_with_its_cure() {
        let said = "Error (criu/page-pipe.c:1): page-pipe: splice: -1: Bad file descriptor";
        let told = of_log(Path::new("/nonexistent"), Some(said)).expect("an error");
        assert!(told.contains("fs.pipe-max-size"), "{told}");
    }
}
