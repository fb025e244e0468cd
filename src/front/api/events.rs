//! `POST /events` and `POST /batch_events`. A request is published whole or not at all.

use std::collections::HashSet;
use std::sync::Arc;

use hyper::StatusCode;
use serde::Serialize;
use simd_json::Tape;
use simd_json::prelude::ValueAsScalar;

use crate::apps::App;
use crate::id::SocketId;
use crate::protocol::names::{ChannelName, valid_event_name};
use crate::protocol::outbound;

use super::super::gateway::{ChannelKey, Event, Gateway, Publication, PublishedStates, Retain};
use super::super::response::{HttpResponse, Rejection, Violations, json};
use super::call::Call;
use super::fields::{Fields, Place};
use super::info::{ChannelCounts, ChannelMap, Info};

/// The events of a publish, which are valid, and its answer.
pub(super) struct Requested {
    pub(super) events: Vec<Publication>,
    pub(super) told: Told,
}

/// The counts that the answer to a publish tells.
pub(in super::super) enum Told {
    /// None are asked for.
    Nothing,
    /// Those of the channels of one event.
    OfChannels(Info, Vec<ChannelName>),
    /// Those of the channel of each event, where they are asked for.
    OfEvents(Vec<(Option<Info>, ChannelName)>),
}

impl Told {
    /// The answer, if it tells anything.
    pub(in super::super) fn answer(self, states: &PublishedStates) -> Option<HttpResponse> {
        match self {
            Self::Nothing => None,
            Self::OfChannels(info, channels) => {
                let counts = channels.into_iter().zip(states).map(|(channel, state)| {
                    let counts = state.as_ref().map(|state| info.counts(&channel, state));
                    (channel, counts.unwrap_or_default())
                });
                Some(json(&PublishedChannels { channels: ChannelMap(counts.collect()) }))
            }
            Self::OfEvents(events) => {
                let counts = events.into_iter().zip(states).map(|((info, channel), state)| {
                    let asked = info.zip(state.as_ref());
                    asked.map(|(info, state)| info.counts(&channel, state)).unwrap_or_default()
                });
                Some(json(&PublishedBatch { batch: counts.collect() }))
            }
        }
    }
}

/// Reads a request that publishes one event on one or several channels.
pub(super) fn read<G: Gateway>(
    call: &Call<'_, G>,
    body: &mut [u8],
) -> Result<Requested, Rejection> {
    refuse_if_overloaded(call)?;
    let tape = call.json.parse(body)?;
    let event = single(&object(&tape)?, call.app)?;
    let events = event.publications(call.app, |name| call.key_of(name));
    let told = match event.info {
        None => Told::Nothing,
        Some(info) => Told::OfChannels(info, event.channels),
    };
    Ok(Requested { events, told })
}

/// Reads a request that publishes several events, each on one channel, in their order.
pub(super) fn read_batch<G: Gateway>(
    call: &Call<'_, G>,
    body: &mut [u8],
) -> Result<Requested, Rejection> {
    refuse_if_overloaded(call)?;
    let tape = call.json.parse(body)?;
    let batch = batch(&object(&tape)?, call.app)?;
    let publications =
        batch.iter().flat_map(|event| event.publications(call.app, |name| call.key_of(name)));
    let events = publications.collect();
    let told = match batch.iter().any(|event| event.info.is_some()) {
        false => Told::Nothing,
        true => {
            let of_event = |event: RequestedEvent<'_>| {
                event.channels.into_iter().map(move |channel| (event.info, channel))
            };
            Told::OfEvents(batch.into_iter().flat_map(of_event).collect())
        }
    };
    Ok(Requested { events, told })
}

/// Refuses a publish before it is parsed while the bus is full.
fn refuse_if_overloaded<G: Gateway>(call: &Call<'_, G>) -> Result<(), Rejection> {
    if call.gateway.overloaded() { Err(Rejection::BUSY) } else { Ok(()) }
}

fn object<'t>(tape: &'t Tape<'t>) -> Result<Fields<'t>, Rejection> {
    let refusal = || Rejection::text(StatusCode::BAD_REQUEST, "The body must be a JSON object.");
    Fields::of(&tape.as_value(), Place::Body).ok_or_else(refusal)
}

/// Reads the event of a request that publishes one.
fn single<'t>(fields: &Fields<'t>, app: &App) -> Result<RequestedEvent<'t>, Rejection> {
    let mut violations = Violations::default();
    let event = RequestedEvent::of(fields, one_or_many, app, &mut violations)?;
    event.filter(|_| violations.none()).ok_or(Rejection::Invalid(violations))
}

/// Reads the events of a request that publishes several.
fn batch<'t>(fields: &Fields<'t>, app: &App) -> Result<Vec<RequestedEvent<'t>>, Rejection> {
    let mut violations = Violations::default();
    let items = fields.array("batch", &mut violations).unwrap_or_default();
    if violations.none() && items.is_empty() {
        fields.violated("batch", "is required", &mut violations);
    }
    if let Some(most) = app.rules.limits.max_batch
        && items.len() > most
    {
        let what = format!("must not have more than {most} items");
        fields.violated("batch", &what, &mut violations);
        return Err(Rejection::Invalid(violations));
    }
    let mut events = Vec::with_capacity(items.len());
    for (position, item) in items.iter().enumerate() {
        match Fields::of(item, Place::Batch(position)) {
            Some(item) => {
                events.extend(RequestedEvent::of(&item, exactly_one, app, &mut violations)?)
            }
            None => {
                fields.violated(&format!("batch.{position}"), "must be an object", &mut violations);
            }
        }
    }
    if violations.none() { Ok(events) } else { Err(Rejection::Invalid(violations)) }
}

/// A valid event of a request. Only [`RequestedEvent::of`] makes one.
struct RequestedEvent<'t> {
    name: &'t str,
    data: &'t str,
    /// Each channel once, in the order given.
    channels: Vec<ChannelName>,
    except: Option<SocketId>,
    /// The attributes that are asked for, if any.
    info: Option<Info>,
}

/// A function that reads the channels of an event.
type Addressing = fn(&Fields<'_>, &App, &mut Violations) -> Vec<ChannelName>;

impl<'t> RequestedEvent<'t> {
    /// Checks all fields, so that one answer names all violations. Returns `None` if there are any.
    fn of(
        fields: &Fields<'t>,
        addressing: Addressing,
        app: &App,
        violations: &mut Violations,
    ) -> Result<Option<Self>, Rejection> {
        let name = fields.required("name", violations);
        let len_max = app.rules.limits.max_event_name;
        if let Some(name) = name.filter(|name| !valid_event_name(name, len_max)) {
            let what = match len_max {
                Some(max) if name.len() > max => format!("must not be greater than {max} bytes"),
                _ => "format is invalid".to_owned(),
            };
            fields.violated("name", &what, violations);
        }
        let data = fields.required("data", violations);
        if let (Some(data), Some(bytes_max)) = (data, app.rules.limits.max_event_data)
            && data.len() > bytes_max
        {
            return Err(too_much_data(bytes_max));
        }
        let channels = addressing(fields, app, violations);
        // As in Reverb and at Pusher, a text that is no id excludes no connection: apps pass on
        // what their page had ("", "undefined"), and the event must not be lost for that.
        let except = fields.optional("socket_id", violations).and_then(|text| text.parse().ok());
        let info = fields.optional("info", violations).map(Info::of);
        let (Some(name), Some(data)) = (name, data) else { return Ok(None) };
        Ok(Some(Self { name, data, channels, except, info }))
    }

    /// One publication per channel, each with an encoded frame; they share the rest.
    fn publications(
        &self,
        app: &App,
        key_of: impl Fn(ChannelName) -> ChannelKey,
    ) -> Vec<Publication> {
        let mut data: Option<Arc<str>> = None;
        let mut retain = || {
            let data = Arc::clone(data.get_or_insert_with(|| self.data.into()));
            Box::new(Retain { data, ttl: app.cache_ttl })
        };
        let publications = self.channels.iter().map(|channel| {
            let event = Event {
                key: key_of(channel.clone()),
                frame: outbound::event(self.name, self.data, channel.as_str()),
                except: self.except,
                retain: channel.kind().is_cache().then(&mut retain),
            };
            Publication { event, wants_state: self.info.is_some_and(Info::wants_counts) }
        });
        publications.collect()
    }
}

/// Reads `channels`, or else `channel`.
fn one_or_many(fields: &Fields<'_>, app: &App, violations: &mut Violations) -> Vec<ChannelName> {
    if fields.value("channels").is_some() {
        return many(fields, app, violations);
    }
    match fields.optional("channel", violations) {
        Some(name) if !name.is_empty() => {
            channel(|| "channel".to_owned(), name, app, violations).into_iter().collect()
        }
        None if fields.value("channel").is_some() => Vec::new(),
        _ => {
            let what = |other| format!("is required when {other} is not present");
            fields.violated("channels", &what("channel"), violations);
            fields.violated("channel", &what("channels"), violations);
            Vec::new()
        }
    }
}

fn many(fields: &Fields<'_>, app: &App, violations: &mut Violations) -> Vec<ChannelName> {
    let Some(names) = fields.array("channels", violations) else { return Vec::new() };
    if names.is_empty() {
        fields.violated("channels", "is required when channel is not present", violations);
    }
    let most = app.rules.limits.max_channels_per_event;
    if names.len() > most {
        let what = format!("must not have more than {most} items");
        fields.violated("channels", &what, violations);
        return Vec::new();
    }
    let mut seen = HashSet::with_capacity(names.len());
    let mut channels = Vec::with_capacity(names.len());
    for (position, name) in names.iter().enumerate() {
        let field = || format!("channels.{position}");
        let Some(name) = name.as_str() else {
            fields.violated(&field(), "must be a string", violations);
            continue;
        };
        channels
            .extend(channel(field, name, app, violations).filter(|name| seen.insert(name.clone())));
    }
    channels
}

/// Reads `channel`, the only way to name one in a batch.
fn exactly_one(fields: &Fields<'_>, app: &App, violations: &mut Violations) -> Vec<ChannelName> {
    let field = || fields.path_of("channel");
    let name = fields.required("channel", violations);
    name.and_then(|name| channel(field, name, app, violations)).into_iter().collect()
}

/// Reads a name by the rule that subscribers have to keep too, so that every channel that can have
/// subscribers can be published to.
fn channel(
    field: impl FnOnce() -> String,
    name: &str,
    app: &App,
    violations: &mut Violations,
) -> Option<ChannelName> {
    ChannelName::parse(name, app.rules.limits.max_channel_name, app.rules.strict_names)
        .map_err(|error| violations.add(field(), error.to_string()))
        .ok()
}

fn too_much_data(bytes_max: usize) -> Rejection {
    let text = format!("The data of an event may have at most {bytes_max} bytes.");
    Rejection::Text(StatusCode::PAYLOAD_TOO_LARGE, text.into())
}

#[derive(Serialize)]
struct PublishedChannels {
    channels: ChannelMap,
}

#[derive(Serialize)]
struct PublishedBatch {
    batch: Vec<ChannelCounts>,
}

#[cfg(test)]
mod tests {
    use super::super::json::JsonParser;
    use super::*;
    use crate::apps::test_app;
    use crate::channels::KeyHash;
    use crate::id::AppIndex;
    use crate::protocol::rules::{AppRules, Limits};

    fn parse(body: &mut [u8]) -> Result<Tape<'_>, Rejection> {
        JsonParser::default().parse(body)
    }

    fn app() -> App {
        let limits = Limits { max_channels_per_event: 3, max_batch: Some(2), ..Limits::default() };
        let app = test_app();
        App { rules: AppRules { limits, ..app.rules }, ..app }
    }

    fn violations(result: Result<impl Sized, Rejection>) -> String {
        match result {
            Err(Rejection::Invalid(violations)) => serde_json::to_string(&violations).unwrap(),
            Err(other) => format!("{other:?}"),
            Ok(_) => "valid".to_owned(),
        }
    }

    fn checked_single(body: &str) -> String {
        checked_by(body, |_| ())
    }

    /// As [`checked_single`], for an app with other settings.
    fn checked_by(body: &str, change: impl FnOnce(&mut App)) -> String {
        let mut app = app();
        change(&mut app);
        let mut body = body.as_bytes().to_vec();
        let tape = parse(&mut body).unwrap();
        violations(single(&object(&tape).unwrap(), &app))
    }

    fn checked_batch(body: &str) -> String {
        let mut body = body.as_bytes().to_vec();
        let tape = parse(&mut body).unwrap();
        violations(batch(&object(&tape).unwrap(), &app()))
    }

    #[test]
    fn what_is_wrong_with_an_event_is_said_in_laravels_words() {
        let table = [
            (r#"{"name":"n","data":"d","channel":"c"}"#, "valid"),
            (r#"{"name":"n","data":"d","channels":["a","b"],"socket_id":null}"#, "valid"),
            (r#"{"name":"n","data":"d","channels":["a"],"info":"user_count,cache"}"#, "valid"),
            (
                "{}",
                r#"{"name":["The name field is required."],"data":["The data field is required."],"channels":["The channels field is required when channel is not present."],"channel":["The channel field is required when channels is not present."]}"#,
            ),
            (
                r#"{"name":1,"data":{"a":1},"channel":"c"}"#,
                r#"{"name":["The name field must be a string."],"data":["The data field must be a string."]}"#,
            ),
            (
                r#"{"name":"n","data":"","channels":[]}"#,
                r#"{"data":["The data field is required."],"channels":["The channels field is required when channel is not present."]}"#,
            ),
            (
                r#"{"name":"n","data":"d","channels":"a"}"#,
                r#"{"channels":["The channels field must be an array."]}"#,
            ),
            (
                r#"{"name":"n","data":"d","channels":["a","b","c","d"]}"#,
                r#"{"channels":["The channels field must not have more than 3 items."]}"#,
            ),
            (
                r#"{"name":"n","data":"d","channels":["a",1,"b\u0000c"]}"#,
                r#"{"channels.1":["The channels.1 field must be a string."],"channels.2":["The channel name has a character that is not allowed."]}"#,
            ),
            (
                r#"{"name":"n","data":"d","channel":7}"#,
                r#"{"channel":["The channel field must be a string."]}"#,
            ),
            (
                r#"{"name":"n\n","data":"d","channel":"c","socket_id":1.2,"info":7}"#,
                r#"{"name":["The name field format is invalid."],"socket_id":["The socket id field must be a string."],"info":["The info field must be a string."]}"#,
            ),
        ];
        for (body, expected) in table {
            assert_eq!(checked_single(body), expected, "{body}");
        }
        let long = format!(r#"{{"name":"{}","data":"d","channel":"c"}}"#, "n".repeat(201));
        assert_eq!(checked_single(&long), "valid", "there is no limit unless it is set");
        let limited = |app: &mut App| app.rules.limits.max_event_name = Some(200);
        let expected = r#"{"name":["The name field must not be greater than 200 bytes."]}"#;
        assert_eq!(checked_by(&long, limited), expected);
    }

    #[test]
    fn one_rule_holds_for_the_channels_of_subscribers_and_publishers() {
        for name in ["room:1", "a/b", "ä", "a b", "#x"] {
            let body = format!(r#"{{"name":"n","data":"d","channel":"{name}"}}"#);
            assert_eq!(checked_single(&body), "valid", "{name}");
            let expected =
                r#"{"channel":["The channel name has a character that is not allowed."]}"#;
            assert_eq!(checked_by(&body, |app| app.rules.strict_names = true), expected, "{name}");
        }
        let body = r##"{"name":"n","data":"d","channel":"#server-to-user-1"}"##;
        assert_eq!(checked_by(body, |app| app.rules.strict_names = true), "valid");
    }

    #[test]
    fn a_socket_id_that_names_nobody_excludes_nobody() {
        for text in ["", "undefined", "123123", "1.x", " 1.2", "null", "1.2.3"] {
            let body = format!(r#"{{"name":"n","data":"d","channel":"c","socket_id":"{text}"}}"#);
            let mut body = body.into_bytes();
            let tape = parse(&mut body).unwrap();
            let event = single(&object(&tape).unwrap(), &app()).unwrap();
            assert_eq!(event.except, None, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_batch_names_the_event() {
        let table = [
            (r#"{"batch":[{"name":"n","data":"d","channel":"c"}]}"#, "valid"),
            ("{}", r#"{"batch":["The batch field is required."]}"#),
            (r#"{"batch":[]}"#, r#"{"batch":["The batch field is required."]}"#),
            (r#"{"batch":{}}"#, r#"{"batch":["The batch field must be an array."]}"#),
            (
                r#"{"batch":[1,2,3]}"#,
                r#"{"batch":["The batch field must not have more than 2 items."]}"#,
            ),
            (
                r#"{"batch":[{"name":"n","data":"d","channel":"c"},{"data":"d","channel":"b\u0000c"}]}"#,
                r#"{"batch.1.name":["The batch.1.name field is required."],"batch.1.channel":["The channel name has a character that is not allowed."]}"#,
            ),
            (
                r#"{"batch":[{"name":"n","data":"d","channel":"c","socket_id":"undefined"}]}"#,
                "valid",
            ),
            (r#"{"batch":[1]}"#, r#"{"batch.0":["The batch.0 field must be an object."]}"#),
        ];
        for (body, expected) in table {
            assert_eq!(checked_batch(body), expected, "{body}");
        }
    }

    #[test]
    fn a_channel_named_twice_is_published_to_once_and_only_cache_channels_keep_the_data() {
        let mut body =
            br#"{"name":"n","data":"d","channels":["b","cache-a","b"],"socket_id":"1.2"}"#.to_vec();
        let tape = parse(&mut body).unwrap();
        let hash = KeyHash::seeded(0);
        let key_of = |name| hash.channel(AppIndex(0), name);
        let events = single(&object(&tape).unwrap(), &app()).unwrap().publications(&app(), key_of);
        let events: Vec<_> = events.into_iter().map(|publication| publication.event).collect();
        let data = |event: &Event| event.retain.as_ref().map(|of| of.data.to_string());
        let seen: Vec<_> =
            events.iter().map(|event| (event.key.name().as_str(), data(event))).collect();
        assert_eq!(seen, [("b", None), ("cache-a", Some("d".to_owned()))]);
        assert!(events.iter().all(|event| event.except == Some(SocketId { high: 1, low: 2 })));
        assert_eq!(events[0].frame, outbound::event("n", "d", "b"));
    }

    #[test]
    fn data_over_the_limit_is_413_and_any_depth_of_nesting_is_400_or_422() {
        let mut tight = app();
        tight.rules.limits.max_event_data = Some(3);
        let mut body = br#"{"name":"n","data":"four","channel":"c"}"#.to_vec();
        let tape = parse(&mut body).unwrap();
        let result = single(&object(&tape).unwrap(), &tight);
        assert!(
            matches!(result, Err(Rejection::Text(StatusCode::PAYLOAD_TOO_LARGE, _))),
            "too much data"
        );

        assert!(parse(&mut vec![b'['; 100_000]).is_err());
        let deep = [vec![b'['; 50_000], vec![b']'; 50_000]].concat();
        if let Ok(tape) = parse(&mut deep.clone()) {
            assert!(object(&tape).is_err());
        }
        let nested = [br#"{"data":"#.to_vec(), deep, b"}".to_vec()].concat();
        if let Ok(tape) = parse(&mut nested.clone()) {
            assert_ne!(violations(single(&object(&tape).unwrap(), &app())), "valid");
        }
    }

    #[test]
    fn a_repeated_field_counts_as_its_last_value() {
        let valid = r#"{"name":"n","data":1,"data":"d","channel":"c"}"#;
        assert_eq!(checked_single(valid), "valid");
    }
}
