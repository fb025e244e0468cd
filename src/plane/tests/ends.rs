//! Tests of the ways in which connections leave: in order, or by a reset.

use crate::plane::end::LEFT_TO_KERNEL;

use super::*;

/// A number of frames that are more than the kernel may keep, and that fit into the socket of
/// [`World::wide`].
const FRAMES: u8 = 30;

impl World {
    /// Opens a connection whose socket takes all that these tests send, to a client that has read
    /// nothing of it.
    fn wide(&mut self) -> (ConnKey, RawFd) {
        let fd = self.net.connect_with(1 << 20);
        let key = self.plane.open(fd).unwrap();
        self.turn();
        for n in 0..FRAMES {
            self.plane.owe(key, &large_frame(n));
            self.turn();
        }
        assert_eq!(self.plane.backlog_bytes(), 0);
        (key, fd)
    }

    /// Asserts that the connection has left its slot, by a reset or in order.
    #[track_caller]
    fn left(&self, fd: RawFd, by_reset: bool) {
        assert!(self.net.released(fd) && self.plane.is_empty());
        assert_eq!(self.net.reset_by_server(fd), by_reset);
    }
}

#[test]
fn the_frames_of_these_tests_are_more_than_the_kernel_may_keep() {
    assert!(usize::from(FRAMES) * large_frame(0).bytes().len() > LEFT_TO_KERNEL);
}

#[test]
fn a_close_that_both_sides_have_agreed_on_is_in_order() {
    let mut world = World::new();
    let (_, fd) = world.connect();
    world.send(fd, CLOSE, &code(1000));
    world.settle();
    world.left(fd, false);
    let (key, fd) = world.connect();
    world.plane.close(key, &Frame::close(4200, ""), Ended::Ours);
    let _close = world.read(fd);
    world.send(fd, CLOSE, &code(4200));
    world.settle();
    world.left(fd, false);
}

#[test]
fn a_close_that_is_not_answered_ends_in_a_reset() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.plane.close(key, &Frame::close(4201, ""), Ended::Ours);
    world.pass(CLOSE_TIMEOUT);
    world.left(fd, true);
}

#[test]
fn a_slow_consumer_is_reset_when_its_close_frame_had_its_chance() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    for n in 0..30 {
        world.plane.owe(key, &large_frame(n));
        world.turn();
    }
    world.pass(CLOSE_TIMEOUT - Duration::from_millis(1));
    assert!(!world.net.released(fd));
    world.pass(Duration::from_millis(1));
    world.left(fd, true);
}

#[test]
fn a_peer_that_leaves_with_its_queue_unread_is_reset() {
    let mut world = World::new();
    let (key, fd) = world.wide();
    world.net.close(fd);
    world.settle();
    assert_eq!(world.closed, [(key, Ended::PeerLeft)]);
    world.left(fd, true);
}

#[test]
fn a_peer_that_closes_has_until_the_deadline_to_read_its_queue() {
    for reads in [true, false] {
        let mut world = World::new();
        let (key, fd) = world.wide();
        world.send(fd, CLOSE, &code(1000));
        world.settle();
        assert_eq!(world.closed, [(key, Ended::PeerClosed)]);
        world.pass(CLOSE_TIMEOUT - Duration::from_millis(1));
        assert!(!world.net.released(fd), "the peer may still read");
        if reads {
            let frames = usize::from(FRAMES) * large_frame(0).bytes().len();
            assert_eq!(world.net.read(fd, usize::MAX)[frames..], *Frame::close(1000, "").bytes());
        }
        world.pass(Duration::from_millis(1));
        world.left(fd, !reads);
    }
}

#[test]
fn the_end_of_everything_keeps_last_words_and_drops_queues() {
    let mut world = World::new();
    let (_, full) = world.wide();
    let (key, told) = world.connect();
    let (slow, stuck) = world.connect();
    let (_, left) = world.wide();
    world.plane.close(key, &Frame::close(4102, ""), Ended::Ours);
    (0..8).for_each(|n| world.plane.owe(slow, &large_frame(n)));
    // Both sides have closed, and the client does not read.
    world.send(left, CLOSE, &code(1000));
    world.settle();
    world.plane.end_all();
    for (fd, by_reset) in [(full, true), (told, false), (stuck, true), (left, true)] {
        world.left(fd, by_reset);
    }
    assert_eq!(world.net.read(told, usize::MAX), Frame::close(4102, "").into_bytes());
    assert_eq!(world.plane.ring().leaks(), None);
}

#[test]
fn the_end_of_everything_comes_whatever_goes_wrong() {
    for seed in 0..200 {
        let net = SimNet::default();
        let faults = Faults { busy: 300, delay: 300, stray_again: 200, ..Faults::NONE };
        let ring = SimRing::new(net.clone(), seed, faults, SLOTS, 8, 64);
        let mut plane = Plane::new(ring, LIMITS, Frame::close(4100, "slow"));
        let clients: Vec<_> = (0..SLOTS).map(|_| net.connect_with(SOCKET_BYTES)).collect();
        let keys: Vec<_> = clients.iter().map(|&fd| plane.open(fd).unwrap()).collect();
        let mut host = Listener::default();
        for n in 0..8 {
            plane.begin_turn(Millis(1000));
            plane.poll(Intake::All, &mut host);
            if !plane.stalled() {
                keys.iter().step_by(2).for_each(|&key| plane.owe(key, &large_frame(n)));
            }
            plane.flush();
        }
        plane.end_all();
        assert!(plane.is_empty(), "seed {seed}: {:?}", plane.ring().leaks());
    }
}
