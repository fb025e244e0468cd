//! The protocol of the bus under every order that threads and caches can produce, up to a bound on
//! how often one thread interrupts another.

use loom::thread;
use ringwave_loom::bus::{Outside, Port, connect};
use ringwave_loom::id::ShardId;

const RECEIVER: ShardId = ShardId(1);

/// Runs a model. loom's authors found nearly all faults within two or three interruptions; without
/// a bound a model of three threads takes hours.
fn check(interruptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(interruptions);
    builder.check(model);
}

/// Takes the turns of a shard until it sleeps. Returns the number of times that it announced its
/// sleep.
fn turn_until_asleep<M: Send>(port: &mut Port<M>, received: &mut Vec<M>) -> u64 {
    let mut attempts = 1;
    loop {
        received.extend(std::iter::from_fn(|| port.receive()));
        if port.sleep() {
            return attempts;
        }
        attempts += 1;
        thread::yield_now();
    }
}

/// The number of writes to the port's eventfd since the last call.
fn writes<M: Send>(port: &Port<M>) -> u64 {
    let mut count = [0; 8];
    rustix::io::read(port.wake_fd(), &mut count).map_or(0, |_| u64::from_ne_bytes(count))
}

/// Returns everything that a shard receives that sleeps whenever it can, and is woken by its
/// eventfd alone. `all_sent` is called while it sleeps, and returns when nothing more is sent.
fn received_by_sleeper<M: Send>(port: &mut Port<M>, all_sent: impl FnOnce()) -> Vec<M> {
    let mut received = Vec::new();
    let attempts = turn_until_asleep(port, &mut received);
    all_sent();
    let mut written = writes(port);
    assert!(written <= attempts, "{written} writes for {attempts} attempts to sleep");
    while written > 0 {
        port.awake();
        let attempts = turn_until_asleep(port, &mut received);
        written = writes(port);
        assert!(written <= attempts);
    }
    received
}

fn send(port: &mut Port<u32>, messages: impl IntoIterator<Item = u32>) {
    for message in messages {
        port.send(RECEIVER, message);
        port.flush();
    }
    while port.spilling() {
        thread::yield_now();
        port.flush();
    }
}

#[test]
fn no_message_is_slept_over() {
    check(4, || {
        let mut ports = connect(2, 2).unwrap();
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        let sending = thread::spawn(move || send(&mut sender, [1, 2]));
        let received = received_by_sleeper(&mut receiver, || sending.join().unwrap());
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn no_message_of_several_senders_is_slept_over() {
    check(3, || {
        let mut ports = connect(3, 2).unwrap();
        let mut last = ports.pop().unwrap();
        let mut receiver = ports.pop().unwrap();
        let mut first = ports.pop().unwrap();
        let sending = [
            thread::spawn(move || send(&mut first, [1])),
            thread::spawn(move || send(&mut last, [2])),
        ];
        let mut received = received_by_sleeper(&mut receiver, || {
            sending.into_iter().for_each(|sending| sending.join().unwrap());
        });
        received.sort_unstable();
        assert_eq!(received, [1, 2]);
    });
}

#[test]
fn a_shard_that_runs_is_not_written_to() {
    check(4, || {
        let mut ports = connect(2, 2).unwrap();
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        let sending = thread::spawn(move || send(&mut sender, [1, 2]));
        let mut received = 0;
        while received < 2 {
            received += std::iter::from_fn(|| receiver.receive()).count();
            thread::yield_now();
        }
        sending.join().unwrap();
        assert_eq!(writes(&receiver), 0);
    });
}

#[test]
fn several_senders_wake_a_sleeper_with_one_write() {
    check(3, || {
        let mut ports = connect(3, 2).unwrap();
        let mut last = ports.pop().unwrap();
        let receiver = ports.pop().unwrap();
        let mut first = ports.pop().unwrap();
        assert!(receiver.sleep());
        let sending = [
            thread::spawn(move || send(&mut first, [1])),
            thread::spawn(move || send(&mut last, [2])),
        ];
        sending.into_iter().for_each(|sending| sending.join().unwrap());
        assert_eq!(writes(&receiver), 1);
    });
}

#[test]
fn spilled_messages_arrive_in_order_and_wake_the_sleeper() {
    check(3, || {
        let mut ports = connect(2, 1).unwrap();
        let mut receiver = ports.pop().unwrap();
        let mut sender = ports.pop().unwrap();
        let sending = thread::spawn(move || {
            (1..4).for_each(|message| sender.send(RECEIVER, message));
            send(&mut sender, []);
        });
        let mut received = Vec::new();
        // The sender ends only when the receiver has made room: it sleeps and wakes meanwhile.
        while received.len() < 3 {
            turn_until_asleep(&mut receiver, &mut received);
            if received.len() < 3 {
                while writes(&receiver) == 0 {
                    thread::yield_now();
                }
            }
            receiver.awake();
        }
        sending.join().unwrap();
        assert_eq!(received, [1, 2, 3]);
    });
}

#[test]
fn two_shards_with_full_mailboxes_go_on() {
    check(2, || {
        let ports = connect(2, 1).unwrap();
        let turning = ports.into_iter().map(|mut port| {
            thread::spawn(move || {
                let neighbour = ShardId(1 - port.id().0);
                (1..3).for_each(|message| port.send(neighbour, message));
                let mut received = Vec::new();
                while received.len() < 2 || port.spilling() {
                    port.flush();
                    received.extend(std::iter::from_fn(|| port.receive()));
                    thread::yield_now();
                }
                port.flush();
                received
            })
        });
        for turning in turning.collect::<Vec<_>>() {
            assert_eq!(turning.join().unwrap(), [1, 2]);
        }
    });
}

#[derive(Debug, PartialEq, Eq)]
enum Said {
    Settings(u32),
    Stop,
}

/// Plays the control thread until its messages that found no room have gone out.
fn flush_until_empty(outside: &Outside<Said>) {
    while !outside.flush().is_empty() {
        thread::yield_now();
    }
}

#[test]
fn the_newest_outside_message_of_each_variant_arrives_in_order() {
    check(3, || {
        let mut ports = connect(1, 1).unwrap();
        let mut port = ports.pop().unwrap();
        let outside = port.outside();
        let control = thread::spawn(move || {
            for number in 1..4 {
                outside.broadcast(|| Said::Settings(number));
            }
            outside.broadcast(|| Said::Stop);
            flush_until_empty(&outside);
        });
        let mut received = Vec::new();
        while received.last() != Some(&Said::Stop) {
            received.extend(std::iter::from_fn(|| port.receive()));
            thread::yield_now();
        }
        control.join().unwrap();
        received.pop();
        assert_eq!(received.last(), Some(&Said::Settings(3)), "{received:?}");
        let number = |said: &Said| if let Said::Settings(number) = said { *number } else { 0 };
        assert!(received.iter().map(number).is_sorted_by(|a, b| a < b), "{received:?}");
    });
}

#[test]
fn a_message_from_outside_is_not_slept_over_nor_lost_between_two_threads() {
    check(2, || {
        let mut ports = connect(1, 1).unwrap();
        let mut port = ports.pop().unwrap();
        let outside = port.outside();
        let twin = outside.clone();
        let other = thread::spawn(move || outside.broadcast(|| Said::Settings(1)));
        let control = thread::spawn(move || {
            twin.broadcast(|| Said::Stop);
            other.join().unwrap();
            flush_until_empty(&twin);
        });
        let mut received = Vec::new();
        while received.len() < 2 {
            turn_until_asleep(&mut port, &mut received);
            if received.len() < 2 {
                while writes(&port) == 0 {
                    thread::yield_now();
                }
            }
            port.awake();
        }
        control.join().unwrap();
        assert!(received.contains(&Said::Settings(1)) && received.contains(&Said::Stop));
    });
}
