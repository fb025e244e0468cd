//! Floor 5. A shard: one thread with a plane, the subscribers connected to it, and the channels and
//! users whose home it is. The shard is the only conductor: `plane` and `channels` do not know each
//! other.
//!
//! [`Shard`] is the synchronous core, generic over its ring and driven turn by turn with `now`
//! handed in; [`run`] drives it on a thread of its own, beside the front. A simulation drives
//! several of them over simulated rings.
//!
//! In a turn the shard does this, in this order:
//! 1. It does a part of any work that is too long for one turn, then takes messages of other shards
//!    from its mailbox.
//! 2. It takes completions, with the bytes that clients have sent. While the bus spills, it reads
//!    nothing from WebSockets, so that back-pressure reaches the network first. Then the front has
//!    its turn, and the shard takes its commands.
//! 3. It runs timers: pings, deadlines, the closes of a drain.
//! 4. It flushes the bus and wakes sleeping shards, *before* it sends anything to a client, so that
//!    other shards have been told before a client can react to what it received.
//! 5. It sends to the sockets: each channel's messages of the turn become one batch, and each
//!    connection gets one send.

mod answers;
mod client_memory;
mod closes;
mod counts;
mod cut_off;
mod drain;
mod fan_out;
mod figures;
mod home_side;
mod intake;
mod leaving;
mod link;
mod message;
mod notes;
mod pending_requests;
mod pressure;
pub(crate) mod run;
mod served;
mod sessions;
mod sign_in;
mod socket_ids;
mod subscriber_side;
#[cfg(feature = "testing")]
mod testing;
mod timers;
mod trace;
mod turn_times;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::apps::Apps;
use crate::bus::Port;
use crate::channels::{FromCluster, FromHome, KeyHash, Local, Users};
use crate::counters::PerApp;
use crate::front;
use crate::front::gateway::GatewayCommand;
use crate::invariant::broken;
use crate::memory::Headroom;
use crate::plane::{BacklogLimits, Intake, Plane};
use crate::protocol::close::{self, ProtocolError};
use crate::refusals::Refusals;
use crate::ring::Ring;
use crate::time::Millis;
use crate::webhooks::NoticeSender;

use client_memory::ClientMemory;
pub(crate) use client_memory::{CACHE_BOUNDS, Memory, UNFINISHED_BYTES_MAX};
use closes::SpreadCloses;
pub(crate) use closes::closing_window;
pub use drain::Drain;
pub(crate) use drain::RETURN;
pub(crate) use figures::Figures;
use home_side::HomeSide;
use leaving::Leaving;
use link::Link;
pub(crate) use message::Totals;
pub use message::{InForce, ShardMessage};
use pending_requests::PendingRequests;
#[cfg(feature = "testing")]
pub use served::Served;
pub(crate) use sessions::BUDGET;
use sessions::Sessions;
pub use socket_ids::SocketIds;
use subscriber_side::SubscriberSide;
use timers::Timers;

/// The most messages that a turn takes from the mailbox, so that sockets and timers keep their
/// share.
const MESSAGES_PER_TURN: usize = 4096;

/// The parts that a shard is made of.
#[derive(Debug)]
pub struct ShardParts {
    /// The configuration at the start.
    pub in_force: InForce,
    /// The keyed hash that all shards share.
    pub hash: KeyHash,
    /// Makes the socket ids of connections. All shards share its key.
    pub socket_ids: SocketIds,
    /// This shard's end of the bus.
    pub port: Port<ShardMessage>,
    /// Takes the notices of homes, for webhooks.
    pub notices: NoticeSender,
    /// Takes notes of refusals for the log. All shards share it.
    pub refusals: Arc<Refusals>,
    /// The memory that the shard may take.
    pub memory: Memory,
    /// Whether the bus has a port for a cluster behind those of the shards.
    pub clustered: bool,
}

/// One shard: the conductor of its plane, its subscribers and its homes.
///
/// The owner drives it turn by turn:
/// 1. [`begin`](Self::begin) takes everything that has arrived. The rest is skipped if it returns
///    `false`.
/// 2. The front gets what has happened to its connections, and [`obey`](Self::obey) its commands.
/// 3. [`end_turn`](Self::end_turn) sends to other shards, and [`flush`](Self::flush) to the
///    connections.
///
/// While [`has_work`](Self::has_work) returns `true`, the next turn has to follow at once.
/// Otherwise the owner may [`sleep`](Self::sleep) on the ring, which the [`port`](Self::port)
/// wakes, but no longer than until the next tick. If it can, it sleeps in the flush, which saves a
/// system call. Once [`stopped`](Self::stopped) returns `true`, the owner calls
/// [`end`](Self::end), and no further turn.
#[derive(Debug)]
pub struct Shard<R: Ring> {
    /// The sockets of the established connections.
    plane: Plane<R>,
    /// The sessions, subscriptions and sign-ins of the connections.
    subscribers: SubscriberSide,
    /// The channels and users whose home this shard is.
    homes: HomeSide,
    /// Requests of the front that wait for answers of homes and other shards.
    requests: PendingRequests,
    /// The state of the ticks, of the sweep over all connections, and of the drain.
    timers: Timers,
    /// The configured bounds on backlogs, in bytes. They hold while there is enough memory; with
    /// less, the plane gets smaller ones.
    backlog: BacklogLimits,
    /// The front's settings of the configuration in force. The thread's loop passes them to the
    /// front; the shard itself does not read them.
    front: Arc<front::Settings>,
    /// Roll calls of the control thread, which the shard answers at the end of the turn.
    roll_calls: Vec<oneshot::Sender<()>>,
    /// Scrapes of the control thread, which the thread's loop answers at the end of the turn.
    scrapes: Vec<oneshot::Sender<Box<Figures>>>,
}

impl<R: Ring> Shard<R> {
    /// A shard without connections.
    pub fn new(ring: R, parts: ShardParts) -> Self {
        let ShardParts { in_force, hash, socket_ids, port, notices, refusals, memory, clustered } =
            parts;
        let InForce { apps, backlog, front, shutdown_window } = in_force;
        let too_slow = close::refusal_frames(ProtocolError::SlowConsumer);
        let mut plane = Plane::new(ring, backlog, too_slow);
        plane.limit_unfinished(memory.unfinished);
        let mut homes = HomeSide::new(memory.cache, notices, clustered);
        homes.adopt(&apps);
        let subscribers = SubscriberSide {
            link: Link::new(port, hash, clustered),
            apps,
            sessions: Sessions::new(),
            socket_ids,
            local: Local::default(),
            users: Users::default(),
            leaving: Leaving::default(),
            cut_off: SpreadCloses::new(shutdown_window),
            memory: ClientMemory::new(memory),
            counters: PerApp::default(),
            refusals,
            stopping: false,
            now: Millis(0),
        };
        Self {
            plane,
            subscribers,
            homes,
            requests: PendingRequests::default(),
            timers: Timers::default(),
            backlog,
            front,
            roll_calls: Vec::new(),
            scrapes: Vec::new(),
        }
    }

    /// Begins a turn: takes everything that has arrived. Returns `false` if the kernel has not yet
    /// taken the sends of the previous turn; then there is nothing more to the turn.
    pub(crate) fn begin(&mut self, now: Millis) -> bool {
        self.subscribers.now = now;
        self.plane.begin_turn(now);
        if self.plane.stalled() {
            self.plane.flush();
            if self.plane.stalled() {
                return false;
            }
        }
        self.work();
        self.take_messages();
        self.plane.poll(self.intake(), &mut self.subscribers);
        self.take_closed();
        true
    }

    /// Takes commands of the front, at any time between the beginning of a turn and its end. What
    /// this shard can answer alone is answered when this returns.
    pub(crate) fn obey(&mut self, commands: &mut Vec<GatewayCommand>) {
        for command in commands.drain(..) {
            self.command(command);
        }
        self.take_own_messages();
    }

    /// Ends a turn: sends messages to other shards, and to the connections what they are owed.
    pub(crate) fn end_turn(&mut self) {
        self.take_closed();
        self.tick();
        self.take_own_messages();
        self.subscribers.link.port.flush();
        self.homes.send_notices();
        for present in self.roll_calls.drain(..) {
            // No caller waits for an answer that comes too late.
            let _late = present.send(());
        }
        self.subscribers.flush(&mut self.plane);
        self.take_closed();
    }

    /// Sends to the connections what they are owed. Sleeps behind the sends, for at most `longest`,
    /// if there is nothing else to do, and returns whether it did.
    pub(crate) fn flush(&mut self, longest: Option<Duration>) -> bool {
        // The milestones of a drain are reported between the sends and the sleep.
        let longest = longest.filter(|_| !self.owes_work() && !self.draining());
        let longest = longest.filter(|_| self.port().sleep());
        let slept = self.plane.flush_and_sleep(longest);
        self.port().awake();
        self.take_closed();
        // Connections may have ended during the sends. The shards that their leaves go to have to
        // be woken as well.
        self.subscribers.link.port.flush();
        slept
    }

    /// Sleeps for at most `longest`, unless a message has come.
    pub(crate) fn sleep(&mut self, longest: Duration) {
        if self.port().sleep() {
            self.plane.sleep(longest);
        }
        self.port().awake();
    }

    /// Whether another turn has something to do at once. Otherwise the shard may sleep until its
    /// ring, its mailbox or the time wakes it.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.plane.has_work() || self.owes_work()
    }

    /// Whether there is work left beside that of the plane.
    fn owes_work(&self) -> bool {
        self.overloaded() || self.subscribers.leaving.has_work() || self.homes.has_work()
    }

    /// The shard's end of the bus, which wakes the ring of a sleeping owner.
    #[must_use]
    pub const fn port(&self) -> &Port<ShardMessage> {
        &self.subscribers.link.port
    }

    /// Whether messages wait for room in mailboxes. The front refuses publishes meanwhile.
    #[must_use]
    pub(crate) const fn overloaded(&self) -> bool {
        self.subscribers.link.port.spilling()
    }

    /// Whether the node serves its clients alone, because the Redis of its cluster is away.
    #[must_use]
    pub(crate) const fn stands_alone(&self) -> bool {
        self.homes.is_alone()
    }

    /// The memory that is left, as the control thread last reported it.
    #[must_use]
    pub(crate) const fn headroom(&self) -> Headroom {
        self.subscribers.memory.headroom()
    }

    /// The number of further connections that would find a slot.
    #[must_use]
    pub fn free_places(&self) -> usize {
        self.plane.free_places()
    }

    /// The apps as of the last turn.
    #[must_use]
    pub const fn apps(&self) -> &Arc<Apps> {
        &self.subscribers.apps
    }

    /// The front's settings as of the last turn.
    #[must_use]
    pub(crate) const fn front_settings(&self) -> &Arc<front::Settings> {
        &self.front
    }

    /// Gives back the spare memory that a burst has left in lists that are empty between turns.
    pub(crate) fn trim(&mut self) {
        self.plane.trim();
        self.subscribers.local.trim();
        self.homes.trim();
        self.subscribers.link.port.trim();
    }

    /// Whether the control thread has ended the shard.
    #[must_use]
    pub(crate) const fn stopped(&self) -> bool {
        self.timers.stopped()
    }

    /// Ends the connections that are left after the last turn. Otherwise the kernel would close
    /// their sockets with the process, and keep their send queues whether or not the peers read
    /// them.
    pub(crate) fn end(&mut self) {
        self.plane.end_all();
    }

    /// The connections that this turn may read from. While messages for another shard wait for
    /// room, no connection may cause more of them. Long before that, when a mailbox begins to fill,
    /// connections that cause more than their share of work are not read.
    fn intake(&self) -> Intake {
        let port = &self.subscribers.link.port;
        if port.spilling() {
            Intake::Nothing
        } else if self.plane.throttling() && port.congested() {
            Intake::Moderate
        } else {
            Intake::All
        }
    }

    /// Does this turn's part of any work that is too long for one turn, unless other shards have
    /// fallen behind with its messages.
    fn work(&mut self) {
        let has_work = self.subscribers.leaving.has_work() || self.homes.has_work();
        let congested = has_work && self.subscribers.link.port.congested();
        self.subscribers.work(&mut self.plane, congested);
        if !congested {
            self.homes.work(self.subscribers.now, &mut self.subscribers.link);
        }
    }

    fn take_messages(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.subscribers.link.port.receive() else { return };
            self.message(message);
        }
    }

    /// Handles the messages of the shard to itself in the turn that sent them. The loop ends,
    /// because a message causes others only along three paths: from a join or a publish to its
    /// delivery, from a refused join to the leave that acknowledges it, and from users to their
    /// home and back.
    fn take_own_messages(&mut self) {
        while let Some(message) = self.subscribers.link.port.receive_own() {
            self.message(message);
        }
    }

    fn take_closed(&mut self) {
        while let Some((key, why)) = self.plane.next_closed() {
            self.subscribers.closed(&mut self.plane, key, why);
        }
    }

    /// Handles a message of the bus.
    fn message(&mut self, message: ShardMessage) {
        let Self { plane, subscribers, homes, .. } = self;
        match message {
            ShardMessage::ToHome(from, message) => {
                let traced = homes.traced(from, &message);
                homes.handle(from, message, subscribers.now, &mut subscribers.link);
                if let Some(traced) = traced {
                    subscribers.trace(traced);
                }
            }
            ShardMessage::FromCluster(FromCluster::CutOff(partition)) => {
                subscribers.cut_off(plane, partition);
            }
            ShardMessage::FromCluster(message) => {
                let traced = homes.traced_of_cluster(&message);
                homes.learn(message, subscribers.now, &mut subscribers.link);
                if let Some(traced) = traced {
                    subscribers.trace(traced);
                }
            }
            ShardMessage::ToCluster(_) => broken("a shard gets a message to the cluster"),
            ShardMessage::ToUserHome(from, steps) => {
                homes.handle_users(from, steps, &mut subscribers.link);
            }
            ShardMessage::FromHome(FromHome::Answer(to, answer)) => {
                self.requests.answer(to, *answer)
            }
            ShardMessage::FromHome(message) => subscribers.handle(plane, message),
            ShardMessage::Terminate(reply_to, app, user_id) => {
                subscribers.terminate(plane, app, &user_id);
                subscribers.link.send(reply_to.shard, ShardMessage::Terminated(reply_to));
            }
            ShardMessage::Terminated(to) => self.requests.terminated(to),
            ShardMessage::Traced(traced) => subscribers.log_traced(&traced),
            ShardMessage::Drain(drain) => self.drain(drain),
            ShardMessage::CloseListeners => {
                if let Some(draining) = self.timers.draining_mut() {
                    draining.close_listeners();
                }
            }
            ShardMessage::InForce(in_force, taken) => {
                self.adopt_configuration(&in_force);
                let _gone = taken.send(());
            }
            ShardMessage::Memory(headroom) => self.see_headroom(headroom),
            ShardMessage::RollCall(present) => self.roll_calls.push(present),
            ShardMessage::Count(tell) => {
                let _late = tell.send(self.totals());
            }
            ShardMessage::Measure(tell) => self.scrapes.push(tell),
            ShardMessage::Stop => self.timers.stop(),
        }
    }

    /// Takes over the configuration that a reload has put in force.
    fn adopt_configuration(&mut self, in_force: &InForce) {
        let InForce { apps, backlog, front, shutdown_window } = in_force.clone();
        self.homes.adopt(&apps);
        self.subscribers.cut_off.setting = shutdown_window;
        (self.subscribers.apps, self.backlog, self.front) = (apps, backlog, front);
        self.bound_backlogs();
    }

    fn totals(&self) -> Totals {
        let channels = self.homes.occupied_counts().to_vec();
        Totals { connections: self.plane.open_connections(), channels }
    }
}
