//! Cases that chance would take long to find: sends that end, and frames cut, at every byte.

use std::sync::Arc;
use std::time::Duration;

use ringwave::testing::apps::{Admission, Apps};
use ringwave::testing::bus;
use ringwave::testing::channels::{Event, KeyHash};
use ringwave::testing::front::gateway::{GatewayCommand, Publication};
use ringwave::testing::id::AppIndex;
use ringwave::testing::plane::BacklogLimits;
use ringwave::testing::protocol::names::ChannelName;
use ringwave::testing::protocol::outbound;
use ringwave::testing::shard::{Shard, ShardMessage};
use ringwave::testing::time::Millis;
use ringwave_ring::sim::{Faults, SimNet, SimRing};
use tokio::sync::oneshot;

use crate::plan::Plan;
use crate::stream::{Heard, Stream, masked};
use crate::world::{app, parts};

const CHANNEL: &str = "news";

/// One shard without faults of its own.
struct Small {
    shard: Shard<SimRing>,
    net: SimNet,
    apps: Arc<Apps>,
}

impl Small {
    fn new(seed: u64) -> Self {
        let net = SimNet::default();
        let apps = Arc::new(Apps::new(vec![app(0, &Plan::new(1, 1))]));
        let ring = SimRing::new(net.clone(), seed, Faults::NONE, 4, 4, 4096);
        let parts = parts(
            &apps,
            BacklogLimits { connection: 2000, shard: 1 << 20 },
            KeyHash::seeded(1),
            seed,
            bus::connect::<ShardMessage>(1, 8).unwrap().remove(0),
        );
        Self { shard: Shard::new(ring, parts), net, apps }
    }

    fn turns(&mut self) {
        self.shard.turn(Millis(0), &mut Vec::new());
        while self.shard.has_work() || self.shard.plane().ring().ready() {
            self.shard.turn(Millis(0), &mut Vec::new());
        }
    }

    fn connect(&mut self, leftover: &[u8]) -> Reader {
        let app = self.apps.get(AppIndex(0)).unwrap();
        let fd = self.net.connect();
        self.shard.open(fd, Admission::take(app).unwrap(), Vec::new(), leftover);
        Reader { fd, stream: Stream::default() }
    }

    fn hear(&self, reader: &mut Reader) -> Vec<String> {
        let bytes = self.net.read(reader.fd, usize::MAX);
        let text = |heard| match heard {
            Heard::Text(text) => text,
            heard => panic!("{heard:?}"),
        };
        reader.stream.feed(&bytes, &reader.fd).into_iter().map(text).collect()
    }

    /// Three events in one turn: one batch.
    fn publish_batch(&mut self) {
        let name = ChannelName::parse(CHANNEL, 200, false).unwrap();
        let key = KeyHash::seeded(1).channel(AppIndex(0), name);
        let event = |number: usize| {
            let frame = outbound::event("e", &number.to_string(), CHANNEL);
            let event = Event { key: key.clone(), frame, except: None, retain: None };
            Publication { event, wants_state: false }
        };
        let (reply, _answer) = oneshot::channel();
        let events = (0..3).map(event).collect();
        self.shard.turn(Millis(0), &mut vec![GatewayCommand::Publish { events, reply }]);
    }
}

struct Reader {
    fd: i32,
    stream: Stream,
}

fn subscribe() -> Vec<u8> {
    let text = format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{CHANNEL}"}}}}"#);
    masked(1, true, text.as_bytes(), [1, 2, 3, 4])
}

fn batch() -> Vec<String> {
    let text = |n| format!(r#"{{"event":"e","data":"{n}","channel":"{CHANNEL}"}}"#);
    (0..3).map(text).collect()
}

#[test]
fn a_send_may_end_at_any_byte_and_so_may_the_one_for_the_rest() {
    let len: usize = batch().iter().map(|text| text.len() + 2).sum();
    for first in 0..=len {
        for second in 0..=2 * len - first {
            let mut small = Small::new(1);
            let mut readers = [small.connect(&subscribe()), small.connect(&subscribe())];
            small.turns();
            readers.iter_mut().for_each(|reader| assert_eq!(small.hear(reader).len(), 2));
            // The other subscriber's sends are whole.
            let most = [first, len, len, second];
            small.shard.plane_mut().ring_mut().script_sends(most);
            small.publish_batch();
            small.publish_batch();
            small.turns();
            let expected = [batch(), batch()].concat();
            for reader in &mut readers {
                assert_eq!(small.hear(reader), expected, "cut at {first}, then at {second}");
            }
            let short_sends = small.shard.plane().counters().short_sends;
            assert!(short_sends == 1 || first == len, "the script was played");
            assert_eq!(small.shard.plane().backlog_bytes(), 0);
        }
    }
}

#[test]
fn frames_may_be_cut_between_the_handshake_and_the_socket_at_any_byte() {
    let ping = masked(1, true, br#"{"event":"pusher:ping"}"#, [9, 8, 7, 6]);
    let bytes = [subscribe(), ping].concat();
    for cut in 0..=bytes.len() {
        for second in cut..=bytes.len() {
            let mut small = Small::new(2);
            let mut reader = small.connect(&bytes[..cut]);
            small.turns();
            small.net.write(reader.fd, &bytes[cut..second]);
            small.turns();
            small.net.write(reader.fd, &bytes[second..]);
            small.turns();
            let heard = small.hear(&mut reader);
            assert_eq!(heard.len(), 3, "cut at {cut} and {second}: {heard:?}");
            let of = |event: &str| heard.iter().filter(|text| text.contains(event)).count();
            assert_eq!((of("established"), of("succeeded"), of("pong")), (1, 1, 1), "{heard:?}");
        }
    }
}

#[test]
fn a_slow_reader_is_told_so_wherever_its_last_frame_was_cut() {
    let len: usize = batch().iter().map(|text| text.len() + 2).sum();
    for cut in 0..len {
        let mut small = Small::new(3);
        let mut reader = small.connect(&subscribe());
        small.turns();
        small.hear(&mut reader);
        // The socket is full from the cut on, until the backlog is over its bound.
        small.shard.plane_mut().ring_mut().script_sends([cut]);
        small.shard.plane_mut().ring_mut().script_sends(vec![0; 40_000]);
        while small.shard.plane().counters().too_slow == 0 {
            small.publish_batch();
        }
        small.shard.plane_mut().ring_mut().script_sends_no_more();
        let mut told = false;
        for _ in 0..100 {
            small.shard.turn(Millis(0), &mut Vec::new());
            let bytes = small.net.read(reader.fd, usize::MAX);
            for heard in reader.stream.feed(&bytes, &cut) {
                told |= heard == Heard::Close(Some(4101));
            }
        }
        assert!(told && !reader.stream.is_torn(), "cut at {cut}");
        for now in [Duration::ZERO, Duration::from_secs(4), Duration::from_secs(5)] {
            small.shard.turn(Millis(now.as_millis() as u64), &mut Vec::new());
        }
        for _ in 0..10 {
            small.shard.turn(Millis(6000), &mut Vec::new());
        }
        assert_eq!(small.shard.plane().ring().leaks(), None);
    }
}
