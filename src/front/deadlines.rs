//! The deadlines of all connections of one shard's front, in the order in which they pass, and the
//! time by which they do.
//!
//! The driver of the reception tells the time, once a turn, so that no deadline costs a timer, and
//! a simulation can run the clock. A task has at most one entry, and its deadline is not before it:
//! the deadlines of one request after the other only move away, and leave the entry where it is
//! until its time has come.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::task::Waker;

use crate::id::ConnKey;
use crate::time::Millis;

/// The clock of one shard's front, and the tasks that it wakes.
#[derive(Debug, Default)]
pub(super) struct Deadlines {
    /// The time of the turn.
    now: Cell<Millis>,
    /// The tasks of connections, by the times at which they are to be woken.
    entries: RefCell<BTreeMap<(Millis, ConnKey), Waker>>,
}

impl Deadlines {
    /// The time of the turn.
    pub(super) const fn now(&self) -> Millis {
        self.now.get()
    }

    /// Begins a turn, which happens at `now`: wakes the tasks whose time has come. They have no
    /// entry any more.
    pub(super) fn begin_turn(&self, now: Millis) {
        self.now.set(now);
        while let Some(task) = self.take_due() {
            task.wake();
        }
    }

    fn take_due(&self) -> Option<Waker> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.first_entry()?;
        let (at, _) = *entry.key();
        (at <= self.now()).then(|| entry.remove())
    }

    /// Has the task of a connection woken in the first turn that begins at this time or later.
    pub(super) fn add(&self, at: Millis, key: ConnKey, task: Waker) {
        let _same = self.entries.borrow_mut().insert((at, key), task);
    }

    /// Removes the entry of a connection, if it is still there.
    pub(super) fn remove(&self, at: Millis, key: ConnKey) {
        let _task = self.entries.borrow_mut().remove(&(at, key));
    }

    /// The time of the first entry. One that is not in the future was added in this turn, and waits
    /// for nothing but the next one.
    pub(super) fn first(&self) -> Option<Millis> {
        self.entries.borrow().first_key_value().map(|(&(at, _), _)| at)
    }
}
