//! Values of webhooks: the URL of a receiver, the kinds of events, the headers of a request.

use crate::apps::webhook::{EventKind, EventKinds, Header, Url};
use crate::config::raw_value::{RawValue, RejectedValue, WITHHELD};
use crate::config::value_type::ValueType;

use super::text::AnyText;

/// A URL to send requests to. Its query may be a secret.
pub(crate) struct WebhookUrl;

impl ValueType for WebhookUrl {
    type Value = Url;

    fn parse(&self, raw: &RawValue) -> Result<Url, RejectedValue> {
        let text = AnyText.parse(raw)?;
        Url::parse(&text).ok_or_else(|| {
            // A password may stand before an `@`, a token behind a `?`.
            let secret = text.contains(['@', '?']);
            if secret { RejectedValue::withheld() } else { RejectedValue::item(&text) }
        })
    }

    fn expected(&self) -> String {
        "a URL of `https` or `http` in ASCII, without user and password".into()
    }

    fn display(&self, value: &Url) -> String {
        value.to_string()
    }

    fn canonical(&self, value: &Url) -> String {
        value.whole()
    }
}

/// Kinds of events, at least one.
pub(crate) struct EventNames;

impl ValueType for EventNames {
    type Value = EventKinds;

    fn parse(&self, raw: &RawValue) -> Result<EventKinds, RejectedValue> {
        let kind = |name: &String| EventKind::named(name).ok_or_else(|| RejectedValue::item(name));
        let kinds: EventKinds = raw.items()?.iter().map(kind).collect::<Result<_, _>>()?;
        if kinds.is_empty() { Err(raw.into()) } else { Ok(kinds) }
    }

    fn expected(&self) -> String {
        let names = EventKind::ALL.map(|kind| format!("`{}`", kind.name()));
        format!("a list of {}", names.join(", "))
    }

    fn display(&self, value: &EventKinds) -> String {
        value.iter().map(EventKind::name).collect::<Vec<_>>().join(", ")
    }
}

/// Headers, as lines of a request.
pub(crate) struct HeaderLines;

impl ValueType for HeaderLines {
    type Value = Vec<Header>;

    const SECRET: bool = true;

    fn parse(&self, raw: &RawValue) -> Result<Vec<Header>, RejectedValue> {
        let parse = |line: &String| Header::parse(line).ok_or_else(|| RejectedValue::item(line));
        raw.items()?.iter().map(parse).collect()
    }

    fn expected(&self) -> String {
        "a list of `Name: value`, of no name that the request itself needs".into()
    }

    fn display(&self, value: &Vec<Header>) -> String {
        let line = |header: &Header| format!("{}: {WITHHELD}", header.shown_name());
        value.iter().map(line).collect::<Vec<_>>().join(", ")
    }

    fn canonical(&self, value: &Vec<Header>) -> String {
        value.iter().map(|header| header.whole() + "\n").collect()
    }
}
