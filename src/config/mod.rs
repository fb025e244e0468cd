//! Floor 6. The configuration: what the operator set, from flags, the environment, `.env` and
//! `ringwave.toml`, as checked values for the floors below and the server.
//!
//! [`load`] either returns a configuration that can be served, or one sentence that names the
//! setting, where its value came from and what it takes. It reads files, but neither the clock nor
//! the process environment. Secrets appear in no message and no `Debug`.

mod access;
mod aliases;
mod apps;
mod capacity;
mod changes;
mod dotenv;
mod file;
mod form;
#[cfg(feature = "testing")]
pub(crate) mod fuzzing;
mod import;
mod keys;
mod notes;
mod publishing;
mod reader;
mod server;
mod settings;
mod soketi;
mod sources;
#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;
mod text_file;
mod units;
mod variables;
mod webhooks;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::protocol::app::Apps;

pub(crate) use access::SocketAccess;
pub(crate) use apps::{Credentials, DEVELOPMENT};
pub(crate) use capacity::SEND_BUFFER;
#[cfg(test)]
pub(crate) use capacity::SHARD_BYTES;
pub(crate) use capacity::needed;
pub(crate) use changes::{Changes, in_force};
pub(crate) use import::INPUT_BYTES_MAX;
pub use import::{Predecessor, import};
pub(crate) use reader::Resolved;
pub(crate) use server::{ListenAddr, Listener, LogFormat, MemoryLimit, ServerConfig};
pub(crate) use settings::help;
pub use sources::Environment;
use sources::Sources;

/// The text that is shown in place of a secret.
pub(crate) const WITHHELD: &str = "[withheld]";

/// The flags of `ringwave start` and `ringwave check`, unchecked.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// `--host`
    pub host: Option<String>,
    /// `--port`
    pub port: Option<String>,
    /// `--path`
    pub path: Option<String>,
    /// `--hostname`
    pub hostname: Option<String>,
    /// `--listen`, as often as given.
    pub listen: Vec<String>,
    /// `--shards`
    pub shards: Option<String>,
    /// `--debug`
    pub debug: bool,
    /// `--log-format`
    pub log_format: Option<String>,
    /// `--env`: the file to read instead of `.env`.
    pub env: Option<PathBuf>,
    /// `--config`: the file to read instead of `ringwave.toml`.
    pub config: Option<PathBuf>,
    /// `--dev`: serve the development app, on any address.
    pub dev: bool,
}

/// Where a configuration is read from, and can be read anew. It holds the environment, in which
/// there may be secrets: nothing prints it.
#[derive(Clone)]
pub(crate) struct Origin {
    /// The flags of the command line.
    pub(crate) flags: Flags,
    /// The process environment.
    pub(crate) environment: Environment,
    /// Where `.env` and `ringwave.toml` are looked for.
    pub(crate) directory: PathBuf,
}

impl Origin {
    /// Reads the configuration as it is now.
    ///
    /// # Errors
    /// As [`load`].
    pub(crate) fn load(&self) -> Result<Config, ConfigError> {
        load(&self.flags, &self.environment, &self.directory)
    }
}

/// A configuration that can be served.
#[derive(Debug)]
pub struct Config {
    /// The settings of the server.
    pub server: ServerConfig,
    /// The apps; never none.
    pub apps: Arc<Apps>,
    /// The development app, whose secret is public, is one of them.
    pub(crate) development: bool,
    /// Notes for the operator at the start, one or two sentences each.
    pub(crate) notes: Vec<String>,
    /// Every value with where it came from.
    pub resolved: Vec<Resolved>,
}

impl Config {
    /// Whether a process can start with it: for `start` and `check`, not for a reload, since a
    /// process that serves keeps those who are there with any limit.
    ///
    /// # Errors
    /// The limit of memory refuses every connection; the message has the figure that is needed.
    pub(crate) fn holds(&self) -> Result<(), ConfigError> {
        capacity::holds(&self.server)
    }
}

/// Why a configuration cannot be served: one sentence for the operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl ConfigError {
    /// An error for a reason that only the running process knows.
    pub(crate) fn new(sentence: &str) -> Self {
        Self(sentence.to_owned())
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// Reads the configuration. Relative paths are relative to `directory`, which is where `.env` and
/// `ringwave.toml` are looked for.
///
/// # Errors
/// The first value that cannot be served, see [`ConfigError`].
pub fn load(
    flags: &Flags,
    environment: &Environment,
    directory: &Path,
) -> Result<Config, ConfigError> {
    resolve(&Sources::read(flags, environment, directory)?, flags.dev)
}

/// Whether a `ringwave.toml` of this text could be served by itself.
fn check_file(text: &str) -> Result<(), ConfigError> {
    let file = file::File::parse(Path::new("ringwave.toml"), text)?;
    let (flags, environment) = (Flags::default(), Environment::new());
    resolve(&Sources::of_file(&flags, &environment, file), false).map(drop)
}

fn resolve(sources: &Sources<'_>, dev: bool) -> Result<Config, ConfigError> {
    let plan = apps::Plan::of(sources, dev)?;
    let mut reader = reader::Reader::new(sources);
    let development = plan.has_development();
    let server = server::read(&mut reader, !development)?;
    let max_request_size = reader.take(&settings::MAX_REQUEST_SIZE)?;
    if development && !dev {
        reject_public(&server)?;
    }
    let apps = plan.read(&mut reader, max_request_size)?;
    let notes = notes::collect(sources, &plan, &server, &apps);
    let resolved = reader.into_resolved();
    Ok(Config { server, apps: Arc::new(apps), development, notes, resolved })
}

/// The development app's secret is in our documentation: whoever reaches it can publish.
fn reject_public(server: &ServerConfig) -> Result<(), ConfigError> {
    let public = server.listeners.iter().find(|place| !place.is_local());
    public.map_or(Ok(()), |place| {
        Err(ConfigError(format!(
            "the development app, whose secret is public, is not served on {place}: set \
             REVERB_APP_ID, REVERB_APP_KEY and REVERB_APP_SECRET (in the environment, in .env, or \
             as `[[apps]]` of ringwave.toml), or listen on 127.0.0.1, or add --dev"
        )))
    })
}

/// The candidate that is most like a misspelt name, unless none is at all like it.
fn nearest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = candidates.map(|known| (strsim::damerau_levenshtein(name, known), known));
    let best = near.min()?;
    (best.0 <= name.len() / 3).then_some(best.1)
}
