//! Floor 7. Takes settings out of the sources: the strongest source that has a value decides, the
//! value type of the setting parses it, and the value is recorded for `ringwave check`.

use std::collections::HashMap;
use std::fmt;

use sha2::{Digest, Sha256};

use super::error::{ConfigError, RejectedSetting};
use super::raw_value::{RawValue, WITHHELD};
use super::setting::{Declaration, Setting};
use super::settings::ALL;
use super::soketi;
use super::sources::Sources;
use super::value_source::ValueSource;
use super::value_type::ValueType;

/// One value of the configuration, with its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `server.port`, `apps[0].ping_interval`.
    pub(crate) key: String,
    /// As an operator would write it; secrets are withheld.
    pub(crate) value: String,
    /// The source that it comes from.
    pub(crate) source: ValueSource,
    /// The part of the configuration that it belongs to.
    pub(super) owner: SettingOwner,
    /// The declaration of its setting.
    pub(super) declaration: &'static Declaration,
    /// Differs when the value does, also where the value is withheld.
    pub(super) fingerprint: Fingerprint,
}

impl Resolved {
    /// Whether it is a value of this setting.
    pub(super) fn is_of<T>(&self, setting: &Setting<T>) -> bool {
        self.declaration.key == setting.declaration.key
    }
}

/// The part of the configuration that a value belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SettingOwner {
    /// The server.
    Server,
    /// The app at this position.
    App(usize),
    /// The webhook at this position among those of the app at that position.
    Webhook { app: usize, webhook: usize },
}

impl SettingOwner {
    /// The position of the app, unless the value belongs to the server.
    pub(super) const fn app(self) -> Option<usize> {
        match self {
            Self::Server => None,
            Self::App(app) | Self::Webhook { app, .. } => Some(app),
        }
    }

    /// The position of the webhook among those of its app, if the value belongs to one.
    const fn webhook(self) -> Option<usize> {
        match self {
            Self::Server | Self::App(_) => None,
            Self::Webhook { webhook, .. } => Some(webhook),
        }
    }
}

/// A digest that stands for a value. It is never printed, because the value may be a secret, and a
/// short one could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(canonical: &str) -> Self {
        Self(Sha256::digest(canonical).into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WITHHELD)
    }
}

/// The part of the configuration that is being read, and the part of the sources that describes it.
#[derive(Clone, Copy)]
pub(super) enum Section {
    /// The server.
    Server,
    /// One app.
    App(AppSources),
    /// One webhook of an app.
    Webhook(AppSources, WebhookSource),
}

/// The parts of the sources that describe one app.
#[derive(Clone, Copy)]
pub(super) struct AppSources {
    /// Its position in the list of apps.
    pub(super) position: usize,
    /// Whether the `REVERB_APP_*` and `RINGWAVE_APP_*` variables describe it.
    pub(super) variables: bool,
    /// Its entry in `[[apps]]`, if it has one.
    pub(super) entry: Option<usize>,
}

/// The part of the sources that describes one webhook.
#[derive(Clone, Copy)]
pub(super) struct WebhookSource {
    /// Its position among the webhooks of its app.
    pub(super) position: usize,
    /// The part of the sources that describes it.
    pub(super) entry: WebhookEntry,
}

/// The part of the sources that describes a webhook.
#[derive(Clone, Copy)]
pub(super) enum WebhookEntry {
    /// The variables.
    Variables,
    /// This entry of `[[apps.webhooks]]`.
    Toml(usize),
    /// This entry of the variable that soketi has.
    Soketi(usize),
}

/// Reads settings one by one. [`enter`](Self::enter) turns to the server, an app or a webhook;
/// until the next call the settings are taken from the sources that describe it.
pub(super) struct SettingsReader<'a> {
    sources: &'a Sources<'a>,
    soketi_webhooks: Option<(soketi::SoketiWebhooks, ValueSource)>,
    section: Section,
    /// The values that were taken so far.
    resolved: Vec<Resolved>,
}

impl<'a> SettingsReader<'a> {
    pub(super) fn new(sources: &'a Sources<'a>) -> Self {
        let soketi_webhooks = sources.soketi_webhooks();
        Self { sources, soketi_webhooks, section: Section::Server, resolved: Vec::new() }
    }

    /// Turns to another part of the sources.
    pub(super) const fn enter(&mut self, section: Section) {
        self.section = section;
    }

    /// Takes the value of a setting: from the sources, or the declared default.
    pub(super) fn take<T: ValueType>(
        &mut self,
        setting: &'static Setting<T>,
    ) -> Result<T::Value, ConfigError> {
        let (raw, source) = self
            .find(&setting.declaration)
            .unwrap_or_else(|| (default_of(&setting.declaration), ValueSource::Default));
        self.parse(setting, &raw, source)
    }

    /// Takes the value of a setting whose default depends on the host or on other settings.
    pub(super) fn take_or<T: ValueType>(
        &mut self,
        setting: &'static Setting<T>,
        default: T::Value,
    ) -> Result<T::Value, ConfigError> {
        match self.find(&setting.declaration) {
            Some((raw, source)) => self.parse(setting, &raw, source),
            None => {
                self.record(setting, &default, ValueSource::Default);
                Ok(default)
            }
        }
    }

    /// Takes the value of a setting that has no default.
    pub(super) fn take_required<T: ValueType>(
        &mut self,
        setting: &'static Setting<T>,
    ) -> Result<T::Value, ConfigError> {
        match self.find(&setting.declaration) {
            Some((raw, source)) => self.parse(setting, &raw, source),
            None => Err(ConfigError::Missing {
                key: self.key(&setting.declaration),
                expected: setting.value_type.expected(),
            }),
        }
    }

    /// The app that is being read.
    pub(super) const fn app(&self) -> Option<AppSources> {
        match self.section {
            Section::App(app) | Section::Webhook(app, _) => Some(app),
            Section::Server => None,
        }
    }

    /// Whether a variable gives this setting.
    pub(super) fn has_variable<T>(&self, setting: &'static Setting<T>) -> bool {
        setting.declaration.env.is_some_and(|name| self.sources.variable(name).is_some())
    }

    /// The number of `[[apps.webhooks]]` of an entry of `[[apps]]`.
    pub(super) fn webhook_entries(&self, app: usize) -> usize {
        self.sources.toml_webhooks_len(app)
    }

    /// The number of webhooks that the variable of soketi lists.
    pub(super) fn soketi_entries(&self) -> usize {
        self.soketi_webhooks.as_ref().map_or(0, |(webhooks, _)| webhooks.entries.len())
    }

    /// The values that were taken so far, each with its source, in the order in which settings are
    /// declared: those of the server, then each app with its webhooks.
    pub(super) fn into_resolved(self) -> Vec<Resolved> {
        let mut resolved = self.resolved;
        let places: HashMap<&str, usize> =
            ALL.iter().enumerate().map(|(at, setting)| (setting.declaration().key, at)).collect();
        let place = |line: &Resolved| places.get(line.declaration.key).copied();
        resolved.sort_by_key(|line| (line.owner.app(), line.owner.webhook(), place(line)));
        resolved
    }

    fn find(&self, declaration: &Declaration) -> Option<(RawValue, ValueSource)> {
        let key = declaration.key;
        let variable = || self.sources.declared(declaration);
        match self.section {
            Section::Server => self.sources.of_server(declaration),
            Section::App(app) => app
                .variables
                .then(variable)
                .flatten()
                .or_else(|| self.sources.toml_app(app.entry?, key))
                .or_else(|| self.sources.toml(key))
                .or_else(|| app.variables.then(|| self.sources.default_of(key)).flatten()),
            Section::Webhook(app, webhook) => match webhook.entry {
                WebhookEntry::Variables => variable(),
                WebhookEntry::Toml(entry) => self.sources.toml_webhook(app.entry?, entry, key),
                WebhookEntry::Soketi(entry) => {
                    let (webhooks, source) = self.soketi_webhooks.as_ref()?;
                    Some((webhooks.entries.get(entry)?.get(key)?.clone(), source.clone()))
                }
            },
        }
    }

    fn parse<T: ValueType>(
        &mut self,
        setting: &'static Setting<T>,
        raw: &RawValue,
        source: ValueSource,
    ) -> Result<T::Value, ConfigError> {
        let value = match setting.value_type.parse(raw) {
            Ok(value) => value,
            Err(rejected) => {
                let is_secret = T::SECRET || source.names_file();
                return Err(ConfigError::Rejected(Box::new(RejectedSetting {
                    key: self.key(&setting.declaration),
                    value: if is_secret { WITHHELD.to_owned() } else { rejected.to_string() },
                    source,
                    expected: setting.value_type.expected(),
                    has_reference: has_reference(raw),
                })));
            }
        };
        self.record(setting, &value, source);
        Ok(value)
    }

    fn record<T: ValueType>(
        &mut self,
        setting: &'static Setting<T>,
        value: &T::Value,
        source: ValueSource,
    ) {
        self.resolved.push(Resolved {
            key: self.key(&setting.declaration),
            value: setting.value_type.display(value),
            source,
            owner: self.owner(),
            declaration: &setting.declaration,
            fingerprint: Fingerprint::of(&setting.value_type.canonical(value)),
        });
    }

    const fn owner(&self) -> SettingOwner {
        match self.section {
            Section::Server => SettingOwner::Server,
            Section::App(app) => SettingOwner::App(app.position),
            Section::Webhook(app, webhook) => {
                SettingOwner::Webhook { app: app.position, webhook: webhook.position }
            }
        }
    }

    fn key(&self, declaration: &Declaration) -> String {
        match (self.section, declaration.key.strip_prefix("app.")) {
            (Section::App(app), Some(key)) => format!("apps[{}].{key}", app.position),
            (Section::Webhook(app, webhook), Some(key)) => {
                let key = key.strip_prefix("webhooks.").unwrap_or(key);
                format!("apps[{}].webhooks[{}].{key}", app.position, webhook.position)
            }
            _ => declaration.key.to_owned(),
        }
    }
}

/// Whether a value was meant for a shell.
fn has_reference(raw: &RawValue) -> bool {
    matches!(raw, RawValue::Text(text) if text.contains("${"))
}

/// The declared default, in the way a variable would give it.
fn default_of(declaration: &Declaration) -> RawValue {
    match declaration.default {
        "true" => RawValue::Bool(true),
        "false" => RawValue::Bool(false),
        text => RawValue::Text(text.to_owned()),
    }
}
