//! The receiver's key: its file, and its way to a session together with what sources have proved.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, bail};
use mio::net::TcpStream;
use protocol::{Channel, Piece};
use relay::Socket;
use serde::{Deserialize, Serialize};
use transport::sealing::{KEY_TEXT_BYTES, Key, forget};
use transport::{Connection, Expected, Stream, answer_key};

/// Bytes of a key.
const KEY_BYTES: usize = KEY_TEXT_BYTES / 2;
/// Bytes that a session is handed at most: the key, and three times a greeting and a message.
const HANDED_BYTES: usize = 4 << 10;

/// What the source has said on one channel, up to its genuine key message.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Proof {
    /// What both sides have said in clear.
    pub prologue: Vec<u8>,
    /// The key message.
    pub message: Vec<u8>,
}

/// Everything that a session needs to seal its channels: control, fault, push; or a relaying process its one link.
#[derive(Debug)]
pub struct Sealing {
    key: Key,
    proofs: Vec<Proof>,
}

/// Random bytes from the kernel; false if there are none.
#[must_use]
pub fn random(bytes: &mut [u8]) -> bool {
    sys::random::fill(bytes).is_ok()
}

/// Reads a key file.
///
/// # Errors
/// It is not there, open to others, or holds something else; in words for the user.
pub fn read_key(path: &Path) -> anyhow::Result<Key> {
    let shown = path.display();
    let name = CString::new(path.as_os_str().as_bytes()).context("the name of the key file")?;
    // A little more than a key, to see whether there is more.
    let mut text = [0; KEY_TEXT_BYTES + 16];
    let got = match sys::secret::read(&name, &mut text) {
        Ok(got) => got,
        Err(reason) => bail!("key file '{shown}' {}", reason.in_words()),
    };
    let key = Key::from_text(text.get(..got).unwrap_or_default());
    forget(&mut text);
    key.with_context(|| format!("key file '{shown}' holds no key: receiver keygen FILE makes one"))
}

/// Makes a key file that only its owner may read. Never overwrites one.
///
/// # Errors
/// It is there already, or cannot be made.
pub fn make_key_file(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let mut key = [0; KEY_BYTES];
    if !random(&mut key) {
        bail!("the kernel gives no random numbers");
    }
    let mut text: String = key.iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    forget(&mut key);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let written = match file {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            bail!("'{shown}' is there already and stays as it is")
        }
        file => file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all())),
    };
    let mut text = text.into_bytes();
    forget(&mut text);
    written.with_context(|| format!("making the key file '{shown}'"))
}

impl Sealing {
    /// What was proved to whoever holds `key`.
    #[must_use]
    pub const fn new(key: &Key, proofs: Vec<Proof>) -> Self {
        Self { key: Key::new(key.bytes()), proofs }
    }

    /// The reading end of a pipe that holds all of it: neither arguments nor environment show it.
    ///
    /// # Errors
    /// Those of pipe(2) and write(2).
    pub fn into_pipe(self) -> io::Result<OwnedFd> {
        let (reader, mut writer) = io::pipe()?;
        let proofs = protocol::encode(&self.proofs).map_err(io::Error::other)?;
        // Far below what a pipe holds.
        writer.write_all(self.key.bytes())?;
        writer.write_all(&proofs)?;
        Ok(OwnedFd::from(reader))
    }

    /// Reads what [`Self::into_pipe`] has written.
    ///
    /// # Errors
    /// Those of read(2); it is something else.
    pub fn from_pipe(pipe: OwnedFd) -> io::Result<Self> {
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let mut bytes = Vec::with_capacity(HANDED_BYTES);
        std::fs::File::from(pipe).take(HANDED_BYTES as u64).read_to_end(&mut bytes)?;
        let (key, proofs) = bytes.split_first_chunk_mut::<KEY_BYTES>().ok_or_else(malformed)?;
        let sealing = protocol::decode(proofs).map(|proofs| Self { key: Key::new(key), proofs });
        forget(key);
        sealing.map_err(|_| malformed())
    }

    /// Seals the connections, control, fault and push or just a link, and forgets the key.
    ///
    /// # Errors
    /// A source that has hung up, or whose message is not genuine.
    pub fn seal<S: Stream>(self, connections: &mut [Connection<S>]) -> anyhow::Result<()> {
        if self.proofs.len() != connections.len() {
            bail!("{} connections and {} proofs", connections.len(), self.proofs.len());
        }
        for ((channel, connection), proof) in Channel::ALL.into_iter().zip(connections).zip(&self.proofs) {
            let said = (proof.prologue.as_slice(), proof.message.as_slice());
            answer_key(connection, channel, &self.key, said, random)
                .with_context(|| format!("sealing the {channel} channel"))?;
        }
        Ok(())
    }
}

/// Three connections that expect what the source sends on control, fault and push; sealed, if a pipe says with what.
///
/// # Errors
/// As for [`Sealing::from_pipe`] and [`Sealing::seal`].
pub fn connections(
    sockets: [OwnedFd; 3],
    sealing: Option<OwnedFd>,
) -> anyhow::Result<[Connection<TcpStream>; 3]> {
    let sealing = sealing.map(Sealing::from_pipe).transpose().context("reading what was proved")?;
    let [control, fault, push] = sockets.map(|socket| TcpStream::from_std(std::net::TcpStream::from(socket)));
    let plain = |stream, channel| Connection::new(stream, Expected::FromSource(channel));
    let mut connections =
        [plain(control, Channel::Control), plain(fault, Channel::Fault), plain(push, Channel::Push)];
    if let Some(sealing) = sealing {
        sealing.seal(&mut connections)?;
    }
    Ok(connections)
}

/// A link over which connections are relayed; sealed, if a pipe says with what.
///
/// # Errors
/// As for [`Sealing::from_pipe`] and [`Sealing::seal`].
pub fn link(socket: OwnedFd, sealing: Option<OwnedFd>) -> anyhow::Result<Connection<Socket>> {
    let sealing = sealing.map(Sealing::from_pipe).transpose().context("reading what was proved")?;
    let mut links = [Connection::new(Socket::new(socket.into()), Expected::Relayed)];
    if let Some(sealing) = sealing {
        sealing.seal(&mut links)?;
    }
    let [link] = links;
    Ok(link)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_file_is_made_once_and_only_for_its_owner() {
        let path = std::env::temp_dir().join(format!("posthaste-keygen-{}", std::process::id()));
        make_key_file(&path).expect("room in /tmp");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600);
        let key = read_key(&path).expect("a key");
        assert!(make_key_file(&path).is_err_and(|error| error.to_string().contains("there already")));
        assert_eq!(read_key(&path).expect("the same").bytes(), key.bytes());
        std::fs::write(&path, "0123\n").expect("it is ours");
        assert!(read_key(&path).is_err_and(|error| error.to_string().contains("holds no key")));
        std::fs::remove_file(&path).expect("it is ours");
        assert!(read_key(&path).is_err_and(|error| error.to_string().contains("no such file")));
    }

    #[test]
    fn a_session_gets_what_it_needs_through_a_pipe() {
        let proof = |byte| Proof { prologue: vec![byte; 40], message: vec![byte; 48] };
        let sealing = Sealing::new(&Key::new(&[7; 32]), vec![proof(1), proof(2), proof(3)]);
        let pipe = sealing.into_pipe().expect("a pipe");
        let sealing = Sealing::from_pipe(pipe).expect("what was written");
        assert_eq!((sealing.key.bytes(), &sealing.proofs), (&[7; 32], &vec![proof(1), proof(2), proof(3)]));
    }
}
