//! The connections of each partition: a task that connects, introduces the node, and then sends
//! calls and reads the inbox at the same time, until either fails.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::yield_now;
use tokio::time::{sleep, timeout};

use super::node::Node;
use super::store::{Connection, Connector, Executed, Reader, Writer};
use crate::text::WithCauses;
use crate::time::{Clock, Millis};

/// The wait before the second attempt to connect. It doubles with each further one.
const RETRY_MIN: Duration = Duration::from_millis(100);

/// The longest wait between two attempts: Redis is used again a second after it is back.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// The interval at which the log repeats why Redis cannot be used.
const LOG_PERIOD: Duration = Duration::from_secs(60);

/// The least time between two lines about connections that are lost.
const LOG_PAUSE: Duration = Duration::from_secs(5);

/// The sleep of a task without anything to do; any long time would do.
const IDLE: Duration = Duration::from_secs(60);

/// The node and the signals between its owner and the tasks of its partitions. All of them run on
/// one thread, and none holds the node over an `await`.
#[derive(Debug)]
pub(crate) struct Shared {
    /// The node.
    pub(crate) node: RefCell<Node>,
    /// The clock of the process.
    pub(crate) clock: Clock,
    /// Wakes the task of each partition: there may be a call to send.
    calls: Vec<Notify>,
    /// Wakes the owner of the node: there are effects.
    pub(crate) effects: Notify,
    /// Whether shards have room for messages. Otherwise nothing is read.
    has_room: Cell<bool>,
    /// Wakes tasks that wait for room.
    room: Notify,
    /// The reason why Redis cannot be used, as the log was last told, and when that was.
    logged: RefCell<Option<(String, Millis)>>,
}

impl Shared {
    pub(crate) fn new(node: Node, clock: Clock) -> Self {
        let calls = (0..node.partitions()).map(|_| Notify::new()).collect();
        Self {
            node: RefCell::new(node),
            clock,
            calls,
            effects: Notify::new(),
            has_room: Cell::new(true),
            room: Notify::new(),
            logged: RefCell::default(),
        }
    }

    /// Has the tasks of all partitions look for calls.
    pub(crate) fn wake_all(&self) {
        self.calls.iter().for_each(Notify::notify_one);
    }

    /// Says whether shards have room for messages.
    pub(crate) fn set_room(&self, has_room: bool) {
        if !self.has_room.replace(has_room) && has_room {
            self.room.notify_waiters();
        }
    }

    /// Resolves when shards have room for messages.
    async fn room(&self) {
        while !self.has_room.get() {
            self.room.notified().await;
        }
    }

    fn now(&self) -> Millis {
        self.clock.now()
    }
}

/// The task of a partition.
#[derive(Debug)]
pub(crate) struct Driver<C> {
    shared: Rc<Shared>,
    connector: Rc<C>,
    partition: u16,
    /// The number of attempts since the partition was last served.
    attempts: Cell<u32>,
}

/// The end of a session.
enum Ended<E> {
    /// Redis cannot be reached, or does not answer.
    Failed(E),
    /// The node has to enter again.
    Enter,
}

impl<C: Connector> Driver<C> {
    pub(crate) const fn new(shared: Rc<Shared>, connector: Rc<C>, partition: u16) -> Self {
        Self { shared, connector, partition, attempts: Cell::new(0) }
    }

    /// Connects again and again.
    pub(crate) async fn run(self) {
        loop {
            let Err(ended) = self.session().await;
            self.shared.node.borrow_mut().lost(self.partition, self.shared.now());
            self.log(&ended);
            sleep(retry_pause(self.attempts.get(), chance())).await;
            self.attempts.set(self.attempts.get().saturating_add(1));
        }
    }

    /// Uses a connection until it fails.
    async fn session(&self) -> Result<Infallible, Ended<C::Error>> {
        if self.shared.node.borrow().has_quit(self.partition) {
            // The thread ends when all partitions have.
            return std::future::pending().await;
        }
        let connected = self.connector.connect(self.partition).await.map_err(Ended::Failed)?;
        let Connection { mut writer, mut reader, run_id } = connected;
        while !self.enter(&mut writer, &run_id).await? {}
        tokio::select! {
            ended = self.call(&mut writer) => ended,
            ended = self.read(&mut reader) => ended,
        }
    }

    /// Introduces the node. Returns whether it is in.
    async fn enter(&self, writer: &mut C::Writer, run_id: &str) -> Result<bool, Ended<C::Error>> {
        let introduction = self.shared.node.borrow_mut().introduction(self.partition, run_id);
        // There is a task for each partition of the node, and no other.
        let Some((node, entrance)) = introduction else { return Ok(true) };
        let entered = writer.enter(node, &entrance).await.map_err(Ended::Failed)?;
        let now = self.shared.now();
        let is_in = self.shared.node.borrow_mut().entered(self.partition, entered, now);
        self.shared.effects.notify_one();
        Ok(is_in)
    }

    /// Sends calls, one at a time.
    async fn call(&self, writer: &mut C::Writer) -> Result<Infallible, Ended<C::Error>> {
        loop {
            let call = self.shared.node.borrow_mut().next_call(self.partition, self.shared.now());
            let Some((head, args)) = call else {
                // A node that takes a new name has to enter under it.
                if !self.shared.node.borrow().has_entered(self.partition) {
                    return Err(Ended::Enter);
                }
                self.wait_for_call().await;
                continue;
            };
            match writer.call(&head, &args).await.map_err(Ended::Failed)? {
                Executed::Done => self.executed(),
                Executed::Enter => return Err(Ended::Enter),
            }
        }
    }

    fn executed(&self) {
        let mut node = self.shared.node.borrow_mut();
        node.executed(self.partition, self.shared.now());
        if node.is_serving(self.partition) {
            self.attempts.set(0);
        }
        drop(node);
        self.shared.effects.notify_one();
    }

    /// Waits until there may be a call to send.
    async fn wait_for_call(&self) {
        let due = self.shared.node.borrow().due(self.partition);
        let pause = due.map_or(IDLE, |due| due.since(self.shared.now()));
        if let Some(notify) = self.shared.calls.get(usize::from(self.partition)) {
            let _due = timeout(pause, notify.notified()).await;
        }
    }

    /// Reads the inbox.
    async fn read(&self, reader: &mut C::Reader) -> Result<Infallible, Ended<C::Error>> {
        loop {
            self.shared.room().await;
            let position = self.shared.node.borrow().position(self.partition);
            let Some((node, after)) = position else { return Err(Ended::Enter) };
            let entries = reader.read(node, &after).await.map_err(Ended::Failed)?;
            if !entries.is_empty() {
                let now = self.shared.now();
                self.shared.node.borrow_mut().read(self.partition, entries, now);
                self.shared.effects.notify_one();
            }
            // The other partitions get their turn, however much there is to read.
            yield_now().await;
        }
    }

    /// Logs why Redis cannot be used: when that begins, when the reason changes, and once a minute,
    /// for all partitions that have the same reason. Two lines are some seconds apart, because a
    /// reason may change to and fro with each attempt.
    fn log(&self, ended: &Ended<C::Error>) {
        let Ended::Failed(error) = ended else { return };
        let (now, error) = (self.shared.now(), WithCauses(error).to_string());
        let goes_on = self.attempts.get() > 0;
        let mut logged = self.shared.logged.borrow_mut();
        let told = |(earlier, at): &(String, Millis)| {
            let period = if goes_on && *earlier == error { LOG_PERIOD } else { LOG_PAUSE };
            now.since(*at) < period
        };
        if !logged.as_ref().is_some_and(told) {
            tracing::warn!(partition = self.partition, "Redis is away: {error}");
            *logged = Some((error, now));
        }
    }
}

/// The pause before the next attempt to connect, of which `chance` chooses the second half.
fn retry_pause(attempts: u32, chance: f64) -> Duration {
    // A connection that was used is replaced at once.
    let Some(doublings) = attempts.checked_sub(1) else { return Duration::ZERO };
    let longest = RETRY_MIN.saturating_mul(1 << doublings.min(8)).min(RETRY_MAX);
    longest.mul_f64(0.5 + chance / 2.0)
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    // If there are no random numbers, the pauses are the longest, which is still right.
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests;
