//! Floor 6. Takes settings out of the sources: the strongest source that has a value decides, the
//! form of the setting says whether the value will do, and what was taken is written down for
//! `ringwave check`.

use std::fmt;

use sha2::{Digest, Sha256};

use super::form::{Form, Given, Offender};
use super::settings::{Declaration, Setting, TakesEffect};
use super::soketi;
use super::sources::{Source, Sources};
use super::{ConfigError, WITHHELD};

/// One value of the configuration, with where it came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// `server.port`, `apps[0].ping_interval`.
    pub(crate) key: String,
    /// As an operator would write it; secrets are withheld.
    pub(crate) value: String,
    /// Where it came from.
    pub(crate) source: Source,
    /// The part of the configuration that it describes.
    pub(super) subject: Subject,
    /// The key of its declaration: `server.port`, `app.ping_interval`.
    pub(super) setting: &'static str,
    /// Whether a reload puts a new value in force.
    pub(super) takes_effect: TakesEffect,
    /// Differs when the value does, also where the value is withheld.
    pub(super) fingerprint: Fingerprint,
}

/// The part of the configuration that a value describes: apps and webhooks by their places in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// The server.
    Server,
    /// The app at this place.
    App(usize),
    /// The webhook at this place among those of the app at that place.
    Webhook { app: usize, webhook: usize },
}

/// Stands for a value that may be a secret. Never printed: a short secret could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint([u8; 32]);

impl Fingerprint {
    fn of(whole: &str) -> Self {
        Self(Sha256::digest(whole).into())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(WITHHELD)
    }
}

/// Which part of the sources describes what is being read.
#[derive(Clone, Copy)]
pub(super) enum Section {
    /// The server.
    Server,
    /// One app.
    App(AppSources),
    /// One webhook of an app.
    Webhook(AppSources, WebhookSource),
}

/// Where the settings of one app come from.
#[derive(Clone, Copy)]
pub(super) struct AppSources {
    /// Its place in the list of apps.
    pub(super) position: usize,
    /// It is described by the `REVERB_APP_*` and `RINGWAVE_APP_*` variables.
    pub(super) variables: bool,
    /// Its entry in `[[apps]]`.
    pub(super) entry: Option<usize>,
}

/// Where the settings of one webhook come from.
#[derive(Clone, Copy)]
pub(super) struct WebhookSource {
    /// Its place among the webhooks of its app.
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

/// See the module.
pub(super) struct Reader<'a> {
    sources: &'a Sources<'a>,
    soketi_webhooks: Option<(soketi::Webhooks, Source)>,
    section: Section,
    resolved: Vec<Resolved>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sources: &'a Sources<'a>) -> Self {
        let soketi_webhooks = sources.soketi_webhooks();
        Self { sources, soketi_webhooks, section: Section::Server, resolved: Vec::new() }
    }

    /// Turns to another part of the sources.
    pub(super) const fn enter(&mut self, section: Section) {
        self.section = section;
    }

    /// The value of a setting: given, or the declared default.
    pub(super) fn take<F: Form>(&mut self, setting: &Setting<F>) -> Result<F::Value, ConfigError> {
        let (given, source) = self
            .find(&setting.declaration)
            .unwrap_or_else(|| (default_of(&setting.declaration), Source::Default));
        self.accept(setting, &given, source)
    }

    /// The value of a setting whose default depends on the host or on other settings.
    pub(super) fn take_or<F: Form>(
        &mut self,
        setting: &Setting<F>,
        default: F::Value,
    ) -> Result<F::Value, ConfigError> {
        match self.find(&setting.declaration) {
            Some((given, source)) => self.accept(setting, &given, source),
            None => {
                self.write_down(setting, &default, Source::Default);
                Ok(default)
            }
        }
    }

    /// The value of a setting that has no default.
    pub(super) fn take_required<F: Form>(
        &mut self,
        setting: &Setting<F>,
    ) -> Result<F::Value, ConfigError> {
        match self.find(&setting.declaration) {
            Some((given, source)) => self.accept(setting, &given, source),
            None => Err(ConfigError(format!(
                "{} is missing in ringwave.toml: it takes {}",
                self.key(&setting.declaration),
                setting.form.accepted(),
            ))),
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
    pub(super) fn has_variable<F>(&self, setting: &Setting<F>) -> bool {
        setting.declaration.env.is_some_and(|name| self.sources.variable(name).is_some())
    }

    /// How many `[[apps.webhooks]]` an entry of `[[apps]]` has.
    pub(super) fn webhook_entries(&self, app: usize) -> usize {
        self.sources.toml_webhooks_len(app)
    }

    /// The number of webhooks that the variable of soketi lists.
    pub(super) fn soketi_entries(&self) -> usize {
        self.soketi_webhooks.as_ref().map_or(0, |(webhooks, _)| webhooks.entries.len())
    }

    /// The values that were taken so far, each with its source.
    pub(super) fn into_resolved(self) -> Vec<Resolved> {
        self.resolved
    }

    fn find(&self, declaration: &Declaration) -> Option<(Given, Source)> {
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

    fn accept<F: Form>(
        &mut self,
        setting: &Setting<F>,
        given: &Given,
        source: Source,
    ) -> Result<F::Value, ConfigError> {
        let value = setting.form.accept(given).map_err(|Offender(text)| {
            let explained = literal_explained(given);
            let text = if F::SECRET { WITHHELD } else { &text };
            ConfigError(format!(
                "{} cannot be {text} ({source}): it takes {}{explained}",
                self.key(&setting.declaration),
                setting.form.accepted(),
            ))
        })?;
        self.write_down(setting, &value, source);
        Ok(value)
    }

    fn write_down<F: Form>(&mut self, setting: &Setting<F>, value: &F::Value, source: Source) {
        let Declaration { key: name, takes_effect, .. } = setting.declaration;
        self.resolved.push(Resolved {
            key: self.key(&setting.declaration),
            value: setting.form.show(value),
            source,
            subject: self.subject(),
            setting: name,
            takes_effect,
            fingerprint: Fingerprint::of(&setting.form.whole(value)),
        });
    }

    const fn subject(&self) -> Subject {
        match self.section {
            Section::Server => Subject::Server,
            Section::App(app) => Subject::App(app.position),
            Section::Webhook(app, webhook) => {
                Subject::Webhook { app: app.position, webhook: webhook.position }
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

/// A hint for a value that was meant for a shell.
fn literal_explained(given: &Given) -> &'static str {
    match given {
        Given::Text(text) if text.contains("${") => {
            "; `${NAME}` of an unknown variable, and `${NAME:-default}` of any, are literal text in \
             Laravel's .env: write the value itself"
        }
        _ => "",
    }
}

/// The declared default, in the way a variable would give it.
fn default_of(declaration: &Declaration) -> Given {
    match declaration.default {
        "true" => Given::Truth(true),
        "false" => Given::Truth(false),
        text => Given::Text(text.to_owned()),
    }
}
