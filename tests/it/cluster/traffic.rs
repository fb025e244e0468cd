//! Publishers on some nodes of a cluster and subscribers on others, which go on while something
//! fails, and then compare what was acknowledged with what arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::json;

use crate::client::Client;
use crate::gateway::{Gateway, eventually};
use crate::http::{Call, Http};

const CHANNEL: &str = "private-traffic";
const END: &str = "end";

/// The pause of a publisher between two events.
const PAUSE: Duration = Duration::from_millis(5);

/// Running publishers and subscribers.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    /// Each returns the number of events that were acknowledged.
    publishers: Vec<Publisher>,
    /// Each returns the data of all events that it got.
    readers: Vec<JoinHandle<Vec<String>>>,
}

struct Publisher {
    acknowledged: Arc<AtomicUsize>,
    run: JoinHandle<usize>,
}

impl Traffic {
    /// Starts a publisher on each of these nodes and two subscribers on each of those, and waits
    /// until events are under way.
    pub(super) fn start(publishing: &[&Gateway], subscribing: &[&Gateway]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let count = publishing.len();
        let twice = subscribing.iter().flat_map(|node| [node, node]);
        let clients: Vec<_> = twice.map(|node| Client::subscribed(node, CHANNEL)).collect();
        let readers = clients.into_iter().map(|client| thread::spawn(move || read(client, count)));
        let readers = readers.collect();
        let named = publishing.iter().enumerate();
        let publishers =
            named.map(|(number, node)| Publisher::start(node, number, &stop)).collect();
        let traffic = Self { stop, publishers, readers };
        traffic.goes_on();
        traffic
    }

    /// Waits until every publisher has had some more events acknowledged.
    #[track_caller]
    pub(super) fn goes_on(&self) {
        let acknowledged = |publisher: &Publisher| publisher.acknowledged.load(Ordering::SeqCst);
        let before: Vec<_> = self.publishers.iter().map(acknowledged).collect();
        eventually("all publishers go on", || {
            let mut pairs = self.publishers.iter().zip(&before);
            pairs.all(|(publisher, before)| acknowledged(publisher) > before + 20).then_some(())
        });
    }

    /// Ends it. Every subscriber must have got every acknowledged event once, those of a publisher
    /// in their order. Returns the events of each subscriber.
    #[track_caller]
    pub(super) fn complete(self) -> Vec<Vec<String>> {
        self.stop.store(true, Ordering::SeqCst);
        let sent: Vec<_> =
            self.publishers.into_iter().map(|publisher| publisher.run.join().unwrap()).collect();
        let seen: Vec<_> = self.readers.into_iter().map(|reader| reader.join().unwrap()).collect();
        for (reader, seen) in seen.iter().enumerate() {
            holds_all(reader, seen, &sent);
        }
        seen
    }

    /// Ends it as [`Traffic::complete`] does. All subscribers must have seen one order.
    #[track_caller]
    pub(super) fn complete_in_one_order(self) {
        let seen = self.complete();
        let differs = seen.iter().find(|other| **other != seen[0]);
        if let Some(other) = differs {
            let at = other.iter().zip(&seen[0]).position(|(one, other)| one != other);
            panic!("the order differs at {at:?} of {}", other.len());
        }
    }
}

impl Publisher {
    fn start(node: &Gateway, number: usize, stop: &Arc<AtomicBool>) -> Self {
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let (counted, stop) = (Arc::clone(&acknowledged), Arc::clone(stop));
        let mut http = Http::over(node.tcp());
        let run = thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                let sent = counted.load(Ordering::SeqCst);
                publish(&mut http, "e", &format!("{number}-{sent}"));
                counted.store(sent + 1, Ordering::SeqCst);
                thread::sleep(PAUSE);
            }
            publish(&mut http, END, &number.to_string());
            counted.load(Ordering::SeqCst)
        });
        Self { acknowledged, run }
    }
}

/// Publishes an event, which has to be acknowledged, however long that takes.
fn publish(http: &mut Http<std::net::TcpStream>, event: &str, data: &str) {
    let body = json!({ "name": event, "channel": CHANNEL, "data": data });
    http.send(&Call::post("events", &body).bytes());
    let response = http.response();
    assert_eq!(response.status, 200, "{event} {data}: {}", response.text());
}

/// Takes the data of all events until so many publishers have ended.
fn read(mut client: Client, publishers: usize) -> Vec<String> {
    let mut seen = Vec::new();
    let mut ended = 0;
    while ended < publishers {
        let message = client.next();
        match message["event"].as_str().unwrap() {
            END => ended += 1,
            "e" => seen.push(message["data"].as_str().unwrap().to_owned()),
            "pusher:ping" => {}
            other => panic!("{other}: {message}"),
        }
    }
    seen
}

/// Checks that the run of each publisher is there once, and in its order.
#[track_caller]
fn holds_all(reader: usize, seen: &[String], sent: &[usize]) {
    for (publisher, &count) in sent.iter().enumerate() {
        let prefix = format!("{publisher}-");
        let numbers = seen.iter().filter_map(|data| data.strip_prefix(&prefix)?.parse().ok());
        let numbers: Vec<usize> = numbers.collect();
        let times = |number| numbers.iter().filter(|&&seen| seen == number).count();
        let lost: Vec<_> = (0..count).filter(|&number| times(number) == 0).collect();
        let doubled: Vec<_> = (0..count).filter(|&number| times(number) > 1).collect();
        let reordered: Vec<_> = numbers.windows(2).filter(|pair| pair[0] >= pair[1]).collect();
        assert!(
            lost.is_empty() && doubled.is_empty() && reordered.is_empty(),
            "subscriber {reader}, of {count} events of publisher {publisher}, lost: {lost:?}, \
             doubled: {doubled:?}, out of order: {reordered:?}"
        );
        assert_eq!(numbers.len(), count);
    }
}
