//! The one place that owns bincode's configuration: always with a limit, never with trailing bytes.
//!
//! bincode 2.0.1 is unmaintained (RUSTSEC-2025-0141, no vulnerability known); this file is all that a
//! successor would have to replace.

use alloc::vec::Vec;

use bincode::config::{Configuration, Limit, LittleEndian, Varint};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::encoder::Encoder;

/// Bytes that any decoded body may claim; the frame's own limit is at most this.
const LIMIT: usize = 16 << 20;

type Config = Configuration<LittleEndian, Varint, Limit<LIMIT>>;

const CONFIG: Config = bincode::config::standard().with_limit::<LIMIT>();

/// A body that could not be decoded.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// The bytes are not an encoding of the expected type, or claim more than the limit.
    #[error("the body is not a valid encoding of {expected}")]
    Malformed {
        /// Name of the Rust type that was expected.
        expected: &'static str,
    },
    /// The body goes on behind its value.
    #[error("{extra} bytes follow the value of a {expected}")]
    Trailing {
        /// Name of the Rust type that was expected.
        expected: &'static str,
        /// How many bytes are left over.
        extra: usize,
    },
}

/// Encodes `value`; the result is never longer than the limit of 16 MiB.
///
/// # Errors
/// [`DecodeError::Malformed`] when the encoding would pass the limit.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let mut encoder = Encoder(Vec::new());
    match value.serialize(&mut encoder) {
        Ok(()) if encoder.0.len() <= LIMIT => Ok(encoder.0),
        _ => Err(DecodeError::Malformed { expected: core::any::type_name::<T>() }),
    }
}

/// Decodes exactly one value from `bytes`.
///
/// # Errors
/// Malformed input, input that claims more than the limit, and trailing bytes.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let expected = core::any::type_name::<T>();
    #[allow(clippy::disallowed_methods, reason = "this is the one place")]
    let result = bincode::serde::decode_from_slice(bytes, CONFIG);
    let (value, used) = result.map_err(|_| DecodeError::Malformed { expected })?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(value),
        extra => Err(DecodeError::Trailing { expected, extra }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bincode_of<T: Serialize>(value: &T) -> Vec<u8> {
        let mut bytes = alloc::vec![0; LIMIT];
        #[allow(clippy::disallowed_methods, reason = "this is the one place")]
        let len = bincode::serde::encode_into_slice(value, &mut bytes, CONFIG).expect("it fits");
        bytes.truncate(len);
        bytes
    }

    #[test]
    fn a_manifest_is_encoded_as_bincode_does() {
        let manifest = crate::sample::manifest();
        assert_eq!(encode(&manifest).expect("it fits"), bincode_of(&manifest));
    }

    #[test]
    fn numbers_of_every_length_are_encoded_as_bincode_does() {
        for shift in 0..64 {
            for number in
                [1_u64 << shift, (1_u64 << shift) - 1, (1_u64 << shift) + 1, 250, 251, 252, u64::MAX]
            {
                let signed = (number.cast_signed(), number.cast_signed().wrapping_neg());
                let value = (number, signed, Some(alloc::vec![number]), Some(true), None::<u8>, "text");
                assert_eq!(encode(&value).expect("it fits"), bincode_of(&value), "{number}");
            }
        }
    }
}
