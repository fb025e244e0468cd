//! Tests of the sleep in the ring: the things that end it, each of them also if it happens before.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use rustix::event::{EventfdFlags, eventfd};

use super::*;

/// The wake-ups of a test that hammers.
const MANY: u32 = 20_000;

/// A ring with the eventfd that wakes it.
fn with_wake_up(sizes: &UringSizes, test: impl Fn(Turns, &OwnedFd)) {
    in_both_modes_with(sizes, |mut turns| {
        let wake_up = eventfd(0, EventfdFlags::NONBLOCK).unwrap();
        turns.ring.wake_by(wake_up.as_fd()).unwrap();
        test(turns, &wake_up);
    });
}

fn write(eventfd: &OwnedFd) {
    rustix::io::write(eventfd, &1u64.to_ne_bytes()).unwrap();
}

#[test]
fn a_sleep_ends_when_its_time_is_over() {
    with_wake_up(&SIZES, |mut turns, _wake_up| {
        let began = Instant::now();
        assert!(turns.ring.submit_and_wait(MOMENT));
        assert!((MOMENT..PATIENCE).contains(&began.elapsed()));
        assert_eq!(turns.reap(), []);
    });
}

#[test]
fn a_sleep_submits_and_is_ended_by_what_completes_at_once() {
    with_wake_up(&SIZES, |mut turns, _wake_up| {
        let mut peer = turns.connect(0);
        peer.write_all(b"x").unwrap();
        turns.ring.await_readable(key(0)).unwrap();
        turns.wait();
        let [readable] = *turns.reap() else { panic!("not one completion") };
        assert_eq!((readable.op, readable.key), (Op::Readable, key(0)));
    });
}

#[test]
fn a_sleep_is_ended_by_what_completes_later_and_by_what_was_not_reaped() {
    with_wake_up(&SIZES, |mut turns, _wake_up| {
        let mut peer = turns.connect(0);
        turns.ring.await_readable(key(0)).unwrap();
        assert!(!turns.wait_briefly(), "nothing is there");
        let late = thread::spawn(move || {
            thread::sleep(MOMENT);
            peer.write_all(b"x").unwrap();
            peer
        });
        turns.wait();
        let _peer = late.join().unwrap();
        turns.wait();
        assert_eq!(turns.reap().len(), 1);
        assert!(!turns.wait_briefly(), "all has been reaped");
    });
}

#[test]
fn a_completion_that_was_made_without_the_kernel_ends_a_sleep() {
    with_wake_up(&SIZES, |mut turns, _wake_up| {
        let _peer = turns.connect(0);
        turns.ring.ask_unsent(key(0)).unwrap();
        turns.wait();
        let [unsent] = *turns.reap() else { panic!("not one completion") };
        assert_eq!((unsent.op, unsent.result), (Op::AskUnsent, 0));
    });
}

#[test]
fn a_write_ends_one_sleep_whenever_it_comes_and_shows_no_completion() {
    with_wake_up(&SIZES, |mut turns, wake_up| {
        write(wake_up);
        turns.wait();
        assert_eq!(turns.reap(), [], "before the first sleep");
        assert!(!turns.wait_briefly());
        write(wake_up);
        turns.wait();
        assert_eq!(turns.reap(), [], "between two sleeps");
        assert!(!turns.wait_briefly());
        let theirs = wake_up.try_clone().unwrap();
        let late = thread::spawn(move || {
            thread::sleep(MOMENT);
            write(&theirs);
        });
        turns.wait();
        late.join().unwrap();
        assert_eq!(turns.reap(), [], "in a sleep");
        assert!(!turns.wait_briefly());
    });
}

#[test]
fn a_write_is_not_lost_if_it_comes_as_the_thread_falls_asleep() {
    with_wake_up(&SIZES, |mut turns, wake_up| {
        let woken = AtomicU32::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..MANY {
                    while woken.load(Ordering::Acquire) < number {
                        thread::yield_now();
                    }
                    write(wake_up);
                }
            });
            for number in 1..=MANY {
                turns.wait();
                assert_eq!(turns.reap(), []);
                woken.store(number, Ordering::Release);
            }
        });
    });
}

#[test]
fn a_full_completion_queue_ends_the_poll_and_the_next_sleep_begins_another() {
    let sizes = UringSizes { submissions: 1, ..SIZES };
    with_wake_up(&sizes, |mut turns, wake_up| {
        assert!(!turns.wait_briefly());
        let mut peers: Vec<_> = (0..16).map(|slot| turns.connect(slot)).collect();
        peers.iter_mut().for_each(|peer| peer.write_all(b"x").unwrap());
        // More completions than the queue holds, and that of the poll behind them.
        for slot in 0..16 {
            turns.ring.receive(key(slot)).unwrap();
            turns.submit();
        }
        write(wake_up);
        assert_eq!(turns.reap().len(), 16);
        assert!(!turns.ring.wake_up.polled, "the poll has not ended");
        turns.wait();
        assert!(turns.ring.wake_up.polled);
        assert_eq!(turns.reap(), []);
        assert!(!turns.wait_briefly());
        write(wake_up);
        turns.wait();
    });
}
