//! The tasks of one shard's front: a future for each connection that speaks HTTP, polled within the
//! shard's turns.
//!
//! A task of a runtime would run when the shard's loop gives way, and its answer would leave a
//! turn later. Here it runs as soon as the bytes that it waits for have come, or the answer of a
//! home, so that a request which this shard can answer alone is read and answered in one turn.
//!
//! Everything that a task waits for comes to its shard by a turn: bytes by the ring, answers by the
//! bus, deadlines by the reception. So tasks are woken on the shard's own thread, before it sleeps,
//! and have no need to wake it. A task that another thread woke would run in the next turn.

use std::future::Future;

use async_task::{Runnable, Task};
use crossbeam_channel::{Receiver, Sender};

/// The tasks that are ready, oldest first.
#[derive(Debug)]
pub(super) struct Tasks {
    ready: Receiver<Runnable>,
    /// The way of a task that is woken to the queue. A channel, because a waker may be used on any
    /// thread.
    woken: Sender<Runnable>,
}

/// A task, which is cancelled when this is dropped.
pub(super) type Running = Task<()>;

impl Tasks {
    pub(super) fn new() -> Self {
        // Each task is in the queue at most once, so that the bound on connections bounds it.
        let (woken, ready) = crossbeam_channel::unbounded();
        Self { ready, woken }
    }

    /// Adds a task, which is ready from the start.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Running {
        let woken = self.woken.clone();
        let schedule = move |task| {
            // The other end lives as long as a task can be woken; without it there is nobody to run
            // it.
            let _ended = woken.send(task);
        };
        let (runnable, task) = async_task::spawn_local(future, schedule);
        runnable.schedule();
        task
    }

    /// Runs the tasks that are ready now, each once. Returns whether there were any.
    pub(super) fn run(&self) -> bool {
        let count = self.ready.len();
        for task in self.ready.try_iter().take(count) {
            // Whether it was woken while it ran: then it is in the queue again.
            let _woken = task.run();
        }
        count > 0
    }

    /// Whether a task is ready.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}
