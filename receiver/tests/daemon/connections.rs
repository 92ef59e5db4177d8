//! Connections of sources, strangers and enemies.

use std::io::{Read, Write};
use std::net::Shutdown;

use protocol::{Channel, Header, Hello, Kind, MigrationId, Reason};

use crate::common::{Daemon, answer, hello};

/// A source is still welcomed, on all its channels, and gets a session.
fn takes_a_source(daemon: &Daemon, migration: MigrationId) {
    let channels = Channel::ALL.map(|channel| daemon.greet(migration, channel));
    assert!(channels.iter().all(|(_, kind)| *kind == Kind::Welcome));
    let connected = daemon.event("connected");
    assert_eq!(connected["migration"], migration.to_string());
}

#[test]
fn three_channels_make_a_migration_whatever_their_order_and_company() {
    let daemon = Daemon::start(&[]);
    let (one, other) = (MigrationId([1; 16]), MigrationId([2; 16]));
    let mut streams = Vec::new();
    for (migration, channel) in [
        (one, Channel::Push),
        (other, Channel::Control),
        (one, Channel::Control),
        (other, Channel::Push),
        (other, Channel::Fault),
        (one, Channel::Fault),
    ] {
        let (stream, kind) = daemon.greet(migration, channel);
        assert_eq!(kind, Kind::Welcome);
        streams.push(stream);
    }
    assert_eq!(daemon.event("connected")["migration"], other.to_string());
    assert_eq!(daemon.event("connected")["migration"], one.to_string());
}

#[test]
fn a_second_channel_of_the_same_kind_is_turned_away() {
    let daemon = Daemon::start(&[]);
    let migration = MigrationId([3; 16]);
    let (_first, kind) = daemon.greet(migration, Channel::Fault);
    assert_eq!(kind, Kind::Welcome);
    let (_second, kind) = daemon.greet(migration, Channel::Fault);
    assert_eq!(kind, Kind::Refused);
    assert_eq!(daemon.event("refused")["migration"], migration.to_string());
}

#[test]
fn a_source_of_another_version_is_told_which_versions_there_are() {
    let daemon = Daemon::start(&[]);
    let mut stream = daemon.connect();
    let mut greeting = Hello::new(MigrationId([4; 16]), Channel::Control);
    (greeting.oldest, greeting.newest) = (7, 9);
    stream.write_all(&hello(&greeting)).expect("it goes out");
    let (kind, body) = answer(&mut stream);
    assert_eq!(kind, Kind::Refused);
    let reason: Reason = protocol::decode(&body).expect("a reason");
    assert!(reason.text.contains("version 5") && reason.text.contains("7 to 9"), "{}", reason.text);
    assert!(daemon.event("refused")["reason"].as_str().expect("text").contains("7 to 9"));
}

#[test]
fn strangers_are_hung_up_on() {
    let daemon = Daemon::start(&[]);
    let mut long = Header::plain(Kind::Hello, 0).to_bytes();
    long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut noise = 0x9e37_79b9_7f4a_7c15_u64;
    let random: Vec<u8> = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        noise.to_le_bytes()[7]
    })
    .take(100_000)
    .collect();
    for bytes in [&random[..], &long, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", &[0; 64], &[0xff; 64]] {
        let mut stream = daemon.connect();
        // The receiver may hang up before all of it is out.
        let _ = stream.write_all(bytes);
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "nothing is said to a stranger");
    }
    takes_a_source(&daemon, MigrationId([5; 16]));
}

#[test]
fn a_truncated_hello_keeps_nobody_waiting() {
    let daemon = Daemon::start(&[]);
    let bytes = hello(&Hello::new(MigrationId([6; 16]), Channel::Control));
    for len in 0..bytes.len() {
        let mut stream = daemon.connect();
        stream.write_all(&bytes[..len]).expect("it goes out");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("the receiver hangs up");
        assert!(rest.is_empty());
    }
    takes_a_source(&daemon, MigrationId([6; 16]));
}

#[test]
fn a_thousand_silent_connections_do_not_keep_a_source_out() {
    let daemon = Daemon::start(&[]);
    let (channel, kind) = daemon.greet(MigrationId([8; 16]), Channel::Control);
    assert_eq!(kind, Kind::Welcome);
    drop(channel);
    let silent: Vec<_> = std::iter::repeat_with(|| daemon.connect()).take(1000).collect();
    takes_a_source(&daemon, MigrationId([7; 16]));
    drop(silent);
    takes_a_source(&daemon, MigrationId([9; 16]));
}

#[test]
fn a_silent_connection_is_closed_in_the_end() {
    let daemon = Daemon::start(&[]);
    let mut silent = daemon.connect();
    silent.write_all(&hello(&Hello::new(MigrationId([6; 16]), Channel::Push))[..20]).expect("it goes out");
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).expect("the receiver hangs up");
    assert!(daemon.event("refused")["reason"].as_str().expect("text").contains("in time"));
}

#[test]
fn channels_that_break_off_end_their_session_and_nothing_else() {
    let daemon = Daemon::start(&[]);
    let migration = MigrationId([10; 16]);
    takes_a_source(&daemon, migration);
    let failed = daemon.event("failed");
    assert_eq!(failed["migration"], migration.to_string());
    assert_eq!(failed["process"], "source");
    takes_a_source(&daemon, MigrationId([11; 16]));
}
