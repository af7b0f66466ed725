//! How values become bytes and back: postcard, checked. A value is committed only if it reads back as it was put.
//!
//! postcard is small and fast because its bytes say nothing of themselves: no names, no types. So a value whose serde
//! attributes make writing and reading disagree is read back as another one, or not at all. The [encoder](encode) sees
//! fields that are left out; [`encode`] decodes what it has encoded, encodes that again and compares, which finds the
//! rest. Depth is bounded in both directions: a value nested ten thousand deep would overflow the stack of every reader.

mod decode;
mod encode;

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use decode::decode;
pub(crate) use encode::encode_to;

/// How deep values may be nested: far deeper than records are, and far less than a stack holds.
pub(crate) const DEPTH_MAX: usize = 128;

/// Why a value cannot be encoded so that it reads back as it is, or bytes cannot be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CodecError {
    #[error(
        "the field `{field}` of `{ty}` was left out, as `skip_serializing_if` and `skip_serializing` do, and postcard has no \
         names by which a reader could tell; remove the attribute"
    )]
    SkippedField { ty: &'static str, field: &'static str },
    #[error("it is nested more than {DEPTH_MAX} deep; make it flatter, or split it into records")]
    Depth,
    #[error(
        "the length of a sequence or a map is not known before it is written, as with `#[serde(flatten)]`; name the fields"
    )]
    UnknownLength,
    #[error(
        "it would not be read back: {error}; `untagged`, `tag = \"..\"` and types like `serde_json::Value` need a format that \
         says which type comes, which postcard does not: use a plain enum"
    )]
    Unreadable { error: String },
    #[error(
        "it would be read back as another value: look for `#[serde(skip)]` on a variant, or `serialize_with` and \
         `deserialize_with` that do not fit; move a skipped variant to the end, or remove the attribute"
    )]
    OtherValue,
    #[error("{0}")]
    Other(String),
}

impl From<postcard::Error> for CodecError {
    fn from(error: postcard::Error) -> Self {
        Self::Other(error.to_string())
    }
}

impl serde::ser::Error for CodecError {
    fn custom<T: Display>(message: T) -> Self {
        Self::Other(message.to_string())
    }
}

/// Appends the encoding of `value` to `out`, which is then known to be read back as `value`.
///
/// # Errors
/// Why it would not be.
pub(crate) fn encode<T: Serialize + DeserializeOwned>(
    value: &T,
    out: Vec<u8>,
) -> Result<Vec<u8>, CodecError> {
    let at = out.len();
    let out = encode_to(value, out)?;
    let encoded = out.get(at..).unwrap_or_default();
    let read: T = decode(encoded).map_err(|error| match error {
        CodecError::Other(error) => CodecError::Unreadable { error },
        other => other,
    })?;
    let again = encode_to(&read, Vec::with_capacity(encoded.len()))?;
    // A hash set is iterated in another order after it was read; that alone makes it no other value.
    if again != encoded && encode::encode_unordered(value)? != encode::encode_unordered(&read)? {
        return Err(CodecError::OtherValue);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
