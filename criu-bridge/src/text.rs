//! Texts in messages: as bytes, which is all that the protocol has; in JSON as what they are.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Writes one.
pub(crate) fn serialize<S: Serializer>(text: &str, serializer: S) -> Result<S::Ok, S::Error> {
    if serializer.is_human_readable() {
        text.serialize(serializer)
    } else {
        text.as_bytes().serialize(serializer)
    }
}

/// Reads one.
pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    if deserializer.is_human_readable() {
        return String::deserialize(deserializer);
    }
    String::from_utf8(Vec::deserialize(deserializer)?).map_err(|_| D::Error::custom("it is no text"))
}

/// One that may be missing.
pub(crate) mod option {
    use super::{Deserializer, Serializer, list};

    /// Writes it.
    pub(crate) fn serialize<S: Serializer>(text: &Option<String>, serializer: S) -> Result<S::Ok, S::Error> {
        list::serialize(text.as_slice(), serializer)
    }

    /// Reads it.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<String>, D::Error> {
        Ok(list::deserialize(deserializer)?.pop())
    }
}

/// Several of them.
pub(crate) mod list {
    use super::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(transparent)]
    struct Text(#[serde(with = "super")] String);

    /// Writes them.
    pub(crate) fn serialize<S: Serializer>(texts: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        texts.iter().cloned().map(Text).collect::<Vec<_>>().serialize(serializer)
    }

    /// Reads them.
    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
        let texts: Vec<Text> = Vec::deserialize(deserializer)?;
        Ok(texts.into_iter().map(|Text(text)| text).collect())
    }
}
