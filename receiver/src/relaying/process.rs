//! The relaying process itself: from the greeted link to the end of the last connection.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use anyhow::Context;
use nix::sys::socket::{MsgFlags, recv};
use relay::Relay;
use sys::poll::poll;
use sys::{Fd, net, socket};

use super::{Order, network};
use crate::sealing;

/// The hidden option that makes the receiver a relaying process.
pub const RELAY_OPTION: &str = "--relay";

/// Bytes of an order at most.
const ORDER_BYTES: usize = 1024;

/// Relays for whoever started this with the arguments: numbers of the link, of the socket on which orders come, and of
/// the pipe that says what to seal the link with, if any.
///
/// # Errors
/// They are something else, or the link cannot be sealed.
pub fn run(arguments: &[OsString]) -> anyhow::Result<()> {
    let mut claimed = Vec::new();
    for argument in arguments {
        let number = argument.to_str().and_then(|text| text.parse().ok());
        claimed.push(sys::inherited::claim(number.context("no number")?).map_err(io::Error::from)?);
    }
    let mut claimed = claimed.into_iter();
    let (Some(link), Some(orders)) = (claimed.next(), claimed.next()) else {
        anyhow::bail!("too few numbers")
    };
    let link = sealing::link(link, claimed.next())?;
    // Without a network of its own the ends have other names: those that they had may be somebody else's here.
    let has_network = network::enter().is_ok();
    let Some(mut ends) = obey(&orders, has_network)? else { return Ok(()) };
    ends.sort_unstable_by_key(|(name, _)| *name);
    let mut relay = Relay::new(link, ends);
    relay.begin();
    relay.keep();
    while !relay.is_over() {
        if !relay.turn() {
            poll(&mut relay.interests(), None).map_err(io::Error::from).context("waiting")?;
        }
    }
    Ok(())
}

/// Makes pairs until the program runs; this side's ends of them, or `None` if it never does.
fn obey(orders: &OwnedFd, has_network: bool) -> anyhow::Result<Option<Vec<(u32, Fd)>>> {
    let mut ends = Vec::new();
    let mut bytes = [0; ORDER_BYTES];
    loop {
        let count = recv(orders.as_raw_fd(), &mut bytes, MsgFlags::empty())?;
        if count == 0 {
            return Ok(None);
        }
        match protocol::decode::<Order>(bytes.get(..count).unwrap_or_default())? {
            Order::Go => return Ok(Some(ends)),
            Order::Make { name, domain, own, other } => {
                match network::pair(has_network, (domain, &own, &other)) {
                    Ok((programs, ours)) => {
                        socket::send(orders.as_fd(), b"!", &[], &[programs.as_fd()])
                            .map_err(io::Error::from)?;
                        let ours = Fd::from(ours);
                        // Whoever ends this process, or never has it begin: the program sees a broken connection.
                        net::break_on_close(&ours, true);
                        ends.push((name, ours));
                    }
                    Err(error) => {
                        let words: String = error.to_string().chars().take(200).collect();
                        socket::send(orders.as_fd(), words.as_bytes(), &[], &[]).map_err(io::Error::from)?;
                    }
                }
            }
        }
    }
}
