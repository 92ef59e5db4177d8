//! The first frame of a connection, read byte by byte as it comes and not one byte further: what follows
//! belongs to the session.

use std::io::{self, Read};

use protocol::{
    Channel, FRAME_HEADER_LEN, Header, Hello, Kind, MigrationId, PROTOCOL_VERSION, Reason, Welcome,
};

/// A `Hello` in the making; never holds more than one frame of that kind.
#[derive(Debug, Default)]
pub(super) struct Greeting {
    bytes: Vec<u8>,
}

/// What has become of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Greeted {
    /// There is more to come.
    NotYet,
    /// The connection has ended or broken.
    HungUp,
    /// These bytes are not a greeting.
    Stranger,
    /// A source that no version joins with this receiver; it deserves an answer.
    TooForeign {
        /// Oldest version that it speaks.
        oldest: u16,
        /// Newest version that it speaks.
        newest: u16,
    },
    /// A source that this receiver can talk to.
    Hello {
        /// Which migration it belongs to.
        migration: MigrationId,
        /// Which channel it is.
        channel: Channel,
    },
}

impl Greeting {
    /// Reads what is there. Call again after [`Greeted::NotYet`] when more can be read.
    pub(super) fn read(&mut self, stream: &mut impl Read) -> Greeted {
        loop {
            let want = match self.frame_len() {
                Ok(len) if len == self.bytes.len() => return self.judge(),
                Ok(len) => len - self.bytes.len(),
                Err(()) => return Greeted::Stranger,
            };
            match stream.by_ref().take(want as u64).read_to_end(&mut self.bytes) {
                Ok(0) => return Greeted::HungUp,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Greeted::NotYet,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Greeted::HungUp,
            }
        }
    }

    /// Bytes that the frame has, as far as it is known: at first its header.
    fn frame_len(&self) -> Result<usize, ()> {
        let Some(header) = self.bytes.first_chunk::<FRAME_HEADER_LEN>() else { return Ok(FRAME_HEADER_LEN) };
        match Header::from_bytes(*header) {
            Ok(Header { kind: Kind::Hello, body_len, .. }) => Ok(FRAME_HEADER_LEN + body_len as usize),
            _ => Err(()),
        }
    }

    fn judge(&self) -> Greeted {
        let body = self.bytes.get(FRAME_HEADER_LEN..).unwrap_or_default();
        match protocol::decode::<Hello>(body) {
            Ok(hello) if hello.magic != Hello::MAGIC => Greeted::Stranger,
            Ok(hello) if (hello.oldest..=hello.newest).contains(&PROTOCOL_VERSION) => {
                Greeted::Hello { migration: hello.migration, channel: hello.channel }
            }
            Ok(hello) => Greeted::TooForeign { oldest: hello.oldest, newest: hello.newest },
            Err(_) => Greeted::Stranger,
        }
    }
}

/// The frame that accepts a connection.
///
/// # Panics
/// Never: the encoding is a few bytes long.
#[must_use]
pub(super) fn welcome() -> Vec<u8> {
    frame(Kind::Welcome, &Welcome { version: PROTOCOL_VERSION })
}

/// The frame that turns a connection away.
///
/// # Panics
/// Never: reasons are made here and short.
#[must_use]
pub(super) fn refused(text: &str) -> Vec<u8> {
    frame(Kind::Refused, &Reason { text: text.to_owned() })
}

fn frame<T: serde::Serialize>(kind: Kind, body: &T) -> Vec<u8> {
    let body = protocol::encode(body).expect("a body of this size is within the limit");
    let len = u32::try_from(body.len()).expect("the limit is below 4 GiB");
    let mut bytes = Header::plain(kind, len).to_bytes().to_vec();
    bytes.extend(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello() -> Vec<u8> {
        frame(Kind::Hello, &Hello::new(MigrationId([7; 16]), Channel::Fault))
    }

    #[test]
    fn a_hello_that_comes_byte_by_byte_is_read_and_nothing_behind_it() {
        let mut bytes = hello();
        bytes.extend(b"next frame");
        let mut greeting = Greeting::default();
        let mut stream = bytes.as_slice();
        assert_eq!(
            greeting.read(&mut stream),
            Greeted::Hello { migration: MigrationId([7; 16]), channel: Channel::Fault }
        );
        assert_eq!(stream, b"next frame");
    }

    #[test]
    fn every_prefix_of_a_hello_that_ends_there_is_a_hang_up() {
        let bytes = hello();
        for len in 0..bytes.len() {
            assert_eq!(Greeting::default().read(&mut &bytes[..len]), Greeted::HungUp, "{len} bytes");
        }
    }

    #[test]
    fn other_kinds_other_magic_and_long_announcements_are_strangers() {
        let mut magic = Hello::new(MigrationId([7; 16]), Channel::Push);
        magic.magic = *b"GET / HT";
        for bytes in [
            frame(Kind::Hello, &magic),
            frame(Kind::Welcome, &Welcome { version: 1 }),
            Header::plain(Kind::Hello, u32::MAX).to_bytes().to_vec(),
            b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec(),
            frame(Kind::Hello, &[0xffu8; 40].as_slice()),
        ] {
            assert_eq!(Greeting::default().read(&mut bytes.as_slice()), Greeted::Stranger);
        }
    }

    #[test]
    fn a_source_of_another_version_is_told_apart_from_a_stranger() {
        let mut hello = Hello::new(MigrationId([7; 16]), Channel::Push);
        (hello.oldest, hello.newest) = (PROTOCOL_VERSION + 1, PROTOCOL_VERSION + 2);
        let bytes = frame(Kind::Hello, &hello);
        assert_eq!(
            Greeting::default().read(&mut bytes.as_slice()),
            Greeted::TooForeign { oldest: PROTOCOL_VERSION + 1, newest: PROTOCOL_VERSION + 2 }
        );
    }
}
