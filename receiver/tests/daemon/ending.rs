//! How the daemon ends.

use protocol::{Channel, MigrationId};

use crate::common::Daemon;

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
