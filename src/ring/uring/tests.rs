//! Tests of the contract of [`Ring`] on the kernel that runs them, over TCP on the loopback. Each
//! test runs with sockets in the ring's own table and with ordinary descriptors.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use socket2::SockRef;

use super::*;

mod sleep;

const SIZES: UringSizes = UringSizes {
    slots: 64,
    submissions: 16,
    buffers: 16,
    buffer_size: 256,
    direct_descriptors: true,
};

/// The time after which a test that waits fails.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest sleep of a test that expects nothing to end it.
const MOMENT: Duration = Duration::from_millis(50);

/// A ring with the completions that it has reported and no test has looked at.
struct Turns {
    ring: Uring,
    reported: Vec<Completion>,
}

impl Turns {
    fn new(sizes: &UringSizes) -> Self {
        Self { ring: Uring::new(sizes).unwrap(), reported: Vec::new() }
    }

    /// Installs a connection in this slot, non-blocking as the front leaves it. Returns the other
    /// side.
    fn connect(&mut self, slot: u32) -> TcpStream {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let (socket, _) = listener.accept().unwrap();
        socket.set_nonblocking(true).unwrap();
        // The buffer is full soon, whatever the system's defaults are.
        SockRef::from(&socket).set_send_buffer_size(1 << 18).unwrap();
        SockRef::from(&peer).set_recv_buffer_size(1 << 18).unwrap();
        self.ring.install(slot, socket.as_fd()).unwrap();
        peer
    }

    fn submit(&mut self) {
        assert!(self.ring.submit());
    }

    /// The completions that have been posted by now.
    fn reap(&mut self) -> Vec<Completion> {
        self.ring.reap(&mut self.reported);
        std::mem::take(&mut self.reported)
    }

    /// The next completion.
    fn next(&mut self) -> Completion {
        while self.reported.is_empty() {
            self.ring.reap(&mut self.reported);
            if self.reported.is_empty() {
                self.wait();
            }
        }
        self.reported.remove(0)
    }

    /// Sleeps in the ring, as a shard does, and expects a reason for the end of the sleep.
    fn wait(&mut self) {
        let began = Instant::now();
        assert!(self.ring.submit_and_wait(PATIENCE));
        assert!(began.elapsed() < PATIENCE, "nothing came");
    }

    /// Sleeps in the ring for a moment, and returns whether that ended before the time.
    fn wait_briefly(&mut self) -> bool {
        let began = Instant::now();
        assert!(self.ring.submit_and_wait(MOMENT));
        began.elapsed() < MOMENT
    }

    /// Waits until the socket is readable, and receives once.
    fn receive(&mut self, key: ConnKey) -> Completion {
        self.ring.await_readable(key).unwrap();
        self.submit();
        let readable = self.next();
        assert_eq!((readable.op, readable.key, readable.more), (Op::Readable, key, false));
        self.receive_now(key)
    }

    /// Receives once, without waiting.
    fn receive_now(&mut self, key: ConnKey) -> Completion {
        self.ring.receive(key).unwrap();
        self.submit();
        let [received] = *self.reap() else { panic!("not one completion, and at once") };
        assert_eq!((received.op, received.key, received.more), (Op::Receive, key, false));
        received
    }

    /// Takes the bytes of a receive, and gives the buffer back.
    fn take(&mut self, completion: &Completion) -> Vec<u8> {
        let mut buffer = self.ring.take_buffer(completion).unwrap();
        let bytes = buffer.as_mut().to_vec();
        self.ring.give_back(buffer);
        bytes
    }

    fn send_now(&mut self, key: ConnKey, bytes: &[u8]) {
        let staged = self.ring.stage(Bytes::copy_from_slice(bytes));
        self.ring.send_now(key, staged).unwrap();
        self.submit();
        self.ring.clear_staged();
    }

    /// Sends until the socket takes nothing more. Returns the number of bytes sent.
    fn fill(&mut self, key: ConnKey) -> usize {
        let mut filled = 0;
        loop {
            self.send_now(key, &vec![b'f'; 1 << 20]);
            match *self.reap() {
                [Completion { result, .. }] if result == -libc::EAGAIN => return filled,
                [Completion { result: sent @ 1.., .. }] => filled += usize::try_from(sent).unwrap(),
                ref other => panic!("{other:?}"),
            }
        }
    }
}

fn in_both_modes(test: impl Fn(Turns)) {
    in_both_modes_with(&SIZES, test);
}

fn in_both_modes_with(sizes: &UringSizes, test: impl Fn(Turns)) {
    for direct_descriptors in [true, false] {
        test(Turns::new(&UringSizes { direct_descriptors, ..*sizes }));
    }
}

const fn key(slot: u32) -> ConnKey {
    ConnKey { slot, generation: 7 }
}

fn read_exactly(peer: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    peer.read_exact(&mut bytes).unwrap();
    bytes
}

/// Whether the connection has ended for the peer, by FIN or by RST, behind all that it was sent.
fn ended(peer: &mut TcpStream) -> bool {
    let read = peer.read_to_end(&mut Vec::new());
    read.map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, |_| true)
}

#[test]
fn a_wait_ends_when_bytes_come_and_they_are_received_without_waiting() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(3);
        let key = ConnKey { slot: 3, generation: u32::MAX };
        for text in ["one", "two"] {
            assert_eq!(turns.receive_now(key).result, -libc::EAGAIN);
            turns.ring.await_readable(key).unwrap();
            turns.submit();
            assert_eq!(turns.reap(), []);
            peer.write_all(text.as_bytes()).unwrap();
            assert_eq!(turns.next().op, Op::Readable);
            assert_eq!(turns.reap(), [], "it ends once");
            let received = turns.receive_now(key);
            assert_eq!(turns.take(&received), text.as_bytes());
        }
    });
}

/// A wait goes by what the socket has. So it does not matter when bytes come: before the wait,
/// between its end and the receive, or behind the receive.
#[test]
fn a_wait_ends_at_once_while_anything_is_left_and_only_then() {
    in_both_modes_with(&UringSizes { buffer_size: 4, ..SIZES }, |mut turns| {
        let mut peer = turns.connect(0);
        peer.write_all(b"aaaabbbb").unwrap();
        turns.ring.await_readable(key(0)).unwrap();
        turns.submit();
        assert_eq!(turns.next().op, Op::Readable);
        peer.write_all(b"cc").unwrap();
        let first = turns.receive_now(key(0));
        assert_eq!((turns.take(&first), first.left), (b"aaaa".to_vec(), true));
        for (expected, left) in [(&b"bbbb"[..], true), (b"cc", false)] {
            let received = turns.receive(key(0));
            assert_eq!((turns.take(&received), received.left), (expected.to_vec(), left));
        }
        turns.ring.await_readable(key(0)).unwrap();
        turns.submit();
        assert_eq!(turns.reap(), []);
        peer.write_all(b"dd").unwrap();
        assert_eq!(turns.next().op, Op::Readable);
    });
}

#[test]
fn the_end_of_the_stream_is_received_behind_the_bytes_that_came_with_it() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        peer.write_all(b"last").unwrap();
        drop(peer);
        let received = turns.receive(key(0));
        assert_eq!(turns.take(&received), b"last");
        assert_eq!(turns.receive(key(0)).result, 0);
    });
}

#[test]
fn a_wait_is_not_ended_by_room_to_send() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        let filled = turns.fill(key(0));
        turns.ring.await_readable(key(0)).unwrap();
        turns.ring.send(key(0), Bytes::from_static(b"waits for room")).unwrap();
        turns.submit();
        assert_eq!(turns.reap(), []);
        read_exactly(&mut peer, filled);
        assert_eq!(turns.next().op, Op::Send);
        assert_eq!(turns.reap(), []);
        assert_eq!(read_exactly(&mut peer, 14), b"waits for room");
    });
}

#[test]
fn a_receive_that_waits_completes_once_and_takes_no_buffer_before_bytes_come() {
    in_both_modes_with(&UringSizes { buffers: 1, ..SIZES }, |mut turns| {
        let mut peers: Vec<_> = (0..3).map(|slot| turns.connect(slot)).collect();
        for slot in 0..3 {
            turns.ring.wait_and_receive(key(slot)).unwrap();
        }
        turns.submit();
        assert_eq!(turns.reap(), []);
        for slot in [2, 0] {
            peers[slot].write_all(b"bytes").unwrap();
            let received = turns.next();
            assert_eq!((received.op, received.key), (Op::Receive, key(slot as u32)));
            assert!(!received.more);
            assert_eq!(turns.take(&received), b"bytes");
        }
        peers[2].write_all(b"more").unwrap();
        assert!(!turns.wait_briefly(), "one completion each");
        turns.ring.wait_and_receive(key(2)).unwrap();
        let received = turns.next();
        assert_eq!(turns.take(&received), b"more");
        drop(peers.remove(1));
        let ended = turns.next();
        assert_eq!((ended.op, ended.key, ended.result), (Op::Receive, key(1), 0));
    });
}

#[test]
fn a_receive_that_waits_is_stopped_and_one_that_has_completed_is_not() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        turns.ring.wait_and_receive(key(0)).unwrap();
        turns.submit();
        turns.ring.stop_receiving(key(0)).unwrap();
        let stopped = turns.next();
        let ended = (stopped.op, stopped.key, stopped.result);
        assert_eq!(ended, (Op::Receive, key(0), -libc::ECANCELED));
        turns.ring.stop_receiving(key(0)).unwrap();
        turns.submit();
        assert!(turns.reap().iter().all(|completion| completion.op == Op::HangUp));
        peer.write_all(b"still open").unwrap();
        let received = turns.receive(key(0));
        assert_eq!(turns.take(&received), b"still open");
    });
}

#[test]
fn a_close_is_queued_and_never_meets_the_next_socket_of_its_slot() {
    in_both_modes(|mut turns| {
        let mut first = turns.connect(0);
        turns.ring.close(0).unwrap();
        let mut second = turns.connect(0);
        assert!(ended(&mut first));
        turns.submit();
        second.write_all(b"open").unwrap();
        let received = turns.receive(key(0));
        assert_eq!(turns.take(&received), b"open");
        turns.ring.close(0).unwrap();
        turns.submit();
        assert!(ended(&mut second));
        assert_eq!(turns.reap(), []);
    });
}

#[test]
fn a_full_completion_queue_loses_no_wait_and_no_receive() {
    let sizes = UringSizes { submissions: 1, buffers: 64, ..SIZES };
    in_both_modes_with(&sizes, |mut turns| {
        let mut peers: Vec<_> = (0..64).map(|slot| turns.connect(slot)).collect();
        for slot in 0..64 {
            turns.ring.await_readable(key(slot)).unwrap();
            turns.submit();
        }
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        for _ in 0..64 {
            assert_eq!(turns.next().op, Op::Readable);
        }
        // More completions than the queue holds, before any of them is taken.
        for slot in 0..64 {
            turns.ring.receive(key(slot)).unwrap();
            turns.submit();
        }
        let mut received: Vec<_> = turns.reap().iter().map(|of| (of.key.slot, of.result)).collect();
        received.sort_unstable();
        assert_eq!(received, (0..64).map(|slot| (slot, 1)).collect::<Vec<_>>());
    });
}

#[test]
fn a_receive_without_a_free_buffer_leaves_the_bytes_in_the_socket() {
    in_both_modes_with(&UringSizes { buffers: 1, ..SIZES }, |mut turns| {
        let mut peers = [turns.connect(0), turns.connect(1)];
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        let first = turns.receive(key(0));
        let held = turns.ring.take_buffer(&first).unwrap();
        let refused = turns.receive(key(1));
        assert_eq!((refused.result, refused.buffer), (-libc::ENOBUFS, None));
        turns.ring.give_back(held);
        let received = turns.receive(key(1));
        assert_eq!(turns.take(&received), b"x");
    });
}

#[test]
fn a_receive_that_is_kept_goes_on_from_message_to_message() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(3);
        let key = ConnKey { slot: 3, generation: u32::MAX };
        turns.ring.keep_receiving(key).unwrap();
        turns.submit();
        assert_eq!(turns.reap(), []);
        for text in ["one", "two", "three"] {
            peer.write_all(text.as_bytes()).unwrap();
            let completion = turns.next();
            let (op, len) = (Op::Receive, i32::try_from(text.len()).unwrap());
            assert_eq!((completion.op, completion.key), (op, key));
            assert_eq!((completion.result, completion.more), (len, true));
            assert_eq!(turns.take(&completion), text.as_bytes());
        }
        turns.ring.stop_receiving(key).unwrap();
        turns.submit();
        let end = turns.next();
        assert_eq!((end.op, end.result, end.more), (Op::Receive, -libc::ECANCELED, false));
    });
}

#[test]
fn a_buffer_is_taken_once_per_completion() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        peer.write_all(b"x").unwrap();
        let completion = turns.receive(key(0));
        let buffer = turns.ring.take_buffer(&completion).unwrap();
        assert!(turns.ring.take_buffer(&completion).is_none());
        turns.ring.give_back(buffer);
    });
}

#[test]
fn a_peer_that_leaves_or_resets_ends_the_wait_and_the_receive_tells_which() {
    in_both_modes(|mut turns| {
        for (slot, reset, expected) in [(0, false, 0), (1, true, -libc::ECONNRESET)] {
            let peer = turns.connect(slot);
            turns.ring.await_readable(key(slot)).unwrap();
            turns.submit();
            if reset {
                SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
            }
            drop(peer);
            assert_eq!(turns.next().op, Op::Readable);
            assert_eq!(turns.receive_now(key(slot)).result, expected);
        }
    });
}

#[test]
fn a_send_that_fits_reports_nothing() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        for text in [&b"first"[..], b"second"] {
            turns.send_now(key(0), text);
            assert_eq!(turns.reap(), []);
            assert_eq!(read_exactly(&mut peer, text.len()), text);
        }
    });
}

#[test]
fn a_send_that_does_not_fit_reports_how_much_did() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        let bytes: Vec<u8> = (0..=250).cycle().take(1 << 23).collect();
        turns.send_now(key(0), &bytes);
        let [Completion { op: Op::SendNow, key: of, result, more: false, .. }] = *turns.reap()
        else {
            panic!("one completion at once")
        };
        let sent = usize::try_from(result).unwrap();
        assert!(of == key(0) && (1..bytes.len()).contains(&sent), "{sent} bytes");
        let filled = turns.fill(key(0));
        let got = read_exactly(&mut peer, sent + filled);
        assert!(got[..sent] == bytes[..sent] && got[sent..].iter().all(|&byte| byte == b'f'));
    });
}

#[test]
fn a_waiting_send_ends_when_the_peer_has_made_room_for_all_of_it() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        let filled = turns.fill(key(0));
        let bytes = Bytes::from((0..=250).cycle().take(1 << 20).collect::<Vec<u8>>());
        turns.ring.send(key(0), bytes.clone()).unwrap();
        turns.submit();
        assert_eq!(turns.reap(), []);
        let reader = std::thread::spawn(move || read_exactly(&mut peer, filled + (1 << 20)));
        let completion = turns.next();
        assert_eq!((completion.op, completion.key), (Op::Send, key(0)));
        assert_eq!((completion.result, completion.more), (1 << 20, false));
        assert!(reader.join().unwrap()[filled..] == bytes[..]);
        assert!(turns.ring.sending.is_empty(), "the bytes are let go");
    });
}

#[test]
fn a_second_send_for_a_slot_is_refused_until_the_first_has_completed() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        let filled = turns.fill(key(0));
        turns.ring.send(key(0), Bytes::from(vec![b'1'; 1 << 20])).unwrap();
        turns.submit();
        // An operation of the slot's next user, as if the slot had been released too early.
        for later in [key(0), ConnKey { slot: 0, generation: 8 }] {
            let second = turns.ring.send(later, Bytes::from_static(b"2"));
            assert_eq!(second, Err(SendRefused::Pending));
        }
        let reader =
            std::thread::spawn(move || (read_exactly(&mut peer, filled + (1 << 20)), peer));
        assert_eq!((turns.next().op, turns.ring.sending.len()), (Op::Send, 0));
        let (bytes, mut peer) = reader.join().unwrap();
        assert!(bytes[filled..].iter().all(|&byte| byte == b'1'));
        turns.ring.send(key(0), Bytes::from_static(b"2")).unwrap();
        turns.submit();
        assert_eq!(turns.next().result, 1);
        assert_eq!(read_exactly(&mut peer, 1), b"2");
    });
}

#[test]
fn the_completion_of_an_earlier_user_frees_no_bytes_of_a_later_one() {
    in_both_modes(|mut turns| {
        let _peer = turns.connect(0);
        turns.fill(key(0));
        turns.ring.send(key(0), Bytes::from(vec![1; 1 << 20])).unwrap();
        turns.submit();
        let stale = ConnKey { slot: 0, generation: 6 };
        let (op, result, more, left, buffer) = (Op::Send, 1, false, false, None);
        let completion = Completion { op, key: stale, result, more, left, buffer };
        turns.ring.settle(&completion);
        assert_eq!(turns.ring.sending.len(), 1);
    });
}

#[test]
#[should_panic(expected = "slot 0 is released with a pending wait")]
fn a_slot_is_not_released_while_an_operation_is_pending() {
    let mut turns = Turns::new(&SIZES);
    let _peer = turns.connect(0);
    turns.ring.await_readable(key(0)).unwrap();
    turns.ring.release(0);
}

#[test]
#[should_panic(expected = "an operation of another user of the slot")]
fn a_slot_has_one_user_at_a_time() {
    let mut turns = Turns::new(&SIZES);
    let _peer = turns.connect(0);
    turns.ring.await_readable(key(0)).unwrap();
    let _never = turns.ring.send(ConnKey { slot: 0, generation: 8 }, Bytes::from_static(b"x"));
}

#[test]
fn a_send_to_a_peer_that_is_gone_reports_its_error() {
    in_both_modes(|mut turns| {
        let peer = turns.connect(0);
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(turns.receive(key(0)).result, -libc::ECONNRESET);
        turns.send_now(key(0), b"x");
        assert_eq!(turns.next().result, -libc::EPIPE);
        turns.ring.send(key(0), Bytes::from_static(b"x")).unwrap();
        turns.submit();
        assert_eq!(turns.next().result, -libc::EPIPE);
    });
}

#[test]
fn a_hang_up_ends_the_wait_and_the_send_that_are_pending() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        let mut other = turns.connect(1);
        turns.fill(key(0));
        turns.ring.await_readable(key(1)).unwrap();
        turns.ring.await_readable(key(0)).unwrap();
        turns.ring.send(key(0), Bytes::from(vec![0; 1 << 20])).unwrap();
        turns.submit();
        assert_eq!(turns.reap(), []);
        turns.ring.hang_up(key(0)).unwrap();
        turns.submit();
        let mut ends = [turns.next(), turns.next()];
        ends.sort_by_key(|end| end.op == Op::Send);
        assert_eq!(ends.map(|end| end.op), [Op::Readable, Op::Send]);
        assert!(ends.iter().all(|end| end.key == key(0) && !end.more));
        turns.ring.release(0);
        assert!(ended(&mut peer));
        other.write_all(b"still here").unwrap();
        let completion = turns.next();
        assert_eq!((completion.op, completion.key), (Op::Readable, key(1)));
    });
}

#[test]
fn a_hang_up_without_operations_ends_nothing() {
    in_both_modes(|mut turns| {
        let _peer = turns.connect(0);
        turns.ring.hang_up(key(0)).unwrap();
        turns.submit();
        assert!(turns.reap().iter().all(|completion| completion.op == Op::HangUp));
    });
}

#[test]
fn a_half_close_ends_the_stream_behind_what_was_sent_and_the_peer_can_still_send() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        turns.send_now(key(0), b"last");
        turns.ring.half_close(key(0)).unwrap();
        turns.submit();
        let half_closed = turns.next();
        assert_eq!((half_closed.op, half_closed.key), (Op::HalfClose, key(0)));
        assert_eq!((half_closed.result, half_closed.more), (0, false));
        assert_eq!(read_exactly(&mut peer, 4), b"last");
        assert!(ended(&mut peer));
        peer.write_all(b"answer").unwrap();
        let received = turns.receive(key(0));
        assert_eq!(turns.take(&received), b"answer");
        drop(peer);
        assert_eq!(turns.receive(key(0)).result, 0);
        turns.ring.release(0);
    });
}

#[test]
fn a_half_close_of_a_connection_that_was_reset_ends_with_an_error() {
    in_both_modes(|mut turns| {
        let peer = turns.connect(0);
        SockRef::from(&peer).set_linger(Some(Duration::ZERO)).unwrap();
        drop(peer);
        assert_eq!(turns.receive(key(0)).result, -libc::ECONNRESET);
        turns.ring.half_close(key(0)).unwrap();
        turns.submit();
        assert_eq!(turns.next().result, -libc::ENOTCONN);
    });
}

/// Only kernels before 6.13 fail this, and only with sockets in the ring's table
/// (axboe/liburing#1192).
#[test]
fn release_closes_at_once_although_other_waits_are_older() {
    in_both_modes(|mut turns| {
        let _older = turns.connect(0);
        turns.ring.await_readable(key(0)).unwrap();
        turns.submit();
        let mut peer = turns.connect(1);
        turns.send_now(key(1), b"bye");
        turns.ring.release(1);
        assert_eq!(read_exactly(&mut peer, 3), b"bye");
        assert!(ended(&mut peer));
    });
}

#[test]
fn a_slot_takes_its_next_socket_and_completions_tell_both_users_apart() {
    in_both_modes(|mut turns| {
        let _first = turns.connect(0);
        turns.ring.await_readable(key(0)).unwrap();
        turns.ring.hang_up(key(0)).unwrap();
        turns.submit();
        let end = turns.next();
        assert_eq!((end.key, end.more), (key(0), false));
        turns.ring.release(0);
        let mut second = turns.connect(0);
        let next = ConnKey { slot: 0, generation: 8 };
        turns.ring.await_readable(next).unwrap();
        turns.submit();
        second.write_all(b"x").unwrap();
        assert_eq!(turns.next().key, next);
    });
}

#[cfg(feature = "accept")]
#[test]
fn an_accept_goes_on_and_closed_slots_are_used_again() {
    let mut turns = Turns::new(&UringSizes { slots: 2, ..SIZES });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    turns.ring.accept_all(listener.as_fd()).unwrap();
    turns.submit();
    for _ in 0..3 {
        let mut peers = [0; 2].map(|_| {
            let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let Completion { op: Op::AcceptAll, result, more: true, .. } = turns.next() else {
                panic!("the accept is over");
            };
            (u32::try_from(result).unwrap(), peer)
        });
        for (slot, peer) in &mut peers {
            turns.send_now(key(*slot), b"hi");
            assert_eq!(read_exactly(peer, 2), b"hi");
            turns.ring.close(*slot).unwrap();
            turns.submit();
            assert!(ended(peer));
        }
        assert_ne!(peers[0].0, peers[1].0);
    }
}

/// A listener on the loopback that the ring accepts from.
fn listen(turns: &mut Turns) -> (ListenerId, std::net::SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let listening = Listening { socket: OwnedFd::from(listener), send_buffer: None };
    (turns.ring.listen(listening), address)
}

#[test]
fn each_accept_brings_one_connection_into_its_slot_with_the_address_of_its_peer() {
    in_both_modes(|mut turns| {
        let (listener, address) = listen(&mut turns);
        let keys = [5, 3].map(|slot| ConnKey { slot, generation: slot });
        for key in keys {
            turns.ring.accept(listener, key).unwrap();
        }
        turns.submit();
        assert_eq!(turns.reap(), []);
        let source = Ipv4Addr::new(127, 0, 0, 77);
        let connect = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
            let socket = socket.unwrap();
            socket.bind(&std::net::SocketAddr::from((source, 0)).into()).unwrap();
            socket.connect(&address.into()).unwrap();
            TcpStream::from(socket)
        };
        let mut peers = [connect(), connect()];
        let mut slots = Vec::new();
        for peer in &mut peers {
            let accepted = turns.next();
            assert!(accepted.op == Op::Accept && accepted.result >= 0, "{accepted:?}");
            assert_eq!(turns.ring.peer(&accepted), Some(source.into()));
            turns.send_now(accepted.key, b"welcome");
            assert_eq!(read_exactly(peer, 7), b"welcome", "in the order of the connections");
            slots.push(accepted.key.slot);
        }
        slots.sort_unstable();
        assert_eq!(slots, [3, 5]);
        // Both are done: a third client waits in the queue.
        let _third = connect();
        assert_eq!(turns.reap(), []);
    });
}

#[test]
fn an_accept_that_is_ended_completes_and_its_slot_stays_free() {
    in_both_modes(|mut turns| {
        let (listener, _) = listen(&mut turns);
        let key = ConnKey { slot: 1, generation: 9 };
        turns.ring.accept(listener, key).unwrap();
        turns.ring.stop_accepting(key).unwrap();
        turns.submit();
        let ended = turns.next();
        assert_eq!((ended.op, ended.key, ended.result), (Op::Accept, key, -libc::ECANCELED));
        assert_eq!(turns.ring.peer(&ended), None);
        turns.ring.forget(listener);
        turns.connect(1);
        // Nobody listens any more.
        turns.ring.accept(listener, ConnKey { slot: 2, generation: 0 }).unwrap();
        turns.submit();
        let refused = turns.next();
        assert_eq!((refused.op, refused.result), (Op::Accept, -libc::EBADF));
        turns.ring.peer(&refused);
    });
}

#[test]
fn connections_of_a_unix_socket_get_the_send_buffer_of_their_listener() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
    in_both_modes(|mut turns| {
        let name = format!("ringwave-accept-{}-{:p}", std::process::id(), &turns);
        let address = SocketAddr::from_abstract_name(name).unwrap();
        let listener = UnixListener::bind_addr(&address).unwrap();
        let listening = Listening { socket: OwnedFd::from(listener), send_buffer: Some(4096) };
        let listener = turns.ring.listen(listening);
        let key = ConnKey { slot: 0, generation: 0 };
        turns.ring.accept(listener, key).unwrap();
        turns.submit();
        let peer = UnixStream::connect_addr(&address).unwrap();
        let accepted = turns.next();
        assert!(accepted.result >= 0, "{accepted:?}");
        assert_eq!(turns.ring.peer(&accepted), None);
        // The kernel's default takes 200 KiB.
        let filled = turns.fill(key);
        assert!(filled < 32 << 10, "{filled} bytes");
        drop(peer);
    });
}

#[test]
fn a_slot_past_the_table_is_refused() {
    in_both_modes(|mut turns| {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        assert!(turns.ring.install(turns.ring.slots(), socket.as_fd()).is_err());
        assert!(turns.ring.install(turns.ring.slots() - 1, socket.as_fd()).is_ok());
    });
}

#[test]
fn a_kept_receive_without_buffers_ends_and_goes_on_when_they_are_back() {
    in_both_modes_with(&UringSizes { buffers: 2, buffer_size: 4, ..SIZES }, |mut turns| {
        let mut peer = turns.connect(0);
        peer.write_all(b"aaaabbbbcccc").unwrap();
        turns.ring.keep_receiving(key(0)).unwrap();
        turns.submit();
        let filled = [turns.next(), turns.next()];
        let held = filled.map(|completion| turns.ring.take_buffer(&completion).unwrap());
        let end = turns.next();
        assert_eq!((end.result, end.more, end.buffer), (-libc::ENOBUFS, false, None));
        for (mut buffer, bytes) in held.into_iter().zip([b"aaaa", b"bbbb"]) {
            assert_eq!(buffer.as_mut(), bytes);
            turns.ring.give_back(buffer);
        }
        turns.ring.keep_receiving(key(0)).unwrap();
        turns.submit();
        let completion = turns.next();
        assert_eq!(turns.take(&completion), b"cccc");
    });
}

/// An idle connection needs no buffer yet (`IORING_RECVSEND_POLL_FIRST`).
#[test]
fn a_kept_receive_without_buffers_can_be_armed_on_an_idle_socket() {
    in_both_modes_with(&UringSizes { buffers: 1, ..SIZES }, |mut turns| {
        let mut peers = [turns.connect(0), turns.connect(1)];
        turns.ring.keep_receiving(key(0)).unwrap();
        turns.submit();
        peers[0].write_all(b"x").unwrap();
        let first = turns.next();
        let held = turns.ring.take_buffer(&first).unwrap();
        turns.ring.keep_receiving(key(1)).unwrap();
        turns.submit();
        assert_eq!(turns.reap(), []);
        turns.ring.give_back(held);
        peers[1].write_all(b"y").unwrap();
        assert_eq!(turns.next().key, key(1));
    });
}

#[test]
fn a_kept_receive_that_a_full_completion_queue_ended_loses_no_bytes() {
    let sizes = UringSizes { submissions: 1, buffers: 256, buffer_size: 16, ..SIZES };
    in_both_modes_with(&sizes, |mut turns| {
        let mut peer = turns.connect(0);
        turns.ring.keep_receiving(key(0)).unwrap();
        turns.submit();
        let bytes: Vec<u8> = (0..=250).cycle().take(2048).collect();
        peer.write_all(&bytes).unwrap();
        let (mut got, mut silent_ends) = (Vec::new(), 0);
        while got.len() < bytes.len() {
            let completion = turns.next();
            assert!(completion.result > 0, "{completion:?}");
            got.extend(turns.take(&completion));
            if !completion.more {
                silent_ends += 1;
                turns.ring.keep_receiving(key(0)).unwrap();
                turns.submit();
            }
        }
        assert!(got == bytes && silent_ends > 0, "{silent_ends} silent ends");
    });
}

#[test]
fn more_sends_than_the_queue_holds_leave_in_order() {
    in_both_modes_with(&UringSizes { submissions: 4, ..SIZES }, |mut turns| {
        let mut peers: Vec<_> = (0..10).map(|slot| turns.connect(slot)).collect();
        let staged: Vec<_> = (0..30).map(|n| turns.ring.stage(Bytes::from(vec![n; 5]))).collect();
        let mut full = 0;
        for &frame in &staged {
            for slot in 0..10 {
                while turns.ring.send_now(key(slot), frame) == Err(QueueFull) {
                    full += 1;
                    turns.submit();
                }
            }
        }
        turns.submit();
        assert!(full >= 60, "the queue was full {full} times");
        assert_eq!(turns.reap(), []);
        let expected: Vec<u8> = (0..30).flat_map(|n| [n; 5]).collect();
        for peer in &mut peers {
            assert_eq!(read_exactly(peer, expected.len()), expected);
        }
    });
}

#[test]
fn every_send_that_failed_is_reported_before_the_next_turn() {
    let sizes = UringSizes { submissions: 2, ..SIZES };
    in_both_modes_with(&sizes, |mut turns| {
        let _peer = turns.connect(0);
        turns.fill(key(0));
        let staged = turns.ring.stage(Bytes::from_static(b"does not fit"));
        for _ in 0..1000 {
            if turns.ring.send_now(key(0), staged).is_err() {
                turns.submit();
                turns.ring.send_now(key(0), staged).unwrap();
            }
        }
        turns.submit();
        let reported = turns.reap();
        assert_eq!(reported.len(), 1000);
        assert!(reported.iter().all(|completion| completion.result == -libc::EAGAIN));
    });
}

#[test]
fn staged_bytes_stay_until_no_unsubmitted_send_names_them() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        let staged = turns.ring.stage(Bytes::from(b"kept".to_vec()));
        turns.ring.send_now(key(0), staged).unwrap();
        turns.ring.clear_staged();
        assert_eq!(turns.ring.staged(staged), &b"kept"[..]);
        turns.submit();
        turns.ring.clear_staged();
        assert!(turns.ring.staged.is_empty());
        assert_eq!(read_exactly(&mut peer, 4), b"kept");
    });
}

#[test]
fn a_ring_can_be_dropped_with_operations_pending_and_a_buffer_out() {
    in_both_modes(|mut turns| {
        let mut peers = [turns.connect(0), turns.connect(1)];
        turns.fill(key(0));
        turns.ring.send(key(0), Bytes::from(vec![1; 1 << 20])).unwrap();
        turns.ring.await_readable(key(0)).unwrap();
        turns.submit();
        peers[1].write_all(b"outlives").unwrap();
        let completion = turns.receive(key(1));
        let mut buffer = turns.ring.take_buffer(&completion).unwrap();
        // One more send, which is not submitted.
        let staged = turns.ring.stage(Bytes::from(vec![2; 100]));
        turns.ring.send_now(key(1), staged).unwrap();
        drop(turns);
        assert_eq!(buffer.as_mut(), b"outlives");
        assert!(peers.iter_mut().all(ended));
    });
}

#[test]
fn a_peer_that_only_stops_sending_can_still_be_sent_to() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        peer.shutdown(Shutdown::Write).unwrap();
        assert_eq!(turns.receive(key(0)).result, 0);
        turns.send_now(key(0), b"still");
        assert_eq!(turns.reap(), []);
        assert_eq!(read_exactly(&mut peer, 5), b"still");
    });
}

#[test]
fn the_kernel_tells_how_much_the_peer_has_not_acknowledged() {
    in_both_modes(|mut turns| {
        let mut peer = turns.connect(0);
        for fills in [false, true] {
            let unread = if fills { turns.fill(key(0)) } else { 0 };
            turns.ring.ask_unsent(key(0)).unwrap();
            turns.submit();
            let Completion { op, key: of, result, .. } = turns.next();
            assert_eq!((op, of), (Op::AskUnsent, key(0)));
            let unsent = usize::try_from(result).unwrap();
            // The peer's TCP has acknowledged the bytes that are in its own buffer.
            let expected = if fills { 1..unread } else { 0..1 };
            assert!(expected.contains(&unsent), "{unsent} of {unread}");
        }
        turns.ring.release(0);
        assert!(ended(&mut peer));
    });
}

#[test]
fn a_release_lets_the_kernel_send_the_rest_and_a_reset_drops_it() {
    in_both_modes(|mut turns| {
        for (slot, reset) in [(0, false), (1, true)] {
            let mut peer = turns.connect(slot);
            let filled = turns.fill(key(slot));
            if reset {
                turns.ring.reset(key(slot)).unwrap();
                turns.submit();
                assert_eq!(turns.reap(), [], "no refusal");
            }
            turns.ring.release(slot);
            let mut got = Vec::new();
            let end = peer.read_to_end(&mut got).map_err(|error| error.kind());
            match reset {
                true => assert_eq!(end, Err(io::ErrorKind::ConnectionReset)),
                false => assert_eq!(end, Ok(filled)),
            }
        }
    });
}

#[cfg(debug_assertions)]
#[test]
#[should_panic(expected = "slot 0 is released with a pending question")]
fn a_slot_is_not_released_before_its_question_is_answered() {
    let mut turns = Turns::new(&SIZES);
    let _peer = turns.connect(0);
    turns.ring.ask_unsent(key(0)).unwrap();
    turns.ring.release(0);
}
