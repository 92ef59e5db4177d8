//! What the user asked for: in the environment, or in `receiver_info.txt`.
//!
//! The constructor remembers the variables, because a program may overwrite its environment's memory later
//! (`setproctitle`). At each trigger they are read afresh, and what was remembered is the fall-back. Under
//! `AT_SECURE` (set-id programs) the environment is somebody else's and counts for nothing.

mod environment;
mod remembered;
mod signal_name;

use alloc::format;
use alloc::string::String;
use core::ffi::CStr;
use core::net::{IpAddr, Ipv4Addr, SocketAddr};

use sys::{Errno, file};

use crate::config::RECEIVER_INFO_BYTES;
use remembered::Text;

/// Where a receiver listens that nobody named.
const DEFAULT_RECEIVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 43000);

const RECEIVER_INFO: &CStr = c"receiver_info.txt";

/// These travel with a program that moves, so they are not in the state page, which does not.
static RECEIVER: Text<256> = Text::new();
static SIGNAL: Text<32> = Text::new();
static LOG: Text<1024> = Text::new();

/// The signal that starts a migration.
pub(crate) struct TriggerSignal {
    /// Its number.
    pub(crate) number: u32,
}

/// Reads the environment; what is not set there stays as it was remembered.
pub(crate) fn remember() {
    environment::each_variable(|name, value| {
        let kept = match name {
            b"POSTHASTE_RECEIVER" => RECEIVER.set(value),
            b"POSTHASTE_SIGNAL" => SIGNAL.set(value),
            b"POSTHASTE_LOG" => LOG.set(value),
            _ => Ok(()),
        };
        if kept.is_err() {
            crate::log::log!("an environment variable of ours is too long and is ignored");
        }
    });
}

/// The trigger that was asked for: SIGUSR2 if none was.
pub(crate) fn trigger_signal() -> Result<TriggerSignal, signal_name::NotASignal> {
    const SIGUSR2: u32 = 12;
    let number = SIGNAL.with(|text| match text.to_bytes() {
        b"" => Ok(SIGUSR2),
        name => signal_name::number(name),
    })?;
    Ok(TriggerSignal { number })
}

/// Hands the log file's path to `action` if one was asked for; whether `action` succeeded.
pub(crate) fn log_path(action: impl FnOnce(&CStr) -> bool) -> bool {
    LOG.with(|path| !path.is_empty() && action(path))
}

/// Where to move to: `POSTHASTE_RECEIVER`, else `receiver_info.txt` in the working directory, else the default.
pub(crate) fn receiver() -> Result<SocketAddr, String> {
    remember();
    let named = RECEIVER.with(|text| String::from_utf8_lossy(text.to_bytes()).into_owned());
    let address =
        if named.is_empty() { from_file()?.unwrap_or(DEFAULT_RECEIVER) } else { from_variable(&named)? };
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!(
            "the receiver is at {address}, but without encryption a program moves within one machine only: name 127.0.0.1 or ::1"
        ))
    }
}

/// `HOST:PORT`, where the host is an address or `localhost`.
fn from_variable(text: &str) -> Result<SocketAddr, String> {
    const SHAPE: &str = "POSTHASTE_RECEIVER must be HOST:PORT, such as 127.0.0.1:43000 or [::1]:43000; HOST is an address or localhost";
    let address = match text.rsplit_once(':') {
        Some((host, port)) if host.eq_ignore_ascii_case("localhost") => {
            port.parse().ok().map(|port| SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port))
        }
        _ => text.parse().ok(),
    };
    address
        .filter(|address| address.port() != 0)
        .ok_or_else(|| format!("{text:?} names no receiver: {SHAPE}"))
}

/// `IP PORT` on one line, if the file is there.
fn from_file() -> Result<Option<SocketAddr>, String> {
    let content = match file::read_file(RECEIVER_INFO, RECEIVER_INFO_BYTES) {
        Ok(content) => content,
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(None),
        Err(Errno::EOVERFLOW) => Err(malformed())?,
        Err(errno) => return Err(format!("reading receiver_info.txt: {errno}")),
    };
    let text = String::from_utf8_lossy(&content);
    let mut words = text.split_whitespace();
    let (host, port, rest) = (words.next(), words.next(), words.next());
    let address = host.zip(port).filter(|_| rest.is_none()).and_then(|(host, port)| {
        let host = if host.eq_ignore_ascii_case("localhost") {
            Ipv4Addr::LOCALHOST.into()
        } else {
            host.parse().ok()?
        };
        Some(SocketAddr::new(host, port.parse().ok().filter(|port| *port != 0)?))
    });
    address.map(Some).ok_or_else(malformed)
}

fn malformed() -> String {
    String::from("receiver_info.txt must hold one line, the receiver's address and port: 127.0.0.1 43000")
}
