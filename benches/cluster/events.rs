//! CPU time of Redis per event, by the number of interested nodes: one call of the nodes' script
//! for a batch of events, beside a pipeline of as many `PUBLISH`es to as many subscribers.
//!
//! The readers keep up: a publisher waits when one of them is a few batches behind.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::Options;
use crate::figures::Figures;
use crate::redis_server::{Redis, until};
use crate::script_node::{Args, Inbox, ScriptNode, Scripts, args, message};

/// The numbers of interested nodes.
const NODES: [usize; 3] = [1, 3, 10];

/// The most that the script may cost of what `PUBLISH` costs.
const RATIO: f64 = 2.5;

/// The size of batches from which on they count as full.
const FULL: usize = 100;

/// The deliveries of one run, and the most calls: enough for half a second of CPU time.
const DELIVERIES: usize = 300_000;
const CALLS: usize = 20_000;

/// The bytes that nodes may have read before the inboxes are trimmed, or the time.
const TEND_BYTES: u64 = 8 << 20;
const TEND_PERIOD: Duration = Duration::from_secs(1);

/// One run.
#[derive(Clone, Copy)]
struct Run {
    nodes: usize,
    batch: usize,
    channels: usize,
    size: usize,
}

pub(crate) fn measure(options: &Options) -> Figures {
    let &Options { channels, size, .. } = options;
    let mut figures = Figures::new(format!(
        "events of {size} B in turns on {channels} channels: CPU time of Redis per event"
    ));
    let runs = options.batch.iter().flat_map(|&batch| {
        NODES.map(|nodes| Run { nodes, batch: batch.max(1), channels: channels.max(1), size })
    });
    let runs: Vec<Run> = runs.collect();
    for _ in 0..options.rounds {
        for run in &runs {
            figures.add(run.name("script"), "us", run.script_us());
            figures.add(run.name("PUBLISH"), "us", run.publish_us());
        }
    }
    for run in &runs {
        let [script_us, publish_us] = ["script", "PUBLISH"].map(|of| figures.median(&run.name(of)));
        figures.add(run.name("events per second and core"), "", 1e6 / script_us);
        let ratio = script_us / publish_us;
        match run.batch >= FULL {
            true => figures.goal(run.name("script to PUBLISH"), ratio, RATIO),
            false => figures.add(run.name("script to PUBLISH"), "x", ratio),
        }
    }
    figures
}

impl Run {
    fn name(&self, what: &str) -> String {
        format!("{what}, {} nodes, batches of {}", self.nodes, self.batch)
    }

    fn calls(&self) -> usize {
        (DELIVERIES / self.nodes / self.batch).clamp(1, CALLS)
    }

    fn events(&self) -> u64 {
        (self.calls() * self.batch) as u64
    }

    /// The channel of each event of a batch.
    fn batch_channels(&self) -> impl Iterator<Item = String> + use<> {
        let channels = self.channels;
        (0..self.batch).map(move |event| channel(event % channels))
    }

    fn script_us(&self) -> f64 {
        let redis = Redis::start();
        let scripts = Scripts::load(&redis);
        let connection = &mut redis.connection();
        let mut nodes: Vec<ScriptNode> =
            (0..self.nodes).map(|n| ScriptNode::enter(&scripts, connection, n)).collect();
        let joins: Args = (0..self.channels)
            .flat_map(|number| args(["join", &channel(number), "1", ""]))
            .collect();
        for node in &mut nodes {
            node.execute(&scripts, connection, &joins);
        }
        let readers =
            nodes.iter().map(|node| Reader::of_inbox(&redis, node.inbox(), self.events()));
        let readers: Vec<Reader> = readers.collect();
        let mut publisher = ScriptNode::enter(&scripts, connection, self.nodes);
        let frame = vec![b'x'; self.size];
        let publish = |channel: String| {
            let record = message(&channel, &frame);
            [b"publish".to_vec(), channel.into_bytes(), record]
        };
        let batch: Args = self.batch_channels().flat_map(publish).collect();
        let (mut tended, mut tended_bytes) = (Instant::now(), 0);
        self.cpu_us_per_event(&redis, &readers, || {
            publisher.execute(&scripts, connection, &batch);
            let bytes = readers[0].position.lock().expect("readers do not panic").1;
            if bytes - tended_bytes < TEND_BYTES && tended.elapsed() < TEND_PERIOD {
                return;
            }
            (tended, tended_bytes) = (Instant::now(), bytes);
            for (node, reader) in nodes.iter_mut().zip(&readers) {
                let (id, bytes) = reader.position.lock().expect("readers do not panic").clone();
                node.do_chore(
                    &scripts,
                    connection,
                    &args(["tend", &id, &bytes.to_string(), "1", "apps"]),
                );
            }
        })
    }

    fn publish_us(&self) -> f64 {
        let redis = Redis::start();
        let readers = (0..self.nodes).map(|_| Reader::of_channels(&redis, self));
        let readers: Vec<Reader> = readers.collect();
        let connection = &mut redis.connection();
        let frame = vec![b'x'; self.size];
        let mut batch = redis::pipe();
        for channel in self.batch_channels() {
            batch.publish(channel, &frame).ignore();
        }
        self.cpu_us_per_event(&redis, &readers, || {
            batch.query::<()>(connection).expect("Redis takes a pipeline");
        })
    }

    /// Makes all calls, and waits until all readers have all events.
    fn cpu_us_per_event(&self, redis: &Redis, readers: &[Reader], mut call: impl FnMut()) -> f64 {
        // So few batches may be unread that the memory of Redis stays in the caches as it would.
        let window = (4 * self.batch).max(64) as u64;
        let before_s = redis.cpu_s();
        for number in 0..self.calls() {
            call();
            let sent = ((number + 1) * self.batch) as u64;
            for reader in readers {
                reader.wait_for(sent.saturating_sub(window));
            }
        }
        for reader in readers {
            reader.wait_for(self.events());
        }
        (redis.cpu_s() - before_s) * 1e6 / self.events() as f64
    }
}

/// The path of a channel.
fn channel(number: usize) -> String {
    format!("100001:orders.{number:06}")
}

/// A node's reading connection, in a thread of its own.
struct Reader {
    /// The events that it has got.
    got: Arc<AtomicU64>,
    /// The id of the last entry, and the bytes of all.
    position: Arc<Mutex<(String, u64)>>,
    thread: JoinHandle<()>,
}

impl Reader {
    fn spawn(read: impl FnOnce(&AtomicU64, &Mutex<(String, u64)>) + Send + 'static) -> Self {
        let got = Arc::new(AtomicU64::new(0));
        let position = Arc::new(Mutex::new(("0".to_owned(), 0)));
        let (shared_got, shared_position) = (Arc::clone(&got), Arc::clone(&position));
        let thread = thread::spawn(move || read(&shared_got, &shared_position));
        Self { got, position, thread }
    }

    fn of_inbox(redis: &Redis, key: String, events: u64) -> Self {
        let mut connection = redis.connection();
        Self::spawn(move |got, position| {
            let mut inbox = Inbox::new(key);
            while got.load(Ordering::Relaxed) < events {
                let messages = inbox.read(&mut connection);
                *position.lock().expect("publishers do not panic") =
                    (inbox.id.clone(), inbox.bytes);
                got.fetch_add(messages, Ordering::Release);
            }
        })
    }

    fn of_channels(redis: &Redis, run: &Run) -> Self {
        let (mut connection, events) = (redis.connection(), run.events());
        let channels: Vec<String> = (0..run.channels).map(channel).collect();
        let last = channel(run.channels - 1);
        let before = subscribers(redis, &last);
        let reader = Self::spawn(move |got, _| {
            let mut subscriber = connection.as_pubsub();
            subscriber.subscribe(&channels).expect("Redis takes a subscription");
            for _ in 0..events {
                subscriber.get_message().expect("Redis delivers");
                got.fetch_add(1, Ordering::Release);
            }
        });
        until("a reader has subscribed", || subscribers(redis, &last) > before);
        reader
    }

    fn wait_for(&self, events: u64) {
        while self.got.load(Ordering::Acquire) < events {
            assert!(!self.thread.is_finished() || self.got.load(Ordering::Acquire) >= events);
            thread::sleep(Duration::from_micros(50));
        }
    }
}

fn subscribers(redis: &Redis, channel: &str) -> u64 {
    let (_channel, count): (String, u64) = redis.ask(&["PUBSUB", "NUMSUB", channel]);
    count
}
