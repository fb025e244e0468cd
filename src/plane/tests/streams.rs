//! Streams: accepts, bytes that are not frames, and the ways from there.

use std::net::{IpAddr, Ipv4Addr};

use crate::ring::sim::SimListener;

use super::*;

const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A world whose plane accepts.
struct Accepting {
    world: World,
    listener: SimListener,
    id: ListenerId,
    /// The events of streams so far, but for bytes.
    events: Vec<(ConnKey, &'static str)>,
    /// The bytes that have come.
    bytes: Vec<u8>,
}

impl Accepting {
    fn new() -> Self {
        let (mut world, listener) = (World::new(), SimListener::default());
        let id = world.plane.listen(listener.clone());
        Self { world, listener, id, events: Vec::new(), bytes: Vec::new() }
    }

    /// Runs turns until nothing more happens by itself, and takes the events.
    fn settle(&mut self) {
        for _ in 0..100 {
            let World { plane, host, now, .. } = &mut self.world;
            plane.begin_turn(Millis(*now));
            plane.poll(Intake::All, host);
            let mut some = false;
            while let Some((key, event)) = plane.next_stream_event() {
                some = true;
                let name = match event {
                    StreamEvent::Accepted(_, peer) => {
                        assert_eq!(peer, Some(CLIENT));
                        "accepted"
                    }
                    StreamEvent::NotAccepted(_, errno) => {
                        assert_eq!(errno, libc::ECANCELED);
                        "not accepted"
                    }
                    StreamEvent::Received(mut buffer) => {
                        self.bytes.extend_from_slice(buffer.as_mut());
                        plane.give_back(buffer);
                        continue;
                    }
                    StreamEvent::PeerEnded => "peer ended",
                    StreamEvent::Blocked => "blocked",
                    StreamEvent::Unblocked => "unblocked",
                    StreamEvent::Closed => "closed",
                };
                self.events.push((key, name));
            }
            self.world.take_closed();
            self.world.plane.flush();
            let World { plane, .. } = &self.world;
            if !some && !plane.has_work() && !plane.ring().ready() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Accepts a connection. Returns it with its client.
    fn accept(&mut self) -> (ConnKey, RawFd) {
        let key = self.world.plane.accept(self.id).unwrap();
        let client = self.listener.connect(&self.world.net, Some(CLIENT));
        self.settle();
        assert_eq!(self.take_events(), [(key, "accepted")]);
        (key, client)
    }

    fn take_events(&mut self) -> Vec<(ConnKey, &'static str)> {
        std::mem::take(&mut self.events)
    }

    fn read(&self, client: RawFd) -> Vec<u8> {
        self.world.net.read(client, usize::MAX)
    }
}

#[test]
fn nothing_is_read_from_a_stream_before_its_owner_asks_and_then_one_buffer() {
    let mut accepting = Accepting::new();
    let (key, client) = accepting.accept();
    accepting.world.net.write(client, &[7; 100]);
    accepting.settle();
    assert!(accepting.bytes.is_empty());
    accepting.world.plane.read_on(key);
    accepting.settle();
    let came = accepting.bytes.len();
    assert!((1..=64).contains(&came), "{came} bytes: a buffer has 64");
    while accepting.bytes.len() < 100 {
        accepting.world.plane.read_on(key);
        accepting.settle();
    }
    assert_eq!(accepting.bytes, [7; 100]);
    accepting.world.net.close(client);
    accepting.world.plane.read_on(key);
    accepting.settle();
    assert_eq!(accepting.take_events(), [(key, "peer ended")], "its owner decides what follows");
    accepting.world.plane.abort(key);
    accepting.settle();
    assert_eq!(accepting.take_events(), [(key, "closed")]);
    assert!(accepting.world.plane.is_empty());
}

#[test]
fn a_stream_becomes_a_websocket_with_what_it_was_owed_and_all_that_comes() {
    let mut accepting = Accepting::new();
    let (key, client) = accepting.accept();
    accepting.world.net.write(client, b"GET / HTTP/1.1");
    while accepting.bytes != b"GET / HTTP/1.1" {
        accepting.world.plane.read_on(key);
        accepting.settle();
    }
    accepting.world.plane.owe_stream(key, b"101".to_vec().into());
    assert!(accepting.world.plane.upgrade(key));
    assert!(!accepting.world.plane.upgrade(key), "once");
    accepting.world.plane.feed(key, &mut masked(TEXT, b"early"), &mut accepting.world.host);
    accepting.settle();
    accepting.world.net.write(client, &masked(TEXT, b"late"));
    accepting.settle();
    assert_eq!(accepting.read(client), b"101");
    let heard: Vec<_> = accepting.world.host.heard.iter().map(|(_, text)| &**text).collect();
    assert_eq!(heard, ["early", "late"]);
    accepting.world.net.close(client);
    accepting.settle();
    assert_eq!(accepting.world.closed, [(key, Ended::PeerLeft)]);
    assert_eq!(accepting.take_events(), [], "it was no stream any more");
}

#[test]
fn a_stream_that_is_finished_is_read_to_its_end_and_no_further() {
    let mut accepting = Accepting::new();
    let (key, client) = accepting.accept();
    accepting.world.plane.owe_stream(key, b"bye".to_vec().into());
    accepting.world.plane.finish(key);
    accepting.world.net.write(client, &[0; 500]);
    accepting.settle();
    assert_eq!(accepting.read(client), b"bye");
    assert!(accepting.world.net.finished(client), "our direction has ended");
    assert!(!accepting.world.net.released(client), "and the peer's has not");
    assert_eq!((accepting.take_events(), accepting.bytes.len()), (vec![], 0));
    accepting.world.net.close(client);
    accepting.settle();
    assert_eq!(accepting.take_events(), [(key, "closed")]);
    assert!(accepting.world.net.released(client) && accepting.world.plane.is_empty());
}

#[test]
fn a_stream_that_is_closed_ends_behind_what_it_is_owed_and_waits_for_nothing() {
    let mut accepting = Accepting::new();
    for answer in [b"bye".to_vec(), vec![1; 3 * SOCKET_BYTES]] {
        let (key, client) = accepting.accept();
        accepting.world.plane.owe_stream(key, answer.clone().into());
        accepting.world.plane.close_stream(key);
        accepting.settle();
        let mut read = accepting.read(client);
        while read.len() < answer.len() {
            assert!(!accepting.world.net.released(client), "it is owed more");
            accepting.settle();
            read.extend(accepting.read(client));
        }
        assert_eq!(read, answer);
        accepting.settle();
        assert!(accepting.world.net.released(client) && accepting.world.plane.is_empty());
        assert_eq!(accepting.take_events().last(), Some(&(key, "closed")));
    }
}

#[test]
fn the_owner_of_a_stream_hears_when_its_socket_is_full_and_when_it_has_room() {
    let mut accepting = Accepting::new();
    let (key, client) = accepting.accept();
    let answer = vec![1; 3 * SOCKET_BYTES];
    accepting.world.plane.owe_stream(key, answer.clone().into());
    accepting.settle();
    assert_eq!(accepting.take_events(), [(key, "blocked")]);
    let mut read = Vec::new();
    while read.len() < answer.len() {
        read.extend(accepting.read(client));
        accepting.settle();
    }
    assert_eq!(accepting.take_events(), [(key, "unblocked")]);
    assert_eq!(read, answer, "more than the bound of a WebSocket's backlog");
}

#[test]
fn accepts_that_are_ended_give_their_slots_back_and_lose_no_connection() {
    let mut accepting = Accepting::new();
    let keys: Vec<_> = (0..SLOTS).map(|_| accepting.world.plane.accept(accepting.id)).collect();
    assert!(keys.iter().all(Option::is_some));
    assert_eq!(accepting.world.plane.accept(accepting.id), None, "no slot is left");
    accepting.settle();
    let client = accepting.listener.connect(&accepting.world.net, Some(CLIENT));
    accepting.settle();
    let [(key, "accepted")] = *accepting.take_events() else { panic!("not one connection") };
    accepting.world.plane.stop_accepting(accepting.id);
    accepting.settle();
    let ended = accepting.take_events();
    assert_eq!(ended.len(), SLOTS as usize - 1);
    assert!(ended.iter().all(|&(_, event)| event == "not accepted"));
    accepting.world.plane.forget(accepting.id);
    accepting.world.plane.abort(key);
    accepting.settle();
    assert!(accepting.world.net.released(client) && accepting.world.plane.is_empty());
}
