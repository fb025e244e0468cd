//! A shard on its own thread: the loop of its turns.
//!
//! The thread sleeps in its ring and nowhere else: there is no `epoll`, no timer and no runtime of
//! asynchronous tasks. The system call that submits the sends of a turn also sleeps until a socket
//! has something, another thread has written the eventfd of the bus, or a turn is due
//! ([`Served::turn`]). So a turn that finds nothing to receive costs one system call.

use std::io;
use std::time::Duration;

use super::ShardParts;
use super::served::Served;
use crate::front::Listeners;
use crate::front::gateway::InFlight;
use crate::ring::{Uring, UringSizes};
use crate::time::{Clock, Millis};

/// The time that the front still has to finish its requests once all connections are closed or cut.
/// It has had the whole drain before.
const FRONT_STOP_TIMEOUT: Duration = Duration::from_millis(500);

/// Everything that a shard's thread needs.
#[derive(Debug)]
pub(crate) struct Setup {
    /// The shard's state.
    pub(crate) parts: ShardParts,
    /// The plane's ring.
    pub(crate) ring: UringSizes,
    /// The most WebSockets. The ring has more slots than these.
    pub(crate) websockets_max: u32,
    /// Sockets to accept from.
    pub(crate) listeners: Listeners,
    /// The clock of the process.
    pub(crate) clock: Clock,
}

/// The progress that a shard reports to the control thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Milestone {
    /// The shard accepts connections.
    Serving,
    /// The drain has closed all connections, and all requests that began before it are answered.
    /// The shard may still accept connections. Holds the time of the last close by the clock of the
    /// process, or `None` if there was nothing to close.
    Emptied(Option<Millis>),
    /// Every client has been sent its Close frame, and the shard no longer accepts connections.
    Drained,
}

/// Serves until [`super::ShardMessage::Stop`].
///
/// # Errors
/// The ring could not be set up, or a listener could not be prepared; nothing was served then.
pub(crate) fn run(setup: Setup, report: impl Fn(Milestone)) -> io::Result<()> {
    let Setup { parts, ring, websockets_max, listeners, clock } = setup;
    let mut ring = Uring::new(&ring)?;
    ring.wake_by(parts.port.wake_fd())?;
    let mut served = Served::new(ring, parts, websockets_max, clock);
    served.listen(listeners)?;
    report(Milestone::Serving);

    let mut stopping = Stopping::default();
    while !served.shard().stopped() {
        served.turn_at(clock.now_nanos());
        stopping.follow(&served, &report);
        served.sleep();
    }
    // The front finishes requests in flight, or the timeout cuts them.
    let deadline = clock.now() + FRONT_STOP_TIMEOUT;
    while !served.front_ended() && clock.now() < deadline {
        served.turn_at(clock.now_nanos());
        served.sleep();
    }
    served.end();
    Ok(())
}

/// The milestones of a stop that have been reported.
#[derive(Default)]
struct Stopping {
    /// The token of the requests that began before the drain. `None` until the drain begins.
    before: Option<InFlight>,
    /// Whether [`Milestone::Emptied`] has been reported.
    emptied: bool,
    /// Whether [`Milestone::Drained`] has been reported.
    drained: bool,
}

impl Stopping {
    /// Reports each milestone to the control thread once it is reached. Called at the end of each
    /// turn.
    fn follow(&mut self, served: &Served<Uring>, report: &impl Fn(Milestone)) {
        let shard = served.shard();
        if !shard.draining() {
            return;
        }
        let before = self.before.get_or_insert_with(|| served.requests());
        if !self.emptied && shard.drained() && before.others() == 0 {
            self.emptied = true;
            report(Milestone::Emptied(shard.last_close()));
        }
        if !self.drained && served.front_ended() && shard.all_told() {
            self.drained = true;
            report(Milestone::Drained);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Instant;

    use super::*;
    use crate::bus::connect;
    use crate::id::ShardId;
    use crate::ring::Ring;

    /// The time after which a test that waits fails.
    const PATIENCE: Duration = Duration::from_secs(10);
    /// A ring without sockets.
    const RING: UringSizes = UringSizes {
        slots: 1,
        submissions: 8,
        buffers: 1,
        buffer_size: 64,
        direct_descriptors: false,
    };

    /// A message that found its receiver neither awake nor woken would leave the receiver asleep,
    /// because its sender waits for it.
    #[test]
    fn no_message_finds_its_receiver_asleep_in_its_ring_and_leaves_it_so() {
        const MESSAGES: u32 = 10_000;
        let mut ports = connect::<ShardId>(3, 4).unwrap();
        let mut receiver = ports.remove(0);
        let received = [AtomicU32::new(0), AtomicU32::new(0)];
        let mut ring = Uring::new(&RING).unwrap();
        ring.wake_by(receiver.wake_fd()).unwrap();
        thread::scope(|scope| {
            for (mut sender, received) in ports.into_iter().zip(&received) {
                scope.spawn(move || {
                    for number in 0..MESSAGES {
                        while received.load(Ordering::Acquire) < number {
                            thread::yield_now();
                        }
                        sender.send(ShardId(0), sender.id());
                        sender.flush();
                    }
                });
            }
            while received.iter().any(|of| of.load(Ordering::Acquire) < MESSAGES) {
                while let Some(ShardId(from)) = receiver.receive() {
                    received[usize::from(from) - 1].fetch_add(1, Ordering::AcqRel);
                }
                ring.reap(&mut Vec::new());
                let owed = received.iter().any(|of| of.load(Ordering::Acquire) < MESSAGES);
                if owed && receiver.sleep() {
                    let began = Instant::now();
                    assert!(ring.submit_and_wait(PATIENCE));
                    assert!(began.elapsed() < PATIENCE, "a wake-up was lost");
                }
                receiver.awake();
            }
        });
    }
}
