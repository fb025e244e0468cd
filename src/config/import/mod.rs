//! Floor 7. A `ringwave.toml` made of the configuration of the server that Ringwave replaces.
//!
//! Contract: a restriction is never widened. A setting without a counterpart becomes a comment
//! instead; a restriction that cannot be understood, or cannot be kept, ends the import with a
//! error, and so does an app without its credentials. The result has been read back as
//! `ringwave check` would read it. Sentences quote no secrets, but the result holds them.
//!
//! One file per server (`reverb`, `soketi`, `sockudo`, `websockets`) knows what its settings mean.
//! They share the reader of the input (`input`), of loosely typed JSON (`loose`), the lists of
//! origins and webhooks, the Redis of several nodes (`cluster`), and the writer of the result.

mod cluster;
mod error;
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

use super::load::load_text;
use super::sources::Environment;

pub(crate) use error::ImportError;
pub(crate) use input::INPUT_BYTES_MAX;

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
/// that cannot be kept. The error names the path in the input.
pub fn import(
    from: Predecessor,
    input: &[u8],
    environment: &Environment,
) -> Result<String, ImportError> {
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
    load_text(&written)?;
    Ok(written)
}
