//! Connections of a tree with itself, while it is rebuilt: no packet between their ends.
//!
//! CRIU restores one end after the other, and counts on the rules that its dump has left on this machine. On another one the
//! kernel would answer for an end that is not there yet, and that ends the connection. So the same rules are set here, and
//! taken back when everything stands.

use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::config::RULES_WAIT_S;
use crate::images::Connection;

/// What CRIU itself sends has this mark (`SOCCR_MARK`).
const OWN_MARK: &str = "0xC114";

/// The rules. Dropped, they are gone.
#[derive(Debug)]
pub(crate) struct Quiet(Vec<Connection>);

impl Quiet {
    /// Sets rules for those of `connections` that have both ends among them. Without `iptables` there are none: then CRIU says
    /// what comes of it.
    pub(crate) fn between(connections: &[Connection]) -> Self {
        let both: Vec<_> =
            connections.iter().filter(|end| connections.contains(&end.reversed())).copied().collect();
        both.iter().for_each(|end| switch(end, "-I"));
        Self(both)
    }
}

impl Drop for Quiet {
    /// CRIU may have taken them back by itself.
    fn drop(&mut self) {
        self.0.iter().for_each(|end| switch(end, "-D"));
    }
}

fn switch(end: &Connection, action: &str) {
    let (program, arguments) = rule(end, action);
    // Whatever it says: there is nobody who could do anything about it.
    let _ = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
}

/// Drops what comes in from `end`; the other end has a rule of its own.
fn rule(end: &Connection, action: &str) -> (&'static str, Vec<String>) {
    // What is IPv4 on the wire is for IPv4's rules, also in a socket of IPv6.
    let (from, to) = (end.from.ip().to_canonical(), end.to.ip().to_canonical());
    let program = if matches!(from, IpAddr::V4(_)) { "iptables" } else { "ip6tables" };
    let (wait, ports) = (RULES_WAIT_S.to_string(), [end.from.port().to_string(), end.to.port().to_string()]);
    let [from_port, to_port] = ports;
    let (from, to) = (from.to_string(), to.to_string());
    let words = [
        "-w",
        &wait,
        "-t",
        "filter",
        action,
        "INPUT",
        "--protocol",
        "tcp",
        "-m",
        "mark",
        "!",
        "--mark",
        OWN_MARK,
        "--source",
        &from,
        "--sport",
        &from_port,
        "--destination",
        &to,
        "--dport",
        &to_port,
        "-j",
        "DROP",
    ];
    (program, words.map(str::to_owned).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_for_the_protocol_that_is_on_the_wire() {
        let end = |from: &str, to: &str| Connection {
            from: from.parse().expect("an address"),
            to: to.parse().expect("an address"),
        };
        let (program, words) = rule(&end("127.0.0.1:80", "127.0.0.1:4000"), "-I");
        assert_eq!(program, "iptables");
        assert!(
            words
                .join(" ")
                .ends_with("--source 127.0.0.1 --sport 80 --destination 127.0.0.1 --dport 4000 -j DROP")
        );
        assert_eq!(rule(&end("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:4000"), "-D").0, "iptables");
        assert_eq!(rule(&end("[::1]:80", "[::1]:4000"), "-D").0, "ip6tables");
    }
}
