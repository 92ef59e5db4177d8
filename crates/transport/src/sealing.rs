//! What seals a connection: the crate `noise`, or without the feature `sealed` nothing at all.
//!
//! Without it the types of a session have no values, so that the compiler leaves out all that is done with one: a
//! parasite that is to stay on its machine does not carry 30 KiB of cryptography.

#[cfg(feature = "sealed")]
pub use noise::{FillRandom, Initiator, KEY_TEXT_BYTES, Key, Refuted, Session, forget, is_genuine, respond};

#[cfg(not(feature = "sealed"))]
pub use absent::{FillRandom, Initiator, KEY_TEXT_BYTES, Key, Refuted, Session, forget};

/// Whether connections can be sealed at all.
pub const CAN_SEAL: bool = cfg!(feature = "sealed");

#[cfg(feature = "sealed")]
pub(crate) use noise::TAG_BYTES;

#[cfg(not(feature = "sealed"))]
pub(crate) use absent::TAG_BYTES;

/// The same names as those of `noise`, without values.
#[cfg(not(feature = "sealed"))]
mod absent {
    /// Bytes that a record would be longer than what it carries.
    pub(crate) const TAG_BYTES: usize = 16;
    /// Bytes of a key's text.
    pub const KEY_TEXT_BYTES: usize = 64;

    /// A source of random numbers.
    pub type FillRandom = fn(&mut [u8]) -> bool;

    /// There is none.
    #[derive(Debug)]
    pub enum Key {}

    /// There is none.
    #[derive(Debug)]
    pub enum Initiator {}

    /// There is none.
    #[derive(Debug)]
    pub enum Session {}

    /// What is not there cannot be relied on.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Refuted;

    /// Does nothing: there are no secrets.
    pub const fn forget(_: &mut [u8]) {}

    impl Key {
        /// No text is a key.
        #[must_use]
        pub const fn from_text(_: &[u8]) -> Option<Self> {
            None
        }
    }

    impl Initiator {
        pub(crate) const fn new(key: &Key, _: &[u8], _: FillRandom) -> Result<(Self, [u8; 48]), Refuted> {
            match *key {}
        }

        pub(crate) const fn finish(self, _: &[u8]) -> Result<Session, Refuted> {
            match self {}
        }
    }

    impl Session {
        pub(crate) const fn seal(&mut self, _: &[u8], _: &mut [u8]) -> Result<(), Refuted> {
            match *self {}
        }

        pub(crate) const fn open(&mut self, _: &[u8], _: &mut [u8]) -> Result<(), Refuted> {
            match *self {}
        }
    }
}
