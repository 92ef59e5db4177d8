//! What seals a connection: the crate `noise`.

pub(crate) use noise::TAG_BYTES;
pub use noise::{FillRandom, Initiator, KEY_TEXT_BYTES, Key, Refuted, Session, forget, is_genuine, respond};
