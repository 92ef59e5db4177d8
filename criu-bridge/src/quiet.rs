//! Connections of a tree with itself, while it is rebuilt: no packet between their ends.
//!
//! CRIU restores one end after the other, and counts on the rules that its dump has left on this machine. On another one the
//! kernel would answer for an end that is not there yet, and that ends the connection. So rules of the same kind are set here, all
//! at once and in a chain of their own, and the chain is taken away when everything stands: by a process that outlives this
//! one, so that no rule stays if this one is killed, and no page waits for `iptables`.

use std::io::{self, Write};
use std::net::IpAddr;
use std::process::{Command, Stdio};

use crate::config::RULES_WAIT_S;
use crate::holder::{Duty, Holder};
use crate::images::Connection;

/// What CRIU itself sends has this mark (`SOCCR_MARK`).
const OWN_MARK: &str = "0xC114";

/// Who sets rules for IPv4, and for IPv6.
const PROGRAMS: [&str; 2] = ["iptables-restore", "ip6tables-restore"];

/// Words for `iptables-restore`, of one of its protocols.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rules {
    program: &'static str,
    text: String,
}

/// The rules. Dropped, they are gone.
#[derive(Debug)]
pub(crate) struct Quiet {
    holder: Holder,
}

impl Quiet {
    /// Has them taken away, by somebody else: nobody waits for that here.
    pub(crate) fn lift(&mut self) {
        self.holder.let_go();
    }

    /// Sets rules for those of `connections` that have both ends among them; `None` if there are none. Without `iptables` there
    /// are no rules: then CRIU says what comes of it.
    ///
    /// # Errors
    /// Nobody can be had who takes them away.
    pub(crate) fn between(connections: &[Connection]) -> io::Result<Option<Self>> {
        let wanted = by_program(connections.iter().filter(|end| connections.contains(&end.reversed())));
        if wanted.is_empty() {
            return Ok(None);
        }
        let random: String =
            sys::random::sixteen_bytes()?.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        let chain = format!("POSTHASTE-{random}");
        let lifted: Vec<Rules> =
            wanted.iter().map(|(program, _)| Rules { program, text: lifting(&chain) }).collect();
        // It is there first: at no moment are there rules that nobody takes away.
        let holder = Holder::start(Duty::Rules(&lifted))?;
        for (program, ends) in wanted {
            // Whatever it says: there is nobody who could do anything about it. It is on the holder's line too, so that if this
            // process is killed the rules are set before they are taken away.
            let _ = Rules { program, text: setting(&chain, &ends) }.apply(&[], holder.line());
        }
        Ok(Some(Self { holder }))
    }
}

impl Rules {
    /// Has all of them take effect, or none, behind the words of a command that runs another one; whether they have. What
    /// sets them has `output` open meanwhile, and says nothing there.
    pub(crate) fn apply(&self, wrapper: &[String], output: Stdio) -> bool {
        let words: Vec<&str> = wrapper.iter().map(String::as_str).chain([self.program]).collect();
        let Some((program, rest)) = words.split_first() else { return false };
        let mut command = Command::new(program);
        command.args(rest).args(["--noflush", "--wait", &RULES_WAIT_S.to_string()]);
        command.stdin(Stdio::piped()).stdout(output).stderr(Stdio::null());
        let applied = command.spawn().and_then(|mut child| {
            let written = child.stdin.take().map(|mut stdin| stdin.write_all(self.text.as_bytes()));
            let status = child.wait()?;
            written.transpose().map(|_| status.success())
        });
        applied.unwrap_or(false)
    }
}

/// Takes away the rules by which a CRIU that was killed kept packets from these connections; `wrapper` runs a command where
/// that CRIU was.
pub(crate) fn unlock(ends: &[Connection], wrapper: &[String]) {
    for (program, ends) in by_program(ends.iter()) {
        let rules: Vec<String> = ends.iter().flat_map(unlocking).collect();
        let all = |rules: &[String]| Rules { program, text: filter(&rules.concat()) };
        if all(&rules).apply(wrapper, Stdio::null()) {
            continue;
        }
        // One of them was not there: it may have been killed between the two of a connection.
        for rule in &rules {
            all(std::slice::from_ref(rule)).apply(wrapper, Stdio::null());
        }
    }
}

/// Takes away the rules by which a CRIU that was killed kept all packets from the network namespace that `wrapper` runs a
/// command in, which it was dumping.
pub(crate) fn unlock_namespace(wrapper: &[String]) {
    for program in PROGRAMS {
        // Without such rules it has no effect.
        let text = filter("-D INPUT -j CRIU\n-D OUTPUT -j CRIU\n-F CRIU\n-X CRIU\n");
        let _ = Rules { program, text }.apply(wrapper, Stdio::null());
    }
}

/// CRIU's own two rules.
fn unlocking(end: &Connection) -> [String; 2] {
    [rule("-D OUTPUT", end), rule("-D INPUT", &end.reversed())]
}

/// These ends by the program that sets rules for them.
fn by_program<'ends>(ends: impl Iterator<Item = &'ends Connection>) -> Vec<(&'static str, Vec<Connection>)> {
    let (four, six): (Vec<_>, Vec<_>) = ends.copied().partition(is_four);
    PROGRAMS.into_iter().zip([four, six]).filter(|(_, ends)| !ends.is_empty()).collect()
}

/// What is IPv4 on the wire is for IPv4's rules, also in a socket of IPv6.
fn is_four(end: &Connection) -> bool {
    matches!(end.from.ip().to_canonical(), IpAddr::V4(_))
}

fn setting(chain: &str, ends: &[Connection]) -> String {
    let rules: String = ends.iter().map(|end| rule(&format!("-A {chain}"), end)).collect();
    filter(&format!(":{chain} - [0:0]\n{rules}-I INPUT -j {chain}\n"))
}

fn lifting(chain: &str) -> String {
    filter(&format!("-D INPUT -j {chain}\n-F {chain}\n-X {chain}\n"))
}

/// All of these lines at once.
fn filter(lines: &str) -> String {
    format!("*filter\n{lines}COMMIT\n")
}

/// Drops what `end` sends, as CRIU has it; the other end has a rule of its own.
fn rule(action: &str, end: &Connection) -> String {
    let (from, to) = (end.from.ip().to_canonical(), end.to.ip().to_canonical());
    let (from_port, to_port) = (end.from.port(), end.to.port());
    format!(
        "{action} -p tcp -m mark ! --mark {OWN_MARK} -s {from} -d {to} -m tcp --sport {from_port} --dport {to_port} -j DROP\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(from: &str, to: &str) -> Connection {
        Connection { from: from.parse().expect("an address"), to: to.parse().expect("an address") }
    }

    #[test]
    fn a_rule_is_for_the_protocol_that_is_on_the_wire() {
        assert!(is_four(&end("127.0.0.1:80", "127.0.0.1:4000")));
        assert!(is_four(&end("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:4000")));
        assert!(!is_four(&end("[::1]:80", "[::1]:4000")));
    }

    #[test]
    fn all_rules_are_set_at_once_and_taken_away_with_their_chain() {
        let ends = [end("127.0.0.1:80", "127.0.0.1:4000"), end("127.0.0.1:4000", "127.0.0.1:80")];
        let text = setting("CHAIN", &ends);
        let [table, chain, first, _, last, commit] = text.lines().collect::<Vec<_>>()[..] else {
            panic!("{text}")
        };
        assert_eq!(
            [table, chain, last, commit],
            ["*filter", ":CHAIN - [0:0]", "-I INPUT -j CHAIN", "COMMIT"]
        );
        assert!(
            first.ends_with("-s 127.0.0.1 -d 127.0.0.1 -m tcp --sport 80 --dport 4000 -j DROP"),
            "{first}"
        );
        assert!(!lifting("CHAIN").contains("127.0.0.1"));
    }

    #[test]
    fn what_criu_has_locked_is_unlocked_in_both_directions() {
        let [out, back] = unlocking(&end("10.0.0.1:80", "10.0.0.2:4000"));
        assert!(out.starts_with("-D OUTPUT -p tcp") && out.contains("-s 10.0.0.1 -d 10.0.0.2"), "{out}");
        assert!(back.starts_with("-D INPUT -p tcp") && back.contains("-s 10.0.0.2 -d 10.0.0.1"), "{back}");
    }
}
