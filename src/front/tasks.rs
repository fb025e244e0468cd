//! The tasks of one shard's front: a future for each connection that speaks HTTP, polled within the
//! shard's turns.
//!
//! A task of the runtime would run when the shard's loop gives way, and its answer would leave a
//! turn later. Here it runs as soon as the bytes that it waits for have come, or the answer of a
//! home, so that a request which this shard can answer alone is read and answered in one turn.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use async_task::{Runnable, Task};
use crossbeam_channel::{Receiver, Sender};

/// The tasks that are ready, oldest first.
#[derive(Debug)]
pub(super) struct Tasks {
    ready: Receiver<Runnable>,
    schedule: Arc<Schedule>,
}

/// A task, which is cancelled when this is dropped.
pub(super) type Running = Task<()>;

/// The way of a task that is woken to the queue.
#[derive(Debug)]
struct Schedule {
    ready: Sender<Runnable>,
    /// Wakes the loop that runs the tasks. `None` if it has been woken, or does not sleep.
    sleeper: Mutex<Option<Waker>>,
}

impl Schedule {
    fn push(&self, task: Runnable) {
        // The other end lives as long as a task can be woken; without it there is nobody to run it.
        let _ended = self.ready.send(task);
        let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl Tasks {
    pub(super) fn new() -> Self {
        // Each task is in the queue at most once, so that the bound on connections bounds it.
        let (sender, ready) = crossbeam_channel::unbounded();
        let schedule = Schedule { ready: sender, sleeper: Mutex::new(None) };
        Self { ready, schedule: Arc::new(schedule) }
    }

    /// Adds a task, which is ready from the start.
    pub(super) fn spawn(&self, future: impl Future<Output = ()> + 'static) -> Running {
        let schedule = Arc::clone(&self.schedule);
        let (runnable, task) = async_task::spawn_local(future, move |task| schedule.push(task));
        runnable.schedule();
        task
    }

    /// Runs the tasks that are ready now, each once. Returns whether there were any.
    pub(super) fn run(&self) -> bool {
        *self.sleeper() = None;
        let count = self.ready.len();
        for task in self.ready.try_iter().take(count) {
            // Whether it was woken while it ran: then it is in the queue again.
            let _woken = task.run();
        }
        count > 0
    }

    /// Has a task that becomes ready wake the loop, until [`Tasks::run`] is called.
    pub(super) fn wake(&self, context: &Context<'_>) {
        *self.sleeper() = Some(context.waker().clone());
    }

    fn sleeper(&self) -> MutexGuard<'_, Option<Waker>> {
        self.schedule.sleeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether a task is ready.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }
}
