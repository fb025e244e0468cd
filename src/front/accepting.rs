//! The accepts of one shard: how many are under way on each listener, and when there are none.
//!
//! An accept that is under way keeps a place for the connection that it brings, so that there are
//! never more connections than the setting. Without a place nothing is accepted, and the kernel's
//! queue holds whoever comes.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use crate::id::ConnKey;
use crate::memory::Headroom;
use crate::plane::Plane;
use crate::ring::{ListenerId, Ring};
use crate::time::Millis;

use super::accepted::Opening;
use super::gateway::Gateway;
use super::listener::Door;
use super::permits::LOOK_AGAIN;
use super::settings::CONNECTION_BYTES;
use super::state::Front;

/// Accepts of a listener that are under way at a time, and so the connections that a turn takes of
/// it: some 50 us of work each. A storm of them must leave the shard its turns.
const UNDER_WAY: usize = 16;

/// Soon enough for whoever waits in the kernel's queue, seldom enough to cost nothing.
const LOW_MEMORY_PAUSE: Duration = Duration::from_millis(10);

/// Without descriptors or memory, accept fails until something ends: asking ten times a second
/// costs nothing and is soon enough.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The listeners of one shard.
#[derive(Default)]
pub(super) struct Accepting {
    sources: Vec<Source>,
    /// The accepts under way that began while memory was short.
    when_short: Vec<ConnKey>,
    /// The connections that were accepted while memory was short.
    short: Rc<Cell<usize>>,
    /// Whether an accept waits for memory.
    waits_for_memory: bool,
    /// The time before which no connections are closed again to make room.
    look_again: Millis,
}

/// One listener.
struct Source {
    id: ListenerId,
    opening: Opening,
    /// The way to turn connections away, until it is closed.
    door: Option<Door>,
    state: State,
    /// The accepts that are under way.
    under_way: usize,
    /// Whether a connection has come since the last turn.
    came: bool,
    /// The time before which nothing is accepted, because the last accept has failed.
    resumes: Millis,
}

/// The state of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// It turns new connections away, and takes those that are on their way, until this time and
    /// then until none is left in its queue.
    LastCall(Millis),
    /// Its accepts end.
    Closing,
    Closed,
}

impl Accepting {
    pub(super) fn add(&mut self, id: ListenerId, opening: Opening, door: Door) {
        self.sources.push(Source {
            id,
            opening,
            door: Some(door),
            state: State::Open,
            under_way: 0,
            came: false,
            resumes: Millis(0),
        });
    }

    /// Has all listeners close.
    pub(super) fn close(&mut self, now: Millis) {
        for source in &mut self.sources {
            if let (State::Open, Some(door)) = (source.state, &source.door) {
                source.state = State::LastCall(now + door.turn_away());
            }
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        self.sources.iter().all(|source| source.state == State::Closed)
    }

    /// The longest time until the next turn, if something is waited for.
    pub(super) fn period(&self) -> Option<Duration> {
        let waits = |source: &Source| match source.state {
            State::Open => source.under_way == 0,
            State::LastCall(_) | State::Closing => true,
            State::Closed => false,
        };
        let waits = self.waits_for_memory || self.sources.iter().any(waits);
        waits.then_some(LOW_MEMORY_PAUSE)
    }

    /// Notes that an accept has brought a connection. Returns what it begins with, and its permit
    /// if it came while memory was short.
    pub(super) fn accepted(
        &mut self,
        key: ConnKey,
        listener: ListenerId,
    ) -> (Opening, Option<LowMemoryPermit>) {
        let short = self.ended(key, listener);
        let permit = short.then(|| LowMemoryPermit::of(&self.short));
        let source = self.source(listener);
        let opening = source.map_or(Opening::Http, |source| {
            source.came = true;
            source.opening
        });
        (opening, permit)
    }

    /// Notes that an accept has failed. Returns whether that is a fault of this host: then nothing
    /// is accepted for a while.
    pub(super) fn failed(
        &mut self,
        key: ConnKey,
        listener: ListenerId,
        errno: i32,
        now: Millis,
    ) -> bool {
        self.ended(key, listener);
        let Some(source) = self.source(listener) else { return false };
        let ours = source.state == State::Open && !is_of_that_connection(errno);
        if ours {
            source.resumes = now + ACCEPT_PAUSE;
        }
        ours
    }

    /// Returns whether the accept began while memory was short.
    fn ended(&mut self, key: ConnKey, listener: ListenerId) -> bool {
        if let Some(source) = self.source(listener) {
            source.under_way = source.under_way.saturating_sub(1);
        }
        let at = self.when_short.iter().position(|&accept| accept == key);
        at.map(|at| self.when_short.swap_remove(at)).is_some()
    }

    fn source(&mut self, listener: ListenerId) -> Option<&mut Source> {
        self.sources.iter_mut().find(|source| source.id == listener)
    }

    /// Begins as many accepts as there may be beside this many connections, and goes on with the
    /// closing of listeners.
    pub(super) fn turn<R: Ring, G: Gateway>(
        &mut self,
        plane: &mut Plane<R>,
        front: &Front<G>,
        connections: usize,
        now: Millis,
    ) {
        let mut room = (front.permits.most() as usize).saturating_sub(connections);
        room = room.saturating_sub(self.sources.iter().map(|source| source.under_way).sum());
        self.waits_for_memory = false;
        for at in 0..self.sources.len() {
            while room > 0 && self.sources[at].takes_more(now) && self.begin(at, plane, front) {
                room -= 1;
            }
            self.sources[at].go_on_closing(plane, now);
        }
        self.make_room(front, now);
    }

    /// Begins an accept. Returns `false` if it has to wait.
    fn begin<R: Ring, G: Gateway>(
        &mut self,
        at: usize,
        plane: &mut Plane<R>,
        front: &Front<G>,
    ) -> bool {
        let gateway = &front.gateway;
        let short = gateway.headroom() != Headroom::Enough || !gateway.takes_on(CONNECTION_BYTES);
        if short {
            let most = front.settings.get().connections_when_short;
            if self.short.get() + self.when_short.len() >= most {
                self.waits_for_memory = true;
                return false;
            }
        }
        let source = &mut self.sources[at];
        let Some(key) = plane.accept(source.id) else { return false };
        source.under_way += 1;
        if short {
            self.when_short.push(key);
        }
        true
    }

    /// Closes connections that idle if a listener has no place left.
    fn make_room<G: Gateway>(&mut self, front: &Front<G>, now: Millis) {
        let crowded = |source: &Source| {
            source.state == State::Open && source.under_way == 0 && source.resumes <= now
        };
        if self.waits_for_memory || now < self.look_again || !self.sources.iter().any(crowded) {
            return;
        }
        self.look_again = now + LOOK_AGAIN;
        if front.permits.close_idle(now) > 0 {
            front.note_crowded();
        }
    }
}

impl Source {
    fn takes_more(&self, now: Millis) -> bool {
        let takes = matches!(self.state, State::Open | State::LastCall(_));
        takes && self.under_way < UNDER_WAY && self.resumes <= now
    }

    fn go_on_closing<R: Ring>(&mut self, plane: &mut Plane<R>, now: Millis) {
        let came = std::mem::take(&mut self.came);
        match self.state {
            State::LastCall(until) if until <= now && !came => {
                plane.stop_accepting(self.id);
                self.state = State::Closing;
            }
            State::Closing if self.under_way == 0 => {
                plane.forget(self.id);
                self.door = None;
                self.state = State::Closed;
            }
            State::Open | State::LastCall(_) | State::Closing | State::Closed => {}
        }
    }
}

/// The permit of a connection that came while memory was short. It will be told so, but until it is
/// it takes memory itself: there are never more than a few of them.
pub(super) struct LowMemoryPermit(Rc<Cell<usize>>);

impl LowMemoryPermit {
    fn of(short: &Rc<Cell<usize>>) -> Self {
        short.set(short.get() + 1);
        Self(Rc::clone(short))
    }
}

impl Drop for LowMemoryPermit {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Errors that the peer or the path to it caused, and that say nothing of the listener: accept(2)
/// passes pending network errors of the new socket on, and asks to try again after them.
fn is_of_that_connection(errno: i32) -> bool {
    const PASSED_ON: [i32; 13] = [
        libc::ECONNABORTED,
        libc::EINTR,
        libc::EAGAIN,
        libc::EPERM,
        libc::EPROTO,
        libc::ENETDOWN,
        libc::ENOPROTOOPT,
        libc::EHOSTDOWN,
        libc::ENONET,
        libc::EHOSTUNREACH,
        libc::EOPNOTSUPP,
        libc::ENETUNREACH,
        // The accept was ended, because the listener closes.
        libc::ECANCELED,
    ];
    PASSED_ON.contains(&errno)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_pauses_and_an_aborted_connection_does_not() {
        assert!(is_of_that_connection(libc::ECONNABORTED));
        for code in [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM, libc::EINVAL] {
            assert!(!is_of_that_connection(code), "{code}");
        }
    }
}
