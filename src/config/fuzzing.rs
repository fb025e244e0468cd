//! Floor 7. The entry points of the configuration for the targets of `tests/fuzz`. Only builds with
//! `--cfg fuzzing` have this module.

use std::collections::BTreeMap;

use super::dotenv::DotEnv;
use super::error::ConfigError;
use super::load::{Config, load_text};
use super::settings::ALL;
use super::sources::Environment;

/// A `.env` as it was read.
#[derive(Debug, PartialEq, Eq)]
pub struct Variables {
    /// The value and the line of each variable, by name.
    pub values: BTreeMap<String, (String, usize)>,
    /// The line from which on the file was ignored, if any.
    pub unclosed: Option<usize>,
}

/// Reads the bytes of a `.env`, with these variables in the process environment.
///
/// # Errors
/// Returns the line that Laravel would not read, and the sentence about it.
pub fn dotenv(bytes: &[u8], outer: &Environment) -> Result<Variables, (usize, String)> {
    let read = DotEnv::parse(bytes, |name| outer.get(name).cloned());
    let read = read.map_err(|malformed| (malformed.line, malformed.to_string()))?;
    let value = |name: &str| read.variable(name).map(|it| (it.value.clone(), it.line));
    let values = read.names().filter_map(|name| Some((name.to_owned(), value(name)?))).collect();
    Ok(Variables { values, unclosed: read.unclosed() })
}

/// The configuration of a `ringwave.toml` of this text by itself.
///
/// # Errors
/// As [`load`](super::load()).
pub fn toml(text: &str) -> Result<Config, ConfigError> {
    load_text(text)
}

/// The keys of all settings: `server.port`.
pub fn keys() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|setting| setting.declaration().key)
}
