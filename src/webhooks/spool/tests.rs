use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::apps::webhook::{Webhooks, test_webhook};
use crate::apps::{App, Apps, test_app};

use super::super::endpoint_queue::QueueBounds;
use super::file::EXTENSION;
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
fn seal(dispatch: &mut Dispatch, channel: &str, now: u64) {
    dispatch.take(Notice::of(channel, ChannelEvent::CacheMiss), Millis(now));
    let _body = dispatch.next(Millis(now + 50));
}

/// Like [`seal`], until the disk has followed.
fn event(spool: &mut Spool, dispatch: &mut Dispatch, channel: &str, now: u64) {
    seal(dispatch, channel, now);
    on_a_ring(spool.follow_to_disk(dispatch.changes(), dispatch));
}

fn on_a_ring<T>(work: impl Future<Output = T>) -> T {
    tokio_uring::Runtime::new(&tokio_uring::builder()).unwrap().block_on(work)
}

/// The channels of the events that are sent from now on.
fn channels(dispatch: &mut Dispatch) -> Vec<String> {
    let mut channels = Vec::new();
    while let Some(delivery) = dispatch.next(Millis(60_000)) {
        let body: serde_json::Value = serde_json::from_slice(&delivery.body).unwrap();
        channels.push(body["events"][0]["channel"].as_str().unwrap().to_owned());
        dispatch.delivered(delivery.queue);
    }
    channels
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
    on_a_ring(first.follow_to_disk(before.changes(), &before));
    assert_eq!((place.files(), first.events_on_disk()), (2, 2));
    let metadata = fs::metadata(place.0.join("0000000000000001.webhook")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    // No order was given to end: a crash.
    drop((first, before));

    let mut second = Spool::open(&place.0).unwrap();
    let mut after = dispatch("http://a/?token");
    second.restore(&mut after, Millis(0));
    event(&mut second, &mut after, "d", 0);
    assert_eq!(second.events_on_disk(), 3);
    after.delivered(0);
    let seen = [vec!["b".to_owned()], channels(&mut after)].concat();
    on_a_ring(second.follow_to_disk(after.changes(), &after));
    assert_eq!(seen, ["b", "c", "d"]);
    assert_eq!(place.files(), 0);
}

#[test]
fn a_file_that_was_whole_when_the_process_crashed_counts_though_it_was_not_flushed() {
    let place = Place::new();
    let mut first = Spool::open(&place.0).unwrap();
    let mut before = dispatch("http://a/");
    event(&mut first, &mut before, "a", 0);
    drop((first, before));
    let finished = file::path(&place.0, 0);
    let text = fs::read(&finished).unwrap();
    fs::rename(&finished, file::unfinished_path(&place.0, 0)).unwrap();
    fs::write(file::unfinished_path(&place.0, 1), &text[..text.len() - 1]).unwrap();

    let mut second = Spool::open(&place.0).unwrap();
    let mut after = dispatch("http://a/");
    second.restore(&mut after, Millis(0));
    assert_eq!(channels(&mut after), ["a"]);
    assert!(finished.exists());
    on_a_ring(second.follow_to_disk(after.changes(), &after));
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "the lock alone");
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
    assert!(spool.failing && spool.events_on_disk() == 0);
    assert_eq!(dispatch.waiting(), 1);
    fs::create_dir(&place.0).unwrap();
    event(&mut spool, &mut dispatch, "b", 100);
    assert!(!spool.failing && spool.events_on_disk() == 1);
    dispatch.delivered(0);
    assert_eq!(channels(&mut dispatch), ["b"]);
    on_a_ring(spool.follow_to_disk(dispatch.changes(), &dispatch));
    assert_eq!(place.files(), 0);
}

/// A file whose opening for writing lasts until the test opens it for reading.
fn block_write(place: &Place, number: u64) -> PathBuf {
    let path = file::unfinished_path(&place.0, number);
    mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    path
}

#[test]
fn while_the_disk_stands_still_batches_are_sent_and_those_that_arrive_are_never_written() {
    let place = Place::new();
    let mut spool = Spool::open(&place.0).unwrap();
    let mut dispatch = dispatch("http://a/");
    let blocked = block_write(&place, 0);
    on_a_ring(async {
        for (channel, now) in [("a", 0), ("b", 100), ("c", 200)] {
            seal(&mut dispatch, channel, now);
            spool.follow(dispatch.changes(), &dispatch);
        }
        // The kernel gets the writes, and the thread goes on.
        let settled = tokio::time::timeout(Duration::from_millis(50), spool.settled()).await;
        assert!(settled.is_err() && spool.is_working());
        // "a" is on its way, and "b" takes its place once it has arrived.
        dispatch.delivered(0);
        let _b = dispatch.next(Millis(300)).unwrap();
        dispatch.delivered(0);
        spool.follow(dispatch.changes(), &dispatch);
        assert_eq!(spool.events_on_disk(), 0);
        // The disk goes on. A pipe cannot be flushed, so the first write fails, and leaves no file.
        drop(File::open(&blocked).unwrap());
        spool.follow_to_disk(Vec::new(), &dispatch).await;
    });
    assert!(!spool.failing && spool.events_on_disk() == 1);
    assert!(!blocked.exists());
    assert!(!place.0.join("0000000000000001.webhook").exists(), "b had arrived");
    assert!(place.0.join("0000000000000002.webhook").exists(), "c still waits");
}

#[test]
fn a_batch_that_arrives_during_its_write_leaves_no_file() {
    let place = Place::new();
    let mut spool = Spool::open(&place.0).unwrap();
    let mut dispatch = dispatch("http://a/");
    on_a_ring(async {
        seal(&mut dispatch, "a", 0);
        spool.follow(dispatch.changes(), &dispatch);
        // This begins the write.
        {
            let mut settled = std::pin::pin!(spool.settled());
            let polled = settled.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            assert_eq!(polled, Poll::Pending);
        }
        dispatch.delivered(0);
        spool.follow_to_disk(dispatch.changes(), &dispatch).await;
    });
    assert!(!spool.failing);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 1, "the lock alone");
}

#[test]
fn rounds_follow_each_other_until_every_batch_has_its_file() {
    let place = Place::new();
    let mut spool = Spool::open(&place.0).unwrap();
    let mut dispatch = dispatch("http://a/");
    let count = 2 * batch_files::ROUND_FILES_MAX + 3;
    (0..count).for_each(|n| seal(&mut dispatch, "a", n as u64 * 100));
    on_a_ring(spool.follow_to_disk(dispatch.changes(), &dispatch));
    assert_eq!((place.files(), spool.events_on_disk()), (count, count));
    assert!(!spool.failing);
}
