use std::sync::atomic::{AtomicU32, Ordering};

use crate::apps::webhook::{Webhooks, test_webhook};
use crate::apps::{App, Apps, test_app};

use super::super::endpoint_queue::QueueBounds;
use super::*;
use crate::channels::{ChannelEvent, Notice};

/// A directory of its own for each test, gone at the end.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let n = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("ringwave-spool-{}-{n}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }

    fn files(&self) -> usize {
        let names = fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path());
        names.filter(|path| path.extension().is_some_and(|end| end == EXTENSION)).count()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn dispatch(url: &str) -> Dispatch {
    let webhooks = Webhooks::new(vec![test_webhook(url)]);
    let apps = Apps::new(vec![App { webhooks, ..test_app() }]);
    Dispatch::new(&apps, QueueBounds { queue_bytes: 1 << 20, spooled: true }, 7, true)
}

/// Takes an event and lets its window pass; it is on its way then.
fn event(spool: &mut Spool, dispatch: &mut Dispatch, channel: &str, now: u64) {
    dispatch.take(Notice::of(channel, ChannelEvent::CacheMiss), Millis(now));
    let _body = dispatch.next(Millis(now + 50));
    spool.follow(dispatch.changes(), dispatch);
}

#[test]
fn what_was_not_delivered_is_there_after_a_restart_in_order() {
    let place = Place::new();
    let mut first = Spool::open(&place.0).unwrap();
    let mut before = dispatch("http://a/?token");
    first.restore(&mut before, Millis(0));
    for (channel, now) in [("a", 0), ("b", 100), ("c", 200)] {
        event(&mut first, &mut before, channel, now);
    }
    before.delivered(0);
    first.follow(before.changes(), &before);
    assert_eq!(place.files(), 2);
    // No order was given to end: a crash.
    drop((first, before));

    let mut second = Spool::open(&place.0).unwrap();
    let mut after = dispatch("http://a/?token");
    second.restore(&mut after, Millis(0));
    event(&mut second, &mut after, "d", 0);
    let mut seen = Vec::new();
    after.delivered(0);
    seen.push("b".to_owned());
    while let Some(delivery) = after.next(Millis(60_000)) {
        let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
        seen.push(body["events"][0]["channel"].as_str().unwrap().to_owned());
        after.delivered(delivery.queue);
    }
    second.follow(after.changes(), &after);
    assert_eq!(seen, ["b", "c", "d"]);
    assert_eq!(place.files(), 0);
}

#[test]
fn what_nobody_wants_and_what_is_broken_is_removed() {
    let place = Place::new();
    let mut spool = Spool::open(&place.0).unwrap();
    let mut before = dispatch("http://gone/");
    event(&mut spool, &mut before, "a", 0);
    drop(spool);
    for (name, text) in [
        ("00000000000000f0.webhook", "no label"),
        (
            "00000000000000f1.webhook",
            "{\"app_id\":\"app-id\",\"url\":\"http://a/\",\"events\":1}\n{",
        ),
        (
            "00000000000000ee.webhook",
            "{\"app_id\":\"app-id\",\"url\":\"http://a/\",\"events\":1}\n\"no,body\"",
        ),
        (
            "00000000000000ef.webhook",
            "{\"app_id\":\"app-id\",\"url\":\"http://a/\",\"events\":18446744073709551615}\n\
             {\"time_ms\":1,\"events\":[1]}",
        ),
        ("00000000000000f2.unfinished", "{"),
    ] {
        fs::write(place.0.join(name), text).unwrap();
    }
    let mut spool = Spool::open(&place.0).unwrap();
    let mut after = dispatch("http://a/");
    spool.restore(&mut after, Millis(0));
    assert!(after.is_empty());
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "the lock alone");
    event(&mut spool, &mut after, "b", 0);
    assert!(place.0.join("00000000000000f2.webhook").exists(), "numbers only go up");
}

#[test]
fn a_directory_serves_one_process() {
    let place = Place::new();
    let spool = Spool::open(&place.0).unwrap();
    let refused = Spool::open(&place.0).err().unwrap().to_string();
    assert!(refused.contains("another process"), "{refused}");
    drop(spool);
    assert!(Spool::open(&place.0).is_ok());
    assert!(Spool::open(Path::new("/proc/nowhere")).is_err());
}

#[test]
fn a_disk_that_fails_leaves_the_queue_in_memory() {
    let place = Place::new();
    let mut spool = Spool::open(&place.0).unwrap();
    let mut dispatch = dispatch("http://a/");
    fs::remove_dir_all(&place.0).unwrap();
    event(&mut spool, &mut dispatch, "a", 0);
    assert!(spool.failing && spool.files.is_empty());
    dispatch.delivered(0);
    spool.follow(dispatch.changes(), &dispatch);
    assert!(dispatch.is_empty());
}
