//! Floor 6. The webhooks of an app: entries of its `[[apps.webhooks]]`, and those that variables
//! make for the app that they describe.

use std::path::PathBuf;
use std::time::Duration;

use crate::apps::webhook::{EventKind, EventKinds, Url, Webhook, WebhookHeader, Webhooks};

use super::form::{Form, Given, Offender, Text, items, quoted};
use super::reader::{Reader, Section, WebhookEntry, WebhookSource};
use super::{ConfigError, WITHHELD, settings};

/// Takes the webhooks of the app that the reader is at, and leaves it there.
pub(super) fn read(reader: &mut Reader<'_>) -> Result<Webhooks, ConfigError> {
    let Some(app) = reader.app() else { return Ok(Webhooks::default()) };
    let entries = app.entry.map_or(0, |entry| reader.webhook_entries(entry));
    let of_variables = app.variables && reader.has_variable(&settings::WEBHOOK_URL);
    let of_soketi = if app.variables { reader.soketi_entries() } else { 0 };
    let sources = of_variables.then_some(WebhookEntry::Variables).into_iter();
    let sources = sources.chain((0..of_soketi).map(WebhookEntry::Soketi));
    let mut list = Vec::new();
    for (position, entry) in sources.chain((0..entries).map(WebhookEntry::Toml)).enumerate() {
        reader.enter(Section::Webhook(app, WebhookSource { position, entry }));
        list.push(read_one(reader)?);
    }
    reader.enter(Section::App(app));
    Ok(Webhooks::new(list))
}

fn read_one(reader: &mut Reader<'_>) -> Result<Webhook, ConfigError> {
    Ok(Webhook {
        url: reader.take_required(&settings::WEBHOOK_URL)?,
        events: reader.take(&settings::WEBHOOK_EVENTS)?,
        channel_prefix: reader.take(&settings::WEBHOOK_CHANNEL_PREFIX)?,
        channel_suffix: reader.take(&settings::WEBHOOK_CHANNEL_SUFFIX)?,
        headers: reader.take(&settings::WEBHOOK_HEADERS)?,
        batch_window: Duration::from_millis(reader.take(&settings::WEBHOOK_BATCH_WINDOW)?),
        batch_max: reader.take(&settings::WEBHOOK_BATCH_MAX)?,
        connect_timeout: reader.take(&settings::WEBHOOK_CONNECT_TIMEOUT)?,
        timeout: reader.take(&settings::WEBHOOK_TIMEOUT)?,
    })
}

/// A URL to send requests to. Its query may be a secret.
pub(super) struct WebhookUrl;

impl Form for WebhookUrl {
    type Value = Url;

    fn accept(&self, given: &Given) -> Result<Url, Offender> {
        let text = Text.accept(given)?;
        Url::parse(&text).ok_or_else(|| {
            // A password may stand before an `@`, a token behind a `?`.
            let secret = text.contains(['@', '?']);
            Offender(if secret { WITHHELD.to_owned() } else { quoted(&text) })
        })
    }

    fn accepted(&self) -> String {
        "a URL of `https` or `http` in ASCII, without user and password".into()
    }

    fn show(&self, value: &Url) -> String {
        value.to_string()
    }

    fn whole(&self, value: &Url) -> String {
        value.whole()
    }
}

/// Kinds of events, at least one.
pub(super) struct EventNames;

impl Form for EventNames {
    type Value = EventKinds;

    fn accept(&self, given: &Given) -> Result<EventKinds, Offender> {
        let kind = |name: &String| EventKind::named(name).ok_or_else(|| Offender(quoted(name)));
        let kinds: EventKinds = items(given)?.iter().map(kind).collect::<Result<_, _>>()?;
        if kinds.is_empty() { Err(given.into()) } else { Ok(kinds) }
    }

    fn accepted(&self) -> String {
        let names = EventKind::ALL.map(|kind| format!("`{}`", kind.name()));
        format!("a list of {}", names.join(", "))
    }

    fn show(&self, value: &EventKinds) -> String {
        value.iter().map(EventKind::name).collect::<Vec<_>>().join(", ")
    }
}

/// Headers, as lines of a request.
pub(super) struct HeaderLines;

impl Form for HeaderLines {
    type Value = Vec<WebhookHeader>;

    const SECRET: bool = true;

    fn accept(&self, given: &Given) -> Result<Vec<WebhookHeader>, Offender> {
        let parse =
            |line: &String| WebhookHeader::parse(line).ok_or_else(|| Offender(quoted(line)));
        items(given)?.iter().map(parse).collect()
    }

    fn accepted(&self) -> String {
        "a list of `Name: value`, of no name that the request itself needs".into()
    }

    fn show(&self, value: &Vec<WebhookHeader>) -> String {
        let line = |header: &WebhookHeader| format!("{}: {WITHHELD}", header.name);
        value.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    fn whole(&self, value: &Vec<WebhookHeader>) -> String {
        let line = |WebhookHeader { name, value }: &WebhookHeader| {
            format!("{name}: {}\n", value.to_str().unwrap_or_default())
        };
        value.iter().map(line).collect()
    }
}

/// A directory.
pub(super) struct Directory;

impl Form for Directory {
    type Value = PathBuf;

    fn accept(&self, given: &Given) -> Result<PathBuf, Offender> {
        let text = Text.accept(given)?;
        let usable = !text.is_empty() && !text.contains('\0');
        if usable { Ok(text.into()) } else { Err(given.into()) }
    }

    fn accepted(&self) -> String {
        "the path of a directory".into()
    }

    fn show(&self, value: &PathBuf) -> String {
        value.display().to_string()
    }
}
