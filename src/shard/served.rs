//! A shard and the front before it, as one thread drives them: the front gets what has happened to
//! its connections, the shard gets the front's commands, and what the shard can answer alone is
//! answered in the same turn.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use hyper::StatusCode;

use super::figures::FrontFigures;
use super::turn_times::TurnTimes;
use super::{InForce, Shard, ShardParts};
use crate::apps::Apps;
use crate::channels::{ChannelKey, KeyHash};
use crate::counters::{ApiRoute, PerApp, RequestCounters};
use crate::front::gateway::{InFlight, Newcomers, Reservation};
use crate::front::{self, CurrentSettings, Gateway, GatewayCommand, Listeners, Reception};
use crate::id::AppIndex;
use crate::memory::{Headroom, Lease, Trim};
use crate::protocol::names::ChannelName;
use crate::ring::{Ring, Uring};
use crate::time::{Clock, Millis, Nanos};

/// A shard and its front, which take their turns together.
pub struct Served<R: Ring> {
    pub(super) shard: Shard<R>,
    pub(super) reception: Reception<Handle>,
    inbox: Rc<Inbox>,
    /// The commands of the front that the shard takes next, reused to keep their allocation.
    commands: Vec<GatewayCommand>,
    /// The time of the next turn if nothing happens.
    due: Millis,
    /// Whether the last turn has slept at its end.
    slept: bool,
    /// The durations of turns.
    turns: TurnTimes,
}

impl Served<Uring> {
    /// Accepts from these listeners from now on.
    ///
    /// # Errors
    /// A listener cannot be prepared; nothing is accepted then.
    pub(crate) fn listen(&mut self, listeners: Listeners) -> io::Result<()> {
        self.reception.listen(&mut self.shard.plane, listeners)
    }
}

impl<R: Ring> Served<R> {
    /// A shard without connections, and a front that does not accept yet. `websockets_max` bounds
    /// the WebSockets; the ring has more slots than these.
    pub fn new(ring: R, parts: ShardParts, websockets_max: u32, clock: Clock) -> Self {
        let lease = parts.memory.lease.sibling();
        let inbox = Rc::new(Inbox::new(&parts.in_force, parts.hash.clone(), lease, clock));
        let mut shard = Shard::new(ring, parts);
        shard.plane.limit_websockets(websockets_max as usize);
        let reception = Reception::new(Handle(Rc::clone(&inbox)), inbox.settings.clone());
        let (commands, due, slept) = (Vec::new(), Millis(0), false);
        let turns = TurnTimes::default();
        Self { shard, reception, inbox, commands, due, slept, turns }
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> &Shard<R> {
        &self.shard
    }

    /// Whether the front has stopped, and all its connections have ended.
    #[must_use]
    pub(crate) fn front_ended(&self) -> bool {
        self.reception.is_finished()
    }

    /// Ends the connections that are left after the last turn.
    pub(crate) fn end(&mut self) {
        self.shard.end();
    }

    /// The token of the requests that have begun so far. Those that begin from now on hold another
    /// one.
    pub(super) fn requests(&self) -> InFlight {
        self.inbox.requests.take()
    }

    /// Runs one turn of both. If that leaves nothing to do, the turn sleeps at its end until
    /// something happens or another one is due.
    pub fn turn(&mut self, now: Millis) {
        let Self { shard, reception, inbox, commands, .. } = self;
        self.slept = false;
        if !shard.begin(now) {
            return;
        }
        inbox.see(shard);
        if shard.closes_listeners() {
            reception.stop();
        }
        loop {
            reception.turn(&mut shard.plane, now);
            inbox.take_commands(commands);
            if commands.is_empty() {
                break;
            }
            shard.obey(commands);
            inbox.see(shard);
        }
        commands.trim();
        shard.end_turn();
        self.answer_scrapes();
        self.schedule(now);
        let may_sleep = !self.reception.has_work() && !self.shard.stopped();
        let longest = may_sleep.then(|| self.until_due());
        self.slept = self.shard.flush(longest);
        if self.slept {
            self.turns.slept();
        }
    }

    /// Sleeps between two turns until something happens or another turn is due, unless the last
    /// turn has slept already or has left work to do.
    pub(super) fn sleep(&mut self) {
        if !self.slept && !self.has_work() {
            let longest = self.until_due();
            self.turns.slept();
            self.shard.sleep(longest);
        }
    }

    /// Runs one turn at this time.
    pub(super) fn turn_at(&mut self, now: Nanos) {
        self.turns.begin(now);
        self.turn(now.into());
    }

    /// Whether another turn has something to do at once.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.shard.has_work() || self.reception.has_work()
    }

    /// Reports the figures to those who have asked for them.
    fn answer_scrapes(&mut self) {
        for scrape in self.shard.take_scrapes() {
            let front = FrontFigures {
                requests: self.inbox.counters.borrow().clone(),
                strangers: self.inbox.strangers.get(),
            };
            let figures = self.shard.figures(front, *self.turns.durations());
            // No caller waits for an answer that comes too late.
            let _late = scrape.send(Box::new(figures));
        }
    }

    /// Decides when the next turn is due.
    fn schedule(&mut self, now: Millis) {
        let tick = self.shard.tick_period();
        let period = self.reception.period().map_or(tick, |period| period.min(tick));
        self.due = next_due(self.due, now, period);
    }

    /// The time until the next turn is due.
    fn until_due(&mut self) -> Duration {
        let now = self.inbox.clock.now_nanos();
        self.turns.about_to_sleep(now);
        self.due.since(now.into())
    }
}

/// The time of the next turn, if the one at `now` has been scheduled before or for `due`. Turns in
/// between do not put it off, a shorter period brings it forward, and a longer one begins when the
/// shorter one is over.
fn next_due(due: Millis, now: Millis, period: Duration) -> Millis {
    let next = now + period;
    if due <= now { next } else { due.min(next) }
}

/// The front's handle to its shard.
#[derive(Clone)]
pub(super) struct Handle(Rc<Inbox>);

/// The state that the front and the loop of a shard share. The front writes commands, and the loop
/// publishes the state of the shard after each turn.
struct Inbox {
    /// Makes the keys of channels.
    hash: KeyHash,
    /// The apps, as of the last turn.
    apps: RefCell<Arc<Apps>>,
    /// The settings that `settings` was made of, as of the last turn.
    front: RefCell<Arc<front::Settings>>,
    /// The same settings as the front reads them: a copy of this shard's own, because all shards
    /// would write the reference count of a shared one.
    settings: CurrentSettings,
    /// Commands that the next turn takes.
    commands: RefCell<Vec<GatewayCommand>>,
    /// Bytes of the events in `commands`.
    waiting_bytes: Cell<usize>,
    /// The lease that is charged for the memory that the front takes on for clients.
    lease: RefCell<Lease>,
    /// The clock of the process.
    clock: Clock,
    /// The number of free places for WebSockets, as of the last turn.
    free_places: Cell<usize>,
    /// The number of free places that are reserved for handshakes under way.
    reserved_places: Rc<Cell<usize>>,
    /// Whether the shard was overloaded, as of the last turn.
    overloaded: Cell<bool>,
    /// Whether the node served its clients alone, as of the last turn.
    alone: Cell<bool>,
    /// The memory that is left, as of the last turn.
    headroom: Cell<Headroom>,
    /// How WebSockets that are opened now are treated, as of the last turn. `None` without a drain.
    newcomers: Cell<Option<Newcomers>>,
    /// The token that each request holds while it is answered.
    requests: RefCell<InFlight>,
    /// The counters of requests, by app.
    counters: RefCell<PerApp<RequestCounters>>,
    /// Handshakes with a key that no app has.
    strangers: Cell<u64>,
}

impl Inbox {
    fn new(in_force: &InForce, hash: KeyHash, lease: Lease, clock: Clock) -> Self {
        Self {
            hash,
            apps: RefCell::new(Arc::clone(&in_force.apps)),
            settings: CurrentSettings::new(front::Settings::clone(&in_force.front)),
            front: RefCell::new(Arc::clone(&in_force.front)),
            commands: RefCell::default(),
            waiting_bytes: Cell::new(0),
            lease: RefCell::new(lease),
            clock,
            free_places: Cell::new(0),
            reserved_places: Rc::default(),
            overloaded: Cell::new(false),
            alone: Cell::new(false),
            headroom: Cell::default(),
            newcomers: Cell::new(None),
            requests: RefCell::default(),
            counters: RefCell::default(),
            strangers: Cell::default(),
        }
    }

    /// Takes over the state of the shard, for the front.
    fn see<R: Ring>(&self, shard: &Shard<R>) {
        self.free_places.set(shard.free_places());
        self.overloaded.set(shard.overloaded());
        self.alone.set(shard.stands_alone());
        self.headroom.set(shard.headroom());
        self.newcomers.set(shard.newcomers());
        self.see_configuration(shard);
    }

    /// Takes over the shard's configuration if a reload has changed it.
    fn see_configuration<R: Ring>(&self, shard: &Shard<R>) {
        if !Arc::ptr_eq(&self.apps.borrow(), shard.apps()) {
            self.apps.replace(Arc::clone(shard.apps()));
        }
        let front = shard.front_settings();
        if !Arc::ptr_eq(&self.front.borrow(), front) {
            self.front.replace(Arc::clone(front));
            self.settings.replace(front::Settings::clone(front));
        }
    }

    fn take_commands(&self, into: &mut Vec<GatewayCommand>) {
        let mut commands = self.commands.borrow_mut();
        into.append(&mut commands);
        self.waiting_bytes.set(0);
        commands.trim();
    }
}

impl Gateway for Handle {
    fn apps(&self) -> Arc<Apps> {
        Arc::clone(&self.0.apps.borrow())
    }

    fn channel(&self, app: AppIndex, name: ChannelName) -> ChannelKey {
        self.0.hash.channel(app, name)
    }

    fn submit(&self, command: GatewayCommand) {
        if let GatewayCommand::Publish { events, .. } = &command {
            let bytes: usize = events.iter().map(|of| of.event.frame.len()).sum();
            self.0.waiting_bytes.set(self.0.waiting_bytes.get().saturating_add(bytes));
        }
        self.0.commands.borrow_mut().push(command);
    }

    fn overloaded(&self) -> bool {
        // A request of a few bytes can make events of megabytes, one for each of its channels.
        let waiting = self.0.waiting_bytes.get();
        self.0.overloaded.get() || waiting > self.0.front.borrow().bodies_bytes_max
    }

    fn stands_alone(&self) -> bool {
        self.0.alone.get()
    }

    fn headroom(&self) -> Headroom {
        self.0.headroom.get()
    }

    fn takes_on(&self, bytes: usize) -> bool {
        self.0.lease.borrow_mut().charge(bytes, self.0.clock.now().0)
    }

    fn stopping(&self) -> Option<Newcomers> {
        self.0.newcomers.get()
    }

    fn count_answer(&self, app: AppIndex, route: ApiRoute, status: StatusCode) {
        self.0.counters.borrow_mut().of(app).answered(route, status.as_u16());
    }

    fn count_refused(&self, key: &str, code: u16) {
        match self.0.apps.borrow().by_key(key) {
            Some(app) => self.0.counters.borrow_mut().of(app.index).refused(code),
            None => self.0.strangers.set(self.0.strangers.get() + 1),
        }
    }

    fn count_events(&self, app: AppIndex, route: ApiRoute, events: usize) {
        self.0.counters.borrow_mut().of(app).published(route, events);
    }

    fn begin_request(&self) -> InFlight {
        self.0.requests.borrow().clone()
    }

    fn reserve(&self) -> Option<Reservation> {
        let free = self.0.free_places.get() > self.0.reserved_places.get();
        free.then(|| Reservation::of(&self.0.reserved_places))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_in_between_do_not_put_off_the_one_that_is_due() {
        let (short, long) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut due = next_due(Millis(0), Millis(5000), long);
        assert_eq!(due, Millis(6000));
        for now in 5000..6000 {
            due = next_due(due, Millis(now), long);
        }
        assert_eq!(due, Millis(6000));
        due = next_due(due, Millis(5500), short);
        assert_eq!(due, Millis(5600), "a shorter period");
        due = next_due(due, Millis(5599), long);
        assert_eq!(due, Millis(5600), "a longer one waits until the shorter is over");
        assert_eq!(next_due(due, Millis(5603), long), Millis(6603));
    }
}
