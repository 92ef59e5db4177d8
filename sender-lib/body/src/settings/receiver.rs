//! A receiver's address, as users write it.
//!
//! Written by hand: the standard library's parser and printer of addresses know every form of IPv6 and would be a
//! twentieth of the parasite.

use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use protocol::text;
use sys::number;

/// Where a receiver listens.
pub(crate) struct Receiver {
    /// Where to connect to.
    pub(crate) address: SocketAddr,
    /// The same for people.
    pub(crate) name: String,
}

/// Where a receiver listens that nobody named.
pub(super) fn default() -> Receiver {
    Receiver {
        address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 43000),
        name: String::from("127.0.0.1:43000"),
    }
}

/// `HOST:PORT`, where the host is an address or `localhost`.
///
/// # Errors
/// What is wrong with it, in words for the user.
pub(super) fn from_variable(text: &[u8]) -> Result<Receiver, String> {
    let colon = text.iter().rposition(|byte| *byte == b':');
    let parsed = colon.and_then(|at| parse(text.get(..at)?, text.get(at + 1..)?));
    parsed.ok_or_else(|| {
        text![
            "POSTHASTE_RECEIVER must be HOST:PORT, such as 127.0.0.1:43000 or [::1]:43000, HOST being an address or localhost",
        ]
    })
}

/// `IP PORT` on one line.
///
/// # Errors
/// What is wrong with it, in words for the user.
pub(super) fn from_line(text: &[u8]) -> Result<Receiver, String> {
    let mut words = number::words(text.trim_ascii_end());
    let parsed = match (words.next(), words.next(), words.next()) {
        (Some(host), Some(port), None) => parse(host, port),
        _ => None,
    };
    parsed.ok_or_else(malformed)
}

/// What a line of `receiver_info.txt` looks like.
pub(super) fn malformed() -> String {
    text!["receiver_info.txt must hold one line, the receiver's address and port: 127.0.0.1 43000"]
}

/// `None` if this is no address.
fn parse(host: &[u8], port: &[u8]) -> Option<Receiver> {
    let address = ip(host)?;
    let port = number::decimal(port).and_then(|port| u16::try_from(port).ok()).filter(|port| *port != 0)?;
    let name = text![core::str::from_utf8(host).ok()?, ":", port];
    Some(Receiver { address: SocketAddr::new(address, port), name })
}

/// An IPv4 address in four decimal numbers, the IPv6 loopback address, or `localhost`.
fn ip(host: &[u8]) -> Option<IpAddr> {
    match host {
        b"localhost" => return Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
        b"::1" | b"[::1]" => return Some(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        _ => {}
    }
    let mut octets = [0; 4];
    let mut numbers = host.split(|byte| *byte == b'.');
    for octet in &mut octets {
        *octet = u8::try_from(number::decimal(numbers.next()?)?).ok()?;
    }
    numbers.next().is_none().then(|| IpAddr::V4(Ipv4Addr::from(octets)))
}
