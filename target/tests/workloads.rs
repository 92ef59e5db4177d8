//! Runs the program as its users do: every workload passes where nobody moves it, and says so in the agreed words.
#![forbid(unsafe_code)]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::FileExt as _;
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

fn target(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_target"));
    command.args(arguments).env("TMPDIR", env!("CARGO_TARGET_TMPDIR"));
    command
}

fn run(arguments: &[&str]) -> Output {
    target(arguments).output().expect("the program can be started")
}

fn lines(output: &Output) -> Vec<String> {
    String::from_utf8(output.stdout.clone()).expect("it prints text").lines().map(str::to_owned).collect()
}

fn start(arguments: &[&str]) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = target(arguments).stdout(Stdio::piped()).spawn().expect("the program can be started");
    let output = BufReader::new(child.stdout.take().expect("its output is piped"));
    (child, output)
}

fn signal(child: &Child, signal: Signal) {
    let id = Pid::from_raw(i32::try_from(child.id()).expect("process ids are small"));
    kill(id, signal).expect("the child lives");
}

fn workloads() -> Vec<String> {
    let listed = run(&["--list"]);
    assert!(listed.status.success());
    lines(&listed).iter().map(|line| line.split_whitespace().next().expect("a name").to_owned()).collect()
}

#[test]
fn every_listed_workload_passes_a_few_rounds() {
    let names = workloads();
    assert!(names.len() >= 10, "{names:?}");
    for name in names {
        let output = run(&[&name, "--count", "5"]);
        let lines = lines(&output);
        assert!(output.status.success(), "{name}: {lines:?}");
        assert_eq!(lines.last(), Some(&format!("{name}: PASS")), "{lines:?}");
    }
}

#[test]
fn every_workload_tells_of_its_progress_and_passes_when_asked_to_end() {
    for (name, end) in workloads().iter().zip([Signal::SIGTERM, Signal::SIGINT].iter().cycle()) {
        let (mut child, mut output) = start(&[name]);
        let mut line = String::new();
        while !line.ends_with(" ok\n") && line != "0\n" && !line.contains(" largest_gap_us ") {
            line.clear();
            assert_ne!(output.read_line(&mut line).expect("text"), 0, "{name} ended too soon");
        }
        signal(&child, *end);
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("text");
        assert!(rest.ends_with(&format!("{name}: PASS\n")), "{name}: {rest}");
        assert!(child.wait().expect("it ends").success(), "{name}");
    }
}

/// The start and length of the largest private writable mapping.
fn largest_mapping(child: &Child) -> (u64, u64) {
    let maps = fs::read_to_string(format!("/proc/{}/maps", child.id())).expect("the child lives");
    let writable = maps.lines().filter(|line| line.contains(" rw-p "));
    let ranges = writable.map(|line| {
        let (start, rest) = line.split_once('-').expect("a range");
        let end = rest.split_whitespace().next().expect("its end");
        let [start, end] = [start, end].map(|text| u64::from_str_radix(text, 16).expect("an address"));
        (start, end - start)
    });
    ranges.max_by_key(|(_, length)| *length).expect("it has memory")
}

#[test]
fn pages_that_arrive_as_zeros_are_noticed() {
    for name in ["counter", "ticks", "writer", "hash_chain", "forker"] {
        let (mut child, mut output) = match name {
            "forker" => start(&[name]),
            _ => start(&[name, "--resident-mib", "32", "--interval-ms", "1"]),
        };
        output.read_line(&mut String::new()).expect("text");
        let (start, length) = largest_mapping(&child);
        let memory =
            File::options().write(true).open(format!("/proc/{}/mem", child.id())).expect("its memory");
        // Who notices at once is gone before all of it is written.
        let _ = memory.write_all_at(&vec![0; 1 << 20], start + length / 2);
        signal(&child, Signal::SIGTERM);
        let mut rest = String::new();
        output.read_to_string(&mut rest).expect("text");
        assert!(rest.contains(&format!("{name}: FAIL ")), "{name}: {rest}");
        assert_eq!(child.wait().expect("it ends").code(), Some(1), "{name}");
    }
}

#[test]
fn counter_is_the_default_and_counts_from_zero() {
    let output = run(&["--count", "4", "--interval-ms", "0", "--resident-mib", "2"]);
    assert_eq!(lines(&output), ["0", "1", "2", "3", "counter: PASS"]);
}

#[test]
fn memory_of_every_content_and_held_mappings_pass() {
    for content in ["random", "half", "heap"] {
        let arguments = ["--content", content, "--resident-mib", "2", "--count", "2", "--interval-ms", "1"];
        let output = run(&[&["ticks", "--sleepers", "3", "--mappings", "500"], &arguments[..]].concat());
        assert_eq!(lines(&output).last().map(String::as_str), Some("ticks: PASS"), "{content}");
    }
}

#[test]
fn the_writer_counts_what_it_has_written() {
    let output = run(&["writer", "--resident-mib", "1", "--count", "3", "--interval-ms", "1"]);
    let lines = lines(&output);
    let [first, second, ..] = lines.as_slice() else { panic!("{lines:?}") };
    let kib = |line: &str| line.split(' ').nth(3).and_then(|kib| kib.parse::<u64>().ok()).expect("a number");
    assert!(first.starts_with("writer 0 written_kib ") && kib(first) < kib(second), "{lines:?}");
}

#[test]
fn threads_passes_with_one_thread_and_with_256() {
    for threads in ["1", "256"] {
        let output = run(&["threads", "--threads", threads, "--count", "2"]);
        assert_eq!(lines(&output).last().map(String::as_str), Some("threads: PASS"));
    }
}

#[test]
fn a_workload_that_does_not_exist_is_a_usage_error() {
    for arguments in
        [&["no-such-thing"][..], &["counter", "--no-such-option"], &["mappings", "--no-such-option"]]
    {
        assert_eq!(run(arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn a_closed_standard_output_ends_the_program_with_an_error() {
    let (mut child, output) = start(&["counter", "--interval-ms", "1"]);
    drop(output);
    let status = child.wait().expect("it ends");
    assert_eq!(status.code(), Some(1));
}

#[test]
fn a_clock_that_is_looked_at_with_rests_between_shows_each_rest() {
    let output = run(&["ticks", "--interval-ms", "1", "--rest-ms", "20", "--count", "4"]);
    let gaps = lines(&output);
    let gaps = gaps.iter().filter_map(|line| line.split_once(" largest_gap_us ")?.1.parse().ok());
    let gaps: Vec<u64> = gaps.collect();
    assert!(gaps.len() == 4 && gaps[1..].iter().all(|gap| *gap >= 20_000), "{gaps:?}");
}
