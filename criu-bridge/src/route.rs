//! The way to `criu-bridge receive`, for one tree.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use engine::Failure;
use page_server::Channels;
use protocol::{Channel, Hello, MigrationId};
use receiver::sealing::read_key;
use sys::net;

use crate::config::{CONNECT_DEADLINE, MOST_ADDRESSES};

/// Where the tree goes, and as which migration.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    name: String,
    /// All that the name stands for.
    addresses: Vec<SocketAddr>,
    key_file: Option<PathBuf>,
    hello: Hello,
    /// The user has been told that the connection is lost.
    is_lost: bool,
}

impl Route {
    /// The way to `HOST:PORT`. Without a key there is none to another machine.
    pub(crate) fn to(name: &str, key_file: Option<&Path>) -> anyhow::Result<Self> {
        let addresses = name.to_socket_addrs().with_context(|| format!("'{name}' is no HOST:PORT"))?;
        let addresses: Vec<_> = addresses.take(MOST_ADDRESSES).collect();
        if addresses.is_empty() {
            bail!("'{name}' has no address");
        }
        if key_file.is_none() && !addresses.iter().all(|address| address.ip().is_loopback()) {
            bail!(
                "the receiver is at {name}; without a key (--key-file) a tree moves within one machine only"
            );
        }
        Ok(Self {
            name: name.to_owned(),
            addresses,
            key_file: key_file.map(Path::to_owned),
            hello: introduction()?,
            is_lost: false,
        })
    }

    /// The same way, for another migration.
    pub(crate) fn for_another(&self) -> anyhow::Result<Self> {
        Ok(Self { hello: introduction()?, is_lost: false, ..self.clone() })
    }

    /// Opens the three channels.
    pub(crate) fn open(&self) -> anyhow::Result<Channels> {
        self.open_watched().map(|(channels, _)| channels)
    }

    /// Opens the three channels; the descriptor, which is the control channel's, shows whether they stand.
    pub(crate) fn open_watched(&self) -> anyhow::Result<(Channels, OwnedFd)> {
        let key = self.key_file.as_deref().map(read_key).transpose()?;
        let sockets = self.connect().with_context(|| format!("connecting to {}", self.name))?;
        let control = sockets.first().context("there is no channel")?;
        let watch = control.duplicate_from(0).map_err(std::io::Error::from)?;
        let opened = Channels::open(sockets, &self.hello, key.as_ref(), CONNECT_DEADLINE);
        let opened = opened.map_err(|failure| anyhow::anyhow!("the receiver at {}: {failure}", self.name));
        Ok((opened?, watch.into()))
    }

    /// Opens them again, as [`open_watched`](Self::open_watched) does; tells the user when this begins, and when it has worked.
    pub(crate) fn open_again(&mut self, attempt: u32) -> Result<(Channels, OwnedFd), Failure> {
        if !std::mem::replace(&mut self.is_lost, true) {
            crate::tell(format_args!("the connection to {} is lost; connecting again", self.name));
        }
        self.hello.attempt = attempt;
        let lost = Failure::LinkLost(Channel::Control);
        let key = self.key_file.as_deref().map(read_key).transpose().map_err(|_| lost.clone())?;
        let sockets = self.connect().map_err(|_| lost.clone())?;
        let watch = sockets.first().and_then(|control| control.duplicate_from(0).ok());
        let watch = watch.ok_or_else(|| lost.clone())?;
        let channels =
            Channels::open(sockets, &self.hello, key.as_ref(), CONNECT_DEADLINE).map_err(|failure| {
                match failure {
                    Failure::Peer(_) => failure,
                    _ => lost,
                }
            })?;
        crate::tell(format_args!("connected again"));
        self.is_lost = false;
        Ok((channels, watch.into()))
    }

    /// Where it leads, in the user's words.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Three sockets, all to the first address where somebody answers; the error is the last one's.
    fn connect(&self) -> std::io::Result<Vec<sys::Fd>> {
        let mut answer = Err(std::io::ErrorKind::NotFound.into());
        for address in &self.addresses {
            let open = || net::connect_within(*address, CONNECT_DEADLINE).map_err(std::io::Error::from);
            answer = Channel::ALL.iter().map(|_| open()).collect();
            if answer.is_ok() {
                break;
            }
        }
        answer
    }
}

/// What a migration is known by.
fn introduction() -> anyhow::Result<Hello> {
    let random = || sys::random::sixteen_bytes().map_err(std::io::Error::from);
    Ok(Hello::new(MigrationId(random()?), Channel::Control).with_token(random()?))
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn the_first_address_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let gone = TcpListener::bind("127.0.0.1:0").and_then(|gone| gone.local_addr()).expect("a port");
        let mut route = Route::to(&address.to_string(), None).expect("an address");
        route.addresses = vec![gone, address];
        assert_eq!(route.connect().expect("one of them answers").len(), 3);
        route.addresses.pop();
        assert!(route.connect().is_err());
    }
}
