//! The way to `criu-bridge receive`, for one tree.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use engine::Failure;
use page_server::Channels;
use protocol::{Channel, Hello, MigrationId};
use receiver::sealing::read_key;

/// Opening the channels and having them accepted.
const DEADLINE: Duration = Duration::from_secs(5);

/// Where the tree goes, and as which migration.
#[derive(Debug)]
pub(crate) struct Route {
    name: String,
    address: SocketAddr,
    key_file: Option<PathBuf>,
    hello: Hello,
    /// The user has been told that the connection is lost.
    is_lost: bool,
}

impl Route {
    /// The way to `HOST:PORT`. Without a key there is none to another machine.
    pub(crate) fn to(name: &str, key_file: Option<&Path>) -> anyhow::Result<Self> {
        let mut addresses = name.to_socket_addrs().with_context(|| format!("'{name}' is no HOST:PORT"))?;
        let address = addresses.next().with_context(|| format!("'{name}' has no address"))?;
        if key_file.is_none() && !address.ip().is_loopback() {
            bail!(
                "the receiver is at {name}; without a key (--key-file) a tree moves within one machine only"
            );
        }
        let random = || sys::random::sixteen_bytes().map_err(std::io::Error::from);
        let hello = Hello::new(MigrationId(random()?), Channel::Control).with_token(random()?);
        Ok(Self {
            name: name.to_owned(),
            address,
            key_file: key_file.map(Path::to_owned),
            hello,
            is_lost: false,
        })
    }

    /// Opens the three channels.
    pub(crate) fn open(&self) -> anyhow::Result<Channels> {
        let key = self.key_file.as_deref().map(read_key).transpose()?;
        let mut sockets = Vec::new();
        for _ in Channel::ALL {
            sockets.push(self.connect().with_context(|| format!("connecting to {}", self.name))?);
        }
        let opened = Channels::open(sockets, &self.hello, key.as_ref(), DEADLINE);
        opened.map_err(|failure| anyhow::anyhow!("the receiver at {}: {failure}", self.name))
    }

    /// Opens them again; tells the user when this begins, and when it has worked.
    pub(crate) fn open_again(&mut self, attempt: u32) -> Result<Channels, Failure> {
        if !std::mem::replace(&mut self.is_lost, true) {
            crate::tell(format_args!("the connection to {} is lost; connecting again", self.name));
        }
        self.hello.attempt = attempt;
        let lost = Failure::LinkLost(Channel::Control);
        let key = self.key_file.as_deref().map(read_key).transpose().map_err(|_| lost.clone())?;
        let mut sockets = Vec::new();
        for _ in Channel::ALL {
            sockets.push(self.connect().map_err(|_| lost.clone())?);
        }
        let channels =
            Channels::open(sockets, &self.hello, key.as_ref(), DEADLINE).map_err(
                |failure| match failure {
                    Failure::Peer(_) => failure,
                    _ => lost,
                },
            )?;
        crate::tell(format_args!("connected again"));
        self.is_lost = false;
        Ok(channels)
    }

    fn connect(&self) -> std::io::Result<sys::Fd> {
        let stream = TcpStream::connect_timeout(&self.address, DEADLINE)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let socket = sys::Fd::from(OwnedFd::from(stream));
        if self.address.ip().is_loopback() {
            let _ = sys::net::set_unpaced(&socket);
        }
        Ok(socket)
    }
}
