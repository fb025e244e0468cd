//! Tests of the circle in which connections receive: wait, receive, read, wait again.

use crate::plane::conn::Receiving;

use super::*;

impl World {
    fn inject(&mut self, faults: Faults) {
        self.plane.ring_mut().set_faults(faults);
    }

    /// Runs some turns, in whose middle anything may be left to do.
    fn turns(&mut self, number: usize) {
        (0..number).for_each(|_| self.turn());
    }

    fn step(&self, key: ConnKey) -> Receiving {
        self.plane.conns[key.slot as usize].receiving
    }
}

fn numbers(until: usize) -> Vec<String> {
    (0..until).map(|n| n.to_string()).collect()
}

#[test]
fn an_idle_connection_waits_and_uses_no_buffer() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    for text in ["first", "second"] {
        world.settle();
        assert_eq!(world.step(key), Receiving::Waits);
        let leaks = world.plane.ring().leaks();
        assert_eq!(leaks, Some("1 slots, 0 buffers, 1 operations, 0 staged".into()));
        world.send(fd, TEXT, text.as_bytes());
    }
    world.settle();
    assert_eq!(world.heard(), ["first", "second"]);
    assert_eq!(world.plane.counters().fruitless, 0);
}

#[test]
fn bytes_that_come_in_any_step_are_read_once_and_in_order() {
    let mut world = World::new();
    let (_, fd) = world.connect();
    for n in 0..300 {
        world.send(fd, TEXT, n.to_string().as_bytes());
        // The turns leave the connection now here, now there in the circle. While it is paused, it
        // is known to be readable and is not received from.
        world.paused = n % 3 == 0;
        world.turns(n % 4);
    }
    world.paused = false;
    world.settle();
    assert_eq!(world.heard(), numbers(300));
}

#[test]
fn a_wait_that_ends_without_a_reason_or_with_an_error_is_followed_by_another() {
    for faults in [
        Faults { spurious: 1000, ..Faults::NONE },
        Faults { spurious: 1000, stray_again: 1000, ..Faults::NONE },
    ] {
        let mut world = World::new();
        let (key, fd) = world.connect();
        world.inject(faults);
        world.turns(50);
        assert!(world.plane.counters().fruitless > 10, "{:?}", world.plane.counters());
        world.plane.ring_mut().heal();
        world.settle();
        assert_eq!((world.step(key), &*world.closed), (Receiving::Waits, &[][..]));
        world.send(fd, TEXT, b"hello");
        world.settle();
        assert_eq!(world.heard(), ["hello"]);
    }
}

#[test]
fn a_receive_without_a_buffer_ends_nothing_and_loses_nothing() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.inject(Faults { no_buffers: 1000, ..Faults::NONE });
    for n in 0..10 {
        world.send(fd, TEXT, n.to_string().as_bytes());
        world.turns(3);
    }
    assert!(world.heard().is_empty() && world.plane.is_open(key));
    assert!(world.plane.has_work(), "the bytes are not forgotten");
    world.plane.ring_mut().heal();
    world.settle();
    assert_eq!(world.heard(), numbers(10));
}

#[test]
fn what_a_kernel_does_not_say_to_be_left_is_received_all_the_same() {
    let mut world = World::new();
    world.inject(Faults { unknown_left: 1000, ..Faults::NONE });
    let (key, fd) = world.connect();
    (0..100).for_each(|n| world.send(fd, TEXT, n.to_string().as_bytes()));
    world.net.close(fd);
    world.settle();
    assert_eq!(world.heard(), numbers(100));
    assert_eq!(world.closed, [(key, Ended::PeerLeft)]);
}

#[test]
fn bytes_come_before_the_end_of_the_stream_that_came_with_them() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    (0..20).for_each(|n| world.send(fd, TEXT, n.to_string().as_bytes()));
    world.net.close(fd);
    world.settle();
    assert_eq!(world.heard(), numbers(20));
    assert_eq!(world.closed, [(key, Ended::PeerLeft)]);
    assert!(world.plane.is_empty());
}

#[test]
fn a_connection_that_ends_while_it_is_readable_is_not_received_from() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    world.paused = true;
    world.send(fd, TEXT, b"too late");
    world.turns(3);
    assert_eq!(world.step(key), Receiving::Readable);
    world.plane.close(key, &Frame::close(4200, ""), Ended::Ours);
    world.pass_paused(CLOSE_TIMEOUT);
    assert!(world.plane.is_empty() && world.net.released(fd));
    world.paused = false;
    let (next, fd) = world.connect();
    assert_eq!(next.slot, key.slot);
    world.send(fd, TEXT, b"hello");
    world.settle();
    assert_eq!(world.host.heard, [(next, "hello".into())]);
}

impl World {
    /// Lets time pass in which nothing is read, so that the plane does not come to rest.
    fn pass_paused(&mut self, time: Duration) {
        self.now += u64::try_from(time.as_millis()).unwrap();
        self.turns(20);
    }
}

#[test]
fn a_wait_of_an_earlier_user_of_the_slot_says_nothing_about_the_next_one() {
    let mut world = World::new();
    let (_, fd) = world.connect();
    world.net.close(fd);
    world.settle();
    let (key, fd) = world.connect();
    world.settle();
    world.inject(Faults { stale: 1000, ..Faults::NONE });
    world.turns(50);
    assert_eq!(world.step(key), Receiving::Waits);
    assert_eq!(world.plane.counters().fruitless, 0);
    assert!(world.plane.counters().stale > 10);
    world.send(fd, TEXT, b"hello");
    world.turns(10);
    assert_eq!(world.heard(), ["hello"]);
}

#[test]
fn a_throttled_connection_holds_no_more_than_a_receive_has_brought() {
    let mut world = World::new();
    world.host.cost = 100;
    let (_, fd) = world.connect();
    (0..200).for_each(|n| world.send(fd, TEXT, n.to_string().as_bytes()));
    let mut most = 0;
    while world.host.heard.len() < 200 {
        world.now += 1;
        world.turn();
        most = most.max(world.plane.throttle.held());
    }
    // The buffers of these tests have 64 bytes.
    assert!((1..=64).contains(&most), "{most}");
    assert_eq!(world.heard(), numbers(200));
}

#[test]
fn receives_go_on_whatever_part_of_the_queue_the_kernel_takes() {
    for queue in [1, 2, 40] {
        let mut world = World::of(LIMITS, 100);
        world.plane = {
            let faults = Faults { busy: 300, ..Faults::NONE };
            let ring = SimRing::new(world.net.clone(), 1, faults, 100, 8, 64);
            Plane::new(ring.with_queue(queue), LIMITS, Frame::close(4100, "slow"))
        };
        let clients: Vec<_> = (0..100).map(|_| world.connect()).collect();
        for n in 0..5 {
            let text = n.to_string();
            clients.iter().for_each(|&(_, fd)| world.send(fd, TEXT, text.as_bytes()));
            world.turns(2);
        }
        world.plane.ring_mut().heal();
        world.settle();
        for (key, _) in clients {
            let heard = world.host.heard.iter().filter(|(of, _)| *of == key);
            assert!(heard.map(|(_, text)| text).eq(&numbers(5)));
        }
    }
}
