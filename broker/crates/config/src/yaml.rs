//! Reading and writing YAML for those above: this crate alone names the library for it.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// What is wrong with a text or a value, with the place where the library knows it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct YamlError(#[from] serde_norway::Error);

/// A value as YAML, with a line end.
///
/// # Errors
/// The value has what YAML cannot say, such as maps as keys.
pub fn to_string<T: Serialize>(value: &T) -> Result<String, YamlError> {
    Ok(serde_norway::to_string(value)?)
}

/// The value that a text of one YAML document holds.
///
/// # Errors
/// The text is not YAML, or does not hold such a value.
pub fn from_str<T: DeserializeOwned>(text: &str) -> Result<T, YamlError> {
    Ok(serde_norway::from_str(text)?)
}
