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

mod at_home;
mod deliver;
mod drain;
mod fan_out;
mod gather;
mod intake;
mod message;
mod parts;
mod pressure;
mod refused;
pub(crate) mod run;
mod socket_ids;
#[cfg(feature = "testing")]
mod testing;
mod timers;
mod trace;
mod users;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::bus::Port;
use crate::channels::{Homes, KeyHash, Local, UserHomes, Users};
use crate::front;
use crate::front::gateway::{Command, Headroom, Place};
use crate::id::{AppIndex, ConnKey, ShardId};
use crate::memory::{Chunked, Holder, Per};
use crate::plane::{BacklogLimits, Ended, Intake, Plane};
use crate::protocol::app::{App, Apps};
use crate::protocol::close::ProtocolError;
use crate::protocol::session::Session;
use crate::refusals::Refusals;
use crate::ring::Ring;
use crate::time::{Millis, Tick};
use crate::webhooks::Tap;

pub use drain::Drain;
pub(crate) use drain::RETURN;
use fan_out::owe_batch;
use gather::Gathers;
pub(crate) use message::Counts;
pub use message::{InForce, Message};
use parts::Parts;
pub(crate) use pressure::{CACHE_BOUNDS, Memory, UNFINISHED_BYTES_MAX};
pub use socket_ids::SocketIds;
use timers::Timers;

/// Messages taken from the mailbox per turn, so that sockets and timers keep their share.
const MESSAGES_PER_TURN: usize = 4096;

/// The memory of an idle connection here, beside the plane and the channels.
pub(crate) const BUDGET: [Holder; 1] =
    [Holder { name: "session", bytes: size_of::<Option<Occupant>>(), per: Per::Connection }];

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
    /// Takes what webhooks are told.
    pub tap: Tap,
    /// Where what is refused is noted for the log; of all shards.
    pub refusals: Arc<Refusals>,
    /// The memory that it may take.
    pub memory: Memory,
}

/// One shard. See the module.
#[derive(Debug)]
pub struct Shard<R: Ring> {
    plane: Plane<R>,
    core: Core,
}

/// Everything of a shard that is not sockets.
#[derive(Debug)]
struct Core {
    id: ShardId,
    /// Replaced by the control thread when the configuration is read anew, with the two below.
    apps: Arc<Apps>,
    /// Bounds on what slow readers are owed, while there is enough memory.
    backlog: BacklogLimits,
    /// The settings of the front; nothing here reads them.
    front: Arc<front::Settings>,
    /// Removed apps may have left cached events, which go a part in each tick.
    forgetting: bool,
    hash: KeyHash,
    socket_ids: SocketIds,
    port: Port<Message>,
    /// By slot.
    sessions: Chunked<Option<Occupant>>,
    local: Local,
    homes: Homes,
    users: Users,
    user_homes: UserHomes,
    /// By slot: until when a connection has to show that its app knows it. Only for apps that want
    /// it, and only while it has not.
    unauthenticated: HashMap<u32, Millis>,
    /// By slot: what a connection holds of what its address may have. Only where there is a limit.
    places: HashMap<u32, Place>,
    gathers: Gathers,
    parts: Parts,
    /// Requests of the control thread, to be answered in this turn.
    roll_calls: Vec<oneshot::Sender<()>>,
    tap: Tap,
    refusals: Arc<Refusals>,
    timers: Timers,
    headroom: Headroom,
    memory: Memory,
    now: Millis,
}

/// The session of an open connection.
#[derive(Debug)]
struct Occupant {
    session: Session,
    /// When the server pinged, if nothing has come since.
    pinged: Option<Tick>,
}

impl<R: Ring> Shard<R> {
    /// A shard without connections.
    pub fn new(ring: R, parts: ShardParts) -> Self {
        let ShardParts { in_force, hash, socket_ids, port, tap, refusals, memory } = parts;
        let InForce { apps, backlog, front } = in_force;
        let too_slow = crate::protocol::close::refusal_frames(ProtocolError::SlowConsumer);
        let core = Core {
            id: port.id(),
            apps,
            backlog,
            front,
            forgetting: false,
            hash,
            socket_ids,
            port,
            sessions: Chunked::new(),
            local: Local::default(),
            homes: Homes::new(memory.cache),
            users: Users::default(),
            user_homes: UserHomes::default(),
            unauthenticated: HashMap::new(),
            places: HashMap::new(),
            gathers: Gathers::default(),
            parts: Parts::default(),
            roll_calls: Vec::new(),
            tap,
            refusals,
            timers: Timers::default(),
            headroom: Headroom::default(),
            memory,
            now: Millis(0),
        };
        let mut plane = Plane::new(ring, backlog, too_slow);
        plane.limit_unfinished(core.memory.unfinished);
        Self { plane, core }
    }

    /// The first half of a turn: takes everything that has come, and tells other shards. `false`:
    /// the kernel has not taken yet what the last turn sends, and there is no second half.
    pub(crate) fn take_in(&mut self, now: Millis, commands: &mut Vec<Command>) -> bool {
        self.core.now = now;
        self.plane.begin_turn(now);
        if self.plane.stalled() {
            self.plane.flush();
            if self.plane.stalled() {
                return false;
            }
        }
        self.core.do_parts(&mut self.plane);
        self.take_messages();
        for command in commands.drain(..) {
            self.command(command);
        }
        self.plane.poll(self.intake(), &mut self.core);
        self.take_closed();
        self.tick();
        self.take_own_messages();
        self.core.port.flush();
        self.core.tap.hand_over();
        for present in self.core.roll_calls.drain(..) {
            // No caller waits for an answer that comes too late.
            let _late = present.send(());
        }
        true
    }

    /// The second half: sends what the first made of it.
    pub(crate) fn send_out(&mut self) {
        self.core.flush_channels(&mut self.plane);
        self.take_closed();
        self.plane.flush();
        self.take_closed();
        // Connections may have ended while they were sent to: their leaves must wake the shards
        // that they go to.
        self.core.port.flush();
    }

    /// Between the halves of a turn: how many connections are owed messages of their channels.
    #[must_use]
    pub(crate) fn owed(&self) -> usize {
        self.core.local.owed()
    }

    /// Whether another turn has something to do at once. Otherwise the shard may sleep until its
    /// ring, its mailbox or its timer wakes it.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.plane.has_work() || self.core.port.spilling() || self.core.parts.left_over()
    }

    /// The bus end, to sleep on.
    #[must_use]
    pub const fn port(&self) -> &Port<Message> {
        &self.core.port
    }

    /// Whether the bus is full: no publishes are taken.
    #[must_use]
    pub(crate) const fn overloaded(&self) -> bool {
        self.core.port.spilling()
    }

    /// How much memory is left, as the control thread has said.
    #[must_use]
    pub(crate) const fn headroom(&self) -> Headroom {
        self.core.headroom
    }

    /// How many more connections would find a slot.
    #[must_use]
    pub fn free_slots(&self) -> usize {
        self.plane.free_slots()
    }

    /// Channels whose home is this shard.
    #[must_use]
    pub fn homes(&self) -> usize {
        self.core.homes.len()
    }

    /// The apps as of the last turn.
    #[must_use]
    pub const fn apps(&self) -> &Arc<Apps> {
        &self.core.apps
    }

    /// The front's settings as of the last turn.
    #[must_use]
    pub(crate) const fn front_settings(&self) -> &Arc<front::Settings> {
        &self.core.front
    }

    /// Gives memory back that a burst has left: of lists that are empty between turns.
    pub(crate) fn trim(&mut self) {
        self.plane.trim();
        self.core.local.trim();
        self.core.homes.trim();
        self.core.port.trim();
    }

    /// Whether the control thread has ended the shard.
    #[must_use]
    pub(crate) const fn stopped(&self) -> bool {
        self.core.timers.stopped()
    }

    /// Ends the connections that are left after the last turn: a kernel that closes the sockets of
    /// a process keeps their queues, whether or not the peers read them.
    pub(crate) fn end(&mut self) {
        self.plane.end_all();
    }

    /// While messages for another shard wait for room, no connection may cause more of them; long
    /// before that, those that cause more than their share may not.
    fn intake(&self) -> Intake {
        let port = &self.core.port;
        if port.spilling() {
            Intake::Nothing
        } else if self.plane.throttling() && port.congested() {
            Intake::Moderate
        } else {
            Intake::All
        }
    }

    fn take_messages(&mut self) {
        for _ in 0..MESSAGES_PER_TURN {
            let Some(message) = self.core.port.receive() else { return };
            self.core.message(&mut self.plane, message);
        }
    }

    /// Messages of the shard to itself take effect in the turn that sent them. The loop ends,
    /// because a message makes others only on the way join, publish, deliver, from a refused join
    /// to the leave that acknowledges it, and from users to their home and back.
    fn take_own_messages(&mut self) {
        while let Some(message) = self.core.port.receive_own() {
            self.core.message(&mut self.plane, message);
        }
    }

    fn take_closed(&mut self) {
        while let Some((key, why)) = self.plane.next_closed() {
            self.core.closed(&mut self.plane, key, why);
        }
    }
}

impl Core {
    /// The session of an open connection, with its app as it is configured now.
    fn occupant(&mut self, key: ConnKey) -> Option<(&mut Occupant, &Arc<App>)> {
        let occupant = self.sessions.get_mut(key.slot as usize)?.as_mut()?;
        let app = self.apps.get(occupant.session.app())?;
        Some((occupant, app))
    }

    /// A connection has ended: its subscriptions end, its place at the app is free.
    fn closed<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, why: Ended) {
        let Some(occupant) = self.sessions.get_mut(key.slot as usize).and_then(Option::take) else {
            return;
        };
        if let Some(app) = self.apps.get(occupant.session.app()) {
            self.note_ended(app, occupant.session.socket_id(), why);
        }
        self.leave_all(plane, key);
        self.unauthenticated.remove(&key.slot);
        self.places.remove(&key.slot);
        self.sign_out(key.slot);
    }

    /// Takes over what a reload has changed.
    fn adopt_configuration<R: Ring>(&mut self, plane: &mut Plane<R>, in_force: &InForce) {
        let InForce { apps, backlog, front } = in_force.clone();
        (self.apps, self.backlog, self.front) = (apps, backlog, front);
        self.forgetting = true;
        self.bound_backlogs(plane);
    }

    /// Turns the messages of this turn into what each connection is owed.
    fn flush_channels<R: Ring>(&mut self, plane: &mut Plane<R>) {
        self.local.flush(|batch| owe_batch(plane, &batch));
        self.users.flush(|conn, news| plane.owe(conn, news));
    }

    fn app_name(&self, app: AppIndex) -> &str {
        self.apps.get(app).map_or("?", |app| &app.id)
    }
}
