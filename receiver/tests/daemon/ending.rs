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
fn a_failed_migration_does_not_use_up_once() {
    let daemon = Daemon::start(&["--once"]);
    for number in 1..=2 {
        drop(Channel::ALL.map(|channel| daemon.greet(MigrationId([number; 16]), channel)));
        daemon.event("failed");
    }
}
