//! Floor 5. A shard: one thread, one plane, its subscribers and the channels whose home it is. The
//! one conductor: `plane` and `channels` do not know each other.
//!
//! [`Shard`] is the synchronous core, generic over its ring and driven turn by turn with `now`
//! handed in; [`run`] drives it on a thread of its own, beside the front. A simulation drives
//! several of them over simulated rings.
//!
//! A turn, in this order:
//! 1. a part of any work that is too long for one turn, messages of other shards (the mailbox),
//!    then the front's commands;
//! 2. completions: what clients sent (not while the bus spills: the network waits first);
//! 3. timers: pings, deadlines, closes of a drain;
//! 4. the bus: messages go out and sleepers are woken, *before* anything is sent to a client, so
//!    that whatever a client does about what it got finds other shards told;
//! 5. the sockets: every channel's messages of the turn become one batch, every connection gets
//!    one send.

mod answers;
mod client_memory;
mod drain;
mod fan_out;
mod home_side;
mod intake;
mod leaving;
mod link;
mod message;
mod notes;
mod pending_requests;
mod pressure;
pub(crate) mod run;
mod sessions;
mod sign_in;
mod socket_ids;
mod subscriber_side;
#[cfg(feature = "testing")]
mod testing;
mod timers;
mod trace;

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::apps::Apps;
use crate::bus::Port;
use crate::channels::{FromHome, KeyHash, Local, Users};
use crate::front;
use crate::front::gateway::GatewayCommand;
use crate::memory::Headroom;
use crate::plane::{BacklogLimits, Intake, Plane};
use crate::protocol::close::{self, ProtocolError};
use crate::refusals::Refusals;
use crate::ring::Ring;
use crate::time::Millis;
use crate::webhooks::NoticeSender;

use client_memory::ClientMemory;
pub(crate) use client_memory::{CACHE_BOUNDS, Memory, UNFINISHED_BYTES_MAX};
pub use drain::Drain;
pub(crate) use drain::RETURN;
use home_side::HomeSide;
use leaving::Leaving;
use link::Link;
pub(crate) use message::Totals;
pub use message::{InForce, Message};
use pending_requests::PendingRequests;
pub(crate) use sessions::BUDGET;
use sessions::Sessions;
pub use socket_ids::SocketIds;
use subscriber_side::SubscriberSide;
use timers::Timers;

/// Messages taken from the mailbox per turn, so that sockets and timers keep their share.
const MESSAGES_PER_TURN: usize = 4096;

/// The parts that a shard is made of.
#[derive(Debug)]
pub struct ShardParts {
    /// The configuration at the start.
    pub in_force: InForce,
    /// The keyed hash that all shards share.
    pub hash: KeyHash,
    /// Names connections; all shards share its key.
    pub socket_ids: SocketIds,
    /// This shard's end of the bus.
    pub port: Port<Message>,
    /// Takes the notices for webhooks.
    pub notices: NoticeSender,
    /// Takes notes of refusals for the log. All shards share it.
    pub refusals: Arc<Refusals>,
    /// The memory that the shard may take.
    pub memory: Memory,
}

/// One shard: the conductor of its plane, its subscribers and its homes.
///
/// A turn is [`turn`](Self::turn), or [`take_in`](Self::take_in) and then
/// [`send_out`](Self::send_out) unless the first says no. While [`has_work`](Self::has_work) says
/// so, the next turn has to follow at once; otherwise the owner may sleep on the ring and on the
/// [`port`](Self::port), but no longer than until the next tick. After [`stopped`](Self::stopped)
/// the owner calls [`end`](Self::end), and no other turn.
#[derive(Debug)]
pub struct Shard<R: Ring> {
    plane: Plane<R>,
    /// The connections, with what they are subscribed to.
    subscribers: SubscriberSide,
    /// The channels and users whose home this shard is.
    homes: HomeSide,
    /// Requests of the front that wait for answers of homes and other shards.
    requests: PendingRequests,
    timers: Timers,
    /// Bounds on what slow readers are owed, while there is enough memory.
    backlog: BacklogLimits,
    /// The settings of the front, which passes them on; nothing here reads them.
    front: Arc<front::Settings>,
    /// Requests of the control thread, to be answered in this turn.
    roll_calls: Vec<oneshot::Sender<()>>,
}

impl<R: Ring> Shard<R> {
    /// A shard without connections.
    pub fn new(ring: R, parts: ShardParts) -> Self {
        let ShardParts { in_force, hash, socket_ids, port, notices, refusals, memory } = parts;
        let InForce { apps, backlog, front } = in_force;
        let too_slow = close::refusal_frames(ProtocolError::SlowConsumer);
        let mut plane = Plane::new(ring, backlog, too_slow);
        plane.limit_unfinished(memory.unfinished);
        let mut homes = HomeSide::new(memory.cache, notices);
        homes.adopt(&apps);
        let subscribers = SubscriberSide {
            link: Link::new(port, hash),
            apps,
            sessions: Sessions::new(),
            socket_ids,
            local: Local::default(),
            users: Users::default(),
            leaving: Leaving::default(),
            memory: ClientMemory::new(memory),
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
        }
    }

    /// The first half of a turn: takes everything that has come, and tells other shards. `false`:
    /// the kernel has not taken yet what the last turn sends, and there is no second half.
    pub(crate) fn take_in(&mut self, now: Millis, commands: &mut Vec<GatewayCommand>) -> bool {
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
        for command in commands.drain(..) {
            self.command(command);
        }
        self.plane.poll(self.intake(), &mut self.subscribers);
        self.take_closed();
        self.tick();
        self.take_own_messages();
        self.subscribers.link.port.flush();
        self.homes.send_notices();
        for present in self.roll_calls.drain(..) {
            // No caller waits for an answer that comes too late.
            let _late = present.send(());
        }
        true
    }

    /// The second half: sends what the first made of it.
    pub(crate) fn send_out(&mut self) {
        self.subscribers.flush(&mut self.plane);
        self.take_closed();
        self.plane.flush();
        self.take_closed();
        // Connections may have ended while they were sent to: their leaves must wake the shards
        // that they go to.
        self.subscribers.link.port.flush();
    }

    /// Between the halves of a turn: how many connections are owed messages of their channels.
    #[must_use]
    pub(crate) fn owed(&self) -> usize {
        self.subscribers.local.owed()
    }

    /// Whether another turn has something to do at once. Otherwise the shard may sleep until its
    /// ring, its mailbox or its timer wakes it.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.plane.has_work()
            || self.overloaded()
            || self.subscribers.leaving.has_work()
            || self.homes.has_work()
    }

    /// The bus end, to sleep on.
    #[must_use]
    pub const fn port(&self) -> &Port<Message> {
        &self.subscribers.link.port
    }

    /// Whether the bus is full: no publishes are taken.
    #[must_use]
    pub(crate) const fn overloaded(&self) -> bool {
        self.subscribers.link.port.spilling()
    }

    /// How much memory is left, as the control thread has said.
    #[must_use]
    pub(crate) const fn headroom(&self) -> Headroom {
        self.subscribers.memory.headroom()
    }

    /// How many more connections would find a slot.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.plane.free_slots()
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

    /// Gives memory back that a burst has left: of lists that are empty between turns.
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

    /// Ends the connections that are left after the last turn: a kernel that closes the sockets of
    /// a process keeps their queues, whether or not the peers read them.
    pub(crate) fn end(&mut self) {
        self.plane.end_all();
    }

    /// While messages for another shard wait for room, no connection may cause more of them; long
    /// before that, those that cause more than their share may not.
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

    /// Does this turn's part of any work that is too long for one turn, unless other shards are
    /// behind with what it sends them.
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

    /// Messages of the shard to itself take effect in the turn that sent them. The loop ends,
    /// because a message makes others only on the way join, publish, deliver, from a refused join
    /// to the leave that acknowledges it, and from users to their home and back.
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
    fn message(&mut self, message: Message) {
        let Self { plane, subscribers, homes, .. } = self;
        match message {
            Message::ToHome(from, message) => {
                let traced = homes.traced(from, &message, subscribers.now);
                homes.handle(from, message, subscribers.now, &mut subscribers.link);
                if let Some(traced) = traced {
                    subscribers.trace(traced);
                }
            }
            Message::ToUserHome(from, steps) => {
                homes.handle_users(from, steps, &mut subscribers.link);
            }
            Message::FromHome(FromHome::Answer(to, answer)) => self.requests.answer(to, *answer),
            Message::FromHome(message) => subscribers.handle(plane, message),
            Message::Terminate(reply_to, app, user_id) => {
                subscribers.terminate(plane, app, &user_id);
                subscribers.link.send(reply_to.shard, Message::Terminated(reply_to));
            }
            Message::Terminated(to) => self.requests.terminated(to),
            Message::Traced(traced) => subscribers.log_traced(&traced),
            Message::Drain(drain) => self.drain(drain),
            Message::CloseListeners => {
                if let Some(draining) = self.timers.draining_mut() {
                    draining.close_listeners();
                }
            }
            Message::InForce(in_force, taken) => {
                self.adopt_configuration(&in_force);
                let _gone = taken.send(());
            }
            Message::Memory(headroom) => self.see_headroom(headroom),
            Message::RollCall(present) => self.roll_calls.push(present),
            Message::Count(tell) => {
                let _late = tell.send(self.totals());
            }
            Message::Stop => self.timers.stop(),
        }
    }

    /// Takes over what a reload has changed.
    fn adopt_configuration(&mut self, in_force: &InForce) {
        let InForce { apps, backlog, front } = in_force.clone();
        self.homes.adopt(&apps);
        (self.subscribers.apps, self.backlog, self.front) = (apps, backlog, front);
        self.bound_backlogs();
    }

    fn totals(&self) -> Totals {
        let channels = self.homes.occupied_counts().to_vec();
        Totals { connections: self.plane.open_connections(), channels }
    }
}
