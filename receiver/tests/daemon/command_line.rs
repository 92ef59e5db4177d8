//! What a user may type, and what is answered.

use std::io::Read;
use std::net::TcpListener;
use std::process::{Output, Stdio};

use crate::common::{Daemon, receiver};

fn run(arguments: &[&str]) -> Output {
    receiver().args(arguments).stdin(Stdio::null()).output().expect("the receiver runs")
}

fn one_line(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let text = String::from_utf8(output.stderr.clone()).expect("messages are text");
    assert_eq!(text.lines().count(), 1, "{text}");
    text
}

#[test]
fn help_and_version_go_to_standard_output() {
    let help = run(&["--help"]);
    assert!(help.status.success() && help.stderr.is_empty());
    let text = String::from_utf8(help.stdout).expect("help is text");
    for word in ["--once", "--events", "[PORT]", "43000", "SIGUSR2"] {
        assert!(text.contains(word), "{word} is missing:\n{text}");
    }
    assert!(!text.contains("--session"), "an option for the receiver's own use");
    let version = run(&["--version"]);
    assert_eq!(String::from_utf8(version.stdout).expect("text"), "receiver 0.1.0 (protocol 5)\n");
}

#[test]
fn a_reader_that_closes_early_does_not_make_help_panic() {
    let mut child =
        receiver().arg("--help").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    drop(child.stdout.take());
    let mut errors = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut errors).expect("text");
    assert!(child.wait().expect("our child").code().is_some());
    assert_eq!(errors, "");
}

#[test]
fn a_command_line_that_makes_no_sense_gets_one_line_that_says_what_to_do() {
    for (arguments, expected) in [
        (&["70000"][..], "[PORT] must be a number from 0 to 65535, not '70000'"),
        (&["port"], "[PORT] must be a number from 0 to 65535, not 'port'"),
        (&["-5"], "unknown option '-5'"),
        (&["--twice"], "unknown option '--twice'"),
        (&["1", "2"], "one port is enough, '2' is too much"),
        (&["--events"], "--events <FILE> needs a value"),
        (&["--once", "--once"], "--once can be given once only"),
        (&["check"], "check takes the number of a process"),
        (&["check", "me"], "<PID> must be the number of a process, not 'me'"),
    ] {
        let line = one_line(&run(arguments));
        assert!(line.contains(expected) && line.contains("--help"), "{arguments:?}: {line}");
    }
    assert!(one_line(&run(&["--session", "x"])).contains("for the receiver's own use"));
}

#[test]
fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = taken.local_addr().expect("it has one").port().to_string();
    let line = one_line(&run(&[&port]));
    assert!(line.contains(&format!("port {port} is in use")), "{line}");
}

#[test]
fn an_events_file_that_cannot_be_written_is_named() {
    let line = one_line(&run(&["0", "--events", "/nonexistent/events"]));
    assert!(line.contains("/nonexistent/events") && line.contains("No such file"), "{line}");
}

#[test]
fn it_listens_on_loopback_and_says_where_and_who_and_when() {
    let daemon = Daemon::start(&[]);
    assert_ne!(daemon.port, 0);
    let listening = daemon.listening.clone();
    assert_eq!(listening["address"], "127.0.0.1");
    assert_eq!(listening["pid"], daemon.child.id());
    let time = listening["time"].as_str().expect("a time");
    assert!(time.len() == 27 && time.ends_with('Z') && time.as_bytes()[10] == b'T', "{time}");
}

#[test]
fn the_events_file_is_appended_to() {
    let path = std::env::temp_dir().join(format!("receiver-events-{}", std::process::id()));
    std::fs::write(&path, "{\"event\":\"earlier\"}\n").expect("a temporary file");
    let daemon = Daemon::start_with_events(&path);
    daemon.signal("TERM");
    assert!(daemon.wait().success());
    let text = std::fs::read_to_string(&path).expect("it is there");
    std::fs::remove_file(&path).expect("it is ours");
    assert_eq!(text.lines().count(), 2);
    assert!(text.starts_with("{\"event\":\"earlier\"}\n"), "{text}");
    assert!(text.contains("\"event\":\"listening\""), "{text}");
}
