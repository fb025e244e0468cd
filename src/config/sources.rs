//! Floor 6. Where values come from, strongest first: flags, the process environment, `.env`,
//! `ringwave.toml`, defaults.
//!
//! As in Laravel, a variable of the process environment hides the one of `.env` even when it is
//! empty; what is empty or `null` then counts as not set, so the file or the default applies.
//!
//! A setting is asked for by its own variable first, then by those that stand for it ([`aliases`]).
//! Variables of other servers are in force only where none of Reverb's credentials is set: a
//! project that has moved on to Reverb may have left them behind.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::aliases::{self, Alias};
use super::dotenv::{self, DotEnv, env_value};
use super::file::File;
use super::form::Given;
use super::settings::{self, Declaration};
use super::soketi;
use super::text_file::{self, Unreadable};
use super::{ConfigError, Flags};

/// The process environment.
pub type Environment = BTreeMap<String, String>;

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
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
    /// No source gave a value.
    Default,
    /// No source gave one, and the server whose variables are in force has another default.
    DefaultOf(&'static str),
}

impl Source {
    /// The variable that it is.
    pub(super) const fn variable(&self) -> Option<&'static str> {
        match self {
            Self::Env(name) | Self::DotEnv { name, .. } => Some(name),
            _ => None,
        }
    }
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
            Self::DefaultOf(server) => write!(f, "default of {server}"),
        }
    }
}

/// All sources, read and ready to be asked.
pub(super) struct Sources<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    dotenv: Option<(PathBuf, DotEnv)>,
    file: Option<File>,
    /// Sentences about files that are not read, or not to their end.
    notes: Vec<String>,
}

impl<'a> Sources<'a> {
    /// Reads the files. One that the operator named has to exist.
    pub(super) fn read(
        flags: &'a Flags,
        environment: &'a Environment,
        directory: &Path,
    ) -> Result<Self, ConfigError> {
        let mut notes = Vec::new();
        let dotenv = match &flags.env {
            Some(path) => Some((path.clone(), named(directory, path, "--env")?)),
            None => optional(&dotenv_path(environment, directory), &mut notes)?,
        };
        let dotenv = match dotenv {
            Some((path, bytes)) => {
                Some((path.clone(), read_dotenv(&path, &bytes, environment, &mut notes)?))
            }
            None => None,
        };
        let file = match &flags.config {
            Some(path) => Some((path.clone(), named(directory, path, "--config")?)),
            None => optional(&directory.join("ringwave.toml"), &mut notes)?,
        };
        let file = file.map(|(path, bytes)| read_toml(&path, bytes)).transpose()?;
        Ok(Self { flags, environment, dotenv, file, notes })
    }

    /// Those of a `ringwave.toml` that no `.env` stands beside.
    pub(super) const fn of_file(
        flags: &'a Flags,
        environment: &'a Environment,
        file: File,
    ) -> Self {
        Self { flags, environment, dotenv: None, file: Some(file), notes: Vec::new() }
    }

    /// Returns the value that a flag gave.
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

    /// Returns the value that a variable gave, unless it is empty or null.
    pub(super) fn variable(&self, name: &'static str) -> Option<(Given, Source)> {
        if let Some(text) = self.environment.get(name) {
            return Some((env_value(text)?, Source::Env(name)));
        }
        let (path, dotenv) = self.dotenv.as_ref()?;
        let variable = dotenv.variable(name)?;
        let source = Source::DotEnv { name, path: path.clone(), line: variable.line };
        Some((env_value(&variable.value)?, source))
    }

    /// Returns what the variable of a setting gave, or one that stands for it.
    pub(super) fn declared(&self, declaration: &Declaration) -> Option<(Given, Source)> {
        let own = declaration.env.and_then(|name| self.variable(name));
        own.or_else(|| {
            let aliases = self.aliases().filter(|alias| alias.key == declaration.key);
            aliases.into_iter().find_map(|alias| self.aliased(alias))
        })
    }

    /// Returns what a variable that stands for another one gave.
    pub(super) fn aliased(&self, alias: &Alias) -> Option<(Given, Source)> {
        let (given, source) = self.variable(alias.name)?;
        Some(((alias.read)(&given, &|name| self.given(name))?, source))
    }

    /// The variables in force that stand for others, strongest first.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &'static Alias> {
        let soketi = if self.speaks_soketi() { soketi::ALIASES } else { &[] };
        let pusher = if self.speaks_pusher() { &aliases::OF_PUSHER[..] } else { &[] };
        aliases::OF_PROJECTS.iter().chain(soketi).chain(pusher)
    }

    /// Whether soketi's variables are in force: there is one, and none of Reverb's credentials.
    pub(super) fn speaks_soketi(&self) -> bool {
        !self.has_reverb_credential()
            && self.variable_names().iter().any(|name| name.starts_with(soketi::PREFIX))
    }

    /// Whether the app of `PUSHER_APP_ID`, `PUSHER_APP_KEY` and `PUSHER_APP_SECRET` is meant. These
    /// are variables of the project, not of a server: they count where no server's own name an app,
    /// and beside apps of `ringwave.toml` only if one of these has the same id.
    pub(super) fn speaks_pusher(&self) -> bool {
        let [id, key, secret] = aliases::OF_PUSHER.each_ref().map(|alias| self.given(alias.name));
        let (Some(id), Some(_), Some(_)) = (id, key, secret) else { return false };
        let soketi = soketi::ALIASES.iter().filter(|alias| is_credential(alias.key));
        let other = self.has_reverb_credential()
            || soketi.into_iter().any(|alias| self.given(alias.name).is_some());
        let same = |entry| {
            self.toml_app(entry, settings::APP_ID.declaration.key)
                .is_some_and(|(given, _)| given.as_text() == id.as_text())
        };
        !other && (self.toml_apps_len() == 0 || (0..self.toml_apps_len()).any(same))
    }

    /// Whether one of the variables is set that make an app for Reverb.
    pub(super) fn has_reverb_credential(&self) -> bool {
        let declarations = settings::CREDENTIALS.iter().filter_map(|declaration| declaration.env);
        declarations.into_iter().any(|name| self.given(name).is_some())
    }

    /// The default that a setting of the app of the variables has instead of the declared one.
    pub(super) fn default_of(&self, key: &str) -> Option<(Given, Source)> {
        let (of, word) = soketi::CLIENT_EVENTS;
        (key == of && self.speaks_soketi())
            .then(|| (Given::Text(word.to_owned()), Source::DefaultOf("soketi")))
    }

    /// The webhooks that the variable of soketi lists, and that variable.
    pub(super) fn soketi_webhooks(&self) -> Option<(soketi::Webhooks, Source)> {
        let (given, source) = self.variable(soketi::WEBHOOKS).filter(|_| self.speaks_soketi())?;
        Some((soketi::webhooks(&given.as_text(), &|name| self.given(name)), source))
    }

    /// As [`Sources::variable`], without where it came from.
    pub(super) fn given(&self, name: &'static str) -> Option<Given> {
        self.variable(name).map(|(given, _)| given)
    }

    /// The text of a variable, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let of_file = || Some(self.dotenv.as_ref()?.1.variable(name)?.value.as_str());
        let text = self.environment.get(name).map(String::as_str).or_else(of_file);
        text.filter(|text| !text.is_empty())
    }

    /// A reference such as `${NAME:-...}` that is literal text in what a variable gave, with its
    /// source.
    pub(super) fn literal_reference(&self, name: &'static str) -> Option<(String, Source)> {
        if let Some(text) = self.environment.get(name) {
            let shown = text.find("${").and_then(|at| dotenv::shown(text.get(at..)?))?;
            return Some((shown, Source::Env(name)));
        }
        let (path, dotenv) = self.dotenv.as_ref()?;
        let variable = dotenv.variable(name)?;
        let source = Source::DotEnv { name, path: path.clone(), line: variable.line };
        Some((variable.literal.clone()?, source))
    }

    /// Sentences about files that are not read, or not to their end.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns what the strongest source gave for a setting of the server.
    pub(super) fn of_server(&self, declaration: &Declaration) -> Option<(Given, Source)> {
        let flag = declaration.flag.and_then(|flag| self.flag(flag));
        flag.or_else(|| self.declared(declaration)).or_else(|| self.toml(declaration.key))
    }

    /// Returns the value that a key of `[server]` or `[app]` gave.
    pub(super) fn toml(&self, key: &'static str) -> Option<(Given, Source)> {
        let file = self.file.as_ref()?;
        let source = Source::Toml { path: file.path.clone(), key: key.to_owned() };
        Some((file.value(key)?, source))
    }

    /// Returns the value that an entry of `[[apps]]` gave.
    pub(super) fn toml_app(&self, index: usize, key: &'static str) -> Option<(Given, Source)> {
        let file = self.file.as_ref()?;
        let (given, key) = file.app_value(index, key)?;
        Some((given, Source::Toml { path: file.path.clone(), key }))
    }

    /// Returns the value that an entry of an app's `[[apps.webhooks]]` gave.
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

fn is_credential(key: &str) -> bool {
    settings::CREDENTIALS.iter().any(|declaration| declaration.key == key)
}

fn read_dotenv(
    path: &Path,
    bytes: &[u8],
    environment: &Environment,
    notes: &mut Vec<String>,
) -> Result<DotEnv, ConfigError> {
    reject_wide(path, bytes)?;
    let outer = |name: &str| environment.get(name).cloned();
    let read = DotEnv::parse(bytes, outer).map_err(|malformed| {
        ConfigError(format!("{} line {}: {malformed}", path.display(), malformed.line))
    })?;
    notes.extend(read.unclosed().map(|line| {
        format!(
            "A double quote opens in {} line {line} and never closes: that line and all below it \
             are dropped, as in Laravel.",
            path.display()
        )
    }));
    Ok(read)
}

fn read_toml(path: &Path, bytes: Vec<u8>) -> Result<File, ConfigError> {
    reject_wide(path, &bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        ConfigError(format!("{} line {line} is not UTF-8, as TOML has to be", path.display()))
    })?;
    File::parse(path, &text)
}

fn reject_wide(path: &Path, bytes: &[u8]) -> Result<(), ConfigError> {
    text_file::wide_encoding(bytes).map_or(Ok(()), |encoding| {
        Err(ConfigError(format!(
            "{} is in {encoding}, as PowerShell and Notepad write it: save it as UTF-8",
            path.display()
        )))
    })
}

fn named(directory: &Path, path: &Path, flag: &str) -> Result<Vec<u8>, ConfigError> {
    text_file::read(&directory.join(path))
        .map_err(|cause| ConfigError(format!("{} (from {flag}) {cause}", path.display())))
}

/// A file at its usual place. What is there and is no file is passed over, as Laravel does, and
/// noted.
fn optional(
    path: &Path,
    notes: &mut Vec<String>,
) -> Result<Option<(PathBuf, Vec<u8>)>, ConfigError> {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match text_file::read(path) {
        // The operator knows these two by their names; the directory is the current one.
        Ok(bytes) => Ok(Some((path.file_name().map_or_else(|| path.into(), PathBuf::from), bytes))),
        Err(Unreadable::Absent) => Ok(None),
        Err(cause @ (Unreadable::Directory | Unreadable::Dangling(_))) => {
            notes.push(format!("{} {cause}: it is not read.", full.display()));
            Ok(None)
        }
        Err(cause) => Err(ConfigError(format!("{} {cause}", full.display()))),
    }
}
