//! Signed requests of the HTTP API over a socket, through hyper, in pieces: the shard gets exactly
//! the events of the request, or none.

#![no_main]

use std::cell::OnceCell;

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use md5::{Digest, Md5};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringwave::testing::id::SocketId;
use ringwave::testing::protocol::names::{ChannelName, valid_event_name};
use ringwave::testing::protocol::outbound;
use ringwave::testing::protocol::secret::Secret;
use ringwave_fuzz::{FrontEnd, Heard, Json, KEY, SECRET, app};
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    request: Request<'a>,
    cut: u16,
    chunked: bool,
    /// Whether the app's secret signs the request.
    signed: bool,
}

#[derive(Arbitrary, Debug)]
enum Request<'a> {
    Event(Event<'a>, Extra<'a>),
    Batch(Vec<Event<'a>>),
    Body { batch: bool, body: Json },
    RawBody { batch: bool, body: &'a [u8] },
    Channels { filter: &'a str, info: &'a str },
    Channel { name: &'a str, info: &'a str },
    Users { name: &'a str },
    Terminate { user: &'a str },
    Connections,
}

#[derive(Arbitrary, Clone, Debug)]
struct Event<'a> {
    name: &'a str,
    data: &'a str,
    channels: Vec<&'a str>,
    info: Option<&'a str>,
    except: Option<(u64, u64)>,
}

/// A field of an event that has another type, or is there twice.
#[derive(Arbitrary, Debug)]
enum Extra<'a> {
    None,
    Field(&'a str, Json),
}

impl Event<'_> {
    fn json(&self, single: bool) -> Value {
        let mut event = json!({ "name": self.name, "data": self.data });
        match (&*self.channels, single) {
            ([channel, ..], false) => event["channel"] = (*channel).into(),
            (channels, _) => event["channels"] = channels.to_vec().into(),
        }
        if let Some(info) = self.info {
            event["info"] = info.into();
        }
        if let Some((high, low)) = self.except {
            event["socket_id"] = format!("{high}.{low}").into();
        }
        event
    }

    /// The events that should be published, in this order; `None` if the request should be refused.
    fn publications(&self, single: bool) -> Option<Vec<Heard>> {
        let limits = app().rules.limits;
        let fits = valid_event_name(self.name, limits.max_event_name)
            && (1..=limits.max_event_data?).contains(&self.data.len())
            && !self.channels.is_empty()
            && (!single || self.channels.len() <= limits.max_channels_per_event);
        let channels = if single { &self.channels[..] } else { self.channels.get(..1)? };
        let named = |name: &&str| ChannelName::parse(name, limits.max_channel_name, false).is_ok();
        if !fits || !channels.iter().all(named) {
            return None;
        }
        let mut published: Vec<Heard> = Vec::new();
        for &channel in channels {
            let heard = Heard::Published {
                channel: channel.to_owned(),
                frame: outbound::event(self.name, self.data, channel).bytes().to_vec(),
                except: self.except.map(|(high, low)| SocketId { high, low }),
            };
            if !published.contains(&heard) {
                published.push(heard);
            }
        }
        Some(published)
    }
}

fn escaped(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// The head's first words, the path and the parameters, and the body.
fn parts(request: &Request<'_>) -> (&'static str, String, Vec<(&'static str, String)>, Vec<u8>) {
    let body = |json: Value| json.to_string().into_bytes();
    match request {
        Request::Event(event, extra) => {
            let mut json = event.json(true);
            if let Extra::Field(name, Json(value)) = extra {
                json[*name] = value.clone();
            }
            ("POST", "events".into(), vec![], body(json))
        }
        Request::Batch(events) => {
            let batch: Vec<_> = events.iter().map(|event| event.json(false)).collect();
            ("POST", "batch_events".into(), vec![], body(json!({ "batch": batch })))
        }
        Request::Body { batch, body: Json(json) } => {
            ("POST", endpoint(*batch), vec![], body(json.clone()))
        }
        Request::RawBody { batch, body } => ("POST", endpoint(*batch), vec![], body.to_vec()),
        Request::Channels { filter, info } => {
            let params =
                vec![("filter_by_prefix", (*filter).to_owned()), ("info", (*info).to_owned())];
            ("GET", "channels".into(), params, vec![])
        }
        Request::Channel { name, info } => {
            let params = vec![("info", (*info).to_owned())];
            ("GET", format!("channels/{}", escaped(name)), params, vec![])
        }
        Request::Users { name } => {
            ("GET", format!("channels/{}/users", escaped(name)), vec![], vec![])
        }
        Request::Terminate { user } => {
            let path = format!("users/{}/terminate_connections", escaped(user));
            ("POST", path, vec![], vec![])
        }
        Request::Connections => ("GET", "connections".into(), vec![], vec![]),
    }
}

fn endpoint(batch: bool) -> String {
    if batch { "batch_events".into() } else { "events".into() }
}

fn bytes_of(input: &Input<'_>) -> Vec<u8> {
    let (method, path, params, body) = parts(&input.request);
    let path = format!("/apps/app-id/{path}");
    let mut all: Vec<(&str, String)> = params;
    all.extend([
        ("auth_key", KEY.to_owned()),
        ("auth_timestamp", "1".to_owned()),
        ("auth_version", "1.0".to_owned()),
    ]);
    if !body.is_empty() {
        all.push(("body_md5", hex::encode(Md5::digest(&body))));
    }
    all.sort();
    let text: Vec<_> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let secret = Secret::new(if input.signed { SECRET } else { "another" });
    let signature = secret.sign(&[format!("{method}\n{path}\n{}", text.join("&")).as_bytes()]);
    let query: Vec<_> =
        all.iter().map(|(name, value)| format!("{name}={}", escaped(value))).collect();
    let head = format!(
        "{method} {path}?{}&auth_signature={signature} HTTP/1.1\r\nHost: h\r\n",
        query.join("&")
    );
    let mut bytes = head.into_bytes();
    if input.chunked && !body.is_empty() {
        bytes.extend(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in body.chunks(usize::from(input.cut % 50) + 1) {
            bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
            bytes.extend(chunk);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"0\r\n\r\n");
    } else {
        bytes.extend(format!("Content-Length: {}\r\n\r\n", body.len()).into_bytes());
        bytes.extend(body);
    }
    bytes
}

/// The answer's status and body.
fn answer(bytes: &[u8]) -> (u16, &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n");
    match (status, end) {
        (Some(status), Some(end)) => (status, &bytes[end + 4..]),
        _ => panic!("no answer: {text}"),
    }
}

fn check(input: &Input<'_>, status: u16, body: &[u8], heard: &[Heard]) {
    if !input.signed {
        assert!(matches!(status, 401 | 404 | 413), "{status} without a signature");
        assert!(heard.is_empty());
        return;
    }
    assert_ne!(status, 401, "a signature that fits");
    if status == 200 {
        assert!(serde_json::from_slice::<Value>(body).expect("JSON").is_object());
    } else {
        assert!(matches!(status, 400 | 404 | 413 | 422), "{status}");
        assert!(heard.is_empty(), "refused with {status}, and yet {heard:?}");
    }
    let limits = app().rules.limits;
    let (_, _, _, sent) = parts(&input.request);
    let expected = match &input.request {
        _ if sent.len() > limits.max_request_size => None,
        Request::Event(event, Extra::None) => event.publications(true),
        Request::Batch(events) if events.is_empty() => None,
        Request::Batch(events) if events.len() > limits.max_batch.unwrap_or(usize::MAX) => None,
        Request::Batch(events) => {
            let all: Option<Vec<_>> =
                events.iter().map(|event| event.publications(false)).collect();
            all.map(|all| all.concat())
        }
        Request::Terminate { user } if !user.is_empty() && status == 200 => {
            Some(vec![Heard::Terminated((*user).to_owned())])
        }
        Request::Event(..) | Request::Body { .. } | Request::RawBody { .. } => return,
        Request::Terminate { .. } => None,
        Request::Connections | Request::Channels { .. } => Some(vec![]),
        Request::Channel { .. } | Request::Users { .. } => {
            assert!(heard.is_empty());
            return;
        }
    };
    assert_eq!(expected.is_some(), status == 200, "{status} {}", String::from_utf8_lossy(body));
    assert_eq!(expected.unwrap_or_default(), heard);
}

fuzz_target!(|input: Input<'_>| {
    thread_local!(static FRONT: OnceCell<FrontEnd> = const { OnceCell::new() });
    let bytes = bytes_of(&input);
    let (first, second) = bytes.split_at(usize::from(input.cut) % (bytes.len() + 1));
    let (answers, heard) =
        FRONT.with(|front| front.get_or_init(|| FrontEnd::start("")).exchange([first, second]));
    let (status, body) = answer(&answers);
    check(&input, status, body, &heard);
});
