//! Tests of the sleep behind the sends of a flush.

use super::*;

impl World {
    /// Owes these connections a frame, and returns whether the flush sleeps.
    fn sleeps_behind(&mut self, keys: &[ConnKey]) -> bool {
        self.plane.begin_turn(Millis(self.now));
        keys.iter().for_each(|&key| self.plane.owe(key, &text_frame("x")));
        self.plane.flush_and_sleep(Some(SLEEP))
    }
}

#[test]
fn a_flush_sleeps_behind_a_few_sends_and_not_behind_many() {
    let mut world = World::of(LIMITS, 100);
    let keys: Vec<_> = (0..65).map(|_| world.connect().0).collect();
    world.settle();
    assert!(world.sleeps_behind(&[]));
    world.settle();
    assert!(world.sleeps_behind(&keys[..64]));
    world.settle();
    assert!(!world.sleeps_behind(&keys));
}

#[test]
fn a_flush_does_not_sleep_while_an_end_waits_for_its_sends() {
    let mut world = World::new();
    let (key, other) = (world.connect().0, world.connect().0);
    world.settle();
    world.plane.close(key, &Frame::close(4100, ""), Ended::Ours);
    world.take_closed();
    assert!(!world.sleeps_behind(&[other]));
    world.settle();
    assert!(world.sleeps_behind(&[other]), "the answer of the peer ends a sleep");
}

#[test]
fn a_flush_does_not_sleep_before_its_owner_has_heard_of_an_end() {
    let mut world = World::new();
    let (key, other) = (world.connect().0, world.connect().0);
    world.settle();
    world.plane.kill(key, Ended::Ours);
    assert!(!world.sleeps_behind(&[other]));
    world.settle();
    assert!(world.sleeps_behind(&[other]));
}
