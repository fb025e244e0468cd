//! Tests of connections that cause more work than their share, and of the others beside them.

use super::*;

/// Some messages of a flood, each of which costs its host a hundred units.
const FLOOD: usize = 200;
const COST: u32 = 100;

/// The most units that one connection can use in a turn: its share and the units of throttled
/// connections, each exceeded by the last message.
const TURN_MOST: usize = (256 + 500) / COST as usize + 2;

impl World {
    fn expensive() -> Self {
        let mut world = Self::new();
        world.host.cost = COST;
        world
    }

    /// Runs turns, a millisecond each, until no connection is throttled and nothing more happens.
    fn calm_down(&mut self) {
        for _ in 0..10_000 {
            self.now += 1;
            self.turn();
            let plane = &self.plane;
            if !plane.has_work() && !plane.throttling() && !plane.ring().ready() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn flood(&mut self, fd: RawFd) {
        (0..FLOOD).for_each(|n| self.send(fd, TEXT, n.to_string().as_bytes()));
    }

    fn heard_of(&self, key: ConnKey) -> Vec<&str> {
        let of = self.host.heard.iter().filter(|(from, _)| *from == key);
        of.map(|(_, text)| &**text).collect()
    }
}

fn whole_flood() -> Vec<String> {
    (0..FLOOD).map(|n| n.to_string()).collect()
}

#[test]
fn a_flood_is_read_by_parts_in_its_order_and_others_are_read_in_every_turn() {
    let mut world = World::expensive();
    let (greedy, flooding) = world.connect();
    let (other, fd) = world.connect();
    world.flood(flooding);
    for turn in 0..FLOOD / TURN_MOST {
        world.send(fd, TEXT, b"hello");
        let before = world.heard_of(greedy).len();
        // Whatever order the ring delivers in, the simulated one has delivered these bytes by the
        // third turn.
        (0..3).for_each(|_| world.turn());
        assert!(world.heard_of(greedy).len() - before <= 3 * TURN_MOST);
        assert_eq!(world.heard_of(other).len(), turn + 1);
        world.now += 1;
    }
    world.calm_down();
    assert_eq!(world.heard_of(greedy), whole_flood());
    assert_eq!(world.plane.ring().leaks().map(|leaks| leaks.contains(" 0 buffers")), Some(true));
}

#[test]
fn many_floods_share_what_one_has_alone() {
    let mut world = World::expensive();
    let conns: Vec<_> = (0..6).map(|_| world.connect()).collect();
    conns.iter().for_each(|&(_, fd)| world.flood(fd));
    // All are throttled by then.
    (0..50).for_each(|_| world.turn());
    let counts = |world: &World| -> Vec<usize> {
        conns.iter().map(|&(key, _)| world.heard_of(key).len()).collect()
    };
    let before = counts(&world);
    for _ in 0..60 {
        world.now += 1;
        let all = world.host.heard.len();
        world.turn();
        assert!(world.host.heard.len() - all <= TURN_MOST);
    }
    let after = counts(&world);
    let got: Vec<usize> = before.iter().zip(&after).map(|(before, after)| after - before).collect();
    let (least, most) = (got.iter().min().unwrap(), got.iter().max().unwrap());
    assert!(*least > 10 && most - least <= least / 2, "{got:?}");
    world.calm_down();
    conns.iter().for_each(|&(key, _)| assert_eq!(world.heard_of(key), whole_flood()));
}

#[test]
fn the_end_of_the_stream_comes_behind_everything_that_was_sent_before() {
    let mut world = World::expensive();
    let (key, fd) = world.connect();
    world.flood(fd);
    world.net.close(fd);
    world.calm_down();
    assert_eq!(world.heard_of(key), whole_flood());
    assert_eq!(world.closed, [(key, Ended::PeerLeft)]);
    assert!(world.plane.is_empty());
}

#[test]
fn a_cost_that_is_known_later_is_paid_before_anything_else_is_read() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    // 256 of this turn, and 500 in each of the next four milliseconds.
    world.plane.charge(key, 256 + 4 * 500);
    world.send(fd, TEXT, b"late");
    (0..3).for_each(|_| world.turn());
    assert!(world.plane.throttling() && world.heard_of(key).is_empty());
    world.calm_down();
    assert_eq!(world.heard_of(key), ["late"]);
    // It is read from like any other connection from then on.
    world.send(fd, TEXT, b"at once");
    world.settle();
    assert_eq!(world.heard_of(key), ["late", "at once"]);
}

#[test]
fn a_flood_whose_answers_are_not_read_is_read_no_more_until_they_are() {
    let mut world = World::expensive();
    world.host.echoes = true;
    world.host.answers_large = true;
    let (key, fd) = world.connect();
    world.flood(fd);
    for _ in 0..200 {
        world.now += 1;
        world.turn();
    }
    // The answers are those that the socket took and those that one turn made, and no more.
    let heard = world.heard_of(key).len();
    assert!(heard <= SOCKET_BYTES / 1000 + TURN_MOST + 1, "{heard}");
    assert!(world.plane.is_open(key), "it is slow, not too slow");
    let mut answers = 0;
    while world.heard_of(key).len() < FLOOD {
        answers += world.net.read(fd, usize::MAX).len();
        world.now += 1;
        world.turn();
    }
    world.calm_down();
    answers += world.read(fd).len();
    assert_eq!(answers, FLOOD * large_frame(0).len());
    assert_eq!(world.heard_of(key), whole_flood());
}

#[test]
fn a_connection_that_ends_leaves_nothing_of_its_flood() {
    let mut world = World::expensive();
    let (key, fd) = world.connect();
    world.flood(fd);
    (0..10).for_each(|_| world.turn());
    assert!(world.plane.throttling());
    world.plane.close(key, &Frame::close(4000, ""), Ended::Ours);
    world.net.close(fd);
    world.calm_down();
    assert!(world.plane.is_empty());
    assert_eq!(world.plane.ring().leaks(), None);
    let (next, fd) = world.connect();
    world.send(fd, TEXT, b"hello");
    world.settle();
    assert_eq!(world.heard_of(next), ["hello"]);
}

#[test]
fn while_other_shards_are_behind_only_those_within_their_share_are_read() {
    let mut world = World::expensive();
    let (greedy, flooding) = world.connect();
    let (other, fd) = world.connect();
    world.flood(flooding);
    (0..10).for_each(|_| world.turn());
    world.moderate = true;
    let before = world.heard_of(greedy).len();
    world.send(fd, TEXT, b"hello");
    for _ in 0..20 {
        world.now += 1;
        world.turn();
    }
    assert_eq!((world.heard_of(greedy).len(), world.heard_of(other).len()), (before, 1));
    world.moderate = false;
    world.calm_down();
    assert_eq!(world.heard_of(greedy), whole_flood());
}

#[test]
fn nothing_is_read_from_a_connection_that_waits_for_four_answers() {
    let mut world = World::new();
    let (key, fd) = world.connect();
    (0..4).for_each(|_| world.plane.expect_answer(key));
    world.send(fd, TEXT, b"late");
    world.calm_down();
    assert!(world.heard_of(key).is_empty());
    world.plane.answered(key);
    world.calm_down();
    assert_eq!(world.heard_of(key), ["late"]);
    // The answers to a connection that has ended have no effect.
    world.plane.expect_answer(key);
    world.net.close(fd);
    world.calm_down();
    (0..4).for_each(|_| world.plane.answered(key));
    let (next, fd) = world.connect();
    world.send(fd, TEXT, b"hello");
    world.calm_down();
    assert_eq!((next.slot, world.heard_of(next)), (key.slot, vec!["hello"]));
}

#[test]
fn floods_whose_answers_are_not_read_hold_up_nobody_else() {
    let mut world = World::expensive();
    world.host.echoes = true;
    world.host.answers_large = true;
    world.plane.throttle.most = 20;
    let floods: Vec<_> = (0..4).map(|_| world.connect()).collect();
    let (other, fd) = world.connect();
    floods.iter().for_each(|&(_, fd)| world.flood(fd));
    for turn in 0..50 {
        world.send(fd, TEXT, b"hello");
        // The plane may have to work off other completions of the ring first.
        for _ in 0..20 {
            world.now += 1;
            world.turn();
        }
        assert_eq!(world.heard_of(other).len(), turn + 1);
        assert!(!world.net.read(fd, usize::MAX).is_empty());
    }
    let ended = world.closed.iter().filter(|(_, why)| *why == Ended::TooSlow).count();
    assert!(ended > 0, "{:?}", world.closed);
    assert!(world.plane.throttle.held() <= 20);
    // Those that were closed are gone after their time.
    world.pass(Duration::from_secs(4));
    world.calm_down();
    assert_eq!(
        world.plane.conns.iter().filter(|conn| conn.phase != Phase::Free).count(),
        5 - ended
    );
}
