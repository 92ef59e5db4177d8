//! The handshake of two messages, and the session that it yields.

use alloc::boxed::Box;
use core::fmt;

use noise_protocol::patterns::noise_nn_psk0;
use noise_protocol::{CipherState, HandshakeState, U8Array};

use crate::Key;
use crate::primitives::{ChaChaPoly, Secret, Sha256, X25519};

type Handshake = HandshakeState<X25519, ChaChaPoly, Sha256>;

/// Bytes of a handshake message: a public key and a tag.
pub const MESSAGE_BYTES: usize = 32 + TAG_BYTES;
/// Bytes that a record is longer than what it carries.
pub const TAG_BYTES: usize = 16;
/// Bytes that a record carries at most: Noise limits its messages to 65,535.
const MOST_BYTES: usize = 65_535 - TAG_BYTES;

/// Fills a buffer with random bytes that nobody can guess; false if there are none.
pub type FillRandom = fn(&mut [u8]) -> bool;

/// What came was not made with the same key, or not as the next thing of this conversation, or has been changed. (Or,
/// for what is to be sent: there are no random numbers.)
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refuted;

/// The source's side of a handshake, after its message.
pub struct Initiator(Box<Handshake>);

impl Initiator {
    /// Begins a handshake; hands out the message for the other side.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn new(
        key: &Key,
        prologue: &[u8],
        random: FillRandom,
    ) -> Result<(Self, [u8; MESSAGE_BYTES]), Refuted> {
        let mut state = begin(key, prologue, true, Some(ephemeral(random)?));
        let mut message = [0; MESSAGE_BYTES];
        state.write_message(&[], &mut message).map_err(|_| Refuted)?;
        Ok((Self(state), message))
    }

    /// The session, if `answer` is genuine.
    ///
    /// # Errors
    /// It is not.
    pub fn finish(mut self, answer: &[u8]) -> Result<Session, Refuted> {
        read(&mut self.0, answer)?;
        let (outgoing, incoming) = self.0.get_ciphers();
        Ok(Session { outgoing, incoming })
    }
}

/// Whether `message` comes from somebody who has the key and has seen this prologue. Costs no curve arithmetic.
#[must_use]
pub fn is_genuine(key: &Key, prologue: &[u8], message: &[u8]) -> bool {
    read(&mut begin(key, prologue, false, None), message).is_ok()
}

/// Destination: the session that `message` asks for, and the answer to send.
///
/// # Errors
/// The message is not genuine, or there are no random numbers.
pub fn respond(
    key: &Key,
    prologue: &[u8],
    message: &[u8],
    random: FillRandom,
) -> Result<(Session, [u8; MESSAGE_BYTES]), Refuted> {
    let mut state = begin(key, prologue, false, Some(ephemeral(random)?));
    read(&mut state, message)?;
    let mut answer = [0; MESSAGE_BYTES];
    state.write_message(&[], &mut answer).map_err(|_| Refuted)?;
    let (incoming, outgoing) = state.get_ciphers();
    Ok((Session { outgoing, incoming }, answer))
}

/// Two ciphers, one for each direction, each with the count of its records.
pub struct Session {
    outgoing: CipherState<ChaChaPoly>,
    incoming: CipherState<ChaChaPoly>,
}

impl Session {
    /// Makes the next record out of `plain`, at most 65,519 bytes; `out` is [`TAG_BYTES`] longer.
    ///
    /// # Errors
    /// `plain` is too long, or `out` not as long as it must be.
    pub fn seal(&mut self, plain: &[u8], out: &mut [u8]) -> Result<(), Refuted> {
        if plain.len() > MOST_BYTES || out.len() != plain.len() + TAG_BYTES {
            return Err(Refuted);
        }
        self.outgoing.encrypt(plain, out);
        Ok(())
    }

    /// Opens `record` into `out`, which is [`TAG_BYTES`] shorter.
    ///
    /// # Errors
    /// It is not the other side's next record, byte for byte, or `out` not as long as it must be. The session is of no
    /// use any more.
    pub fn open(&mut self, record: &[u8], out: &mut [u8]) -> Result<(), Refuted> {
        if record.len() != out.len() + TAG_BYTES {
            return Err(Refuted);
        }
        self.incoming.decrypt(record, out).map_err(|()| Refuted)
    }
}

fn ephemeral(random: FillRandom) -> Result<Secret, Refuted> {
    let mut secret = Secret::new();
    if random(&mut secret.0) { Ok(secret) } else { Err(Refuted) }
}

fn begin(key: &Key, prologue: &[u8], is_initiator: bool, ephemeral: Option<Secret>) -> Box<Handshake> {
    let pattern = noise_nn_psk0();
    let mut state = Box::new(Handshake::new(pattern, is_initiator, prologue, None, ephemeral, None, None));
    state.push_psk(key.bytes());
    state
}

fn read(state: &mut Handshake, message: &[u8]) -> Result<(), Refuted> {
    if message.len() != MESSAGE_BYTES {
        return Err(Refuted);
    }
    state.read_message(message, &mut []).map_err(|_| Refuted)
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Initiator")
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session")
    }
}
