//! Floor 6. A `ringwave.toml` made of the configuration of the server that Ringwave replaces.
//!
//! Contract: a restriction is never widened. What has no counterpart becomes a comment in its
//! place; a restriction that cannot be understood, or cannot be kept, ends the import with a
//! sentence, and so does an app without its credentials. The result has been read back as
//! `ringwave check` would read it. Sentences quote no secrets, but the result holds them.
//!
//! One file per server (`reverb`, `soketi`, `sockudo`, `websockets`) knows what its settings mean.
//! They share the reader of the input (`input`), of loosely typed JSON (`loose`), the lists of
//! origins and webhooks, and the writer of the result.

mod input;
mod limits;
mod loose;
mod origins;
mod reverb;
mod sockudo;
mod soketi;
#[cfg(test)]
mod tests;
mod webhooks;
mod websockets;
mod writer;

use serde_json::Value;

use super::{ConfigError, Environment, check_file};
use loose::Field;

pub use input::INPUT_BYTES_MAX;

/// A server whose configuration can be imported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Predecessor {
    /// Laravel Reverb: `config('reverb')` as JSON.
    Reverb,
    /// soketi: its `config.json`.
    Soketi,
    /// sockudo: its `config.json` or `config.toml`.
    Sockudo,
    /// beyondcode/laravel-websockets: `config('websockets')` as JSON.
    LaravelWebsockets,
}

/// Makes a `ringwave.toml` of the configuration of `from`. sockudo fills `${NAME}` in its file from
/// its environment, hence `environment`.
///
/// # Errors
/// The input is not such a configuration, names no app that could be served, or has a restriction
/// that cannot be kept. The sentence names the place in the input.
pub fn import(
    from: Predecessor,
    input: &[u8],
    environment: &Environment,
) -> Result<String, ConfigError> {
    let text = input::text(input)?;
    let root = match from {
        Predecessor::Reverb | Predecessor::LaravelWebsockets => input::json(text)?,
        Predecessor::Soketi => soketi::nested(input::json(text)?)?,
        Predecessor::Sockudo => input::json_or_toml(&sockudo::filled(text, environment)?)?,
    };
    let written = match from {
        Predecessor::Reverb => reverb::write(&root),
        Predecessor::Soketi => soketi::write(&root),
        Predecessor::Sockudo => sockudo::write(&root),
        Predecessor::LaravelWebsockets => websockets::write(&root),
    };
    let written = written?.into_text();
    check_file(&written)?;
    Ok(written)
}

/// The apps of a list, of which there has to be one.
fn apps<'a>(list: &Field<'a>, what: &str) -> Result<Vec<Field<'a>>, ConfigError> {
    let path = list.path();
    if list.is_absent() {
        return Err(ConfigError(format!("the input is not {what}: it has no {path}")));
    }
    let apps = list.list()?;
    if apps.is_empty() {
        return Err(ConfigError(format!("there is no app in the input: {path} is empty")));
    }
    Ok(apps)
}

/// Whether a switch of the input is on, as PHP sees it.
fn is_on(field: &Field<'_>) -> bool {
    field.value().is_some_and(|value| match value {
        Value::Null => false,
        Value::Bool(truth) => *truth,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !matches!(text.as_str(), "" | "0"),
        Value::Array(items) => !items.is_empty(),
        Value::Object(entries) => !entries.is_empty(),
    })
}
