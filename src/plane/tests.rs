//! Tests of the plane over a simulated ring on which nothing goes wrong.

mod ends;

use std::os::fd::RawFd;

use crate::frame::Frame;
use crate::ring::sim::{Faults, SimNet, SimRing};

use super::*;

mod fairness;
mod readable;
mod sleep;
mod streams;
mod unfinished;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;

const SLOTS: u32 = 8;
const LIMITS: BacklogLimits = BacklogLimits { connection: 10_000, shard: 1 << 20 };
/// The bytes that a simulated socket holds for a client that does not read.
const SOCKET_BYTES: usize = 4096;

/// The longest sleep of a flush. Simulated rings do not sleep.
const SLEEP: Duration = Duration::from_secs(1);

/// A plane, the network of its clients, and a record of their messages and ends.
struct World {
    net: SimNet,
    plane: Plane<SimRing>,
    host: Listener,
    now: u64,
    paused: bool,
    moderate: bool,
    closed: Vec<(ConnKey, Ended)>,
}

#[derive(Default)]
struct Listener {
    heard: Vec<(ConnKey, String)>,
    /// Answers each text with itself.
    echoes: bool,
    /// Answers each text with the large frame of the flood.
    answers_large: bool,
    /// Units of work that a text costs.
    cost: u32,
}

impl Host<SimRing> for Listener {
    fn message(&mut self, plane: &mut Plane<SimRing>, key: ConnKey, message: Message<'_>) {
        let Message::Text(text) = message else { panic!("{message:?}") };
        self.heard.push((key, text.to_owned()));
        if self.echoes {
            let frame = if self.answers_large { large_frame(0) } else { text_frame(text) };
            plane.owe(key, &frame);
        }
        plane.charge(key, self.cost);
    }

    fn read_limits(&self, _key: ConnKey) -> ReadLimits {
        ReadLimits { max_message: 2000, max_fragments: 16 }
    }

    fn unfinished(&mut self, plane: &mut Plane<SimRing>, key: ConnKey) {
        plane.close(key, &Frame::close(4100, "too much"), Ended::Ours);
    }
}

impl World {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: BacklogLimits) -> Self {
        Self::of(limits, SLOTS)
    }

    fn of(limits: BacklogLimits, slots: u32) -> Self {
        let net = SimNet::default();
        let ring = SimRing::new(net.clone(), 1, Faults::NONE, slots, 8, 64);
        let plane = Plane::new(ring, limits, Frame::close(4100, "slow"));
        let host = Listener::default();
        Self { net, plane, host, now: 1000, paused: false, moderate: false, closed: Vec::new() }
    }

    /// Opens a connection and returns it with its client, after the first turn.
    fn connect(&mut self) -> (ConnKey, RawFd) {
        let fd = self.net.connect_with(SOCKET_BYTES);
        let key = self.plane.open(fd).unwrap();
        self.turn();
        (key, fd)
    }

    fn turn(&mut self) {
        self.plane.begin_turn(Millis(self.now));
        let intake = match (self.paused, self.moderate) {
            (true, _) => Intake::Nothing,
            (false, true) => Intake::Moderate,
            (false, false) => Intake::All,
        };
        self.plane.poll(intake, &mut self.host);
        self.take_closed();
        self.plane.flush_and_sleep(Some(SLEEP));
        self.take_closed();
    }

    fn take_closed(&mut self) {
        self.closed.extend(std::iter::from_fn(|| self.plane.next_closed()));
    }

    /// Runs turns until nothing more happens by itself.
    fn settle(&mut self) {
        for _ in 0..1000 {
            self.turn();
            if !self.plane.has_work() && !self.plane.ring().ready() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn pass(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_millis()).unwrap();
        self.settle();
    }

    /// Sends a frame as the client.
    fn send(&mut self, fd: RawFd, head: u8, payload: &[u8]) {
        self.net.write(fd, &masked(head, payload));
    }

    /// Reads all that has come, as the client.
    fn read(&mut self, fd: RawFd) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            self.settle();
            let some = self.net.read(fd, usize::MAX);
            if some.is_empty() {
                return all;
            }
            all.extend(some);
        }
    }

    fn heard(&mut self) -> Vec<String> {
        self.host.heard.drain(..).map(|(_, text)| text).collect()
    }
}

/// A client's frame; all bytes of its mask are zero.
fn masked(head: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    assert!(len < 126);
    [&[head, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

fn text_frame(text: &str) -> Frame {
    Frame::text(text.len(), |out| out.extend(text.bytes()))
}

/// A frame of 1004 bytes on the wire.
fn large_frame(n: u8) -> Frame {
    Frame::text(1000, |out| out.extend([b'0' + n % 75; 1000]))
}

fn code(code: u16) -> [u8; 2] {
    code.to_be_bytes()
}

#[test]
fn messages_reach_the_host_in_order_and_its_answers_the_client() {
    let mut world = World::new();
    world.host.echoes = true;
    let (key, fd) = world.connect();
    let texts: Vec<String> = (0..20).map(|n| format!("message {n}")).collect();
    for text in &texts {
        world.send(fd, TEXT, text.as_bytes());
    }
    let answers: Vec<u8> = texts.iter().flat_map(|of| text_frame(of).into_bytes()).collect();
    assert_eq!(world.read(fd), answers);
    assert!(world.host.heard.iter().all(|(of, _)| *of == key));
    assert_eq!(world.heard(), texts);
}

#[test]
fn bytes_that_came_with_the_handshake_are_read_first() {
    let mut world = World::new();
    let fd = world.net.connect();
    let key = world.plane.open(fd).unwrap();
    world.send(fd, TEXT, b"second");
    let mut leftover = masked(TEXT, b"first");
    world.plane.feed(key, &mut leftover, &mut world.host);
    world.settle();
    assert_eq!(world.heard(), ["first", "second"]);
}

#[test]
fn a_close_of_the_peer_is_answered_with_its_code_and_ends_the_connection() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.send(fd, CLOSE, &[&code(1001)[..], b"going away"].concat());
    assert_eq!(world.read(fd), Frame::close(1001, "").into_bytes());
    assert!(world.net.ended(fd));
    assert_eq!(world.closed, [(key, Ended::PeerClosed)]);
    assert!(world.plane.is_empty());
}

#[test]
fn a_close_without_a_code_is_answered_without_one() {
    let mut world = World::new();
    let (_, fd) = world.connect();
    world.send(fd, CLOSE, b"");
    assert_eq!(world.read(fd), Frame::close_empty().into_bytes());
    assert!(world.net.ended(fd));
}

#[test]
fn our_close_waits_for_the_answer_of_the_peer() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    let last = Frame::close(4200, "restart");
    world.plane.close(key, &last, Ended::Ours);
    assert!(!world.plane.is_open(key));
    world.settle();
    assert_eq!(world.closed, [(key, Ended::Ours)]);
    assert_eq!(world.read(fd), last.into_bytes());
    assert!(!world.net.ended(fd));
    world.send(fd, CLOSE, &code(4200));
    world.settle();
    assert!(world.net.ended(fd) && world.plane.is_empty());
    assert_eq!(world.closed.len(), 1, "named once");
}

#[test]
fn a_peer_that_does_not_answer_our_close_has_until_the_deadline() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.plane.close(key, &Frame::close(4200, ""), Ended::Ours);
    world.pass(CLOSE_TIMEOUT - Duration::from_millis(1));
    let _close = world.read(fd);
    assert!(!world.net.ended(fd));
    world.pass(Duration::from_millis(1));
    assert!(world.net.ended(fd) && world.plane.is_empty());
    assert_eq!(world.closed, [(key, Ended::Ours)]);
}

#[test]
fn a_peer_that_reads_nothing_can_not_hold_a_close_past_the_deadline() {
    let mut world = World::new();
    let (key, _) = world.connect();
    (0..8).for_each(|n| world.plane.owe(key, &large_frame(n)));
    world.settle();
    assert!(world.plane.backlog_bytes() > 0);
    world.plane.close(key, &Frame::close(4200, ""), Ended::Ours);
    world.pass(CLOSE_TIMEOUT);
    assert!(world.plane.is_empty());
    assert_eq!(world.plane.backlog_bytes(), 0);
}

#[test]
fn a_closing_connection_is_owed_nothing_more_and_not_heard() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    let last = Frame::close(4200, "");
    world.plane.close(key, &last, Ended::Ours);
    world.plane.owe(key, &text_frame("late"));
    world.plane.close(key, &Frame::close(4000, "again"), Ended::Ours);
    world.send(fd, TEXT, b"late");
    world.send(fd, PING, b"late");
    assert_eq!(world.read(fd), last.into_bytes());
    assert_eq!(world.heard(), [""; 0]);
    assert_eq!(world.closed.len(), 1);
}

#[test]
fn a_peer_that_leaves_without_a_close_is_gone_at_once() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.net.close(fd);
    world.settle();
    assert_eq!(world.closed, [(key, Ended::PeerLeft)]);
    assert!(world.plane.is_empty());
}

#[test]
fn when_many_leave_at_once_a_turn_takes_some_of_them_and_none_is_forgotten() {
    let many = 3 * ENDS_PER_TURN + 1;
    let mut world = World::of(LIMITS, u32::try_from(many).unwrap());
    let connected: Vec<_> = (0..many).map(|_| world.connect()).collect();
    world.settle();
    connected.iter().for_each(|&(_, fd)| world.net.close(fd));
    let mut ends = Vec::new();
    while ends.iter().sum::<usize>() < many {
        assert!(ends.len() < 100, "{ends:?}");
        let before = world.closed.len();
        world.turn();
        ends.push(world.closed.len() - before);
    }
    assert_eq!(ends.iter().max(), Some(&ENDS_PER_TURN), "{ends:?}");
    world.settle();
    assert!(world.plane.is_empty());
}

#[test]
fn a_reset_is_reported_with_its_errno() {
    let mut world = World::new();
    let (key, _) = world.connect();
    world.plane.ring_mut().set_faults(Faults { reset: 1000, ..Faults::NONE });
    world.turn();
    world.plane.ring_mut().heal();
    world.settle();
    assert_eq!(world.closed, [(key, Ended::Failed(libc::ECONNRESET))]);
    assert!(world.plane.is_empty());
}

#[test]
fn a_ping_is_answered_with_its_payload() {
    let mut world = World::new();
    let (_, fd) = world.connect();
    world.send(fd, PING, b"are you there");
    assert_eq!(world.read(fd), Frame::pong(b"are you there").into_bytes());
}

/// Frames that break RFC 6455, or the limits of the test's host, with their close codes.
fn violations() -> [(Vec<u8>, u16); 3] {
    let unmasked = vec![TEXT, 2, b'h', b'i'];
    let too_big = vec![TEXT, 0xFE, 0xFF, 0xFF, 0, 0, 0, 0];
    [(unmasked, 1002), (masked(TEXT, b"\xFF"), 1007), (too_big, 1009)]
}

#[test]
fn a_violation_closes_with_its_code_and_ends_the_stream_behind_it_at_once() {
    for (bytes, expected) in violations() {
        let mut world = World::new();
        let (key, fd) = world.connect();
        world.net.write(fd, &bytes);
        let close = world.read(fd);
        assert_eq!((close[0], &close[2..4]), (CLOSE, &code(expected)[..]));
        assert_eq!(world.closed, [(key, Ended::Violation(expected))]);
        // The client can still send anything, and it has no effect.
        assert!(world.net.finished(fd) && !world.net.released(fd));
        world.send(fd, CLOSE, &code(expected));
        world.send(fd, PING, b"late");
        world.send(fd, TEXT, b"late");
        assert_eq!((world.read(fd), world.heard()), (vec![], vec![]));
        assert!(!world.net.released(fd));
        world.net.close(fd);
        world.settle();
        assert!(world.net.released(fd) && world.plane.is_empty());
        assert_eq!(world.closed.len(), 1, "named once");
    }
}

#[test]
fn a_peer_that_keeps_its_side_open_behind_a_violation_has_until_the_deadline() {
    for (bytes, _) in violations() {
        let mut world = World::new();
        let (_, fd) = world.connect();
        world.net.write(fd, &bytes);
        world.settle();
        world.pass(CLOSE_TIMEOUT - Duration::from_millis(1));
        world.net.write(fd, b"still here");
        let _close = world.read(fd);
        assert!(world.net.finished(fd) && !world.net.released(fd));
        world.pass(Duration::from_millis(1));
        assert!(world.net.released(fd) && world.plane.is_empty());
    }
}

#[test]
fn the_end_of_the_stream_waits_for_a_slow_reader_to_get_all_that_is_before_it() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    (0..8).for_each(|n| world.plane.owe(key, &large_frame(n)));
    world.settle();
    world.net.write(fd, &violations()[0].0);
    world.settle();
    assert!(!world.net.finished(fd) && world.plane.backlog_bytes() > 0);
    let got = world.read(fd);
    assert_eq!(&got[8 * 1004..8 * 1004 + 1], &[CLOSE]);
    assert!(world.net.finished(fd) && !world.net.released(fd));
}

#[test]
fn a_flood_behind_a_violation_ends_the_connection_before_the_deadline() {
    // Whole buffers and single bytes: the number of reads is bounded too.
    for (piece, most) in [(64 * 1024, 5 << 20), (1, 8 * 1024)] {
        let mut world = World::new();
        let (_, fd) = world.connect();
        world.net.write(fd, &violations()[0].0);
        let _close = world.read(fd);
        let mut flooded = 0;
        while !world.net.released(fd) {
            assert!(flooded < most, "it is still read after {flooded} bytes");
            world.net.write(fd, &vec![0; piece]);
            flooded += piece;
            world.settle();
        }
        assert!(world.plane.is_empty());
    }
}

#[test]
fn a_violation_in_answer_to_our_close_does_not_hold_the_stream_open() {
    for (bytes, _) in violations() {
        let mut world = World::new();
        let (key, fd) = world.connect();
        let last = Frame::close(4200, "restart");
        world.plane.close(key, &last, Ended::Ours);
        world.settle();
        assert!(!world.net.finished(fd));
        world.net.write(fd, &bytes);
        assert_eq!(world.read(fd), last.into_bytes());
        assert!(world.net.finished(fd) && !world.net.released(fd));
        assert_eq!(world.closed, [(key, Ended::Ours)]);
    }
}

#[test]
fn what_comes_behind_a_close_of_the_peer_can_not_reset_our_answer() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    // More than a buffer holds, so that the kernel may have more of it than the plane has seen.
    world.send(fd, CLOSE, &code(1000));
    world.net.write(fd, &[0; 200]);
    assert_eq!(world.read(fd), Frame::close(1000, "").into_bytes());
    assert_eq!(world.closed, [(key, Ended::PeerClosed)]);
    assert!(world.net.finished(fd) && !world.net.released(fd));
    world.net.close(fd);
    world.settle();
    assert!(world.plane.is_empty());
}

#[test]
fn what_a_connection_is_owed_in_a_turn_is_one_send_in_order() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    let before = world.plane.counters().sends;
    let texts = ["a", "b", "c", "d"];
    texts.iter().for_each(|text| world.plane.owe(key, &text_frame(text)));
    world.settle();
    assert_eq!(world.plane.counters().sends, before + 1);
    let expected: Vec<u8> = texts.iter().flat_map(|text| text_frame(text).into_bytes()).collect();
    assert_eq!(world.read(fd), expected);
}

#[test]
fn a_frame_for_many_is_staged_once_and_sent_to_each() {
    let mut world = World::new();
    let connections: Vec<_> = (0..5).map(|_| world.connect()).collect();
    let staged = world.plane.stage(&text_frame("news"));
    for (key, _) in &connections {
        world.plane.owe_staged(key.slot, staged);
    }
    world.plane.owe(connections[2].0, &text_frame("and more"));
    world.settle();
    assert_eq!(world.plane.counters().sends, 5);
    for (n, (_, fd)) in connections.into_iter().enumerate() {
        let mut expected = text_frame("news").into_bytes().to_vec();
        if n == 2 {
            expected.extend(text_frame("and more").into_bytes());
        }
        assert_eq!(world.read(fd), expected);
    }
    assert_eq!(
        world.plane.ring().leaks(),
        Some("5 slots, 0 buffers, 5 operations, 0 staged".into())
    );
}

#[test]
fn a_reader_that_is_slow_for_a_while_gets_everything_in_order() {
    let limits = BacklogLimits { connection: 1 << 20, ..LIMITS };
    let mut world = World::with(limits);
    let (key, fd) = world.connect();
    let mut expected = Vec::new();
    // One frame at a time, then more at once than are joined by a copy.
    for frames in [1, 1, 7, 300, 1] {
        for n in 0..frames {
            let frame = large_frame(u8::try_from(n % 75).unwrap());
            world.plane.owe(key, &frame);
            expected.extend_from_slice(frame.bytes());
        }
        world.turn();
    }
    assert!(world.plane.counters().short_sends > 0);
    assert_eq!(world.plane.backlog_bytes(), expected.len() - SOCKET_BYTES);
    assert!(world.read(fd) == expected);
    assert_eq!(world.plane.backlog_bytes(), 0);
    assert_eq!(world.closed, []);
}

#[test]
fn a_slow_consumer_is_counted_and_gets_whole_frames_and_the_reason() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    let (_, other) = world.connect();
    for n in 0..30 {
        world.plane.owe(key, &large_frame(n));
        world.turn();
    }
    assert_eq!(world.closed, [(key, Ended::TooSlow)]);
    assert_eq!(world.plane.counters().too_slow, 1);
    let got = world.read(fd);
    let frames = got.chunks_exact(1004);
    assert_eq!(frames.remainder(), &Frame::close(4100, "slow").bytes()[..]);
    let whole = frames.zip(0..).filter(|(frame, n)| *frame == &large_frame(*n).bytes()[..]).count();
    assert!((5..30).contains(&whole) && whole == got.len() / 1004, "{whole} frames of 30");
    world.pass(CLOSE_TIMEOUT);
    assert!(world.net.ended(fd) && !world.net.ended(other));
    assert_eq!(world.plane.backlog_bytes(), 0);
}

#[test]
fn past_the_bound_of_the_shard_the_largest_backlog_goes() {
    let limits = BacklogLimits { connection: 1 << 20, shard: 20_000 };
    let mut world = World::with(limits);
    let connections: Vec<_> = (0..3).map(|_| world.connect()).collect();
    let [small, large, last] = [0, 1, 2].map(|n: usize| connections[n].0);
    let mut owe = |key, frames| {
        for n in 0..frames {
            world.plane.owe(key, &large_frame(n));
            world.turn();
        }
        world.closed.clone()
    };
    assert_eq!(owe(small, 8), []);
    assert_eq!(owe(large, 15), []);
    assert_eq!(owe(last, 10), [(large, Ended::TooSlow)]);
    assert!(world.plane.backlog_bytes() <= limits.shard);
    let got = world.read(connections[2].1);
    assert_eq!(got.len(), 10 * 1004, "the one that pushed it over the bound misses nothing");
}

#[test]
fn no_more_connections_are_shed_than_the_bound_of_the_shard_demands() {
    let limits = BacklogLimits { connection: 1 << 20, shard: 9000 };
    let mut world = World::with(limits);
    let connections: Vec<_> = (0..5).map(|_| world.connect()).collect();
    // Each is left with 4016 + 3012 - 4096 bytes: three of the five fit.
    for frames in [4, 3] {
        let staged: Vec<_> = (0..frames).map(|n| world.plane.stage(&large_frame(n))).collect();
        for (key, _) in &connections {
            staged.iter().for_each(|&frame| world.plane.owe_staged(key.slot, frame));
        }
        world.turn();
    }
    assert_eq!(world.plane.counters().too_slow, 2);
    // The bytes that the two still hold do not count against the others.
    assert!(world.plane.backlog_bytes() > limits.shard);
    connections.iter().for_each(|(key, _)| world.plane.owe(*key, &text_frame("small")));
    world.turn();
    assert_eq!(world.plane.open_connections(), 3);
}

#[test]
fn while_paused_nothing_is_read_and_then_everything_in_order() {
    let mut world = World::new();
    let (_, fd) = world.connect();
    world.paused = true;
    for n in 0..100 {
        world.send(fd, TEXT, n.to_string().as_bytes());
        world.turn();
    }
    assert_eq!(world.heard(), [""; 0]);
    world.paused = false;
    world.settle();
    assert_eq!(world.heard(), (0..100).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[test]
fn what_a_peer_sent_before_it_left_is_heard_although_it_left_while_paused() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.paused = true;
    world.send(fd, TEXT, b"last words");
    world.net.close(fd);
    (0..10).for_each(|_| world.turn());
    world.paused = false;
    world.settle();
    assert_eq!(world.heard(), ["last words"]);
    assert_eq!(world.closed, [(key, Ended::PeerLeft)]);
}

#[test]
fn a_slot_is_used_again_only_after_its_end_was_asked_for_and_by_another_generation() {
    let mut world = World::new();
    let (first, fd) = world.connect();
    world.net.close(fd);
    for _ in 0..5 {
        world.plane.poll(Intake::All, &mut world.host);
        world.plane.flush();
    }
    let second = world.plane.open(world.net.connect()).unwrap();
    assert_ne!(second.slot, first.slot, "nobody has asked who ended");
    world.settle();
    assert_eq!(world.closed, [(first, Ended::PeerLeft)]);
    let (third, fd) = world.connect();
    assert_eq!(third.slot, first.slot);
    assert_ne!(third.generation, first.generation);
    world.plane.owe(first, &text_frame("for another"));
    world.plane.close(first, &Frame::close(1000, ""), Ended::Ours);
    assert_eq!(world.read(fd), b"");
    assert!(world.plane.is_open(third) && !world.plane.is_open(first));
    assert_eq!(world.plane.key_of(first.slot), Some(third));
}

#[test]
fn a_full_table_refuses_until_somebody_leaves() {
    let mut world = World::new();
    let connections: Vec<_> = (0..SLOTS).map(|_| world.connect()).collect();
    assert_eq!(world.plane.open_connections(), connections.len());
    assert_eq!(world.plane.free_places(), 0);
    let refused = world.plane.open(world.net.connect()).map_err(|error| error.kind());
    assert_eq!(refused, Err(io::ErrorKind::QuotaExceeded));
    world.net.close(connections[3].1);
    world.settle();
    assert_eq!(world.plane.free_places(), 1);
    assert_eq!(world.connect().0.slot, connections[3].0.slot);
}

#[test]
fn silence_is_measured_from_the_last_bytes() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.pass(Duration::from_secs(30));
    let measured = world.plane.idle(key);
    assert!((29_900..=31_000).contains(&measured.as_millis()), "{measured:?}");
    world.send(fd, PING, b"");
    world.settle();
    assert!(world.plane.idle(key) < Duration::from_millis(200));
}

#[test]
fn rounds_of_connections_leave_no_more_behind_than_one() {
    let mut world = World::new();
    let mut rooms = Vec::new();
    for _ in 0..50 {
        let connections: Vec<_> = (0..SLOTS).map(|_| world.connect()).collect();
        connections.iter().for_each(|&(key, _)| world.plane.owe(key, &text_frame("hello")));
        world.settle();
        connections.iter().for_each(|&(_, fd)| world.net.close(fd));
        world.settle();
        world.plane.trim();
        assert!(world.plane.is_empty());
        assert_eq!((world.plane.slots_used(), world.plane.free_places()), (SLOTS, SLOTS as usize));
        rooms.push(world.plane.room());
    }
    assert!(rooms.iter().skip(1).all(|room| *room == rooms[1]), "{rooms:?}");
}
