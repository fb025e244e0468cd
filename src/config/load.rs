//! Floor 7. Reads the whole configuration: the sources, then the server, the cluster and the apps,
//! then the notes on them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::apps::Apps;
use crate::cluster::ClusterSettings;

use super::admin::AdminSettings;
use super::apps::AppPlan;
use super::error::ConfigError;
use super::flags::Flags;
use super::reader::{Resolved, SettingsReader};
use super::server::ServerConfig;
use super::sources::{Environment, Sources};
use super::toml_file::TomlFile;
use super::{admin, capacity, cluster, cluster_notes, notes, server, settings};

/// Everything that a configuration is read from, so that it can be read anew. The environment may
/// hold secrets, hence this has no `Debug`.
#[derive(Clone)]
pub(crate) struct ConfigInputs {
    /// The flags of the command line.
    pub(crate) flags: Flags,
    /// The process environment.
    pub(crate) environment: Environment,
    /// The directory in which `.env` and `ringwave.toml` are looked for.
    pub(crate) directory: PathBuf,
}

impl ConfigInputs {
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
    /// The settings of the cluster; `None` if the server stands alone.
    pub(crate) cluster: Option<ClusterSettings>,
    /// The listener for operators; `None` if there is none.
    pub(crate) admin: Option<AdminSettings>,
    /// The apps; at least one.
    pub apps: Arc<Apps>,
    /// Whether one of them is the development app, whose secret is public.
    pub(crate) development: bool,
    /// Notes for the operator at the start, one or two sentences each.
    pub(crate) notes: Vec<String>,
    /// Every value with its source.
    pub resolved: Vec<Resolved>,
}

impl Config {
    /// Checks that a process can start with this configuration. `start` and `check` ask this, a
    /// reload does not: a process that serves keeps its connections whatever the limit is.
    ///
    /// # Errors
    /// [`ConfigError::TooLittleMemory`]: the limit of memory refuses every connection.
    pub(crate) fn holds(&self) -> Result<(), ConfigError> {
        capacity::holds(&self.server)
    }
}

/// Reads the configuration. Relative paths are relative to `directory`, in which `.env` and
/// `ringwave.toml` are looked for.
///
/// # Errors
/// The first fault, see [`ConfigError`].
pub fn load(
    flags: &Flags,
    environment: &Environment,
    directory: &Path,
) -> Result<Config, ConfigError> {
    resolve(&Sources::read(flags, environment, directory)?, flags.dev)
}

/// Reads the configuration of a `ringwave.toml` of this text by itself.
pub(super) fn load_text(text: &str) -> Result<Config, ConfigError> {
    let file = TomlFile::parse(Path::new("ringwave.toml"), text)?;
    let (flags, environment) = (Flags::default(), Environment::new());
    resolve(&Sources::of_file(&flags, &environment, file), false)
}

fn resolve(sources: &Sources<'_>, dev: bool) -> Result<Config, ConfigError> {
    let plan = AppPlan::of(sources, dev)?;
    let mut reader = SettingsReader::new(sources);
    let development = plan.has_development();
    let server = server::read(&mut reader, !development)?;
    let max_request_size = reader.take(&settings::MAX_REQUEST_SIZE)?;
    if development && !dev {
        reject_public(&server)?;
    }
    let admin = admin::read(&mut reader)?;
    let cluster = cluster::read(&mut reader)?;
    let apps = plan.read(&mut reader, max_request_size)?;
    let mut notes = notes::collect(sources, &plan, &server, &apps);
    notes.extend(cluster_notes::collect(sources, cluster.as_ref()));
    let resolved = reader.into_resolved();
    Ok(Config { server, cluster, admin, apps: Arc::new(apps), development, notes, resolved })
}

/// The development app's secret is in our documentation, so anyone who can connect can publish.
fn reject_public(server: &ServerConfig) -> Result<(), ConfigError> {
    let public = server.listeners.iter().find(|listener| !listener.is_local());
    public.map_or(Ok(()), |listener| Err(ConfigError::DevelopmentAppExposed(listener.clone())))
}
