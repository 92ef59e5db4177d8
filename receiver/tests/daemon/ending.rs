//! How the daemon ends.

use std::time::Instant;

use protocol::{Channel, MigrationId};

use crate::common::{Daemon, PATIENCE};

#[test]
fn sigterm_and_sigint_end_an_idle_daemon_with_success() {
    for name in ["TERM", "INT"] {
        let daemon = Daemon::start(&[]);
        daemon.signal(name);
        assert!(daemon.wait().success(), "{name}");
    }
}

#[test]
fn a_migration_under_way_is_said_to_be_lost_when_the_daemon_is_ended() {
    let daemon = Daemon::start(&[]);
    let migration = MigrationId([1; 16]);
    let _channels = Channel::ALL.map(|channel| daemon.greet(migration, channel));
    daemon.event("connected");
    daemon.signal("TERM");
    let failed = daemon.event("failed");
    assert_eq!(failed["process"], "source");
    assert_eq!(daemon.wait().code(), Some(1));
}

#[test]
fn a_failed_migration_does_not_use_up_once() {
    let daemon = Daemon::start(&["--once"]);
    for number in 1..=2 {
        drop(Channel::ALL.map(|channel| daemon.greet(MigrationId([number; 16]), channel)));
        daemon.event("failed");
    }
}

#[test]
fn a_session_does_not_inherit_the_daemons_deafness_to_signals() {
    let daemon = Daemon::start(&[]);
    let _channels = Channel::ALL.map(|channel| daemon.greet(MigrationId([1; 16]), channel));
    daemon.event("connected");
    let deadline = Instant::now() + PATIENCE;
    while blocked_by_session(&daemon).as_deref() != Some("0000000000000000") {
        assert!(Instant::now() < deadline, "the session blocks {:?}", blocked_by_session(&daemon));
        std::thread::yield_now();
    }
}

/// The signal mask of the daemon's only child, once it is there.
fn blocked_by_session(daemon: &Daemon) -> Option<String> {
    let id = daemon.child.id();
    let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
    let status = std::fs::read_to_string(format!("/proc/{}/status", children.trim())).ok()?;
    status.lines().find_map(|line| line.strip_prefix("SigBlk:")).map(|mask| mask.trim().to_owned())
}
