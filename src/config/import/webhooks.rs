//! The webhooks of soketi and sockudo. One whose filter cannot be kept is left out, because
//! without the filter its receiver would hear more than before.

use serde_json::Value;

use crate::config::raw_value::RawValue;
use crate::config::value_type::ValueType;
use crate::config::value_types::{EventNames, HeaderLines, WebhookUrl};

use super::error::ImportError;
use super::loose::{Field, Object};
use super::writer::TomlWriter;

/// The way in which a server names and sends its webhooks.
pub(super) struct WebhookDialect {
    /// The field of a filter with the first characters of channels.
    pub(super) prefix: &'static str,
    /// The field of a filter with their last characters.
    pub(super) suffix: &'static str,
    /// Milliseconds that an event waits for others; `None`: each event has its own request.
    pub(super) window_ms: Option<f64>,
}

/// A webhook that can be served.
struct ImportedWebhook {
    url: String,
    events: Vec<String>,
    headers: Vec<String>,
    prefix: String,
    suffix: String,
    /// Settings of it that are not taken over.
    comments: Vec<String>,
}

/// Writes all webhooks of an app, behind its other settings.
pub(super) fn write(
    out: &mut TomlWriter,
    list: &Field<'_>,
    dialect: &WebhookDialect,
) -> Result<(), ImportError> {
    // A database or a variable has the list as text.
    if let Some(Value::String(text)) = list.value() {
        let parsed = serde_json::from_str::<Value>(text).unwrap_or_default();
        if !parsed.is_array() && !text.is_empty() {
            out.comment("webhooks: left out, as they are no list.");
            return Ok(());
        }
        return write_list(out, &Field::at(list.path().to_owned(), Some(&parsed)), dialect);
    }
    write_list(out, list, dialect)
}

fn write_list(
    out: &mut TomlWriter,
    list: &Field<'_>,
    dialect: &WebhookDialect,
) -> Result<(), ImportError> {
    for item in list.list()? {
        let mut fields = item.object()?;
        match read(&mut fields, dialect)? {
            Ok(webhook) => {
                webhook.write(out, dialect);
                out.unknown(&fields)?;
            }
            Err(reason) => out.comment(&format!("{} is left out: {reason}.", item.path())),
        }
    }
    Ok(())
}

/// Reads a webhook, or the reason why it is left out.
fn read(
    fields: &mut Object<'_>,
    dialect: &WebhookDialect,
) -> Result<Result<ImportedWebhook, String>, ImportError> {
    let url = fields.take("url");
    let lambda = [fields.take("lambda_function"), fields.take("lambda")];
    let (events, headers) = (fields.take("event_types"), fields.take("headers"));
    let mut filter = fields.take("filter").object()?;
    if url.is_absent() && !lambda[0].is_absent() {
        return Ok(Err("functions of AWS Lambda are not called".into()));
    }
    let Some(RawValue::Text(url)) = url.raw().filter(|url| WebhookUrl.parse(url).is_ok()) else {
        return Ok(Err(format!("its url cannot be served, it takes {}", WebhookUrl.expected())));
    };
    let mut comments = Vec::new();
    let events = event_names(&events, &mut comments)?;
    if events.is_empty() {
        return Ok(Err("it names no event that is told of".into()));
    }
    let [prefix, suffix] = [dialect.prefix, dialect.suffix].map(|name| filter.take(name));
    for part in [&prefix, &suffix] {
        if !matches!(part.value(), None | Some(Value::String(_))) {
            return Err(part.is_not("text"));
        }
    }
    let others: Vec<_> =
        filter.remaining().filter(|field| !field.is_absent()).map(|f| f.name().into()).collect();
    if !others.is_empty() {
        let others: Vec<String> = others;
        return Ok(Err(format!("its filter has no counterpart ({})", others.join(", "))));
    }
    let headers = header_lines(&headers, &mut comments)?;
    let text =
        |field: &Field<'_>| field.value().and_then(Value::as_str).unwrap_or_default().to_owned();
    let (prefix, suffix) = (text(&prefix), text(&suffix));
    Ok(Ok(ImportedWebhook { url, events, headers, prefix, suffix, comments }))
}

fn event_names(field: &Field<'_>, comments: &mut Vec<String>) -> Result<Vec<String>, ImportError> {
    let mut names = Vec::new();
    for item in field.list()? {
        let name = item.value().and_then(Value::as_str).unwrap_or_default();
        if EventNames.parse(&RawValue::List(vec![name.to_owned()])).is_ok() {
            names.push(name.to_owned());
        } else {
            comments.push(format!("There is no event {}.", item.shown()));
        }
    }
    Ok(names)
}

fn header_lines(field: &Field<'_>, comments: &mut Vec<String>) -> Result<Vec<String>, ImportError> {
    let mut lines = Vec::new();
    for header in field.object()?.remaining() {
        let value = match header.value() {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        let name = header.path().strip_prefix(field.path()).unwrap_or_default();
        let name = name.trim_start_matches('.');
        let line = format!("{name}: {value}");
        if HeaderLines.parse(&RawValue::List(vec![line.clone()])).is_ok() {
            lines.push(line);
        } else {
            comments.push(format!("The header {name:?} is left out: it cannot be sent along."));
        }
    }
    Ok(lines)
}

impl ImportedWebhook {
    fn write(self, out: &mut TomlWriter, dialect: &WebhookDialect) {
        out.table("[[apps.webhooks]]");
        out.text("app.webhooks.url", &self.url);
        out.value("app.webhooks.events", &RawValue::List(self.events));
        if !self.headers.is_empty() {
            out.value("app.webhooks.headers", &RawValue::List(self.headers));
        }
        for (setting, text) in [
            ("app.webhooks.channel_prefix", self.prefix),
            ("app.webhooks.channel_suffix", self.suffix),
        ] {
            if !text.is_empty() {
                out.text(setting, &text);
            }
        }
        match dialect.window_ms {
            None => out.number("app.webhooks.batch_max", 1),
            Some(milliseconds) => out.milliseconds("app.webhooks.batch_window_ms", milliseconds),
        }
        for comment in self.comments {
            out.comment(&comment);
        }
    }
}
