//! The reception of one shard: it has the plane accept connections, never more of them than the
//! setting, and sees each to what it asks for. A WebSocket whose handshake comes whole is opened in
//! place; everything else is a task that speaks HTTP.
//!
//! Its owner calls [`Reception::turn`] in each turn, behind [`Plane::poll`], and again for as long
//! as commands that it has submitted were taken.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use crate::id::ConnKey;
use crate::plane::{Plane, StreamEvent};
use crate::refusals::{Refusal, RefusedClient, RefusedConnection};
use crate::ring::{Ring, Uring};
use crate::time::Millis;

use super::accepted::{Arrival, Opening};
use super::accepting::{Accepting, LowMemoryPermit};
use super::address::Peer;
use super::api::JsonParser;
use super::body::BodyBudget;
use super::client_admission::ClientAdmission;
use super::clock::Date;
use super::connection;
use super::deadlines::Deadlines;
use super::gateway::{Gateway, GatewayCommand};
use super::in_place::handshake;
use super::listener::{Door, Listeners, Prepared};
use super::pace::Pace;
use super::permits::Permits;
use super::pipe::{Ending, Pipe, Touched};
use super::proxy_header::{self, Start};
use super::settings::CurrentSettings;
use super::state::Front;
use super::tasks::{Running, Tasks};

/// How long a closing connection waits for the peer to close.
const LINGER: Duration = Duration::from_secs(1);

/// How long a closing connection waits for the peer at a stop: nobody listens any more, and the
/// next process cannot before this one has ended.
const LINGER_OF_STOP: Duration = Duration::from_millis(100);

/// The time for which a connection from which nothing has come is not more than an entry of a
/// table. Most clients send their request with the last packet of TCP's handshake or right behind
/// it; the others get a task, which keeps their deadlines.
const SILENT: Duration = Duration::from_millis(100);

/// The precision of deadlines.
const PRECISION: Duration = Duration::from_millis(10);

/// The connections of one shard that are not WebSockets yet, or never.
pub(crate) struct Reception<G> {
    front: Rc<Front<G>>,
    accepting: Accepting,
    guests: HashMap<u32, Guest>,
    tasks: Tasks,
    touched: Rc<Touched>,
    /// Connections from which nothing has come, oldest first.
    silent: VecDeque<(ConnKey, Millis)>,
    /// Closing connections in the order of their deadlines.
    lingering: VecDeque<(ConnKey, Millis)>,
    /// The deadlines of the tasks, and the time.
    deadlines: Rc<Deadlines>,
    /// Whether the front stops.
    stops: bool,
}

/// A connection of the reception.
struct Guest {
    generation: u32,
    stage: Stage,
    /// Held by a connection that was accepted while memory was short.
    _short: Option<LowMemoryPermit>,
}

/// The stage of a connection.
enum Stage {
    /// Nothing has come from it.
    Silent(Arrival),
    /// A task speaks HTTP with it.
    Http(Speaking),
    /// It closes.
    Lingering,
}

/// A connection that speaks HTTP.
struct Speaking {
    pipe: Rc<Pipe>,
    pace: Rc<Pace>,
    task: Running,
}

impl<G: Gateway> Reception<G> {
    /// The reception of a shard that accepts nothing yet.
    pub(crate) fn new(gateway: G, settings: CurrentSettings) -> Self {
        let in_force = settings.get();
        let front = Front {
            gateway,
            bodies: BodyBudget::new(in_force.bodies_bytes_max),
            permits: Permits::new(in_force.connections_max),
            date: Date::default(),
            json: JsonParser::default(),
            settings,
        };
        Self {
            front: Rc::new(front),
            accepting: Accepting::default(),
            guests: HashMap::new(),
            tasks: Tasks::new(),
            touched: Rc::default(),
            silent: VecDeque::new(),
            lingering: VecDeque::new(),
            deadlines: Rc::default(),
            stops: false,
        }
    }

    /// Accepts from these listeners from now on.
    ///
    /// # Errors
    /// A listener cannot be prepared; nothing is accepted then.
    pub(crate) fn listen(
        &mut self,
        plane: &mut Plane<Uring>,
        listeners: Listeners,
    ) -> io::Result<()> {
        for Prepared { socket, opening, door } in listeners.prepare()? {
            self.accept_from(plane, socket, opening, door);
        }
        Ok(())
    }

    /// Accepts from this listener from now on, whose connections begin with `opening`.
    pub(crate) fn accept_from<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        listener: R::Listener,
        opening: Opening,
        door: Door,
    ) {
        let id = plane.listen(listener);
        self.accepting.add(id, opening, door);
    }

    /// Does what there is to do now: takes the events of the plane, runs the tasks that they and
    /// the answers of the shard have woken, and hands the plane what these have written.
    pub(crate) fn turn<R: Ring>(&mut self, plane: &mut Plane<R>, now: Millis) {
        self.deadlines.begin_turn(now);
        while let Some((key, event)) = plane.next_stream_event() {
            self.handle(plane, key, event);
        }
        self.see_to_deadlines(plane);
        loop {
            let ran = self.tasks.run();
            while let Some(pipe) = self.touched.next() {
                self.attend(plane, &pipe);
            }
            if !ran {
                break;
            }
        }
        let guests = self.guests.len();
        self.accepting.turn(plane, &self.front, guests, now);
    }

    /// Stops: listeners close, connections without a request end, and those with one end behind
    /// its answer.
    pub(crate) fn stop(&mut self) {
        if std::mem::replace(&mut self.stops, true) {
            return;
        }
        self.accepting.close(self.now());
        let deadline = self.now() + LINGER_OF_STOP;
        self.lingering.iter_mut().for_each(|(_, at)| *at = (*at).min(deadline));
        for guest in self.guests.values() {
            if let Stage::Http(speaking) = &guest.stage {
                speaking.pace.stop();
            }
        }
    }

    /// Whether it has stopped, and every connection has ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.stops && self.guests.is_empty() && self.accepting.is_closed()
    }

    /// Whether a task can go on at once, or waits for nothing but the next turn.
    pub(crate) fn has_work(&self) -> bool {
        let now = self.now();
        self.tasks.is_ready() || self.deadlines.first().is_some_and(|at| at <= now)
    }

    /// The time of the turn.
    fn now(&self) -> Millis {
        self.deadlines.now()
    }

    /// The longest time until the next turn, if there is a deadline to keep.
    pub(crate) fn period(&self) -> Option<Duration> {
        let waits = !self.silent.is_empty() || !self.lingering.is_empty();
        let late = self.deadlines.first().map(|at| at.since(self.now()));
        let periods = [
            self.accepting.period(),
            waits.then_some(SILENT),
            late.map(|late| late.max(PRECISION)),
        ];
        periods.into_iter().flatten().min()
    }

    fn handle<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        event: StreamEvent<R::Buffer>,
    ) {
        match event {
            StreamEvent::Accepted(listener, address) => {
                let (opening, short) = self.accepting.accepted(key, listener);
                let peer = address.map_or(Peer::Unix, Peer::of);
                self.accepted(plane, key, peer, opening, short);
            }
            StreamEvent::NotAccepted(listener, errno) => {
                if self.accepting.failed(key, listener, errno, self.now()) {
                    let error = io::Error::from_raw_os_error(errno);
                    let refused = Refusal::Connection(RefusedConnection::Accept(&error));
                    let refusals = &self.front.settings.get().refusals;
                    refusals.note(None, RefusedClient::Unknown, &refused);
                }
            }
            StreamEvent::Received(mut buffer) => {
                self.received(plane, key, buffer.as_mut());
                plane.give_back(buffer);
            }
            StreamEvent::PeerEnded => match self.stage(key) {
                Some(Stage::Silent(_)) => plane.abort(key),
                Some(Stage::Http(speaking)) => speaking.pipe.end(),
                Some(Stage::Lingering) | None => {}
            },
            StreamEvent::Blocked => self.block(key, true),
            StreamEvent::Unblocked => self.block(key, false),
            StreamEvent::Closed => {
                if self.stage(key).is_some() {
                    self.leave(key);
                }
            }
        }
    }

    /// Forgets a connection. Its task, if there is one, ends by itself.
    fn leave(&mut self, key: ConnKey) {
        let Some(guest) = self.guests.remove(&key.slot) else { return };
        if let Stage::Http(speaking) = guest.stage {
            speaking.pipe.close();
            speaking.task.detach();
        }
    }

    fn stage(&mut self, key: ConnKey) -> Option<&mut Stage> {
        let guest = self.guests.get_mut(&key.slot)?;
        (guest.generation == key.generation).then_some(&mut guest.stage)
    }

    fn block(&mut self, key: ConnKey, blocked: bool) {
        if let Some(Stage::Http(speaking)) = self.stage(key) {
            speaking.pipe.block(blocked);
        }
    }

    /// Takes in a new connection.
    fn accepted<R: Ring>(
        &mut self,
        plane: &mut Plane<R>,
        key: ConnKey,
        peer: Peer,
        opening: Opening,
        short: Option<LowMemoryPermit>,
    ) {
        let clients = match opening {
            Opening::Http => ClientAdmission::arrive(&self.front.settings.get(), peer),
            Opening::ProxyHeader => None,
        };
        let arrival = Arrival { peer, opening, clients, at: self.now() };
        let flood = opening == Opening::Http && arrival.clients.is_none();
        let stage = Stage::Silent(arrival);
        self.guests.insert(key.slot, Guest { generation: key.generation, stage, _short: short });
        if flood {
            self.front.note_flood(peer);
            return plane.abort(key);
        }
        plane.read_on(key);
        self.silent.push_back((key, self.now() + SILENT));
    }

    fn received<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, bytes: &mut [u8]) {
        match self.stage(key) {
            Some(Stage::Http(speaking)) => speaking.pipe.receive(bytes),
            Some(Stage::Silent(_)) => self.begin(plane, key, bytes),
            Some(Stage::Lingering) | None => {}
        }
    }

    /// Takes what is known of a connection from which nothing had come before. The connection is
    /// lingering until its stage is set.
    fn take_arrival(&mut self, key: ConnKey) -> Option<Arrival> {
        let stage = self.stage(key).filter(|stage| matches!(stage, Stage::Silent(_)))?;
        match std::mem::replace(stage, Stage::Lingering) {
            Stage::Silent(arrival) => Some(arrival),
            Stage::Http(..) | Stage::Lingering => None,
        }
    }

    /// Handles the first bytes of a connection.
    fn begin<R: Ring>(&mut self, plane: &mut Plane<R>, key: ConnKey, mut bytes: &mut [u8]) {
        let Some(mut arrival) = self.take_arrival(key) else { return };
        if arrival.opening == Opening::ProxyHeader
            && let Start::Whole(header) = proxy_header::parse(bytes)
        {
            bytes = bytes.get_mut(header.len..).unwrap_or_default();
            arrival.peer = header.client.map_or(arrival.peer, Peer::of);
            arrival.opening = Opening::Http;
            arrival.clients = ClientAdmission::arrive(&self.front.settings.get(), arrival.peer);
            if arrival.clients.is_none() {
                self.front.note_flood(arrival.peer);
                return plane.abort(key);
            }
        }
        if self.stops {
            return self.speak(key, arrival, bytes);
        }
        match handshake::open(&self.front, arrival.clients.as_ref(), key, bytes) {
            Some(upgraded) => {
                self.guests.remove(&key.slot);
                self.front.gateway.submit(GatewayCommand::Adopt(upgraded));
            }
            None => self.speak(key, arrival, bytes),
        }
    }

    /// Gives a connection a task that speaks HTTP.
    fn speak(&mut self, key: ConnKey, arrival: Arrival, bytes: &[u8]) {
        let pipe = Pipe::new(key, &self.touched, bytes);
        let head = self.front.settings.get().head_timeout;
        let pace = Rc::new(Pace::new(key, &self.deadlines, head, arrival.at));
        if self.stops {
            pace.stop();
        }
        let front = Rc::clone(&self.front);
        let served = connection::serve(Rc::clone(&pipe), Rc::clone(&pace), arrival, front);
        let ends = Rc::clone(&pipe);
        let task = self.tasks.spawn(async move { ends.finish(served.await) });
        if let Some(stage) = self.stage(key) {
            *stage = Stage::Http(Speaking { pipe, pace, task });
        }
    }

    /// Does for a task what it has asked for.
    fn attend<R: Ring>(&mut self, plane: &mut Plane<R>, pipe: &Rc<Pipe>) {
        let key = pipe.key();
        let written = pipe.take_written();
        if !written.is_empty() {
            plane.owe_stream(key, Bytes::from(written));
        }
        if pipe.take_wants_bytes() {
            plane.read_on(key);
        }
        if self.stage(key).is_none() {
            return;
        }
        match pipe.ending() {
            None => {}
            Some(Ending::Abort) => plane.abort(key),
            Some(ending @ (Ending::Close | Ending::Linger)) => {
                let linger = if self.stops { LINGER_OF_STOP } else { LINGER };
                if let Some(stage) = self.stage(key) {
                    *stage = Stage::Lingering;
                }
                self.lingering.push_back((key, self.now() + linger));
                match ending {
                    Ending::Close => plane.close_stream(key),
                    _ => plane.finish(key),
                }
            }
            Some(Ending::HandedOver) => self.leave(key),
        }
    }

    fn see_to_deadlines<R: Ring>(&mut self, plane: &mut Plane<R>) {
        while let Some(&(key, at)) = self.silent.front() {
            let served = !matches!(self.stage(key), Some(Stage::Silent(_)));
            if !served && at > self.now() && !self.stops {
                break;
            }
            self.silent.pop_front();
            if let Some(arrival) = self.take_arrival(key) {
                self.speak(key, arrival, &[]);
            }
        }
        while let Some(&(key, at)) = self.lingering.front() {
            let lingers = matches!(self.stage(key), Some(Stage::Lingering));
            if lingers && at > self.now() {
                break;
            }
            self.lingering.pop_front();
            if lingers {
                plane.abort(key);
            }
        }
    }
}
