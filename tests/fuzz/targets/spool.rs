//! The spool of webhooks: the requests after a restart are those that were due before, and files of
//! another origin add only bodies that this gateway could have written.

#![no_main]

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ringwave::testing::apps::webhook::{EventKind, Url, Webhook, Webhooks};
use ringwave::testing::apps::{App, Apps};
use ringwave::testing::channels::{ChannelEvent, Notice};
use ringwave::testing::id::AppIndex;
use ringwave::testing::protocol::names::ChannelName;
use ringwave::testing::webhooks::fuzzing::Process;
use ringwave_fuzz::{Json, Place, app};
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    notices: Vec<Told<'a>>,
    files: Vec<File<'a>>,
    small: bool,
}

#[derive(Arbitrary, Debug)]
struct Told<'a> {
    channel: &'a str,
    what: u8,
    user: &'a str,
    /// Whether the event is in a batch of its own.
    apart: bool,
}

#[derive(Arbitrary, Debug)]
enum File<'a> {
    Raw(u8, &'a [u8]),
    Labelled { number: u8, events: u64, other: bool, body: &'a [u8] },
    Body { number: u8, time: &'a str, events: &'a str },
    Counted { number: u8, label: u64, events: u8 },
    Other { number: u8, body: Json },
}

impl File<'_> {
    fn number(&self) -> u8 {
        match self {
            Self::Raw(number, _)
            | Self::Labelled { number, .. }
            | Self::Body { number, .. }
            | Self::Counted { number, .. }
            | Self::Other { number, .. } => *number,
        }
    }

    fn text(&self) -> Vec<u8> {
        let label = |events: u64, url: &str| {
            json!({ "app_id": "app-id", "url": url, "events": events }).to_string() + "\n"
        };
        match self {
            Self::Raw(_, bytes) => bytes.to_vec(),
            Self::Labelled { events, other, body, .. } => {
                let url = if *other { "http://b/" } else { URL };
                [label(*events, url).as_bytes(), body].concat()
            }
            Self::Counted { label: events, events: count, .. } => {
                let list = vec!["1"; usize::from(*count % 5)].join(",");
                let body = format!("{{\"time_ms\":1,\"events\":[{list}]}}");
                [label(*events, URL), body].concat().into_bytes()
            }
            Self::Other { body: Json(body), .. } => {
                [label(1, URL), body.to_string()].concat().into_bytes()
            }
            Self::Body { time, events, .. } => {
                let body = format!("{{\"time_ms\":{time},\"events\":[{events}]}}");
                [label(1, URL), body].concat().into_bytes()
            }
        }
    }
}

const URL: &str = "http://a/?token";

fn apps() -> Apps {
    let webhook = Webhook {
        url: Url::parse(URL).expect("a URL"),
        events: EventKind::ALL.into_iter().collect(),
        channel_prefix: String::new(),
        channel_suffix: String::new(),
        headers: Vec::new(),
        batch_window: Duration::from_millis(50),
        batch_max: 3,
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
    };
    Apps::new(vec![App { webhooks: Webhooks::new(vec![webhook]), ..app() }])
}

fn notice(told: &Told<'_>) -> Option<Notice> {
    let channel = ChannelName::parse(told.channel, 40, false).ok()?;
    let what = match told.what % 4 {
        0 => ChannelEvent::Occupied,
        1 => ChannelEvent::CacheMiss,
        2 => ChannelEvent::MemberAdded(Arc::from(told.user)),
        _ => ChannelEvent::SubscriptionCount(told.what.into()),
    };
    Some(Notice { app: AppIndex(0), channel, event: what })
}

/// The events of a body, which has to be one of ours.
fn events(body: &[u8]) -> Vec<Value> {
    let body: Value = serde_json::from_slice(body).expect("a body is JSON");
    assert!(body["time_ms"].is_u64(), "{body}");
    body["events"].as_array().expect("events").clone()
}

fn delivered(process: &mut Process) -> Vec<Bytes> {
    std::iter::from_fn(|| process.deliver()).collect()
}

fuzz_target!(|input: Input<'_>| {
    let place = Place::new("spool");
    let (path, apps) = (place.path(), apps());
    let queue_bytes = if input.small { 500 } else { 1 << 20 };

    // The next process delivers the events that an earlier one got and did not deliver.
    let mut first = Process::start(path, &apps, queue_bytes).expect("the directory is ours");
    let mut open = Vec::new();
    for told in &input.notices {
        open.extend(notice(told));
        if told.apart {
            first.take(std::mem::take(&mut open));
        }
    }
    first.take(open);
    let waiting = first.waiting();
    drop(first);
    let mut second = Process::start(path, &apps, 1 << 20).expect("the first has let it go");
    assert_eq!(second.waiting(), waiting, "events after a restart");
    let bodies = delivered(&mut second);
    assert_eq!(bodies.iter().map(|body| events(body).len()).sum::<usize>(), waiting);
    assert_eq!(second.waiting(), 0);
    drop(second);
    let left = || fs::read_dir(path).expect("is there").count();
    assert_eq!(left(), 1, "the lock alone");

    // These are files that something else wrote.
    for file in &input.files {
        let name = format!("{:016x}.webhook", file.number());
        fs::write(path.join(name), file.text()).expect("a file");
    }
    let mut third = Process::start(path, &apps, queue_bytes).expect("the second has let it go");
    let waiting = third.waiting();
    let bodies = delivered(&mut third);
    assert_eq!(bodies.iter().map(|body| events(body).len()).sum::<usize>(), waiting);
    drop(third);
    assert_eq!(left(), 1, "the lock alone");
});
