//! Floor 7. The webhooks of an app: entries of its `[[apps.webhooks]]`, and those that variables
//! make for the app that they describe.

use std::time::Duration;

use crate::apps::webhook::{Webhook, Webhooks};

use super::error::ConfigError;
use super::reader::{Section, SettingsReader, WebhookEntry, WebhookSource};
use super::settings;

/// Takes the webhooks of the app that the reader is at, and leaves it there.
pub(super) fn read(reader: &mut SettingsReader<'_>) -> Result<Webhooks, ConfigError> {
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

fn read_one(reader: &mut SettingsReader<'_>) -> Result<Webhook, ConfigError> {
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
