//! The thread of the cluster: it has a port of the bus, as shards have, and carries messages
//! between them and Redis.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{LocalSet, yield_now};

use super::driver::{Driver, Shared};
use super::node::{Names, Node, NodeParts, SEED_BYTES, lend_nothing};
use super::redis::{self, RedisError};
use super::settings::ClusterSettings;
use super::status::ClusterStatus;
use super::store::Connector;
use crate::apps::Apps;
use crate::bus::Port;
use crate::channels::{FromHome, KeyHash, Registered, ToCluster};
use crate::invariant::broken;
use crate::shard::ShardMessage;
use crate::time::{Clock, Millis};
use crate::webhooks::NoticeSender;

/// The messages of shards that a turn takes, by their [`work`]: afterwards calls are sent and the
/// inbox is read. A lease is renewed in time, whatever shards say.
const WORK_PER_TURN: usize = 4096;

/// The pause while a mailbox is full: a turn of a busy shard.
const FULL_PAUSE: Duration = Duration::from_millis(1);

/// The interval at which the node looks at the clock: far below what anybody waits for.
const TICK_PERIOD: Duration = Duration::from_millis(20);

/// The interval at which the status is renewed.
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// The handle of the thread. If it is dropped without [`finish`](Self::finish), the thread goes on
/// for as long as the process lives.
#[derive(Debug)]
pub(crate) struct ClusterWorker {
    commands: mpsc::UnboundedSender<WorkerCommand>,
    status: watch::Receiver<ClusterStatus>,
}

/// The parts that the thread works with.
#[derive(Debug)]
pub(crate) struct ClusterParts {
    /// The settings of the cluster.
    pub(crate) settings: Arc<ClusterSettings>,
    /// A name for this node, for the operator: the host and the listener.
    pub(crate) address: Box<str>,
    /// The apps that are served.
    pub(crate) apps: Arc<Apps>,
    /// The hash by which shards find homes.
    pub(crate) hash: KeyHash,
    /// The port behind those of the shards.
    pub(crate) port: Port<ShardMessage>,
    /// The way to the webhooks.
    pub(crate) notices: NoticeSender,
    /// The clock of the process.
    pub(crate) clock: Clock,
}

/// The reason why the thread cannot be started.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ClusterError {
    /// Redis does not let the node in, or the files of TLS cannot be used. The text says what to
    /// do.
    #[error(transparent)]
    Redis(#[from] RedisError),
    /// The thread cannot be started.
    #[error("cannot start the cluster thread")]
    Thread(#[source] io::Error),
    /// There are no random numbers.
    #[error("cannot make the id of this node, because the system has no random numbers: {0}")]
    Random(getrandom::Error),
}

/// A command of the control thread.
#[derive(Debug)]
enum WorkerCommand {
    /// Work by these apps from now on.
    Configure(Arc<Apps>),
    /// Leave it to other nodes to tell webhooks of departures.
    LeaveDepartures,
    /// Send what waits, for at most this long, report it and end.
    Finish { within: Duration, done: oneshot::Sender<()> },
}

impl ClusterWorker {
    /// Starts the thread. It does not wait for Redis.
    ///
    /// # Errors
    /// The files of TLS cannot be used, or the thread cannot be started.
    pub(crate) fn start(parts: ClusterParts) -> Result<Self, ClusterError> {
        let connector = redis::Connector::new(&parts.settings)?;
        Self::start_with(parts, connector)
    }

    fn start_with(
        parts: ClusterParts,
        connector: impl Connector + Send + 'static,
    ) -> Result<Self, ClusterError> {
        lend_nothing(&parts.apps);
        let names = Names::new(random()?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(ClusterError::Thread)?;
        let wake = parts.port.wake_fd().try_clone_to_owned().map_err(ClusterError::Thread)?;
        let (commands, taken) = mpsc::unbounded_channel();
        let (status, shown) = watch::channel(ClusterStatus::default());
        let run = move || {
            let body = || {
                runtime.block_on(LocalSet::new().run_until(async move {
                    let turns = Turns::new(parts, names, connector, status);
                    turns.run(wake, taken).await;
                }));
            };
            // Its end closes the channel of the status, which the control thread watches.
            let _panicked = catch_unwind(AssertUnwindSafe(body));
        };
        let thread = thread::Builder::new().name("cluster".to_owned());
        thread.spawn(run).map_err(ClusterError::Thread)?;
        Ok(Self { commands, status: shown })
    }

    /// Replaces the apps. To be called before shards get them, because a shard may send a message
    /// about an app as soon as it has it.
    pub(crate) fn configure(&self, apps: Arc<Apps>) {
        lend_nothing(&apps);
        // If the thread is gone, the process is about to end.
        let _gone = self.commands.send(WorkerCommand::Configure(apps));
    }

    /// Leaves it to other nodes to tell webhooks of departures, because those of this process end.
    pub(crate) fn leave_departures(&self) {
        // If the thread is gone, the process is about to end.
        let _gone = self.commands.send(WorkerCommand::LeaveDepartures);
    }

    /// The state of the cluster, renewed each second.
    #[must_use]
    pub(crate) fn status(&self) -> watch::Receiver<ClusterStatus> {
        self.status.clone()
    }

    /// Sends what shards have told, for at most this long, and ends the thread. The shards have
    /// ended.
    pub(crate) async fn finish(self, within: Duration) {
        let (done, finished) = oneshot::channel();
        if self.commands.send(WorkerCommand::Finish { within, done }).is_ok() {
            let _gone = finished.await;
        }
    }
}

/// Resolves when the thread has ended. Unless it was told to, it has panicked. Never resolves if
/// there is none.
pub(crate) async fn ended(status: &mut Option<watch::Receiver<ClusterStatus>>) {
    match status {
        Some(status) => while status.changed().await.is_ok() {},
        None => std::future::pending().await,
    }
}

/// The loop of the thread.
struct Turns {
    shared: Rc<Shared>,
    port: Port<ShardMessage>,
    notices: NoticeSender,
    clock: Clock,
    /// The time of the last tick.
    ticked: Millis,
    status: watch::Sender<ClusterStatus>,
    /// The time at which the status was last renewed; `None` before.
    shown: Option<Millis>,
    /// The time at which the thread ends at the latest, and whom to tell.
    finishing: Option<(Millis, oneshot::Sender<()>)>,
}

impl Turns {
    /// Makes the node, and starts the tasks of its partitions.
    fn new(
        parts: ClusterParts,
        names: Names,
        connector: impl Connector + 'static,
        status: watch::Sender<ClusterStatus>,
    ) -> Self {
        let ClusterParts { settings, address, apps, hash, port, notices, clock } = parts;
        let shards = port.shards();
        let node = NodeParts { settings, names, address, apps, hash, shards };
        let node = Node::new(node, clock.now());
        let partitions = node.partitions();
        let shared = Rc::new(Shared::new(node, clock));
        let connector = Rc::new(connector);
        for partition in 0..partitions {
            let driver = Driver::new(Rc::clone(&shared), Rc::clone(&connector), partition);
            // It ends with the runtime.
            drop(tokio::task::spawn_local(driver.run()));
        }
        let ticked = clock.now();
        let (shown, finishing) = (None, None);
        Self { shared, port, notices, clock, ticked, status, shown, finishing }
    }

    async fn run(mut self, wake: OwnedFd, mut commands: mpsc::UnboundedReceiver<WorkerCommand>) {
        let wake = match readable(wake) {
            Ok(wake) => wake,
            Err(error) => return tracing::error!(%error, "the cluster thread cannot be woken"),
        };
        loop {
            let more = self.turn(&mut commands);
            if let Some((end, done)) = self.finishing.take() {
                if !more {
                    self.shared.node.borrow_mut().quit();
                }
                if !more && (self.is_settled() || self.clock.now() >= end) {
                    let _gone = done.send(());
                    return;
                }
                self.finishing = Some((end, done));
            }
            let pause = self.pause();
            tokio::select! {
                () = self.sleep(&wake, more, pause) => {}
                Some(command) = commands.recv() => self.obey(command),
            }
            self.port.awake();
        }
    }

    /// Carries out a command of the control thread.
    fn obey(&mut self, command: WorkerCommand) {
        let now = self.clock.now();
        match command {
            WorkerCommand::Configure(apps) => self.shared.node.borrow_mut().adopt(apps, now),
            WorkerCommand::LeaveDepartures => self.shared.node.borrow_mut().leave_departures(),
            WorkerCommand::Finish { within, done } => self.finishing = Some((now + within, done)),
        }
    }

    /// Takes the messages of shards, does what is due, and carries the effects out. Returns whether
    /// messages may be left.
    fn turn(&mut self, commands: &mut mpsc::UnboundedReceiver<WorkerCommand>) -> bool {
        let now = self.clock.now();
        let (messages, more) = self.receive();
        // Shards get other apps behind this thread: it knows those of every message taken so far.
        while let Ok(command) = commands.try_recv() {
            self.obey(command);
        }
        self.handle(messages, now);
        if now.since(self.ticked) >= TICK_PERIOD {
            self.ticked = now;
            self.shared.node.borrow_mut().tick(now);
        }
        self.carry_out();
        self.port.flush();
        self.shared.set_room(!self.port.spilling());
        self.shared.wake_all();
        if self.shown.is_none_or(|at| now.since(at) >= STATUS_PERIOD) {
            self.shown = Some(now);
            self.show(now);
        }
        more
    }

    /// Receives the messages of a turn. Returns them, and whether more may be left.
    fn receive(&mut self) -> (Vec<ShardMessage>, bool) {
        let (mut messages, mut taken) = (Vec::new(), 0);
        while taken < WORK_PER_TURN
            && let Some(message) = self.port.receive()
        {
            taken += work(&message);
            messages.push(message);
        }
        (messages, taken >= WORK_PER_TURN)
    }

    fn handle(&self, messages: Vec<ShardMessage>, now: Millis) {
        let mut node = self.shared.node.borrow_mut();
        for message in messages {
            match message {
                ShardMessage::ToCluster(message) => node.handle(message, now),
                ShardMessage::FromHome(FromHome::Answer(to, answer)) => {
                    node.answered(to, *answer, now);
                }
                ShardMessage::Terminated(to) => node.terminated(to, now),
                _ => broken("the cluster gets a message for a shard"),
            }
        }
    }

    fn carry_out(&mut self) {
        let mut node = self.shared.node.borrow_mut();
        let effects = node.effects();
        for (shard, message) in effects.messages.drain(..) {
            self.port.send(shard, message);
        }
        effects.notices.drain(..).for_each(|notice| self.notices.push(notice));
        effects.reports.drain(..).for_each(|report| report.log());
        self.notices.send();
    }

    /// The time until the next turn if nothing happens.
    fn pause(&self) -> Duration {
        if self.port.spilling() || self.finishing.is_some() {
            return FULL_PAUSE;
        }
        self.shared.node.borrow().pause()
    }

    /// Sleeps until there is a message or an effect, at most for `pause`, and not at all if there
    /// is `more`.
    async fn sleep(&self, wake: &AsyncFd<OwnedFd>, more: bool, pause: Duration) {
        if more || !self.port.sleep() {
            return yield_now().await;
        }
        tokio::select! {
            // The bus needs no reading: each signal is an edge of its own.
            woken = wake.readable() => if let Ok(mut guard) = woken {
                guard.clear_ready();
            },
            () = self.shared.effects.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    fn is_settled(&self) -> bool {
        !self.port.spilling() && self.shared.node.borrow().is_settled()
    }

    fn show(&self, now: Millis) {
        self.status.send_replace(self.shared.node.borrow().status(now));
    }
}

/// Watches a descriptor for the edges at which it becomes readable.
///
/// # Errors
/// The runtime cannot watch it (`epoll_ctl(2)`).
fn readable(descriptor: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    #[expect(
        deprecated,
        reason = "unsound only for types whose descriptor changes or closes while registered; an \
                  OwnedFd keeps its own, and the successor is an unsafe function"
    )]
    AsyncFd::with_interest(descriptor, Interest::READABLE)
}

/// The commands that a message becomes, or about as many.
fn work(message: &ShardMessage) -> usize {
    1 + match message {
        ShardMessage::ToCluster(ToCluster::Registered(registered)) => {
            let Registered { channels, users, .. } = &**registered;
            users.len() + channels.iter().map(|(_, _, members)| 1 + members.len()).sum::<usize>()
        }
        ShardMessage::ToCluster(ToCluster::Users(steps)) => steps.len(),
        _ => 0,
    }
}

fn random() -> Result<[u8; SEED_BYTES], ClusterError> {
    let mut bytes = [0; SEED_BYTES];
    getrandom::fill(&mut bytes).map_err(ClusterError::Random)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channels::{Step, UserKey};
    use crate::id::AppIndex;

    #[test]
    fn a_message_is_as_much_work_as_it_has_channels_members_and_users() {
        let hash = KeyHash::random();
        let user = |id: &str| -> UserKey { hash.user(AppIndex(0), id.into()) };
        let steps = vec![(user("ann"), Step::Arrived), (user("ben"), Step::Arrived)];
        assert_eq!(work(&ShardMessage::ToCluster(ToCluster::Users(steps.clone()))), 3);
        let name = crate::protocol::names::ChannelName::parse("news", 200, true).unwrap();
        let channels = vec![(hash.channel(AppIndex(0), name), 1, Vec::new()); 5];
        let registered =
            Registered { partition: 0, channels, events: Vec::new(), users: steps, last: true };
        let message = ShardMessage::ToCluster(ToCluster::Registered(Box::new(registered)));
        assert_eq!(work(&message), 8);
    }
}
