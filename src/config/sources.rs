//! Floor 6. Where values come from, strongest first: flags, the process environment, `.env`,
//! `ringwave.toml`, defaults.
//!
//! As in Laravel, a variable of the process environment hides the one of `.env` even when it is
//! empty; what is empty or `null` then counts as not set, so the file or the default applies.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::dotenv::{DotEnv, env_value};
use super::file::File;
use super::form::Given;
use super::{ConfigError, Flags};

/// The process environment.
pub type Environment = BTreeMap<String, String>;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// This flag.
    Flag(&'static str),
    /// This variable of the process environment.
    Env(&'static str),
    /// This variable of a `.env` file.
    DotEnv {
        /// The variable.
        name: &'static str,
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
    },
    /// This key of `ringwave.toml`.
    Toml {
        /// The file.
        path: PathBuf,
        /// `server.port`, `apps[0].key`.
        key: String,
    },
    /// Nobody gave one.
    Default,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(flag) => f.write_str(flag),
            Self::Env(name) => write!(f, "{name} of the environment"),
            Self::DotEnv { name, path, line } => {
                write!(f, "{name} in {} line {line}", path.display())
            }
            Self::Toml { path, key } => write!(f, "{key} in {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// All sources, read and ready to be asked.
pub(super) struct Sources<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    dotenv: Option<(PathBuf, DotEnv)>,
    file: Option<File>,
}

impl<'a> Sources<'a> {
    /// Reads the files. One that the operator named has to exist.
    pub(super) fn read(
        flags: &'a Flags,
        environment: &'a Environment,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        let dotenv = match &flags.env {
            Some(path) => Some(named(directory, path, "--env")?),
            None => optional(&dotenv_path(environment, directory))?,
        };
        let dotenv = match dotenv {
            Some((path, text)) => {
                let outer = |name: &str| environment.get(name).cloned();
                let read = DotEnv::parse(&text, outer).map_err(|malformed| {
                    let line = malformed.line;
                    ConfigError(format!("{} line {line}: {malformed}", path.display()))
                })?;
                Some((path, read))
            }
            None => None,
        };
        let file = match &flags.config {
            Some(path) => Some(named(directory, path, "--config")?),
            None => optional(&directory.join("ringwave.toml"))?,
        };
        let file = file.map(|(path, text)| File::parse(&path, &text)).transpose()?;
        Ok(Self { flags, environment, dotenv, file })
    }

    /// Those of a `ringwave.toml` that no `.env` stands beside.
    pub(super) const fn of_file(
        flags: &'a Flags,
        environment: &'a Environment,
        file: File,
    ) -> Self {
        Self { flags, environment, dotenv: None, file: Some(file) }
    }

    /// What a flag gave.
    pub(super) fn flag(&self, flag: &'static str) -> Option<(Given, Source)> {
        let given = match flag {
            "--host" => self.flags.host.clone().map(Given::Text),
            "--port" => self.flags.port.clone().map(Given::Text),
            "--path" => self.flags.path.clone().map(Given::Text),
            "--hostname" => self.flags.hostname.clone().map(Given::Text),
            "--shards" => self.flags.shards.clone().map(Given::Text),
            "--log-format" => self.flags.log_format.clone().map(Given::Text),
            "--debug" => self.flags.debug.then_some(Given::Truth(true)),
            "--listen" if self.flags.listen.is_empty() => None,
            "--listen" => Some(Given::List(self.flags.listen.clone())),
            _ => None,
        };
        given.map(|given| (given, Source::Flag(flag)))
    }

    /// What a variable gave, unless it is empty or null.
    pub(super) fn variable(&self, name: &'static str) -> Option<(Given, Source)> {
        if let Some(text) = self.environment.get(name) {
            return Some((env_value(text)?, Source::Env(name)));
        }
        let (path, dotenv) = self.dotenv.as_ref()?;
        let variable = dotenv.variable(name)?;
        let source = Source::DotEnv { name, path: path.clone(), line: variable.line };
        Some((env_value(&variable.value)?, source))
    }

    /// What a key of `[server]` or `[app]` gave.
    pub(super) fn toml(&self, key: &'static str) -> Option<(Given, Source)> {
        let file = self.file.as_ref()?;
        let source = Source::Toml { path: file.path.clone(), key: key.to_owned() };
        Some((file.value(key)?, source))
    }

    /// What an entry of `[[apps]]` gave.
    pub(super) fn toml_app(&self, index: usize, key: &'static str) -> Option<(Given, Source)> {
        let file = self.file.as_ref()?;
        let (given, key) = file.app_value(index, key)?;
        Some((given, Source::Toml { path: file.path.clone(), key }))
    }

    /// What an entry of an app's `[[apps.webhooks]]` gave.
    pub(super) fn toml_webhook(
        &self,
        app: usize,
        index: usize,
        key: &'static str,
    ) -> Option<(Given, Source)> {
        let file = self.file.as_ref()?;
        let (given, key) = file.webhook_value(app, index, key)?;
        Some((given, Source::Toml { path: file.path.clone(), key }))
    }

    /// How many `[[apps.webhooks]]` an app has.
    pub(super) fn toml_webhooks_len(&self, app: usize) -> usize {
        self.file.as_ref().map_or(0, |file| file.webhooks_len(app))
    }

    /// How many `[[apps]]` there are.
    pub(super) fn toml_apps_len(&self) -> usize {
        self.file.as_ref().map_or(0, File::apps_len)
    }

    /// The names of all variables, in a stable order.
    pub(super) fn variable_names(&self) -> Vec<&str> {
        let dotenv = self.dotenv.iter().flat_map(|(_, dotenv)| dotenv.names());
        let mut names: Vec<_> = self.environment.keys().map(String::as_str).chain(dotenv).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

/// `.env`, or `.env.NAME` when the process environment says `APP_ENV=NAME` and there is such a
/// file: Laravel then reads that one instead.
fn dotenv_path(environment: &Environment, directory: &Path) -> PathBuf {
    let specific = environment.get("APP_ENV").filter(|name| !name.is_empty());
    let specific = specific.map(|name| directory.join(format!(".env.{name}")));
    specific.filter(|path| path.is_file()).unwrap_or_else(|| directory.join(".env"))
}

fn named(directory: &Path, path: &Path, flag: &str) -> Result<(PathBuf, String), ConfigError> {
    match std::fs::read_to_string(directory.join(path)) {
        Ok(text) => Ok((path.to_owned(), text)),
        Err(error) => Err(unreadable(path, &format!(" (from {flag})"), &error)),
    }
}

fn optional(path: &Path) -> Result<Option<(PathBuf, String)>, ConfigError> {
    // The operator knows these two by their names; the directory is the current one.
    let shown = || path.file_name().map_or_else(|| path.to_owned(), PathBuf::from);
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some((shown(), text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(&shown(), "", &error)),
    }
}

fn unreadable(path: &Path, from: &str, error: &io::Error) -> ConfigError {
    ConfigError(format!("{}{from} cannot be read: {error}", path.display()))
}
