//! A receiver of a test's own, on a free port, whose events come as they are written. Not a test itself.
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use protocol::{Channel, Header, Hello, Kind, MigrationId};
use serde_json::Value;

/// Longer than anything takes here, even on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A running receiver; ended with its owner.
pub(crate) struct Daemon {
    pub(crate) child: Child,
    pub(crate) port: u16,
    pub(crate) listening: Value,
    events: Receiver<Value>,
}

impl Daemon {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        let mut command = receiver();
        command.args(["0", "--events", "-"]).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the receiver starts");
        let events = follow(child.stdout.take().expect("stdout is piped"));
        let mut daemon = Self { child, port: 0, listening: Value::Null, events };
        daemon.listening = daemon.event("listening");
        daemon.port = u16::try_from(daemon.listening["port"].as_u64().expect("a number")).expect("a port");
        daemon
    }

    /// One that writes its events to a file; returns when it listens.
    pub(crate) fn start_with_events(path: &Path) -> Self {
        let mut command = receiver();
        command.arg("0").arg("--events").arg(path).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the receiver starts");
        let (sender, events) = channel();
        let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(Value::String(line)))
        });
        events.recv_timeout(PATIENCE).expect("it says that it listens");
        Self { child, port: 0, listening: Value::Null, events }
    }

    /// The next event of this name; others are skipped.
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            let event = self.events.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no event {name}"));
            if event["event"] == name {
                return event;
            }
        }
    }

    pub(crate) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).expect("the receiver accepts");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout is set");
        stream
    }

    /// Opens and greets one channel; the kind of the answer.
    pub(crate) fn greet(&self, migration: MigrationId, channel: Channel) -> (TcpStream, Kind) {
        let mut stream = self.connect();
        stream.write_all(&hello(&Hello::new(migration, channel))).expect("the greeting goes out");
        let kind = answer(&mut stream).0;
        (stream, kind)
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().expect("kill runs").success());
    }

    /// How the receiver ends; its events end first.
    pub(crate) fn wait(mut self) -> ExitStatus {
        loop {
            match self.events.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().expect("it is our child"),
                Err(RecvTimeoutError::Timeout) => panic!("the receiver does not end"),
            }
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(crate) fn receiver() -> Command {
    Command::new(env!("CARGO_BIN_EXE_receiver"))
}

pub(crate) fn hello(hello: &Hello) -> Vec<u8> {
    let body = protocol::encode(hello).expect("a greeting is short");
    let len = u32::try_from(body.len()).expect("a greeting is short");
    let mut bytes = Header::plain(Kind::Hello, len).to_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// Kind and body of the next frame.
pub(crate) fn answer(stream: &mut TcpStream) -> (Kind, Vec<u8>) {
    let mut header = [0; protocol::FRAME_HEADER_LEN];
    stream.read_exact(&mut header).expect("an answer comes");
    let header = Header::from_bytes(header).expect("the answer is a frame");
    let mut body = vec![0; header.body_len as usize];
    stream.read_exact(&mut body).expect("the frame is whole");
    (header.kind, body)
}

fn follow(stdout: ChildStdout) -> Receiver<Value> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            let event = serde_json::from_str(&line).expect("every line is one JSON object");
            if sender.send(event).is_err() {
                return;
            }
        }
    });
    receiver
}
