//! Floor 7. The sources of values, strongest first: flags, the process environment, `.env`,
//! `ringwave.toml`, defaults.
//!
//! As in Laravel, a variable of the process environment hides the one of `.env` even when it is
//! empty; what is empty or `null` then counts as not set, so the file or the default applies.
//!
//! A setting is asked for by its own variable first, then by those that stand for it ([`aliases`]).
//! Variables of other servers are in force only where none of Reverb's credentials is set: a
//! project that has moved on to Reverb may have left them behind. Those of the app's Redis are in
//! force where the server is a node of a cluster and is told of no other Redis.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::aliases::{self, Alias};
use super::dotenv::{self, DotEnv, env_value};
use super::error::{ConfigError, FileError, FileFault};
use super::flags::Flags;
use super::raw_value::RawValue;
use super::secret_files::{SecretReader, SecretVariables};
use super::setting::Declaration;
use super::text_file::{self, Unreadable};
use super::toml_file::TomlFile;
use super::value_source::ValueSource;
use super::value_type::ValueType;
use super::{settings, soketi};

/// The process environment.
pub type Environment = BTreeMap<String, String>;

/// All sources, read and ready to be asked.
pub(super) struct Sources<'a> {
    flags: &'a Flags,
    environment: &'a Environment,
    dotenv: Option<(PathBuf, DotEnv)>,
    file: Option<TomlFile>,
    /// The variables whose values are in files.
    secrets: SecretVariables,
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
        let secrets = SecretVariables::default();
        let mut sources = Self { flags, environment, dotenv, file, secrets, notes };
        sources.read_secrets(&SecretReader::new(directory, environment))?;
        Ok(sources)
    }

    /// Reads the files that variables and `ringwave.toml` name for secrets.
    fn read_secrets(&mut self, reader: &SecretReader<'_>) -> Result<(), ConfigError> {
        let find = |name| self.variable(name).map(|(raw, source)| (raw.as_text(), source));
        self.secrets = SecretVariables::read(reader, find)?;
        self.file.as_mut().map_or(Ok(()), |file| file.read_secrets(reader))
    }

    /// A `ringwave.toml` with no `.env` beside it.
    pub(super) fn of_file(flags: &'a Flags, environment: &'a Environment, file: TomlFile) -> Self {
        let (file, secrets) = (Some(file), SecretVariables::default());
        Self { flags, environment, dotenv: None, file, secrets, notes: Vec::new() }
    }

    /// Returns the value that a variable gave, or the content of the file that stands for it,
    /// unless it is empty or null.
    pub(super) fn variable(&self, name: &'static str) -> Option<(RawValue, ValueSource)> {
        if let Some((secret, source)) = self.secrets.get(name) {
            return Some((RawValue::Text(secret.clone()), source.clone()));
        }
        if let Some(text) = self.environment.get(name) {
            return Some((env_value(text)?, ValueSource::Env(name)));
        }
        let (path, dotenv) = self.dotenv.as_ref()?;
        let variable = dotenv.variable(name)?;
        let source = ValueSource::DotEnv { name, path: path.clone(), line: variable.line };
        Some((env_value(&variable.value)?, source))
    }

    /// Returns what the variable of a setting gave, or one that stands for it.
    pub(super) fn declared(&self, declaration: &Declaration) -> Option<(RawValue, ValueSource)> {
        let own = declaration.env.and_then(|name| self.variable(name));
        own.or_else(|| {
            let aliases = self.aliases().filter(|alias| alias.key == declaration.key);
            aliases.into_iter().find_map(|alias| self.aliased(alias))
        })
    }

    /// Returns what a variable that stands for another one gave.
    pub(super) fn aliased(&self, alias: &Alias) -> Option<(RawValue, ValueSource)> {
        let (raw, source) = self.variable(alias.name)?;
        Some(((alias.read)(&raw, &|name| self.raw(name))?, source))
    }

    /// The variables in force that stand for others, strongest first.
    pub(super) fn aliases(&self) -> impl Iterator<Item = &'static Alias> {
        let soketi = if self.speaks_soketi() { soketi::ALIASES } else { &[] };
        let pusher = if self.speaks_pusher() { &aliases::OF_PUSHER[..] } else { &[] };
        let redis = if self.shares_redis() { &aliases::OF_REDIS[..] } else { &[] };
        aliases::OF_PROJECTS.iter().chain(soketi).chain(pusher).chain(redis)
    }

    /// Whether the server is one node of several.
    pub(super) fn is_clustered(&self) -> bool {
        let setting = &settings::CLUSTER_ENABLED;
        let own = self.own(&setting.declaration);
        own.is_some_and(|(raw, _)| setting.value_type.parse(&raw).unwrap_or(false))
    }

    /// Whether the nodes meet on the Redis of the app. Its variables describe that Redis as a
    /// whole: they count where no setting of the server names another one.
    fn shares_redis(&self) -> bool {
        self.is_clustered() && self.own(&settings::CLUSTER_REDIS.declaration).is_none()
    }

    /// Returns what the variable of a setting or `ringwave.toml` gave, without those that stand for
    /// the variable.
    pub(super) fn own(&self, declaration: &Declaration) -> Option<(RawValue, ValueSource)> {
        let variable = declaration.env.and_then(|name| self.variable(name));
        variable.or_else(|| self.toml(declaration.key))
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
        let [id, key, secret] = aliases::OF_PUSHER.each_ref().map(|alias| self.raw(alias.name));
        let (Some(id), Some(_), Some(_)) = (id, key, secret) else { return false };
        let soketi = soketi::ALIASES.iter().filter(|alias| is_credential(alias.key));
        let other = self.has_reverb_credential()
            || soketi.into_iter().any(|alias| self.raw(alias.name).is_some());
        let same = |entry| {
            self.toml_app(entry, settings::APP_ID.declaration.key)
                .is_some_and(|(raw, _)| raw.as_text() == id.as_text())
        };
        !other && (self.toml_apps_len() == 0 || (0..self.toml_apps_len()).any(same))
    }

    /// Whether one of the variables is set that make an app for Reverb.
    pub(super) fn has_reverb_credential(&self) -> bool {
        let declarations = settings::CREDENTIALS.iter().filter_map(|declaration| declaration.env);
        declarations.into_iter().any(|name| self.raw(name).is_some())
    }

    /// The default that a setting of the app of the variables has instead of the declared one.
    pub(super) fn default_of(&self, key: &str) -> Option<(RawValue, ValueSource)> {
        let (of, word) = soketi::CLIENT_EVENTS;
        (key == of && self.speaks_soketi())
            .then(|| (RawValue::Text(word.to_owned()), ValueSource::DefaultOf("soketi")))
    }

    /// The webhooks that the variable of soketi lists, and that variable.
    pub(super) fn soketi_webhooks(&self) -> Option<(soketi::SoketiWebhooks, ValueSource)> {
        let (raw, source) = self.variable(soketi::WEBHOOKS).filter(|_| self.speaks_soketi())?;
        Some((soketi::webhooks(&raw.as_text(), &|name| self.raw(name)), source))
    }

    /// As [`Sources::variable`], without the source.
    pub(super) fn raw(&self, name: &'static str) -> Option<RawValue> {
        self.variable(name).map(|(raw, _)| raw)
    }

    /// The text of a variable, unless it is empty.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        let of_file = || Some(self.dotenv.as_ref()?.1.variable(name)?.value.as_str());
        let text = self.environment.get(name).map(String::as_str).or_else(of_file);
        text.filter(|text| !text.is_empty())
    }

    /// A reference such as `${NAME:-...}` that is literal text in what a variable gave, with its
    /// source.
    pub(super) fn literal_reference(&self, name: &'static str) -> Option<(String, ValueSource)> {
        if let Some(text) = self.environment.get(name) {
            let shown = text.find("${").and_then(|at| dotenv::shown(text.get(at..)?))?;
            return Some((shown, ValueSource::Env(name)));
        }
        let (path, dotenv) = self.dotenv.as_ref()?;
        let variable = dotenv.variable(name)?;
        let source = ValueSource::DotEnv { name, path: path.clone(), line: variable.line };
        Some((variable.literal.clone()?, source))
    }

    /// Sentences about files that are not read, or not to their end.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Returns what the strongest source gave for a setting of the server.
    pub(super) fn of_server(&self, declaration: &Declaration) -> Option<(RawValue, ValueSource)> {
        let flag = declaration.flag;
        let flag =
            flag.and_then(|flag| Some((self.flags.settings.get(flag)?, ValueSource::Flag(flag))));
        flag.or_else(|| self.declared(declaration)).or_else(|| self.toml(declaration.key))
    }

    /// Returns the value that a key of `[server]` or `[app]` gave.
    pub(super) fn toml(&self, key: &'static str) -> Option<(RawValue, ValueSource)> {
        let file = self.file.as_ref()?;
        let key_in_file = file.giving(key.to_owned());
        let source = ValueSource::Toml { path: file.path.clone(), key: key_in_file };
        Some((file.value(key)?, source))
    }

    /// Returns the value that an entry of `[[apps]]` gave.
    pub(super) fn toml_app(
        &self,
        index: usize,
        key: &'static str,
    ) -> Option<(RawValue, ValueSource)> {
        let file = self.file.as_ref()?;
        let (raw, key) = file.app_value(index, key)?;
        Some((raw, ValueSource::Toml { path: file.path.clone(), key }))
    }

    /// Returns the value that an entry of an app's `[[apps.webhooks]]` gave.
    pub(super) fn toml_webhook(
        &self,
        app: usize,
        index: usize,
        key: &'static str,
    ) -> Option<(RawValue, ValueSource)> {
        let file = self.file.as_ref()?;
        let (raw, key) = file.webhook_value(app, index, key)?;
        Some((raw, ValueSource::Toml { path: file.path.clone(), key }))
    }

    /// The number of `[[apps.webhooks]]` of an app.
    pub(super) fn toml_webhooks_len(&self, app: usize) -> usize {
        self.file.as_ref().map_or(0, |file| file.webhooks_len(app))
    }

    /// The number of `[[apps]]`.
    pub(super) fn toml_apps_len(&self) -> usize {
        self.file.as_ref().map_or(0, TomlFile::apps_len)
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
) -> Result<DotEnv, FileError> {
    reject_wide(path, bytes)?;
    let outer = |name: &str| environment.get(name).cloned();
    let read = DotEnv::parse(bytes, outer)
        .map_err(|error| FileError::new(path, FileFault::DotEnv(error)))?;
    notes.extend(read.unclosed().map(|line| {
        format!(
            "A double quote opens in {} line {line} and never closes: that line and all below it \
             are dropped, as in Laravel.",
            path.display()
        )
    }));
    Ok(read)
}

fn read_toml(path: &Path, bytes: Vec<u8>) -> Result<TomlFile, ConfigError> {
    reject_wide(path, &bytes)?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
        FileError::new(path, FileFault::NotUtf8 { line })
    })?;
    TomlFile::parse(path, &text)
}

fn reject_wide(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    let wide = text_file::wide_encoding(bytes);
    wide.map_or(Ok(()), |encoding| Err(FileError::new(path, FileFault::Wide(encoding))))
}

/// A file that the operator named, which has to exist.
fn named(directory: &Path, path: &Path, flag: &'static str) -> Result<Vec<u8>, FileError> {
    text_file::read(&directory.join(path)).map_err(|cause| FileError {
        path: path.to_owned(),
        named_by: Some(flag.to_owned()),
        fault: FileFault::Unreadable(cause),
    })
}

/// A file at its usual path, which may be absent. A directory or a dangling link is passed over, as
/// Laravel does, and noted.
fn optional(path: &Path, notes: &mut Vec<String>) -> Result<Option<(PathBuf, Vec<u8>)>, FileError> {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    match text_file::read(path) {
        // The operator knows these two by their names; the directory is the current one.
        Ok(bytes) => Ok(Some((path.file_name().map_or_else(|| path.into(), PathBuf::from), bytes))),
        Err(Unreadable::Absent) => Ok(None),
        Err(cause @ (Unreadable::Directory | Unreadable::Dangling(_))) => {
            notes.push(format!("{} {cause}: it is not read.", full.display()));
            Ok(None)
        }
        Err(cause) => Err(FileError::new(full, FileFault::Unreadable(cause))),
    }
}
